"""Every metric of the maps of one generation, null where one is undefined, with the reason.

The map is A_eq1; keys with `_rn` are those of the renormalised head mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halo_probe.metrics.distributions import Values, distribution
from halo_probe.metrics.dots import Dots, layout_of
from halo_probe.metrics.null import NULL_KEYS, choose_others, compare_with_null
from halo_probe.metrics.pairs import score_pairs
from halo_probe.metrics.sparsity import head_entropy, head_sparsity, sparsity_family, sparsity_g16
from halo_probe.metrics.spatial import SPATIAL_KEYS
from halo_probe.metrics.structure import ck, ck_mass30, ck_obj, entropy_course, hs
from halo_probe.metrics.views import Box, View, find_whole_view
from halo_probe.score.dots import DotSet

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Maps = NDArray[np.float32]

_SPARSITY = ("sparsity", "sparsity_eq2", "sparsity_norm", "entropy", "kl_uniform")
_G16, _RN = "sparsity_g16", "_rn"
_HEADS: Mapping[str, Callable[[Maps], Values]] = {"head_sparsity": head_sparsity, "head_entropy": head_entropy}
_SINKS = ("visual_sinks", "visual_sink_share")
_CLUSTERS: Mapping[str, Callable[..., Values]] = {"ck": ck, "ck_mass30": ck_mass30, "ck_obj": ck_obj}
_CHANGE = "delta_entropy"
_COURSE = ("early_lock", "late_diffuse")
# Fewer layers have no first quarter.
_LEAST_LAYERS = 5
# Maps whose null is held at once: bounds the memory for long replies.
_BLOCK = 1024

SCORE_KEYS = (
    *(key + suffix for suffix in ("", _RN) for key in (*_SPARSITY, _G16)),
    *(*_HEADS, *_SINKS),
    *("hs", *_CLUSTERS, _CHANGE, *_COURSE),
    *SPATIAL_KEYS,
    *(f"{key}_{part}" for key in NULL_KEYS for part in ("z", "p")),
)
"""The keys of `score_generation`, in order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Generation:
    """The stored maps of one `generate` call: n rows, one for each recorded step and layer, of M image tokens."""

    doc_id: int
    views: tuple[View, ...]
    """In the order of the image tokens, which run row by row."""
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
    heads: Maps | None
    """The map of each head, (n, heads, M); None where it was not recorded."""
    visual_sinks: Flags | None
    """Which image tokens are visual sinks, (M,); None where it was not recorded."""


