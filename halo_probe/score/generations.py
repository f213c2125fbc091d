"""Every metric of the maps of one generation, null where one is undefined, with the reason.

The map is A_eq1; keys with `_rn` are those of the renormalised head mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halo_probe.metrics.distributions import Values
from halo_probe.metrics.null import NULL_KEYS, choose_others, compare_with_null
from halo_probe.metrics.sparsity import (
    entropy,
    entropy_nats,
    gini,
    kl_uniform,
    sparsity_eq2,
    sparsity_g16,
    sparsity_norm,
)
from halo_probe.metrics.spatial import SPATIAL_KEYS, spatial_metrics
from halo_probe.metrics.structure import ck, ck_mass30, ck_obj, hs
from halo_probe.score.dots import Dots, DotSet, layout_of

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Maps = NDArray[np.float32]

_SPARSITY: Mapping[str, Callable[[Maps], Values]] = {
    "sparsity": gini,
    "sparsity_eq2": sparsity_eq2,
    "sparsity_norm": sparsity_norm,
    "entropy": entropy,
    "kl_uniform": kl_uniform,
}
_G16, _RN = "sparsity_g16", "_rn"
_CLUSTERS: Mapping[str, Callable[..., Values]] = {"ck": ck, "ck_mass30": ck_mass30, "ck_obj": ck_obj}
_CHANGE = "delta_entropy"
# Maps whose null is held at once: bounds the memory for long replies.
_BLOCK = 1024

SCORE_KEYS = (
    *(key + suffix for suffix in ("", _RN) for key in (*_SPARSITY, _G16)),
    *("hs", *_CLUSTERS, _CHANGE),
    *SPATIAL_KEYS,
    *(f"{key}_{part}" for key in NULL_KEYS for part in ("z", "p")),
)
"""The keys of `score_generation`, in order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Generation:
    """The stored maps of one `generate` call: n rows, one for each recorded step and layer, of M image tokens."""

    doc_id: int
    grids: tuple[tuple[int, int], ...]
    """Rows and columns of image tokens of each image."""
    steps: NDArray[np.int32]
    """(n,)."""
    layers: NDArray[np.int32]
    """(n,)."""
    eq1: Maps
    """A_eq1, (n, M)."""
    raw: Maps
    """A_raw, (n, M)."""
    visible: NDArray[np.int32]
    """Image tokens that each row could attend to, (n,)."""


def score_generation(
    generation: Generation, dots: DotSet | None, *, null: bool
) -> tuple[dict[str, Floats], list[str | None]]:
    """Score every map of a generation.

    Args:
        generation: n rows.
        dots: The dots of the task's documents; None where they are unknown.
        null: Whether to compare the spatial keys with their null: without it, its keys are NaN.

    Returns:
        The values by `SCORE_KEYS`, each (n,), NaN where undefined; and for each row why a group of keys is missing,
        None where none is.
    """
    n, m = generation.eq1.shape
    scores = {key: np.full(n, np.nan) for key in SCORE_KEYS}
    grid, grid_fault = _grid_of(generation)
    own, others, dots_fault = _dots_of(dots, generation.doc_id)
    sees_all = generation.visible == m
    seen = sees_all & _are_maps(generation.eq1)
    # What no head attends to has no renormalised mean.
    seen_rn = seen & _are_maps(generation.raw)

    for suffix, every, rows in (("", generation.eq1, seen), (_RN, generation.raw, seen_rn)):
        if rows.any():
            found = {key: metric(every[rows]) for key, metric in _SPARSITY.items()}
            if grid:
                found[_G16] = sparsity_g16(every[rows], height=grid[0], width=grid[1])
            _put(scores, {key + suffix: values for key, values in found.items()}, rows)
    if seen.any():
        maps = generation.eq1[seen]
        _put(scores, {"hs": hs(maps), _CHANGE: _entropy_changes(generation, seen)}, seen)
        if grid:
            _put(scores, {key: clusters(maps, grid=grid) for key, clusters in _CLUSTERS.items()}, seen)
            if own:
                _put(scores, _spatial(maps, own, others if null else (), grid=grid), seen)

    faults = (
        (~sees_all, "the layer does not see every image token"),
        (sees_all & ~seen, "the map is no distribution over two image tokens or more"),
        (seen & ~seen_rn, "the renormalised map is no distribution"),
        (seen, grid_fault),
        (seen, dots_fault),
        (seen, "no other document has dots" if null and own and not others else ""),
    )
    return scores, ["; ".join(why for rows, why in faults if why and rows[row]) or None for row in range(n)]


def _put(scores: Mapping[str, Floats], found: Mapping[str, Values], rows: Flags) -> None:
    for key, values in found.items():
        scores[key][rows] = values


def _are_maps(maps: Maps) -> Flags:
    """Which rows the metrics are defined on, (n,)."""
    sound = np.isfinite(maps).all(axis=1) & (maps >= 0).all(axis=1) & (maps > 0).any(axis=1)
    return np.asarray(sound & (maps.shape[1] > 1))


def _grid_of(generation: Generation) -> tuple[tuple[int, int] | None, str]:
    """The grid of the maps, or why they have none."""
    grids, m = generation.grids, generation.eq1.shape[1]
    if len(grids) != 1:
        return None, f"{len(grids)} images"
    if grids[0][0] * grids[0][1] != m:
        return None, f"{m} image tokens are no {grids[0][0]} x {grids[0][1]} grid"
    return grids[0], ""


def _dots_of(dots: DotSet | None, document: int) -> tuple[Dots | None, list[Dots], str]:
    """The dots of the document, those of the others of its null, or why there are none."""
    if dots is None:
        return None, [], "the task has no set of dots"
    own = dots[document]
    if own is None:
        return None, [], "the document has no dots"
    places = [place for place, one in enumerate(dots) if one]
    having = [one for one in dots if one]
    if len(having) == 1:
        return own, [], ""
    counts = [len(one.centers) for one in having]
    return own, [having[place] for place in choose_others(counts, places.index(document))], ""


def _entropy_changes(generation: Generation, seen: Flags) -> Floats:
    """H(l) - H(l-1) in nats of the rows seen, NaN where the layer before was not recorded or not seen."""
    places = list(zip(generation.steps[seen].tolist(), generation.layers[seen].tolist(), strict=True))
    entropies = dict(zip(places, np.atleast_1d(entropy_nats(generation.eq1[seen])).tolist(), strict=True))
    return np.array([entropies[step, layer] - entropies.get((step, layer - 1), np.nan) for step, layer in places])


def _spatial(maps: Maps, own: Dots, others: Sequence[Dots], *, grid: tuple[int, int]) -> dict[str, Values]:
    layout = layout_of(own, grid)
    scores = spatial_metrics(maps, layout)
    if others:
        layouts = [layout_of(other, grid) for other in others]
        blocks = [compare_with_null(maps[at : at + _BLOCK], layout, layouts) for at in range(0, len(maps), _BLOCK)]
        for key in NULL_KEYS:
            scores[f"{key}_z"] = np.concatenate([np.asarray(block[key].z) for block in blocks])
            scores[f"{key}_p"] = np.concatenate([np.asarray(block[key].p) for block in blocks])
    return scores
