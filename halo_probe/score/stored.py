"""Scoring the maps of a run part by part."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from halo_probe.archive.reading import DamagedPartError, StoredCall, open_part
from halo_probe.archive.scores import SCORES_SCHEMA
from halo_probe.metrics.consistency import CONSISTENCY_KEYS
from halo_probe.metrics.dots import Dots
from halo_probe.metrics.null import choose_others
from halo_probe.score.dots import DotSet
from halo_probe.score.scorer import DotsShown, score_generation

Layers = Literal["all", "last"]


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What maps are scored with that is not in them."""

    dots: Mapping[str, DotSet]
    """The dots of the documents of each task that has them."""
    model_layers: int | None
    """Number of layers of the model; None where the run does not say."""
    consistency: Mapping[tuple[str, int], Mapping[str, float]]
    """`CONSISTENCY_KEYS` by task and document; empty for one that was answered once."""
    layers: Layers
    """Which of the recorded layers are scored; `last` is that with the highest index."""
    null: bool
    """Whether to compare with the null."""


def use_one_thread() -> None:
    """Let a process that scores have one thread of BLAS, or processes wait for each other's."""
    threadpool_limits(1)


def score_part(path: Path, circumstances: Circumstances) -> pa.Table:
    """Score the maps of one part.

    Args:
        path: A file of maps.
        circumstances: What else the scores depend on.

    Returns:
        A row for each map that was scored, in their order, of `SCORES_SCHEMA`.

    Raises:
        DamagedPartError: If the part is not what was written, or has a document that its set does not have.
    """
    calls = open_part(path).calls(heads=True)
    scored = [_score(call, circumstances, path=path) for call in calls]
    return pa.concat_tables([SCORES_SCHEMA.empty_table(), *scored])


def _score(stored: StoredCall, circumstances: Circumstances, *, path: Path) -> pa.Table:
    (task, document, _), generation = stored.key, stored.generation
    of_task = circumstances.dots.get(task)
    if of_task is not None and not 0 <= document < len(of_task):
        raise DamagedPartError(path, f"{task} has {len(of_task)} documents, and none is {document}")
    indices = [layer.index for layer in generation.layers]
    places = [indices.index(max(indices))] if circumstances.layers == "last" else list(range(len(indices)))
    scores = score_generation(
        generation,
        _dots_of(of_task, document, null=circumstances.null),
        layers=places,
        model_layers=circumstances.model_layers,
    )
    steps, layers = len(generation.token_ids), [generation.layers[place] for place in places]
    n = steps * len(layers)
    agreed = circumstances.consistency.get((task, document), {})
    columns = {
        **{name: [value] * n for name, value in zip(("task", "doc_id", "repeat"), stored.key, strict=True)},
        "call": [stored.call] * n,
        "step": np.repeat(np.arange(steps), len(layers)),
        "layer": [layer.index for layer in layers] * steps,
        "layer_type": [layer.type for layer in layers] * steps,
        "end": np.repeat(np.arange(steps) >= generation.content_steps.stop, len(layers)),
        "image_tokens": np.full(n, generation.image_tokens),
        "visual_mass": generation.visual_mass[:, places].ravel(),
        "first_mass": generation.first_mass[:, places].ravel(),
        **{key: pa.array(values, from_pandas=True) for key, values in scores.values.items()},  # NaN is null
        **{key: [agreed.get(key)] * n for key in CONSISTENCY_KEYS},
        "reason": scores.reasons,
    }
    return pa.table({name: columns[name] for name in SCORES_SCHEMA.names}).cast(SCORES_SCHEMA)


def _dots_of(dots: DotSet | None, document: int, *, null: bool) -> DotsShown:
    """The dots of the document and those of the others of its null, or why there are none."""
    if dots is None:
        return DotsShown(None, fault="the task has no set of dots")
    own = dots[document]
    if own is None:
        return DotsShown(None, fault="the document has no dots")
    if not null:
        return DotsShown(own)
    others = _others(dots, document)
    return DotsShown(own, others, "" if others else "no other document has dots")


def _others(dots: DotSet, document: int) -> list[Dots]:
    places = [place for place, one in enumerate(dots) if one]
    having = [one for one in dots if one]
    if len(having) == 1:
        return []
    counts = [len(one.centers) for one in having]
    return [having[place] for place in choose_others(counts, places.index(document))]
