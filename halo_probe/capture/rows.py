"""The attention row of one query, computed again beside the kernel.

Shapes: B rows of the batch, H query heads, G key heads, K keys in the cache, D head dimensions, M image tokens.
All arithmetic is float32 whatever the model's dtype, from the product of query and key on (spec §1).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from halo_probe.errors import CaptureError

_UNREAD = ("s_aux", "position_bias", "softcap")  # change the logits; no supported family passes them


@dataclass(frozen=True)
class ImageAttention:
    """Attention of one query position to the image tokens of each row of the batch. See spec §1."""

    eq1: torch.Tensor
    """B × M: mean over heads of the softmax over the image tokens alone; NaN where none is visible."""
    raw: torch.Tensor
    """B × M: mean over heads of the softmax over all keys; sums to `visual_mass`."""
    visual_mass: torch.Tensor
    """B: share of the attention that falls on the image."""
    visible: torch.Tensor
    """B: number of image tokens that the query may attend to; the others are masked or have left a sliding cache."""
    heads: torch.Tensor
    """B × H × M: `raw` before the mean over heads."""


def last_row_logits(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, arguments: Mapping[str, Any]
) -> torch.Tensor:
    """Pre-softmax logits of the last query position, with the model's own scaling and mask.

    Args:
        query: B × H × Q × D.
        key: B × G × K × D, each key head serving H / G query heads in order.
        mask: None, or broadcastable to B × H × Q × K; True means attend, or numbers to add to the logits.
        arguments: Keyword arguments of the attention function.

    Returns:
        B × H × K, float32; -inf where the query may not attend.

    Raises:
        CaptureError: If the layer changes its logits in a way that is not known here.
    """
    if unread := [name for name in _UNREAD if arguments.get(name) is not None]:
        raise CaptureError(f"The attention function was given {unread[0]!r}, which the probe cannot reproduce.")
    batch, heads, _, width = query.shape
    scaling = arguments.get("scaling")
    row = query[:, :, -1].float() * (width**-0.5 if scaling is None else scaling)
    logits: torch.Tensor = (row.view(batch, key.shape[1], -1, width) @ key.float().transpose(2, 3)).view(
        batch, heads, -1
    )
    if mask is None:
        return logits
    row_mask = mask[:, :, -1, : logits.shape[-1]]
    if row_mask.dtype == torch.bool:
        return logits.masked_fill(~row_mask, -torch.inf)
    # Eager masks add the lowest number of their dtype instead of -inf, on which a softmax over masked keys alone
    # would come out uniform.
    return logits + row_mask.float().masked_fill(row_mask <= torch.finfo(row_mask.dtype).min / 2, -torch.inf)


def image_attention(logits: torch.Tensor, columns: torch.Tensor) -> ImageAttention:
    """Read the attention to the image tokens out of a row of logits.

    Args:
        logits: B × H × K, float32, -inf where the query may not attend.
        columns: B × M, int64, the keys of the image tokens; negative where a row has fewer than M or the cache has
            dropped the key.
    """
    absent = (columns < 0)[:, None, :]
    gathered = columns.clamp(min=0)[:, None, :].expand(-1, logits.shape[1], -1)
    image_logits = logits.gather(2, gathered).masked_fill(absent, -torch.inf)
    heads = torch.exp(image_logits - torch.logsumexp(logits, dim=-1, keepdim=True))
    return ImageAttention(
        eq1=torch.softmax(image_logits, dim=-1).mean(dim=1),
        raw=heads.mean(dim=1),
        visual_mass=heads.sum(dim=-1).mean(dim=1),
        visible=torch.isfinite(image_logits[:, 0]).sum(dim=-1),
        heads=heads,
    )
