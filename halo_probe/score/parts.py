"""Reading the maps of a run, part by part, and scoring them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from halo_probe.errors import HaloError, UsageError, first_line
from halo_probe.metrics.consistency import CONSISTENCY_KEYS
from halo_probe.metrics.views import WHOLE, Box
from halo_probe.score.dots import DotSet
from halo_probe.score.generations import SCORE_KEYS, Generation, score_generation

Layers = Literal["all", "last"]

# As in halo_probe.archive.maps, which would load torch into every process.
_SIGNATURE_KEY = b"halo_probe"
_ANSWERS_KEY = b"halo_answers"
_ANSWER = ["task", "doc_id", "repeat"]
_GENERATION = (*_ANSWER, "call")
_ROW = ("step", "layer", "layer_type", "end", "visual_mass")
_MAPS = ("grid", "map_eq1", "map_raw", "visible")
# Not in every run, or not in every row of it.
_OPTIONAL_ROW = ("first_mass",)
_OPTIONAL = (*_OPTIONAL_ROW, "view_image", "view_box", "map_heads", "sink_tokens")

SCORES_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("repeat", pa.int32()),
        ("call", pa.int32()),
        ("step", pa.int32()),
        ("layer", pa.int32()),
        ("layer_type", pa.string()),
        ("end", pa.bool_()),  # the end-of-sequence token, which means over tokens leave out
        ("image_tokens", pa.int32()),  # M
        ("visual_mass", pa.float32()),
        ("first_mass", pa.float32()),  # on the first token of the prompt
        *((key, pa.float64()) for key in (*SCORE_KEYS, *CONSISTENCY_KEYS)),
        ("reason", pa.string()),  # why a group of keys is null
    ]
)


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


def read_signature(parts: Sequence[Path]) -> dict[str, Any]:
    """The signature of the run that the parts are of.

    Raises:
        HaloError: If a part cannot be read.
        UsageError: If one holds no maps, or those of another run.
    """
    signatures = [_signature(part) for part in parts]
    for part, signature in zip(parts, signatures, strict=True):
        if signature != signatures[0]:
            raise UsageError(f"{part}: is of another run than {parts[0].name}; keep one run in a folder.")
    return signatures[0]


def _signature(part: Path) -> dict[str, Any]:
    schema = _open(part).schema_arrow
    missing = {*_GENERATION, *_ROW, *_MAPS} - {*schema.names}
    signature = (schema.metadata or {}).get(_SIGNATURE_KEY)
    if missing or signature is None:
        raise UsageError(f"{part}: holds no maps of a run; give the --output_path of a run with --model halo.")
    fields = _parse(part, signature)
    if not _is_signature(fields):
        raise _damaged(part, "its signature does not say which tasks the run had")
    return dict(fields)


def _is_signature(fields: Any) -> bool:
    """Whether the fields are there that scores depend on."""
    if not isinstance(fields, dict) or not all(isinstance(fields.get(name), dict) for name in ("model", "tasks")):
        return False
    tasks = fields["tasks"].values()
    return all(isinstance(task, dict) and isinstance(task.get("dataset_sha256"), str) for task in tasks)


def read_answers(part: Path) -> Iterator[tuple[str, int, Any]]:
    """Task, document and text of each answer whose maps a part holds; none where it keeps no answers.

    Raises:
        HaloError: If the part cannot be read.
    """
    yield from ((task, document, text) for (task, document, _), text in _answers(part, _open(part)).items())


def _answers(part: Path, file: pq.ParquetFile) -> dict[tuple[str, int, int], Any]:
    """The text of each answer, by task, document and repeat."""
    stored = _parse(part, (file.schema_arrow.metadata or {}).get(_ANSWERS_KEY, b"[]"))
    try:
        return {(task, document, repeat): answer["text"] for task, document, repeat, answer in stored}
    except (TypeError, ValueError, KeyError):
        raise _damaged(part, "its answers are no list of documents with a text each") from None


def _parse(part: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _damaged(part, error) from None


def use_one_thread() -> None:
    """Let a process that scores have one thread of BLAS, or processes wait for each other's."""
    threadpool_limits(1)


def score_part(part: Path, circumstances: Circumstances) -> pa.Table:
    """Score the maps of one part.

    Args:
        part: A file of maps.
        circumstances: What else the scores depend on.

    Returns:
        A row for each row of maps that was scored, in their order, of `SCORES_SCHEMA`.

    Raises:
        HaloError: If the part cannot be read.
    """
    try:
        table = _read(part)
        scored = [_score(rows, circumstances) for rows in _generations(table, circumstances.layers)]
        _require_answers(part, table)
    except _InconsistentRowsError as error:
        raise _damaged(part, error) from None
    return pa.concat_tables([SCORES_SCHEMA.empty_table(), *scored])


class _InconsistentRowsError(ValueError):
    """Rows that no run writes."""


