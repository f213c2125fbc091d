"""Spatial metrics of every map on every layout at once: what one map on its own dots and the null have in common.

What each metric means stands with its function in `halo_probe.metrics.spatial`; here are the matrix products. Shapes: P
maps, L layouts with N dots together, M image tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special

from halo_probe.errors import UsageError
from halo_probe.metrics.geometry import Flags, Floats, Layout
from halo_probe.metrics.grid import distribution_on_grid

SINK = 10
"""A sink has at least this many times the attention of a cell of a uniform map."""
ATTENDED = 2
"""A dot is attended to if its enrichment is at least this."""
WITHOUT_SINKS = "_ns"
"""Suffix of a key: computed as if the grid did not have the cells that are sinks."""

# Thresholds hold up to rounding, so that no value depends on the scale of a map.
_AT_LEAST = 1 - 1e-9
_FLAT = 1e-9
# Maps that are scored together: bounds the memory.
_BLOCK = 256


def score_pairs(attention: ArrayLike, layouts: Sequence[Layout], *, keys: Iterable[str]) -> dict[str, Floats]:
    """Score every map on every layout: the metrics by key, (..., L).

    Args:
        attention: Weights, (..., M).
        layouts: L layouts on the grid of the maps.
        keys: Which of `halo_probe.metrics.spatial.SPATIAL_KEYS`.

    Raises:
        InvalidAttentionError: If a map is no distribution or not on this grid.
        UsageError: If there is no layout, or they are on different grids.
    """
    grids = {layout.grid for layout in layouts}
    if len(grids) != 1:
        raise UsageError(f"score_pairs: layouts on {len(grids)} grids: give one or more on the same grid")
    p = distribution_on_grid(attention, grids.pop())
    dots, wanted = _gather(layouts), tuple(keys)
    maps = p.reshape(-1, p.shape[-1])
    blocks = [_score(maps[start : start + _BLOCK], dots, wanted) for start in range(0, len(maps), _BLOCK)]
    return {
        key: np.concatenate([block[key] for block in blocks]).reshape(*p.shape[:-1], len(layouts)) for key in wanted
    }


def _score(maps: Floats, dots: "_Dots", keys: Iterable[str]) -> dict[str, Floats]:
    whole = _Maps(maps)
    pairs = {suffix: _Pairs(maps=whole, dots=dots, without_sinks=bool(suffix)) for suffix in ("", WITHOUT_SINKS)}
    scores = {}
    for key in keys:
        chosen = pairs[WITHOUT_SINKS if key.endswith(WITHOUT_SINKS) else ""]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = METRICS[key.removesuffix(WITHOUT_SINKS)](chosen)
        scores[key] = np.where(chosen.mass > 0, values, np.nan)
    return scores


@dataclass(frozen=True, eq=False)
class _Maps:
    """P maps, and what does not depend on the dots."""

    p: Floats
    """(P, M), each of sum 1."""

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """The cells by rising weight, (P, M)."""
        return np.argsort(self.p, axis=-1)

    @cached_property
    def ranks(self) -> Floats:
        """From 1, the mean rank where tied, (P, M)."""
        rising = np.take_along_axis(self.p, self.order, axis=-1)
        steps = rising[:, 1:] > rising[:, :-1]
        places = np.broadcast_to(np.arange(1, self.p.shape[1] + 1, dtype=np.float64), self.p.shape)
        if not steps.all():
            # The first and the last place of each run of ties.
            first, last = places.copy(), places.copy()
            first[:, 1:][~steps] = last[:, :-1][~steps] = np.nan
            first = np.fmax.accumulate(first, axis=-1)
            last = np.fmin.accumulate(last[:, ::-1], axis=-1)[:, ::-1]
            places = (first + last) / 2
        ranks = np.empty_like(self.p)
        np.put_along_axis(ranks, self.order, places, axis=-1)
        return ranks

    @cached_property
    def bright(self) -> Flags:
        """Cells that are sinks of a layout if they are outside its D and R, (P, M)."""
        return np.asarray(self.p * self.p.shape[1] >= SINK * _AT_LEAST)

    @cached_property
    def bright_columns(self) -> NDArray[np.intp]:
        """The cells that are bright in any map."""
        return np.flatnonzero(self.bright.any(axis=0))

    def parted(self, values: Floats) -> "_Parted":
        """Values of the cells, (P, M) or (1, M), parted into those of bright cells and the others."""
        return _Parted(
            every=values,
            dim=np.where(self.bright, 0.0, values),
            bright=np.where(self.bright[:, self.bright_columns], values[:, self.bright_columns], 0.0),
        )

    @cached_property
    def weights(self) -> "_Parted":
        """The weights themselves."""
        return self.parted(self.p)

    @cached_property
    def ones(self) -> "_Parted":
        """1 in each cell."""
        return self.parted(np.ones_like(self.p[:1]))

    @cached_property
    def deviations(self) -> "_Parted":
        """From the mean of all cells, so that little cancels in their sums."""
        return self.parted(self.p - 1 / self.p.shape[1])

    @cached_property
    def squares(self) -> "_Parted":
        """Of the deviations."""
        return self.parted(self.deviations.every**2)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parted:
    """Values of the cells of P maps, B of which are bright in any."""

    every: Floats
    """(P, M), or (1, M) where they are the same for all."""
    dim: Floats
    """(P, M), 0 where the cell is bright."""
    bright: Floats
    """(P, B), 0 where it is not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Dots:
    """The dots of all layouts; the attributes of `Layout`, as matrices of scipy where a layout has few cells."""

    on_dots: Floats
    """(L, M), as the next seven: 0 and 1, or areas."""
    around: Floats
    near: Floats
    far: Floats
    """B."""
    band: Floats
    interior: Floats
    cores: Floats
    rims: Floats
    frame: Floats
    """(1, M)."""
    shares: Any
    """(L, M), sparse."""
    weights: Any
    """(N, M), sparse."""
    groups: Any
    """(L, N), sparse: 1 for each dot of the layout that has a cell of its own."""
    owners: NDArray[np.intp]
    """(N,): the layout of each dot."""
    hull: Flags
    """(N,)."""
    centers: NDArray[np.intp]
    """(N,)."""


