"""The structure metrics of the VLM Reliability Probe: entropy, clusters, their course over the layers, cells to mask.

Conventions: those of `halo_probe.metrics.sparsity` for maps; a grid is its rows and columns. Cells that touch across a
corner are neighbours.

Source: the measurement specification, section 7; arXiv 2606.17389 and 2605.08200.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from dataset_builder.stream import random_words, shuffled, stream_key
from halo_probe.errors import UsageError
from halo_probe.metrics.distributions import Values, distribution, plain
from halo_probe.metrics.grid import distribution_on_grid

LOCK = 1.0
"""An early lock takes at least this much entropy away in one layer, in nats."""
PLATEAU = 0.25
"""After an early lock the entropy changes by at most this in the median layer, in nats."""
DIFFUSE = 0.5
"""A late diffusion adds at least this much entropy in the final layer, in nats."""

# Thresholds hold up to rounding, so that no value depends on the scale of a map.
_AT_LEAST = 1 - 1e-9


def hs(attention: ArrayLike) -> Values:
    """Entropy as the probe's authors compute it, -Σ p ln(p + 1e-9) in nats: -1e-9 (one token) to ln M (uniform).

    Args:
        attention: Weights, (..., M).

    Raises:
        InvalidAttentionError: If a map is no distribution; see `halo_probe.metrics.sparsity`.

    >>> round(hs([1] * 576), 8)
    6.35610708
    """
    p = distribution(attention)
    return plain(-(p * np.log(p + 1e-9)).sum(axis=-1))


def ck(attention: ArrayLike, *, grid: tuple[int, int]) -> Values:
    """Number of clusters of the cells at or above the 90th percentile, as in the code of the probe's authors.

    DBSCAN with eps 1.5 and 3 samples, noise left out. On a grid that is the number of connected groups of cells that
    have two neighbours or more among the chosen ones. From 0; 1 when uniform, all cells being at the percentile then.

    Args:
        attention: Weights, (..., M), row by row.
        grid: Rows and columns of image tokens.

    Raises:
        InvalidAttentionError: If a map is no distribution or not on this grid.

    >>> ck([9, 9, 0, 9, 0, 0, 0, 0, 0] + [0] * 27, grid=(4, 9))
    1.0
    """
    p = distribution_on_grid(attention, grid)
    chosen = (p >= np.percentile(p, 90, axis=-1, keepdims=True)).reshape(-1, *grid)
    with_neighbours = ndimage.correlate(chosen.astype(np.int8), np.ones((1, 3, 3), dtype=np.int8), mode="constant")
    return plain(_components(chosen & (with_neighbours >= 3)).reshape(p.shape[:-1]))  # noqa: PLR2004 - DBSCAN's 3


def ck_mass30(attention: ArrayLike, *, grid: tuple[int, int]) -> Values:
    """Number of connected components of the smallest set of cells that holds 30 % of the attention: from 1.

    Among cells of equal weight, those first in the order of tokens are taken.

    Args:
        attention: Weights, (..., M), row by row.
        grid: Rows and columns of image tokens.

    Raises:
        InvalidAttentionError: If a map is no distribution or not on this grid.

    >>> ck_mass30([4, 0, 0, 0, 0, 0, 4, 1, 1], grid=(3, 3))
    1.0
    """
    p = distribution_on_grid(attention, grid)
    falling = np.sort(p, axis=-1)[..., ::-1]
    before = np.cumsum(falling, axis=-1) - falling
    number = (before < 0.3 * _AT_LEAST).sum(axis=-1, keepdims=True)
    least = np.take_along_axis(falling, number - 1, axis=-1)
    # Of those that tie for the last places, the first.
    above, tied = p > least, p == least
    chosen = above | (tied & (np.cumsum(tied, axis=-1) <= number - above.sum(axis=-1, keepdims=True)))
    return plain(_components(chosen.reshape(-1, *grid)).reshape(p.shape[:-1]))


def ck_obj(attention: ArrayLike, *, grid: tuple[int, int]) -> Values:
    """Number of connected components of the cells with at least twice the attention of a uniform map: from 0.

    Args:
        attention: Weights, (..., M), row by row.
        grid: Rows and columns of image tokens.

    Raises:
        InvalidAttentionError: If a map is no distribution or not on this grid.

    >>> ck_obj([4, 0, 0, 0, 0, 0, 4, 1, 1], grid=(3, 3))
    2.0
    """
    p = distribution_on_grid(attention, grid)
    chosen = p * p.shape[-1] >= 2 * _AT_LEAST
    return plain(_components(chosen.reshape(-1, *grid)).reshape(p.shape[:-1]))


def _components(cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Number of 8-connected components of each of P grids, (P, rows, columns): (P,)."""
    within_a_grid = np.zeros((3, 3, 3))
    within_a_grid[1] = 1
    labels, number = ndimage.label(cells, within_a_grid)
    owners = np.zeros(number + 1, dtype=np.intp)
    owners[labels] = np.arange(len(cells))[:, np.newaxis, np.newaxis]
    return np.asarray(np.bincount(owners[1:], minlength=len(cells)), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class EntropyCourse:
    """How the entropy H of maps changes from layer to layer, in nats. Layers count from 0."""

    changes: NDArray[np.float64]
    """ΔH(l) = H(l) - H(l-1) for l = 1 .. L-1, (..., L-1)."""
    lock_layer: Values
    """The layer l < L/4 with the smallest change, (...)."""
    depth: Values
    """How much entropy it takes away, -ΔH, (...)."""
    plateau: Values
    """Median |ΔH| of the layers after it, the final one left out, (...)."""
    final: Values
    """ΔH of the final layer, (...)."""
    early_lock: NDArray[np.bool_]
    """Whether the depth is at least 1 and the plateau at most .25, (...)."""
    late_diffuse: NDArray[np.bool_]
    """Whether the final change is at least .5, (...)."""


def entropy_course(entropies: ArrayLike) -> EntropyCourse:
    """Follow the entropy over the layers.

    Args:
        entropies: Entropy at every layer of the language model in nats, (..., L) with L at least 5.

    Raises:
        UsageError: If there are fewer layers, or an entropy is not finite.

    >>> course = entropy_course([6.3, 6.2, 3.7, 3.75, 3.7, 3.8, 3.72, 3.78, 3.7, 3.75, 3.8, 4.9])
    >>> course.lock_layer, round(course.depth, 6), round(course.plateau, 6), round(course.final, 6)
    (2.0, 2.5, 0.055, 1.1)
    """
    h = np.asarray(entropies, dtype=np.float64)
    if h.ndim == 0 or h.shape[-1] < 5 or not np.isfinite(h).all():  # noqa: PLR2004 - else no first quarter
        raise UsageError(
            f"entropy_course: entropies of shape {h.shape}: give finite ones of at least 5 layers; record layers=all"
        )
    changes = np.diff(h, axis=-1)
    layers = np.arange(1, h.shape[-1])
    early = changes[..., layers < h.shape[-1] / 4]
    lock = early.argmin(axis=-1) + 1
    depth, final = -early.min(axis=-1), changes[..., -1]
    after = (layers > lock[..., np.newaxis]) & (layers < layers[-1])
    plateau = np.nanmedian(np.where(after, np.abs(changes), np.nan), axis=-1)
    return EntropyCourse(
        changes=changes,
        lock_layer=plain(lock.astype(np.float64)),
        depth=plain(depth),
        plateau=plain(plateau),
        final=plain(final),
        early_lock=(depth >= LOCK * _AT_LEAST) & (plateau <= PLATEAU / _AT_LEAST),
        late_diffuse=final >= DIFFUSE * _AT_LEAST,
    )


def top30(attention: ArrayLike) -> NDArray[np.intp]:
    """The ceil(.3 M) cells with the most attention, ascending, (..., k); the first in order where tied.

    Masking them says little without `bottom30` and `random30`.

    Args:
        attention: Weights, (..., M).

    Raises:
        InvalidAttentionError: If a map is no distribution; see `halo_probe.metrics.sparsity`.

    >>> top30([0.05, 0.3, 0.02, 0.2, 0.1, 0.08, 0.01, 0.09, 0.1, 0.05])
    array([1, 3, 4])
    """
    return _first30(-distribution(attention))


def bottom30(attention: ArrayLike) -> NDArray[np.intp]:
    """The ceil(.3 M) cells with the least attention, ascending, (..., k); the first in order where tied.

    Args:
        attention: Weights, (..., M).

    Raises:
        InvalidAttentionError: If a map is no distribution; see `halo_probe.metrics.sparsity`.

    >>> bottom30([0.05, 0.3, 0.02, 0.2, 0.1, 0.08, 0.01, 0.09, 0.1, 0.05])
    array([0, 2, 6])
    """
    return _first30(distribution(attention))


def random30(tokens: int, *, seed: int) -> NDArray[np.intp]:
    """ceil(.3 M) cells at random, each equally likely, ascending, (k,): the same on every machine.

    Args:
        tokens: Number M of image tokens.
        seed: A number of its own for each document.

    >>> random30(10, seed=0).shape
    (3,)
    """
    words = random_words(stream_key("random30", tokens, seed))
    return np.sort(np.array(shuffled(words, range(tokens))[: _thirty_percent(tokens)], dtype=np.intp))


def _first30(keys: NDArray[np.float64]) -> NDArray[np.intp]:
    order = np.argsort(keys, axis=-1, kind="stable")[..., : _thirty_percent(keys.shape[-1])]
    return np.sort(order, axis=-1)


def _thirty_percent(tokens: int) -> int:
    return -(-3 * tokens // 10)
