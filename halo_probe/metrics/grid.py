"""Attention maps on the grid of a model's image tokens."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halo_probe.errors import InvalidAttentionError
from halo_probe.metrics.distributions import distribution


def distribution_on_grid(attention: ArrayLike, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Maps divided by their sums, (..., M), float64.

    Args:
        attention: Weights, (..., M), row by row.
        grid: Rows and columns of image tokens.

    Raises:
        InvalidAttentionError: If a map is no distribution, see `halo_probe.metrics.sparsity`, or not on this grid.
    """
    p = distribution(attention)
    if p.shape[-1] != grid[0] * grid[1]:
        raise InvalidAttentionError(
            f"attention has {p.shape[-1]} image tokens, which are no {grid[0]} x {grid[1]} grid: "
            "give the grid of the model's image tokens, rows first"
        )
    return p
