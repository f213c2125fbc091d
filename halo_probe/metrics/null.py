"""The null of the spatial metrics: the same map scored with the dots of other images.

Sinks, the frame, a bias to the centre and anything else that a map has without looking at the dots give the same values
on other dots. What is left tells that the map follows the dots of its own image.

Source: the measurement specification, section 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataset_builder.stream import random_words, shuffled, stream_key
from halo_probe.errors import UsageError
from halo_probe.metrics.distributions import Values, plain
from halo_probe.metrics.geometry import Floats, Layout
from halo_probe.metrics.pairs import score_pairs
from halo_probe.metrics.spatial import SPATIAL_KEYS

NULL_SIZE = 200
"""Number of other images."""

NULL_KEYS = tuple(key for key in SPATIAL_KEYS if not key.startswith("frame_enrichment"))
"""The keys of `compare_with_null`: the metrics that depend on the dots."""

# Values that differ by less are tied, and a null that spreads less has no spread: the metrics are of the order of 1.
_TIE = 1e-9


@dataclass(frozen=True, kw_only=True)
class NullComparison:
    """A metric of maps on their own dots against its values on the dots of other images."""

    value: Values
    """On their own dots, (...)."""
    z: Values
    """Standard deviations above the mean of the null, (...); NaN where the value is, or the null has no spread."""
    p: Values
    """Two-sided p-value of the value among those of the null, (...); NaN where the value is, or the null is empty."""
    n: Values
    """Number of other images with a value, (...): the others gave NaN."""


def choose_others(counts: Sequence[int], document: int, *, size: int = NULL_SIZE) -> NDArray[np.intp]:
    """Other images for the null of one: those with the same number of dots first, then those with the nearest.

    The same on every machine. Among images with the same number of dots, those that follow the document in one fixed
    random order of all: so that not every document has the same null.

    Args:
        counts: Number of dots of each image.
        document: Place of the image in `counts`.
        size: How many; all others where there are fewer.

    Returns:
        Places in `counts`.

    Raises:
        UsageError: If there is no such document, or no other.

    >>> choose_others([10, 12, 10, 11, 10], 0, size=3).tolist()
    [2, 4, 3]
    """
    if not 0 <= document < len(counts) or len(counts) == 1:
        raise UsageError(f"choose_others: document {document} of {len(counts)}: give one of at least two")
    order = shuffled(random_words(stream_key("null", len(counts))), range(len(counts)))
    place = order.index(document)
    others = np.array(order[place + 1 :] + order[:place])
    distance = np.abs(np.asarray(counts)[others] - counts[document])
    return others[np.argsort(distance, kind="stable")[:size]]


def compare_with_null(attention: ArrayLike, layout: Layout, others: Sequence[Layout]) -> dict[str, NullComparison]:
    """Compare every spatial metric of maps of one image with its null, by key.

    The p-value is 2 (k + 1) / (n + 1), 1 at most, for the smaller of the numbers k of null values at or above, and at
    or below, the value (Phipson and Smyth 2010). It is valid for a map that does not know the dots, since own and other
    dots are treated alike: where a key ends in `_ns`, each layout leaves out the cells that are sinks for it.

    Args:
        attention: Weights, (..., M), of one image.
        layout: Its dots on the grid of the maps.
        others: Dots of other images on the same grid.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layouts are on another grid.
        UsageError: If the layouts are on different grids.
    """
    scores = score_pairs(attention, [layout, *others], keys=NULL_KEYS)
    return {key: _compare(values[..., 0], values[..., 1:]) for key, values in scores.items()}


def _compare(value: Floats, null: Floats) -> NullComparison:
    defined = ~np.isnan(null)
    n = defined.sum(axis=-1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = null.sum(axis=-1, where=defined) / n
        variance = ((null - mean[..., np.newaxis]) ** 2).sum(axis=-1, where=defined) / (n - 1)
        spread = np.where(variance > _TIE**2, np.sqrt(variance), np.nan)
    own = value[..., np.newaxis]
    extreme = np.minimum((null >= own - _TIE).sum(axis=-1), (null <= own + _TIE).sum(axis=-1))
    p = np.minimum(2 * (extreme + 1) / (n + 1), 1)
    return NullComparison(
        value=plain(value),
        z=plain((value - mean) / spread),
        p=plain(np.where(np.isnan(value) | (n == 0), np.nan, p)),
        n=plain(n),
    )