def _open(part: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(part, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part, error) from None


def _read(part: Path) -> pa.Table:
    try:
        file = _open(part)
        optional = [name for name in _OPTIONAL if name in file.schema_arrow.names]
        table = file.read([*_GENERATION, *_ROW, *_MAPS, *optional]).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part, error) from None
    if empty := [name for name in (*_GENERATION, "step", "layer", *_MAPS) if table[name].null_count]:
        raise _damaged(part, f"{empty[0]} is missing in a row")
    return table


def _require_answers(part: Path, table: pa.Table) -> None:
    """Refuse maps whose answer is not beside them: an interrupted run left them, and another part may have them too.

    Raises:
        _InconsistentRowsError: If there are some; parts of before there were answers have none.
    """
    file = _open(part)
    if _ANSWERS_KEY not in (file.schema_arrow.metadata or {}):
        return
    documents = table.group_by(_ANSWER).aggregate([]).select(_ANSWER).to_pylist()
    if unanswered := {tuple(one.values()) for one in documents} - _answers(part, file).keys():
        task, document, _ = min(unanswered)
        raise _InconsistentRowsError(f"it holds maps of {task} {document} without its answer")


def _damaged(part: Path, error: Exception | str) -> HaloError:
    return HaloError(
        f"{part}: cannot be read, or only half of it ({first_line(error)}); remove it, or run the evaluation again."
    )


def _generations(table: pa.Table, layers: Layers) -> Iterator[pa.Table]:
    """The rows of each `generate` call, which stand together."""
    start = 0
    for _, same in groupby(zip(*(table[name].to_pylist() for name in _GENERATION), strict=True)):
        rows = table.slice(start, len(list(same)))
        start += rows.num_rows
        layer = rows["layer"].to_numpy()
        yield rows.filter(pa.array(layer == layer.max())) if layers == "last" else rows


def _score(rows: pa.Table, circumstances: Circumstances) -> pa.Table:
    n = rows.num_rows
    task, document = rows["task"][0].as_py(), rows["doc_id"][0].as_py()
    maps = _stacked(rows, "map_eq1")
    m = maps.shape[1]
    raw = _stacked(rows, "map_raw")
    heads = None if _first(rows, "map_heads") is None else _stacked(rows, "map_heads")
    sinks = _first(rows, "sink_tokens")
    if raw.shape[1] != m or (heads is not None and heads.shape[1] % m) or (sinks is not None and len(sinks) != m):
        raise _InconsistentRowsError(f"{task} {document} has maps of different numbers of image tokens")
    dots = circumstances.dots.get(task)
    if dots is not None and not 0 <= document < len(dots):
        raise _InconsistentRowsError(f"{task} has {len(dots)} documents, and none is {document}")
    generation = Generation(
        doc_id=document,
        views=_views(rows),
        steps=rows["step"].to_numpy(),
        layers=rows["layer"].to_numpy(),
        eq1=maps,
        raw=raw,
        visible=rows["visible"].to_numpy(),
        heads=None if heads is None else heads.reshape(n, -1, m),
        visual_sinks=None if sinks is None else np.array(sinks, dtype=np.bool_),
    )
    scores, reasons = score_generation(
        generation, dots, null=circumstances.null, model_layers=circumstances.model_layers
    )
    agreed = circumstances.consistency.get((task, document), {})
    columns = {
        **{name: rows[name] for name in (*_GENERATION, *_ROW)},
        **{name: rows[name] if name in rows.column_names else pa.nulls(n) for name in _OPTIONAL_ROW},
        "image_tokens": np.full(n, m),
        **{key: pa.array(values, from_pandas=True) for key, values in scores.items()},  # NaN is null
        **{key: [agreed.get(key)] * n for key in CONSISTENCY_KEYS},
        "reason": reasons,
    }
    return pa.table({name: columns[name] for name in SCORES_SCHEMA.names}).cast(SCORES_SCHEMA)


def _first(rows: pa.Table, name: str) -> Any:
    """The value in the first row of a column; None where there is no such column."""
    return rows[name][0].as_py() if name in rows.column_names else None


class _View(NamedTuple):
    image: int
    height: int
    width: int
    box: Box


def _views(rows: pa.Table) -> tuple[_View, ...]:
    grids = _first(rows, "grid")
    images = _first(rows, "view_image")
    # Runs of before there were views have one whole image for each grid.
    images, boxes = (range(len(grids)), [WHOLE] * len(grids)) if images is None else (images, _first(rows, "view_box"))
    try:
        return tuple(
            _View(image, height, width, (left, top, right, bottom))
            for image, (height, width), (left, top, right, bottom) in zip(images, grids, boxes, strict=True)
        )
    except (TypeError, ValueError):
        raise _InconsistentRowsError("view_image and view_box are not those of each grid") from None


def _stacked(rows: pa.Table, name: str) -> NDArray[np.float32]:
    """(rows, weights).

    Raises:
        _InconsistentRowsError: If the rows have different numbers of them, or none.
    """
    lengths = set(pc.list_value_length(rows[name]).to_pylist())
    if len(lengths) != 1 or not all(lengths):
        raise _InconsistentRowsError(f"{name} has rows of {' and '.join(sorted(map(str, lengths)))} weights")
    return np.asarray(pc.list_flatten(rows[name])).reshape(rows.num_rows, -1)