def _gather(layouts: Sequence[Layout]) -> _Dots:
    def stacked(name: str) -> Floats:
        return np.array([getattr(layout, name) for layout in layouts], dtype=np.float64)

    weights = sparse.csr_array(np.concatenate([layout.dot_weights for layout in layouts]))
    owners = np.repeat(np.arange(len(layouts)), [len(layout.hull_dots) for layout in layouts])
    (placed,) = np.diff(weights.indptr).nonzero()
    return _Dots(
        on_dots=stacked("on_dots"),
        around=stacked("around"),
        near=stacked("near"),
        far=1 - stacked("near"),
        band=stacked("band"),
        interior=stacked("interior"),
        cores=stacked("cores"),
        rims=stacked("rims"),
        frame=layouts[0].frame[np.newaxis].astype(np.float64),
        shares=sparse.csr_array(stacked("dot_shares")),
        weights=weights,
        groups=sparse.csr_array((np.ones(len(placed)), (owners[placed], placed)), shape=(len(layouts), len(owners))),
        owners=owners,
        hull=np.concatenate([layout.hull_dots for layout in layouts]),
        centers=np.concatenate([layout.center_cells for layout in layouts]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """Each map on each layout, with all cells or without the sinks; what several metrics need."""

    maps: _Maps
    dots: _Dots
    without_sinks: bool

    def sum(self, values: _Parted, areas: Floats) -> Floats:
        """Σ values · areas (L, M) over the cells that count: (P, L), or (1, L) where it is the same for all maps."""
        columns = self.maps.bright_columns if self.without_sinks else ()
        if not areas.any():  # no dot is large enough for a core
            return np.zeros((len(values.every), len(areas)))
        if not len(columns):
            return np.asarray(values.every @ areas.T)
        # A bright cell counts where it is near the dots. Sums of what counts, not differences: nothing cancels.
        spared = areas[:, columns] * self.dots.near[:, columns]
        return np.asarray(values.dim @ areas.T + values.bright @ spared.T)

    def size(self, areas: Floats) -> Floats:
        """Σ areas (L, M) over the cells that count: as `sum`."""
        return self.sum(self.maps.ones, areas)

    @cached_property
    def everywhere(self) -> Floats:
        """Areas of 1, (L, M)."""
        return np.ones_like(self.dots.near)

    @cached_property
    def mass(self) -> Floats:
        """The attention that counts, (P, L)."""
        return self.sum(self.maps.weights, self.everywhere)

    @cached_property
    def cells(self) -> Floats:
        """The number of cells that count, as `size`."""
        return self.size(self.everywhere)

    def enrichment(self, areas: Floats) -> Floats:
        """Share of the attention over share of the grid, (P, L)."""
        return self.sum(self.maps.weights, areas) / self.mass * self.cells / self.size(areas)

    @cached_property
    def dot_masses(self) -> Floats:
        """Attention on each dot's own cells, (P, N): they are in D, where no sink is."""
        return np.asarray((self.dots.weights @ self.maps.p.T).T)

    @cached_property
    def dot_enrichment(self) -> Floats:
        """e, (P, N)."""
        owners = self.dots.owners
        return np.asarray(self.dot_masses * (self.cells / self.mass)[:, owners] / self.dots.weights.sum(axis=1))

    def over_dots(self, values: Floats) -> Floats:
        """Σ over the dots of each layout that have a cell, of values (P, N): (P, L)."""
        return np.asarray((self.dots.groups @ values.T).T)


def _contrast(a: Floats, b: Floats) -> Floats:
    return (a - b) / (a + b)


def _halo_index(pairs: _Pairs) -> Floats:
    return _contrast(pairs.enrichment(pairs.dots.around), pairs.enrichment(pairs.dots.on_dots))


def _ring_contrast(pairs: _Pairs) -> Floats:
    return _contrast(pairs.enrichment(pairs.dots.around), pairs.enrichment(pairs.dots.far))


def _hull_contrast(pairs: _Pairs) -> Floats:
    return _contrast(pairs.enrichment(pairs.dots.band), pairs.enrichment(pairs.dots.interior))


def _penetration(pairs: _Pairs) -> Floats:
    return _contrast(pairs.enrichment(pairs.dots.cores), pairs.enrichment(pairs.dots.rims))


def _frame_enrichment(pairs: _Pairs) -> Floats:
    return pairs.enrichment(pairs.dots.frame)


def _dot_mass(pairs: _Pairs) -> Floats:
    return pairs.sum(pairs.maps.weights, pairs.dots.on_dots) / pairs.mass


def _sink_share(pairs: _Pairs) -> Floats:
    return np.asarray(pairs.maps.weights.bright @ pairs.dots.far[:, pairs.maps.bright_columns].T)


def _auroc_dot(pairs: _Pairs) -> Floats:
    on_dots = pairs.dots.on_dots
    positives = on_dots.sum(axis=1)
    # Mann and Whitney: the rank sum of the cells of D counts the cells below each, and the cells of D among themselves.
    wins = pairs.maps.ranks @ on_dots.T - positives * (positives + 1) / 2
    if pairs.without_sinks:
        wins = wins - _wins_over_sinks(pairs)
    return np.asarray(wins / (positives * (pairs.cells - positives)))


def _wins_over_sinks(pairs: _Pairs) -> Floats:
    """Number of pairs of a cell of D and a sink in which the cell of D has more, ties counting ½: (P, L)."""
    bright, dots = pairs.maps.bright, pairs.dots
    # Only a bright cell can win over a sink.
    brightest = pairs.maps.order[:, ::-1][:, : bright.sum(axis=1).max()]
    ranks = np.take_along_axis(pairs.maps.ranks, brightest, axis=1)
    wins = (np.sign(ranks[:, :, np.newaxis] - ranks[:, np.newaxis]) + 1) / 2
    on_dots = dots.on_dots.T[brightest].swapaxes(1, 2)
    sinks = dots.far.T[brightest].swapaxes(1, 2) * np.take_along_axis(bright, brightest, axis=1)[:, np.newaxis]
    return np.asarray((on_dots @ wins * sinks).sum(axis=-1))


def _n_attended(pairs: _Pairs) -> Floats:
    return pairs.over_dots((pairs.dot_enrichment >= ATTENDED * _AT_LEAST).astype(np.float64))


def _coverage(pairs: _Pairs) -> Floats:
    return np.asarray(_n_attended(pairs) / pairs.dots.groups.sum(axis=1))


def _hull_dot_contrast(pairs: _Pairs) -> Floats:
    def mean(chosen: Flags) -> Floats:
        return np.asarray(pairs.over_dots(np.where(chosen, pairs.dot_enrichment, 0.0)) / (pairs.dots.groups @ chosen))

    return _contrast(mean(pairs.dots.hull), mean(~pairs.dots.hull))


def _n_eff_dots(pairs: _Pairs) -> Floats:
    mass = pairs.over_dots(pairs.dot_masses)
    return np.exp(np.log(mass) - pairs.over_dots(special.xlogy(pairs.dot_masses, pairs.dot_masses)) / mass)


def _nss_dot(pairs: _Pairs) -> Floats:
    deviations = pairs.maps.deviations
    mean = pairs.sum(deviations, pairs.everywhere) / pairs.cells
    spread = np.sqrt(np.maximum(pairs.sum(pairs.maps.squares, pairs.everywhere) / pairs.cells - mean**2, 0))
    flat = spread <= _FLAT * pairs.mass / pairs.cells
    owners = pairs.dots.owners
    centers = deviations.every[:, pairs.dots.centers]
    scores = np.where(flat[:, owners], 0.0, (centers - mean[:, owners]) / spread[:, owners])
    return np.asarray(pairs.over_dots(scores) / pairs.dots.groups.sum(axis=1))


def _sim_dot(pairs: _Pairs) -> Floats:
    shares = pairs.dots.shares
    layouts, cells = shares.nonzero()
    p = pairs.maps.p[:, cells] / pairs.mass[:, layouts]
    if pairs.without_sinks:
        p = np.where(pairs.maps.bright[:, cells] & (pairs.dots.near[layouts, cells] == 0), 0.0, p)
    groups = sparse.csr_array(
        (np.ones_like(shares.data), np.arange(shares.nnz), shares.indptr), shape=(shares.shape[0], shares.nnz)
    )
    in_view = np.where(np.diff(shares.indptr) > 0, 1.0, np.nan)
    return np.asarray((groups @ np.minimum(p, shares.data).T).T * in_view)


METRICS: Mapping[str, Callable[[_Pairs], Floats]] = {
    "halo_index": _halo_index,
    "ring_contrast": _ring_contrast,
    "auroc_dot": _auroc_dot,
    "coverage": _coverage,
    "n_attended": _n_attended,
    "hull_contrast": _hull_contrast,
    "hull_dot_contrast": _hull_dot_contrast,
    "penetration": _penetration,
    "sink_share": _sink_share,
    "frame_enrichment": _frame_enrichment,
    "dot_mass": _dot_mass,
    "nss_dot": _nss_dot,
    "sim_dot": _sim_dot,
    "n_eff_dots": _n_eff_dots,
}
