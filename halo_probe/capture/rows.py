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
    own_shares: torch.Tensor
    """B × H × R × M: the softmax over the image tokens alone, before the mean over heads; of no meaning for a head that
    sees none."""
    mass: torch.Tensor
    """B × H × R × 1: `visual_mass` before the mean over heads."""

    @property
    def heads(self) -> torch.Tensor:
        """B × H × R × M: `raw` before the mean over heads."""
        return self.own_shares * self.mass


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
    return logits if bias is None else logits.add_(bias)


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
    lowest = torch.finfo(logits.dtype).min
    total = _log_sum(logits, empty=lowest)  # where all is hidden the shares are 0 and not -inf - -inf
    if sink_logits is not None:
        total = torch.logaddexp(total, sink_logits.float())
    if first is None:
        first = torch.zeros_like(columns[:, 0])
    gathered = _gather(logits, torch.cat([first[:, None], columns], dim=1))
    first_mass = (gathered[..., :1] - total).exp()
    image_logits = gathered[..., 1:].clamp_(min=lowest)
    highest = image_logits.amax(dim=-1, keepdim=True)
    sees = ~(highest <= lowest)  # true of NaN, which is not to pass for a head that sees nothing
    own_shares = torch.softmax(image_logits, dim=-1)
    mass = torch.where(sees, (highest - total).exp() / own_shares.amax(dim=-1, keepdim=True), 0.0)
    return ImageAttention(
        eq1=(own_shares * sees).sum(dim=1) / sees.sum(dim=1),
        raw=(own_shares * mass).mean(dim=1),
        visual_mass=mass.squeeze(-1).mean(dim=1),
        first_mass=first_mass.squeeze(-1).mean(dim=1),
        visible=(image_logits.amax(dim=1) > lowest).sum(dim=-1),
        own_shares=own_shares,
        mass=mass,
    )


def visible_tokens(logits: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """How many image tokens each query may attend to in some head, B or B × R, int64; see `image_attention`."""
    return torch.isfinite(_gather(logits, columns).amax(dim=1)).sum(dim=-1)


def _log_sum(logits: torch.Tensor, *, empty: float) -> torch.Tensor:
    """`torch.logsumexp` over the last dimension, which is kept, in about half of its time on a CPU.

    Args:
        logits: Of any shape.
        empty: What to return for -inf alone.
    """
    highest = logits.amax(dim=-1, keepdim=True)
    rest = torch.log_softmax(logits, dim=-1).amax(dim=-1, keepdim=True)  # of the highest: -log Σ exp(logits - highest)
    return torch.where(torch.isneginf(highest), empty, highest - rest)


def _gather(logits: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The logits of some keys in every head and row; -inf for those with a negative index."""
    places = columns.view(len(columns), *[1] * (logits.dim() - 2), -1)
    index = places.clamp(min=0).expand(*logits.shape[:-1], -1)
    absent = torch.zeros(places.shape, device=logits.device).masked_fill_(places < 0, -torch.inf)
    return logits.gather(-1, index).add_(absent)
