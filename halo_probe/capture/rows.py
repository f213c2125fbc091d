"""The attention rows of a few queries, computed again beside the kernel.

Shapes: B rows of the batch, H query heads, G key heads, R queries, K keys in the cache, D head dimensions, M image
tokens. All arithmetic is float32 whatever the model's dtype, from the product of query and key on (spec §1).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class ImageAttention:
    """Attention of the queries to the image tokens of each row of the batch. See spec §1.

    Without the dimension R where the logits had none.
    """

    eq1: torch.Tensor
    """B × R × M: mean over the heads that see an image token of the softmax over the image tokens alone; NaN where no
    head sees one."""
    raw: torch.Tensor
    """B × R × M: mean over heads of the softmax over all keys; sums to `visual_mass`."""
    visual_mass: torch.Tensor
    """B × R: share of the attention that falls on the image."""
    first_mass: torch.Tensor
    """B × R: share of the attention that falls on the first token of the prompt."""
    visible: torch.Tensor
    """B × R: number of image tokens that the query may attend to in some head; others are masked in every head or have
    left a sliding cache."""
    heads: torch.Tensor
    """B × H × R × M: `raw` before the mean over heads."""


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """Products of float32 stay float32 on the tensor's device, also where the model is run under `torch.autocast`."""
    return torch.autocast(tensor.device.type, enabled=False)


def row_logits(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None, arguments: Mapping[str, Any]
) -> torch.Tensor:
    """Pre-softmax logits of the queries, with the model's own scaling, soft-cap, position bias and mask.

    Args:
        query: B × H × R × D, the last R queries of the attention call.
        key: B × G × K × D, each key head serving H / G query heads in order.
        bias: What the mask adds, broadcastable to B × H × R × K; None where it hides nothing.
        arguments: Keyword arguments of the attention function.

    Returns:
        B × H × R × K, float32; -inf where the query may not attend.
    """
    batch, heads, rows, width = query.shape
    scaling = arguments.get("scaling")
    with full_precision(query):
        product = query.float().reshape(batch, key.shape[1], -1, width) @ key.float().transpose(2, 3)
    # Scaled after the product: half-precision factors stay exact where the device multiplies in TF32.
    logits: torch.Tensor = product.mul_(width**-0.5 if scaling is None else scaling).view(batch, heads, rows, -1)
    if (softcap := arguments.get("softcap")) is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if (position_bias := arguments.get("position_bias")) is not None:
        logits = logits + position_bias[..., -rows:, : logits.shape[-1]].float()
    return logits if bias is None else logits + bias


def learned_sinks(arguments: Mapping[str, Any], *, rows: int) -> torch.Tensor | None:
    """The logits of the learned sinks of the last R queries, broadcastable to B × H × R × 1; None without any.

    Args:
        arguments: Keyword arguments of the attention function: `s_aux`, one sink for each head, or `sinks`, one for
            each head and query (B × H × Q × 1).
        rows: R.
    """
    if (by_query := arguments.get("sinks")) is not None:
        sinks: torch.Tensor = by_query[:, :, -rows:]
        return sinks
    by_head = arguments.get("s_aux")
    return None if by_head is None else by_head.view(1, -1, 1, 1)


def image_attention(
    logits: torch.Tensor,
    columns: torch.Tensor,
    *,
    first: torch.Tensor | None = None,
    sink_logits: torch.Tensor | None = None,
) -> ImageAttention:
    """Read the attention to the image tokens out of rows of logits.

    Args:
        logits: B × H × K or B × H × R × K, float32, -inf where the query may not attend.
        columns: B × M, int64, the keys of the image tokens; negative where a row has fewer than M or the cache has
            dropped the key.
        first: B, int64, the key of the prompt's first token, negative where the cache has dropped it; key 0 for None.
        sink_logits: Broadcastable to B × H × R × 1, the logits of the learned sinks, which take part in the softmax and
            are no keys; the logits have the dimension R then.
    """
    total = torch.logsumexp(logits, dim=-1, keepdim=True)
    if sink_logits is not None:
        total = torch.logaddexp(total, sink_logits.float())
    if first is None:
        first = torch.zeros_like(columns[:, 0])
    total = total.clamp(min=torch.finfo(total.dtype).min)  # where all is hidden the shares are 0 and not -inf - -inf
    gathered = _gather(logits, torch.cat([first[:, None], columns], dim=1))
    image_logits = gathered[..., 1:]
    shares = (gathered - total).exp_()
    heads = shares[..., 1:]
    blind = torch.isneginf(image_logits.amax(dim=-1, keepdim=True))
    own_shares = torch.softmax(image_logits, dim=-1).masked_fill_(blind, 0.0)
    return ImageAttention(
        eq1=own_shares.sum(dim=1) / (~blind).sum(dim=1),
        raw=heads.mean(dim=1),
        visual_mass=heads.sum(dim=-1).mean(dim=1),
        first_mass=shares[..., 0].mean(dim=1),
        visible=_seen(image_logits),
        heads=heads,
    )


def visible_tokens(logits: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """How many image tokens each query may attend to in some head, B or B × R, int64; see `image_attention`."""
    return _seen(_gather(logits, columns))


def _seen(image_logits: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(image_logits.amax(dim=1)).sum(dim=-1)


def _gather(logits: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The logits of some keys in every head and row; -inf for those with a negative index."""
    places = columns.view(len(columns), *[1] * (logits.dim() - 2), -1)
    index = places.clamp(min=0).expand(*logits.shape[:-1], -1)
    return logits.gather(-1, index).masked_fill_(places < 0, -torch.inf)
