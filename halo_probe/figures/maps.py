"""The stored maps of runs, with the images they belong to: what heatmaps and profiles are drawn from.

A map is A_eq1 on the finest view that shows the whole image; documents without such a view have no map here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset_builder.errors import DatasetError
from halo_probe.archive.reading import StoredCall
from halo_probe.archive.runs import Run
from halo_probe.errors import NothingToDrawError, UsageError
from halo_probe.metrics.dots import DOTS_COLUMNS, Dots, dots_of
from halo_probe.metrics.views import Box, find_whole_view
from halo_probe.score.dots import SetSeen, find_set, load_seen

Maps = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredMap:
    """One map: of a document, generation step and layer."""

    doc_id: int
    step: int
    token: str
    layer: int
    layer_type: str
    weights: Maps
    """(h, w), each at least 0; they sum to 1 where the model is shown no other view."""
    box: Box
    """The part of the image that they cover: all of it, and more where it is padded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """The image of a document, as its set has it."""

    image: Image.Image
    dots: Dots | None
    """None where it has none."""


def read_maps(
    run: Run, task: str, *, documents: Sequence[int], layers: Sequence[int] = (), steps: Sequence[int] = ()
) -> list[StoredMap]:
    """The maps of the first call on documents of a task, in the order of the run; the end-of-sequence step left out.

    A layer that does not see every image token, or from which they were hidden, has no map.

    Args:
        run: The run.
        task: Name of the task.
        documents: Their `doc_id`.
        layers: Which layers; all recorded ones where empty.
        steps: Which generation steps; all where empty.

    Raises:
        NothingToDrawError: If the run holds no such map; the message says why.
        DamagedPartError: If a part is not what was written.
    """
    if not run.maps.parts:
        raise NothingToDrawError(f"{run.label}: holds no maps; evaluate with --model halo and --output_path")
    calls = run.maps.calls(task=task, documents=documents, layers=layers or None)
    found = [one for call in calls for one in _maps_of(call, steps)]
    if not found:
        raise NothingToDrawError(
            f"{run.label}, {task}: no map of {len(documents)} documents shows one whole image, all seen, on one grid"
        )
    return found


def read_picture(run: Run, task: str, document: int) -> Picture:
    """The image of a document.

    Raises:
        NothingToDrawError: If the task has no set of this package, it is not at hand as the run saw it, or it has no
            such document.
    """
    rows = _rows(_set_of(run, task))
    if document >= len(rows):
        raise NothingToDrawError(
            f"{run.label}, {task}: the set has {len(rows)} images, and none of document {document}"
        )
    row = rows[document]
    return Picture(image=row["image"], dots=dots_of(row))


def read_dots(run: Run, task: str) -> list[Dots | None]:
    """The dots of all documents of a task; None where one has none. Raises as `read_picture` does."""
    return list(map(dots_of, _rows(_set_of(run, task)).select_columns(list(DOTS_COLUMNS))))


def _set_of(run: Run, task: str) -> SetSeen:
    seen = find_set(task, run.signature, run.results["configs"]) if run.signature else None
    if seen is None:
        raise NothingToDrawError(f"{run.label}: the images of {task} are of no set of this package")
    return seen


@lru_cache(maxsize=4)
def _rows(seen: SetSeen) -> Any:
    try:
        return load_seen(seen)
    except (UsageError, DatasetError) as error:  # other figures need no images
        raise NothingToDrawError(str(error)) from error


def _maps_of(stored: StoredCall, steps: Sequence[int]) -> Iterator[StoredMap]:
    """The maps of a call on the view of the whole image; none where there is no such view."""
    generation, (_, document, _) = stored.generation, stored.key
    whole, _ = find_whole_view(generation.views, tokens=generation.image_tokens)
    if whole is None or whole.box is None:  # what is drawn has a place in the image
        return
    for step in generation.content_steps:
        if steps and step not in steps:
            continue
        for place, layer in enumerate(generation.layers):
            weights = generation.eq1[step, place]
            if generation.visible[step, place] == weights.size and np.isfinite(weights).all():
                yield StoredMap(
                    doc_id=document,
                    step=step,
                    token=stored.pieces[step],
                    layer=layer.index,
                    layer_type=layer.type,
                    weights=weights[whole.tokens].reshape(whole.grid),
                    box=whole.box,
                )