def score_generation(
    generation: Generation, dots: DotSet | None, *, null: bool, model_layers: int | None = None
) -> tuple[dict[str, Floats], list[str | None]]:
    """Score every map of a generation.

    Args:
        generation: n rows.
        dots: The dots of the task's documents; None where they are unknown.
        null: Whether to compare the spatial keys with their null: without it, its keys are NaN.
        model_layers: Number of layers of the model; None where it is unknown, and with it the course over the layers.

    Returns:
        The values by `SCORE_KEYS`, each (n,), NaN where undefined; and for each row why a group of keys is missing,
        None where none is.
    """
    n, m = generation.eq1.shape
    scores = {key: np.full(n, np.nan) for key in SCORE_KEYS}
    view, view_fault = find_whole_view(generation.views, tokens=m)
    own, others, dots_fault = _dots_of(dots, generation.doc_id)
    sees_all = generation.visible == m
    seen = sees_all & _are_maps(generation.eq1)
    # What no head attends to has no renormalised mean.
    seen_rn = seen & _are_maps(generation.raw)
    gridded = seen & _are_maps(generation.eq1[:, view.tokens]) if view else np.zeros(n, dtype=np.bool_)
    heads = generation.heads
    seen_heads = seen & _are_maps(heads).all(axis=1) if heads is not None else np.zeros(n, dtype=np.bool_)

    for suffix, every, rows in (("", generation.eq1, seen), (_RN, generation.raw, seen_rn)):
        if rows.any():
            _put(scores, {key + suffix: value for key, value in sparsity_family(every[rows]).items()}, rows)
        if view and (in_view := rows & _are_maps(every[:, view.tokens])).any():
            pooled = sparsity_g16(every[in_view][:, view.tokens], height=view.grid[0], width=view.grid[1])
            _put(scores, {_G16 + suffix: pooled}, in_view)
    if seen.any():
        maps = distribution(generation.eq1[seen])
        _put(scores, {"hs": hs(maps)}, seen)
        _put_course(scores, generation, model_layers)
        if generation.visual_sinks is not None:
            share = maps[:, generation.visual_sinks].sum(axis=1)
            _put(scores, dict(zip(_SINKS, (generation.visual_sinks.sum(), share), strict=True)), seen)
    if heads is not None and seen_heads.any():
        _put(scores, {key: metric(heads[seen_heads]) for key, metric in _HEADS.items()}, seen_heads)
    if view and gridded.any():
        maps = distribution(generation.eq1[gridded][:, view.tokens])
        _put(scores, {key: clusters(maps, grid=view.grid) for key, clusters in _CLUSTERS.items()}, gridded)
        if own and view.box:
            _put(scores, _spatial(maps, own, others if null else (), grid=view.grid, box=view.box), gridded)

    faults = (
        (~sees_all, "the layer does not see every image token"),
        (sees_all & ~seen, "the map is no distribution over two image tokens or more"),
        (seen & ~seen_rn, "the renormalised map is no distribution"),
        (seen & ~seen_heads, "" if heads is None else "the map of a head is no distribution"),
        (seen, view_fault),
        (seen & ~gridded, "no attention is on the view of the whole image" if view else ""),
        (seen, dots_fault),
        (seen, "no other document has dots" if null and own and not others else ""),
    )
    return scores, ["; ".join(why for rows, why in faults if why and rows[row]) or None for row in range(n)]


def _put(scores: Mapping[str, Floats], found: Mapping[str, Values], rows: Flags) -> None:
    for key, values in found.items():
        scores[key][rows] = values


def _are_maps(maps: Maps) -> Flags:
    """Which maps the metrics are defined on, (...)."""
    sound = np.isfinite(maps).all(axis=-1) & (maps >= 0).all(axis=-1) & (maps > 0).any(axis=-1)
    return np.asarray(sound & (maps.shape[-1] > 1))


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


def _put_course(scores: Mapping[str, Floats], generation: Generation, model_layers: int | None) -> None:
    """Changes of the entropy from each layer to the next, and what they make up, in every row of a step.

    Both are NaN where a layer was not recorded or not seen.
    """
    nats = np.log(generation.eq1.shape[1]) - scores["kl_uniform"]
    for step in np.unique(generation.steps):
        (rows,) = np.nonzero(generation.steps == step)
        layers = generation.layers[rows]
        follows = np.flatnonzero(np.diff(layers) == 1) + 1
        scores[_CHANGE][rows[follows]] = nats[rows[follows]] - nats[rows[follows - 1]]
        complete = len(rows) == model_layers and len(rows) >= _LEAST_LAYERS and (layers == np.arange(len(rows))).all()
        if complete and np.isfinite(nats[rows]).all():
            course = entropy_course(nats[rows])
            for key in _COURSE:
                scores[key][rows] = getattr(course, key)


def _spatial(maps: Floats, own: Dots, others: Sequence[Dots], *, grid: tuple[int, int], box: Box) -> dict[str, Values]:
    layout = layout_of(own, grid, box)
    scores: dict[str, Values] = {}
    if others:
        layouts = [layout_of(other, grid, box) for other in others]
        blocks = [compare_with_null(maps[at : at + _BLOCK], layout, layouts) for at in range(0, len(maps), _BLOCK)]
        for key in NULL_KEYS:
            for name, part in ((key, "value"), (f"{key}_z", "z"), (f"{key}_p", "p")):
                scores[name] = np.concatenate([np.asarray(getattr(block[key], part)) for block in blocks])
    left = [key for key in SPATIAL_KEYS if key not in scores]
    return scores | {key: values[:, 0] for key, values in score_pairs(maps, [layout], keys=left).items()}
