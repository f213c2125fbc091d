"""The operations on the logits of the image keys, each for one query position.

Conventions: logits are float32, (..., M), of the M image tokens alone, before the softmax over all keys and with the
model's own scaling and mask; -inf where the query may not attend, which no operation changes. Nothing is written to.

Source: the measurement specification, section 8.
"""

import math

import torch

from halo_probe.capture.transfers import to_device


def scale(image: torch.Tensor, *, strength: float) -> torch.Tensor:
    """Multiply: z ← α z (ScalingVis, arXiv 2503.01773); α > 1 sharpens and, of positive logits, raises the mass.

    Not invariant to a shift of all logits, to which the softmax is blind: the same row with all its logits 10 lower
    gives the image less attention for α > 1, not more. `temperature` and `boost` change one thing each.

    Args:
        image: (..., M).
        strength: α, 0 or more.
    """
    return torch.where(torch.isneginf(image), image, strength * image)


def temperature(image: torch.Tensor, *, strength: float) -> torch.Tensor:
    """Sharpen alone: p ← m softmax(α z), with m the attention to the whole image, which stays.

    Args:
        image: (..., M).
        strength: α, 0 or more; above 1 sharpens.
    """
    scaled = scale(image, strength=strength)
    lost = torch.logsumexp(image, dim=-1, keepdim=True) - torch.logsumexp(scaled, dim=-1, keepdim=True)
    return torch.where(torch.isneginf(image), image, scaled + lost)


def boost(image: torch.Tensor, *, strength: float) -> torch.Tensor:
    """Add: z ← z + ln λ, so that the odds of the image against all else are multiplied by λ; the map itself stays.

    Args:
        image: (..., M).
        strength: λ, above 0; above 1 draws attention to the image.
    """
    return image + math.log(strength)


def knockout(image: torch.Tensor, *, cells: tuple[int, ...] | None) -> torch.Tensor:
    """Hide: z ← -inf (attention knockout, arXiv 2411.17491).

    Args:
        image: (..., M).
        cells: Places among the image tokens, from 0; None for all of them.
    """
    if cells is None:
        return torch.full_like(image, -torch.inf)
    return image.index_fill(-1, to_device(torch.tensor(cells, dtype=torch.int64), image.device), -torch.inf)
