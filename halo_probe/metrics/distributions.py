"""Attention maps as distributions over the image tokens: the check that every metric begins with."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halo_probe.errors import InvalidAttentionError

Values = NDArray[np.float64] | float
"""A float for one map, an array of the leading shape for several."""


def checked_weights(attention: ArrayLike, *, least: int = 1) -> NDArray[np.float64]:
    """The weights as float64, in their own scale, after a check that they are attention; raises as `distribution`."""
    dtype = str(getattr(attention, "dtype", ""))
    if dtype in {"float16", "torch.float16"}:
        raise InvalidAttentionError(
            "attention is float16, in which small weights have become 0: "
            "take the row softmax in float32 and store it as float32 or bfloat16"
        )
    # numpy has no bfloat16; torch has it, and float() there is float32.
    source: Any = attention
    weights = np.asarray(source.float() if dtype == "torch.bfloat16" else source, dtype=np.float64)
    if weights.ndim == 0 or weights.size == 0 or weights.shape[-1] < least:
        raise InvalidAttentionError(
            f"attention has shape {weights.shape}: give at least {least} image token(s) on the last axis"
        )
    # Both are NaN where a weight is.
    least_weight, largest = weights.min(axis=-1), weights.max(axis=-1)
    if not (np.isfinite(least_weight).all() and np.isfinite(largest).all()):
        raise InvalidAttentionError(
            "attention has a weight that is not finite: look for masked rows before the softmax"
        )
    if (least_weight < 0).any():
        raise InvalidAttentionError("attention has a negative weight: give weights after the softmax, not logits")
    if not (largest > 0).all():
        raise InvalidAttentionError("attention has a map that is all zero: leave out steps that see no image token")
    return weights


def distribution(attention: ArrayLike, *, least: int = 1) -> NDArray[np.float64]:
    """Divide maps by their sums, after a check that they are attention.

    Args:
        attention: Weights of the M image tokens on the last axis, any positive scale.
        least: How many image tokens there have to be.

    Returns:
        float64, of the same shape; the last axis sums to 1.

    Raises:
        InvalidAttentionError: If a weight is negative or not finite, a map is all zero or too short, or float16.
    """
    weights = checked_weights(attention, least=least)
    # By the largest first: the sum of finite weights need not be finite.
    scaled = weights / weights.max(axis=-1, keepdims=True)
    scaled /= scaled.sum(axis=-1, keepdims=True)
    return np.asarray(scaled)


def plain(values: NDArray[np.float64]) -> Values:
    """A float where there is one value, the array where there are several."""
    return float(values) if values.ndim == 0 else values
