"""The stored maps of a run, document by document, in the form in which the page loads them.

A map is a byte for each image token, on a logarithmic scale of its own: code 0 is a weight below `FLOOR` times the mean
weight, codes 1 to 255 run in equal ratios from there to the largest weight of the map, its peak. A weight is then
within 3 % of what was stored as long as the peak is below 10 000 times the mean.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from halo_probe.errors import HaloError, first_line

FLOOR = 0.01
"""The smallest weight that is told apart, in multiples of the mean weight of the map."""

_RATIOS = 254  # between codes 1 and 255
_DOCUMENT = ["task", "doc_id"]
_COLUMNS = [
    *(*_DOCUMENT, "repeat", "call", "step", "token_text", "end", "layer", "layer_type"),
    *("grid", "map_eq1", "visual_mass"),
]
_LATER_COLUMNS = ["view_image", "view_box"]  # earlier versions wrote no views
_WHOLE_IMAGE = [0, 0, 1, 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentMaps:
    """The maps of the first answer to a document: S steps, L layers, M image tokens."""

    task: str
    doc_id: int
    places: tuple[tuple[int, int], ...]
    """Step and layer of each map, (S L)."""
    payload: dict[str, Any]
    """What the page loads, ready for JSON: the lists `mass` and `peaks` are as long as `places`, null where undefined;
    `codes` is base64 of S L M bytes."""


def read_maps(folder: Path, *, layers: Sequence[int]) -> Iterator[DocumentMaps]:
    """Read the maps of the first answer and its first call of every document, in the order in which they are stored.

    Args:
        folder: The folder of the parts.
        layers: The layers to read.

    Raises:
        HaloError: If a part cannot be read, or lacks rows.
    """
    for part in sorted(folder.glob("part-*.parquet")):
        table = _read(part)
        calls = {
            (row["task"], row["doc_id"]): row["call_max"] + 1
            for row in table.group_by(_DOCUMENT).aggregate([("call", "max")]).to_pylist()
        }
        wanted = (pc.field("repeat") == 0) & (pc.field("call") == 0) & pc.field("layer").isin(layers)
        table = table.filter(wanted).combine_chunks()
        start = 0
        for (task, doc_id), same in groupby(zip(*(table[name].to_pylist() for name in _DOCUMENT), strict=True)):
            rows = table.slice(start, len(list(same)))
            start += rows.num_rows
            try:
                yield _document(rows, task=task, doc_id=doc_id, calls=calls[task, doc_id])
            except ValueError as error:
                raise HaloError(
                    f"{part}: the maps of {task}, document {doc_id}, are damaged ({error}); "
                    "remove the part, or run the evaluation again."
                ) from None


def quantize(maps: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Give every weight of every map a byte.

    Args:
        maps: Weights, (n, M), any positive scale.

    Returns:
        Codes, (n, M), and the peak of each map in multiples of its mean weight, (n,): NaN, with codes of 0, for a map
        that is not finite or all zero.
    """
    weights = np.asarray(maps, dtype=np.float32)
    mean = weights.mean(axis=1, keepdims=True)
    defined = np.isfinite(mean) & (mean > 0)
    weights = np.divide(weights, mean, out=np.zeros_like(weights), where=defined)
    peaks = weights.max(axis=1, keepdims=True)
    ratios = np.log(np.maximum(weights, FLOOR) / FLOOR) / np.log(np.maximum(peaks, 1) / FLOOR)
    codes = np.where(weights < FLOOR, 0, 1 + np.rint(_RATIOS * ratios)).astype(np.uint8)
    return codes, np.where(defined, peaks, np.nan)[:, 0]


def rounded(values: ArrayLike) -> list[float | None]:
    """Four significant digits, None for NaN: what a page needs of a number."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64)]


def _read(part: Path) -> pa.Table:
    try:
        file = pq.ParquetFile(part, page_checksum_verification=True)
        names = file.schema_arrow.names
        if missing := [name for name in _COLUMNS if name not in names]:
            raise HaloError(f"{part}: has no column {missing[0]}, so it holds no maps of a run; remove it.")
        return file.read([name for name in (*_COLUMNS, *_LATER_COLUMNS) if name in names])
    except (pa.ArrowException, OSError) as error:
        raise HaloError(
            f"{part}: cannot be read, or only half of it ({first_line(error)}); remove it, or run the evaluation again."
        ) from None


def _document(rows: pa.Table, *, task: str, doc_id: int, calls: int) -> DocumentMaps:
    """Raises ValueError where the rows are no S x L maps of the grids' M image tokens, in this order."""
    places = tuple(zip(rows["step"].to_pylist(), rows["layer"].to_pylist(), strict=True))
    layers = dict(zip(rows["layer"].to_pylist(), rows["layer_type"].to_pylist(), strict=True))
    starts = range(0, rows.num_rows, len(layers))
    steps = rows.take(pa.array(starts, pa.int64()))
    if places != tuple((step, layer) for step in steps["step"].to_pylist() for layer in layers):
        raise ValueError(f"{len(places)} rows are not {len(starts)} steps of {len(layers)} layers")
    maps = np.asarray(pc.list_flatten(rows["map_eq1"])).reshape(rows.num_rows, -1)
    views = _views(steps.slice(0, 1).to_pylist()[0])
    if views and sum(view["height"] * view["width"] for view in views) != maps.shape[1]:
        raise ValueError(f"{maps.shape[1]} image tokens do not fit their grids")
    codes, peaks = quantize(maps)
    return DocumentMaps(
        task=task,
        doc_id=doc_id,
        places=places,
        payload={
            "calls": calls,
            "views": views,
            "tokens": maps.shape[1],
            "steps": [list(step) for step in zip(*(steps[c].to_pylist() for c in ("token_text", "end")), strict=True)],
            "layers": [list(layer) for layer in layers.items()],
            "mass": rounded(rows["visual_mass"].to_numpy()),
            "peaks": rounded(peaks),
            "codes": b64encode(codes.tobytes()).decode("ascii"),
        },
    )


def _views(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Each grid with the image, from 0, and the part of the image that it covers; null where that is not known."""
    grids = row["grid"] or []
    images = row.get("view_image") or range(len(grids))
    boxes = row.get("view_box") or [_WHOLE_IMAGE] * len(grids)
    return [
        {
            "image": image,
            "height": height,
            "width": width,
            "box": [round(edge, 6) for edge in box] if np.isfinite(box).all() else None,
        }
        for (height, width), image, box in zip(grids, images, boxes, strict=True)
    ]
