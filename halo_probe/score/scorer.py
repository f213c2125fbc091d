"""The one scorer: metrics of recorded maps, while a run goes on and of its files; NaN where undefined, with the reason.

The map is A_eq1; keys with `_rn` are those of the renormalised head mean.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from halo_probe.archive.generation import Generation
from halo_probe.metrics.distributions import Values, distribution
from halo_probe.metrics.dots import Dots, layout_of
from halo_probe.metrics.keys import MAP_KEYS
from halo_probe.metrics.null import NULL_KEYS, compare_with_null
from halo_probe.metrics.pairs import score_pairs
from halo_probe.metrics.sparsity import head_entropy, head_sparsity, sparsity_family, sparsity_g16
from halo_probe.metrics.spatial import SPATIAL_KEYS
from halo_probe.metrics.structure import ck, ck_mass30, ck_obj, entropy_course, hs
from halo_probe.metrics.views import Box, WholeView, find_whole_view

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Maps = NDArray[np.float32]

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


class DotsShown(NamedTuple):
    """The dots of a document, and those of other documents."""

    own: Dots | None
    """None where the document has none."""
    others: Sequence[Dots] = ()
    """Of the null; empty for no comparison with it."""
    fault: str = ""
    """Why there is none, or no other."""


class Scores(NamedTuple):
    """The metrics of maps, step after step and layer after layer: n = T x L of them."""

    values: Mapping[str, Floats]
    """By key, each (n,), NaN where undefined."""
    reasons: Sequence[str | None]
    """For each map, why a group of keys is undefined; None where none is."""


def score_generation(
    generation: Generation,
    dots: DotsShown,
    *,
    keys: Collection[str] = MAP_KEYS,
    layers: Sequence[int] | None = None,
    model_layers: int | None = None,
) -> Scores:
    """Score the maps of a generation.

    Args:
        generation: T steps and L layers.
        dots: Those of the document.
        keys: Which of `MAP_KEYS`.
        layers: Places among the recorded layers; None for all.
        model_layers: Number of layers of the model; None where it is unknown, and with it the course over the layers.
    """
    places = list(range(len(generation.layers))) if layers is None else list(layers)
    m = generation.image_tokens
    eq1, raw = (maps[:, places].reshape(-1, m) for maps in (generation.eq1, generation.raw))
    heads = None if generation.heads is None else generation.heads[:, places].reshape(len(eq1), -1, m)
    scores = {key: np.full(len(eq1), np.nan) for key in keys}
    view, view_fault = find_whole_view(generation.views, tokens=m)
    sees_all = generation.visible[:, places].ravel() == m
    seen = sees_all & _are_maps(eq1)
    # What no head attends to has no renormalised mean.
    seen_rn = seen & _are_maps(raw)
    gridded = seen & _are_maps(eq1[:, view.tokens]) if view else np.zeros(len(eq1), dtype=np.bool_)
    seen_heads = seen & _are_maps(heads).all(axis=1) if heads is not None else np.zeros(len(eq1), dtype=np.bool_)

    for suffix, every, rows in (("", eq1, seen), (_RN, raw, seen_rn)):
        _put_sparsity(scores, every, rows, suffix=suffix, view=view)
    if seen.any():
        maps = distribution(eq1[seen])
        if "hs" in scores:
            _put(scores, {"hs": hs(maps)}, seen)
        if _CHANGE in scores:
            indices = [generation.layers[place].index for place in places]
            _put_course(scores, np.log(m) - scores["kl_uniform"], indices, model_layers)
        if generation.sink_tokens is not None:
            share = maps[:, generation.sink_tokens].sum(axis=1)
            _put(scores, dict(zip(_SINKS, (generation.sink_tokens.sum(), share), strict=True)), seen)
    if heads is not None and seen_heads.any():
        _put(scores, {key: metric(heads[seen_heads]) for key, metric in _HEADS.items() if key in scores}, seen_heads)
    if view and gridded.any():
        maps = distribution(eq1[gridded][:, view.tokens])
        found = {key: metric(maps, grid=view.grid) for key, metric in _CLUSTERS.items() if key in scores}
        _put(scores, found, gridded)
        if dots.own and view.box:
            _put(scores, _spatial(maps, dots, grid=view.grid, box=view.box, keys=keys), gridded)

    faults = (
        (~sees_all, "the layer does not see every image token"),
        (sees_all & ~seen, "the map is no distribution over two image tokens or more"),
        (seen & ~seen_rn, "the renormalised map is no distribution"),
        (seen & ~seen_heads, "" if heads is None else "the map of a head is no distribution"),
        (seen, view_fault),
        (seen & ~gridded, "no attention is on the view of the whole image" if view else ""),
        (seen, dots.fault),
    )
    reasons = ["; ".join(why for rows, why in faults if why and rows[row]) or None for row in range(len(eq1))]
    return Scores(scores, reasons)


def _put(scores: Mapping[str, Floats], found: Mapping[str, Values], rows: Flags) -> None:
    for key, values in found.items():
        if key in scores:
            scores[key][rows] = values


def _put_sparsity(
    scores: Mapping[str, Floats], every: Maps, rows: Flags, *, suffix: str, view: WholeView | None
) -> None:
    """Sparsity and entropy of all image tokens, and on a common grid of those of the view of the whole image."""
    if rows.any():
        _put(scores, {key + suffix: value for key, value in sparsity_family(every[rows]).items()}, rows)
    if view and _G16 + suffix in scores and (in_view := rows & _are_maps(every[:, view.tokens])).any():
        pooled = sparsity_g16(every[in_view][:, view.tokens], height=view.grid[0], width=view.grid[1])
        _put(scores, {_G16 + suffix: pooled}, in_view)


def _are_maps(maps: Maps) -> Flags:
    """Which maps the metrics are defined on, (...)."""
    sound = np.isfinite(maps).all(axis=-1) & (maps >= 0).all(axis=-1) & (maps > 0).any(axis=-1)
    return np.asarray(sound & (maps.shape[-1] > 1))


def _put_course(scores: Mapping[str, Floats], nats: Floats, layers: Sequence[int], model_layers: int | None) -> None:
    """Changes of the entropy from each layer to the next, and what they make up, in every map of a step.

    Both are NaN where a layer was not recorded or not seen.
    """
    follows = np.flatnonzero(np.diff(layers) == 1) + 1
    complete = len(layers) == model_layers and len(layers) >= _LEAST_LAYERS and layers == list(range(len(layers)))
    for start in range(0, len(nats), len(layers)):
        rows = np.arange(start, start + len(layers))
        scores[_CHANGE][rows[follows]] = nats[rows[follows]] - nats[rows[follows - 1]]
        if complete and np.isfinite(nats[rows]).all():
            course = entropy_course(nats[rows])
            for key in _COURSE:
                scores[key][rows] = getattr(course, key)


def _spatial(
    maps: Floats, dots: DotsShown, *, grid: tuple[int, int], box: Box, keys: Collection[str]
) -> dict[str, Values]:
    assert dots.own is not None
    layout = layout_of(dots.own, grid, box)
    scores: dict[str, Values] = {}
    if dots.others:
        layouts = [layout_of(other, grid, box) for other in dots.others]
        blocks = [compare_with_null(maps[at : at + _BLOCK], layout, layouts) for at in range(0, len(maps), _BLOCK)]
        for key in NULL_KEYS:
            for name, part in ((key, "value"), (f"{key}_z", "z"), (f"{key}_p", "p")):
                scores[name] = np.concatenate([np.asarray(getattr(block[key], part)) for block in blocks])
    left = [key for key in SPATIAL_KEYS if key in keys and key not in scores]
    return scores | {key: values[:, 0] for key, values in score_pairs(maps, [layout], keys=left).items()}
