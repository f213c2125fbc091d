"""How concentrated an attention map is: sparsity and entropy, each with every normalisation in use.

Conventions: the last axis of an array holds the weights of the M image tokens; any leading shape gives an array of that
shape, one map gives a float. Weights have any positive scale: they are divided by their sum. Arrays, torch tensors on
the CPU and nested lists are taken, computed in float64, and never written to. Maps without a distribution raise
`InvalidAttentionError`: a weight that is negative or not finite, a map that is all zero, no weights, and float16, which
underflows on softmax rows.

Neither sparsity nor entropy is comparable across grids: show M, the number of heads, the layer type and `sparsity_g16`
beside them.

Source: the measurement specification, section 2; the Gini index is that of Hurley and Rickard (2009), arXiv 0811.4706.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halo_probe.errors import InvalidAttentionError
from halo_probe.metrics.distributions import Values, checked_weights, distribution, plain


def gini(attention: ArrayLike) -> Values:
    """Sparsity of an attention map: 0 when uniform, 1 - 1/M when all on one image token.

    1 - (2/M) Σ (M + ½ - i) p_i with p ascending; it satisfies the six axioms of Hurley and Rickard.

    Args:
        attention: Weights, (..., M).

    Raises:
        InvalidAttentionError: If a map is no distribution; see the module.

    >>> gini([0, 0, 0, 1])
    0.75
    """
    return plain(_gini(distribution(attention)))


def sparsity_eq2(attention: ArrayLike) -> Values:
    """Equation 2 of the halo paper as printed, the Gini index minus 1/M: -1/M when uniform, 1 - 2/M at most.

    1 - (2/M) Σ (M + 1 - i) p_i with p ascending.

    Args:
        attention: Weights, (..., M).

    Raises:
        InvalidAttentionError: If a map is no distribution; see the module.

    >>> sparsity_eq2([0, 0, 0, 1])
    0.5
    """
    p = distribution(attention)
    return plain(_gini(p) - 1 / p.shape[-1])


def sparsity_norm(attention: ArrayLike) -> Values:
    """The Gini index as a share of its largest value, M/(M-1) times it: 0 when uniform, 1 when all on one image token.

    Args:
        attention: Weights, (..., M) with M at least 2.

    Raises:
        InvalidAttentionError: If a map is no distribution, or is one of a single image token; see the module.

    >>> sparsity_norm([0, 0, 0, 1])
    1.0
    """
    p = distribution(attention, least=2)
    m = p.shape[-1]
    return plain(_gini(p) * m / (m - 1))


def entropy_nats(attention: ArrayLike) -> Values:
    """Shannon entropy H = -Σ p ln p in nats, with 0 ln 0 = 0: 0 when all on one image token, ln M when uniform.

    Args:
        attention: Weights, (..., M).

    Raises:
        InvalidAttentionError: If a map is no distribution; see the module.

    >>> entropy_nats([0, 0, 1, 1])
    0.6931471805599453
    """
    return plain(_entropy(distribution(attention)))


def entropy(attention: ArrayLike) -> Values:
    """Entropy of an attention map as a share of ln M: 0 when all on one image token, 1 when uniform.

    Equation 3 of the halo paper.

    Args:
        attention: Weights, (..., M) with M at least 2.

    Raises:
        InvalidAttentionError: If a map is no distribution, or is one of a single image token; see the module.

    >>> entropy([0, 0, 1, 1])
    0.5
    """
    p = distribution(attention, least=2)
    return plain(_entropy(p) / np.log(p.shape[-1]))


def kl_uniform(attention: ArrayLike) -> Values:
    """Divergence from the uniform map, ln M - H in nats: 0 when uniform, ln M when all on one image token.

    Args:
        attention: Weights, (..., M).

    Raises:
        InvalidAttentionError: If a map is no distribution; see the module.

    >>> kl_uniform([1, 1, 1, 1])
    0.0
    """
    p = distribution(attention)
    return plain(np.log(p.shape[-1]) - _entropy(p))


def sparsity_family(attention: ArrayLike) -> dict[str, Values]:
    """`gini` as `sparsity`, `sparsity_eq2`, `sparsity_norm`, `entropy` and `kl_uniform` by key, each map sorted once.

    Args:
        attention: Weights, (..., M) with M at least 2.

    Raises:
        InvalidAttentionError: If a map is no distribution, or is one of a single image token; see the module.

    >>> sparsity_family([0, 0, 0, 1])["sparsity_norm"]
    1.0
    """
    p = distribution(attention, least=2)
    m = p.shape[-1]
    sparsity, nats = _gini(p), _entropy(p)
    return {
        "sparsity": plain(sparsity),
        "sparsity_eq2": plain(sparsity - 1 / m),
        "sparsity_norm": plain(sparsity * m / (m - 1)),
        "entropy": plain(nats / np.log(m)),
        "kl_uniform": plain(np.log(m) - nats),
    }


def head_sparsity(attention: ArrayLike) -> Values:
    """Mean over the heads of each head's own `gini`; at least that of their mean map, and the same range.

    Args:
        attention: Weights, (..., heads, M).

    Raises:
        InvalidAttentionError: If the map of a head is no distribution, or there is no head axis; see the module.

    >>> head_sparsity([[0, 0, 0, 1], [1, 1, 1, 1]])
    0.375
    """
    return plain(_gini(_head_distributions(attention)).mean(axis=-1))


def head_entropy(attention: ArrayLike) -> Values:
    """Mean over the heads of each head's own `entropy`; 0..1, 1 when every head is uniform.

    Args:
        attention: Weights, (..., heads, M) with M at least 2.

    Raises:
        InvalidAttentionError: If the map of a head is no distribution, or is one of a single image token, or there is
            no head axis; see the module.

    >>> head_entropy([[0, 0, 0, 1], [1, 1, 1, 1]])
    0.5
    """
    p = _head_distributions(attention, least=2)
    return plain(_entropy(p).mean(axis=-1) / np.log(p.shape[-1]))


def pool_to_grid(attention: ArrayLike, *, height: int, width: int, cells: int = 16) -> NDArray[np.float64]:
    """Sum-pool a map to a square grid over the same image, so that maps of different grids can be compared.

    The weight of an image token is spread evenly over the area of its cell, and each new cell takes what falls on it:
    exact for every grid, finer or coarser than the new one. The total stays.

    Args:
        attention: Weights, (..., height * width), row by row.
        height: Rows of the grid of image tokens.
        width: Columns of it.
        cells: Rows and columns of the new grid.

    Returns:
        Weights, (..., cells * cells), row by row, float64, in the scale of the input.

    Raises:
        InvalidAttentionError: If a map is no distribution, see the module, or the grid does not have M cells.

    >>> pool_to_grid([1, 2, 3, 4], height=2, width=2, cells=1)
    array([10.])
    """
    weights = checked_weights(attention)
    if height * width != weights.shape[-1]:
        raise InvalidAttentionError(
            f"pool_to_grid: {weights.shape[-1]} image tokens are no {height} x {width} grid: "
            "give the grid of the model's image tokens, rows first"
        )
    maps = weights.reshape(*weights.shape[:-1], height, width)
    pooled = _overlaps(height, cells) @ maps @ _overlaps(width, cells).T
    return pooled.reshape(*weights.shape[:-1], cells * cells)


def sparsity_g16(attention: ArrayLike, *, height: int, width: int) -> Values:
    """`gini` of the map sum-pooled to 16 x 16 cells: comparable across grids, 0 when uniform, 255/256 at most.

    Args:
        attention: Weights, (..., height * width), row by row.
        height: Rows of the grid of image tokens.
        width: Columns of it.

    Raises:
        InvalidAttentionError: If a map is no distribution, see the module, or the grid does not have M cells.

    >>> sparsity_g16([1] * 1024, height=32, width=32)
    0.0
    """
    return gini(pool_to_grid(attention, height=height, width=width))


def _head_distributions(attention: ArrayLike, *, least: int = 1) -> NDArray[np.float64]:
    p = distribution(attention, least=least)
    if p.ndim < 2:  # noqa: PLR2004
        raise InvalidAttentionError(f"attention has shape {p.shape}: give one map per head, (..., heads, image tokens)")
    return p


def _gini(p: NDArray[np.float64]) -> NDArray[np.float64]:
    m = p.shape[-1]
    # (M + ½ - i) and the leading 1 in one weight each, since Σ p = 1. What lies outside the range is rounding.
    ranks = np.arange(1 - m, m, 2, dtype=np.float64)
    return np.asarray(np.clip(np.sort(p, axis=-1) @ ranks / m, 0, 1 - 1 / m))


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithms = np.log(np.where(p > 0, p, 1))
    return np.asarray(np.clip(-np.einsum("...k,...k", p, logarithms), 0, np.log(p.shape[-1])))


def _overlaps(old: int, new: int) -> NDArray[np.float64]:
    """Shares of each of `old` equal parts of a line that fall into each of `new` equal parts, (new, old)."""
    starts = np.arange(new)[:, None] * old / new
    ends = (np.arange(new)[:, None] + 1) * old / new
    parts = np.arange(old)
    return np.asarray(np.clip(np.minimum(ends, parts + 1) - np.maximum(starts, parts), 0, None))
