"""Where an attention map lies with respect to the dots: on them, around them, along their hull, or elsewhere.

Conventions: those of `halo_probe.metrics.sparsity` for maps, with M image tokens on the last axis, any positive scale,
a float for one map and an array of the leading shape for several; those of `halo_probe.metrics.geometry` for layouts. D
is the dots' own cells, R the cells next to them, B the rest. The enrichment of a region is its share of the attention
over its share of the grid: 1 for a uniform map. A contrast of a and b is (a - b) / (a + b): -1..1, 0 where they are
equal. A value is NaN where its definition divides 0 by 0: no attention on either side of a contrast, no cell in a
region.

Sinks are cells outside D and R with at least 10 times the attention of a uniform map. Keys that end in `_ns` are
computed as if the grid did not have these cells, and are NaN where no attention is left. The contrasts of attention
within D and R are the same with and without them: `halo_index`, `hull_dot_contrast`; so is `n_eff_dots`.

Source: the measurement specification, section 6.
"""

import numpy as np
from numpy.typing import ArrayLike

from halo_probe.metrics.distributions import Values, plain
from halo_probe.metrics.geometry import Floats, Layout
from halo_probe.metrics.grid import distribution_on_grid
from halo_probe.metrics.pairs import METRICS, WITHOUT_SINKS, score_pairs

SPATIAL_KEYS = (*METRICS, *(key + WITHOUT_SINKS for key in METRICS if key != "sink_share"))
"""The keys of `spatial_metrics`, in order."""


def spatial_metrics(attention: ArrayLike, layout: Layout) -> dict[str, Values]:
    """Every metric of this module by its key, and again without sinks: see `SPATIAL_KEYS`.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    scores = score_pairs(attention, [layout], keys=SPATIAL_KEYS)
    return {key: plain(values[..., 0]) for key, values in scores.items()}


def dot_enrichment(attention: ArrayLike, layout: Layout) -> Floats:
    """Enrichment e of the own cells of each dot, (..., n); NaN for a dot without a cell of its own.

    Cells of several dots are split among them in proportion to their dark pixels. From 0; 1 when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    p = distribution_on_grid(attention, layout.grid)
    with np.errstate(invalid="ignore"):
        return np.asarray(p @ layout.dot_weights.T * p.shape[-1] / layout.dot_weights.sum(axis=1))


def halo_index(attention: ArrayLike, layout: Layout) -> Values:
    """Attention around the dots rather than on them: contrast of the enrichments of R and D.

    Range -1 (all on the dots) to 1 (all around them); 0 when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("halo_index", attention, layout)


def ring_contrast(attention: ArrayLike, layout: Layout) -> Values:
    """Attention around the dots rather than far from them: contrast of the enrichments of R and B.

    B is all that is neither in D nor in R. Range -1 (all far from the dots) to 1 (none is far from them); 0 when
    uniform. With `halo_index` it tells a ring from attention that merely leaves the dots and what is near them.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("ring_contrast", attention, layout)


def auroc_dot(attention: ArrayLike, layout: Layout) -> Values:
    """Probability that a cell of D has more attention than a cell outside it, ties counting ½.

    Range 0..1; .5 when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("auroc_dot", attention, layout)


def coverage(attention: ArrayLike, layout: Layout) -> Values:
    """Share of the dots that are attended to: those with an enrichment of at least 2.

    Range 0..1; 0 when uniform. NaN where no dot is in view.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("coverage", attention, layout)


def n_attended(attention: ArrayLike, layout: Layout) -> Values:
    """Number of the dots that are attended to: those with an enrichment of at least 2.

    Range 0..n; 0 when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("n_attended", attention, layout)


def hull_contrast(attention: ArrayLike, layout: Layout) -> Values:
    """Background attention along the hull rather than inside it: contrast of the enrichments of band and interior.

    Cells of D and R are left out. Range -1 (all inside) to 1 (all along the hull); 0 when uniform. NaN also where the
    hull is too narrow for an interior.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("hull_contrast", attention, layout)


def hull_dot_contrast(attention: ArrayLike, layout: Layout) -> Values:
    """Dots on the hull rather than inside it: contrast of the mean enrichments of hull dots and inner dots.

    Range -1 (all on inner dots) to 1 (all on hull dots); 0 when uniform. NaN also where all dots are on the hull.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("hull_dot_contrast", attention, layout)


def penetration(attention: ArrayLike, layout: Layout) -> Values:
    """Attention inside large dots rather than at their edges: contrast of the enrichments of cores and rims.

    Cores are within .5 r of a centre, rims farther than .75 r and at most 1.25 r. Range -1 (all at the edges) to 1 (all
    inside); 0 when uniform. NaN also for small dots: r has to be at least the longer side of a cell.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("penetration", attention, layout)


def sink_share(attention: ArrayLike, layout: Layout) -> Values:
    """Share of the attention that is on sinks.

    Range 0..1; 0 when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("sink_share", attention, layout)


def frame_enrichment(attention: ArrayLike, layout: Layout) -> Values:
    """Enrichment of the outermost ring of cells, which lies where it does whatever the dots.

    Range 0 (no attention there) to M over the number of its cells; 1 when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("frame_enrichment", attention, layout)


def dot_mass(attention: ArrayLike, layout: Layout) -> Values:
    """Share of the attention that is on D.

    Range 0..1; the share of D in the grid when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("dot_mass", attention, layout)


def nss_dot(attention: ArrayLike, layout: Layout) -> Values:
    """Normalised scanpath saliency: attention at the centres, in standard deviations above the mean of the map.

    Averaged over the dots; the standard deviation is that of the population. At most √(M - 1); 0 when uniform.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("nss_dot", attention, layout)


def sim_dot(attention: ArrayLike, layout: Layout) -> Values:
    """Overlap of the map with the dark pixels: the smaller of their shares in each cell, added up.

    Range 0 (apart) to 1 (the same). NaN where no dot is in view.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("sim_dot", attention, layout)


def n_eff_dots(attention: ArrayLike, layout: Layout) -> Values:
    """Effective number of dots among which the attention on D is split: exp of the entropy of their shares.

    Range 1 (all on one dot) to n (the same on each). NaN where there is no attention on D.

    Args:
        attention: Weights, (..., M).
        layout: The dots on the grid of the maps.

    Raises:
        InvalidAttentionError: If a map is no distribution, or the layout is on another grid.
    """
    return _metric("n_eff_dots", attention, layout)


def _metric(key: str, attention: ArrayLike, layout: Layout) -> Values:
    return plain(score_pairs(attention, [layout], keys=[key])[key][..., 0])
