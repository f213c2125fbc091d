"""The stored maps of runs, with the images they belong to: what heatmaps and profiles are drawn from.

A map is A_eq1 on the finest view that shows the whole image; documents without such a view have no map here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from PIL import Image

from dataset_builder.errors import DatasetError
from halo_probe.compare.runs import Run
from halo_probe.errors import HaloError, NothingToDrawError, UsageError, first_line
from halo_probe.metrics.dots import DOTS_COLUMNS, Dots, dots_of
from halo_probe.metrics.views import WHOLE, Box, find_whole_view
from halo_probe.score.dots import SetSeen, find_set, load_seen

Maps = NDArray[np.float32]

_COLUMNS = ["doc_id", "step", "layer", "layer_type", "token_text", "end", "grid", "map_eq1", "visible"]
_VIEWS = ["view_image", "view_box"]


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


class _View(NamedTuple):
    image: int
    height: int
    width: int
    box: Box


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
        HaloError: If a part cannot be read.
    """
    parts = sorted((run.folder / "halo").glob("part-*.parquet"))
    if not parts:
        raise NothingToDrawError(f"{run.label}: holds no maps; evaluate with --model halo and --output_path")
    wanted = (ds.field("task") == task) & ds.field("doc_id").isin(list(documents)) & ~ds.field("end")
    wanted &= (ds.field("repeat") == 0) & (ds.field("call") == 0)
    for name, values in (("layer", layers), ("step", steps)):
        if values:
            wanted &= ds.field(name).isin(list(values))
    try:
        stored = ds.dataset(parts)
        columns = [*_COLUMNS, *(name for name in _VIEWS if name in stored.schema.names)]
        rows = stored.to_table(columns=columns, filter=wanted).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise HaloError(
            f"{run.folder / 'halo'}: cannot be read ({first_line(error)}); run the evaluation again."
        ) from None
    found = [one for one in map(_stored_map, rows) if one]
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


def _stored_map(row: dict[str, Any]) -> StoredMap | None:
    if row["visible"] != len(row["map_eq1"]) or not np.isfinite(row["map_eq1"]).all():
        return None
    grids = row["grid"]
    # Runs of before there were views have one whole image for each grid.
    images, boxes = row.get("view_image") or range(len(grids)), row.get("view_box") or [WHOLE] * len(grids)
    views = [
        _View(image, height, width, tuple(box))
        for image, (height, width), box in zip(images, grids, boxes, strict=True)
    ]
    whole, _ = find_whole_view(views, tokens=len(row["map_eq1"]))
    if whole is None or whole.box is None:  # what is drawn has a place in the image
        return None
    return StoredMap(
        **{key: row[key] for key in ("doc_id", "step", "layer", "layer_type")},
        token=row["token_text"],
        weights=np.asarray(row["map_eq1"][whole.tokens], dtype=np.float32).reshape(whole.grid),
        box=whole.box,
    )
