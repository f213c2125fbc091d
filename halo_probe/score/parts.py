"""Reading the maps of a run, part by part, and scoring them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from halo_probe.errors import HaloError, UsageError
from halo_probe.score.dots import DotSet
from halo_probe.score.generations import SCORE_KEYS, Generation, score_generation

Layers = Literal["all", "last"]

# As in halo_probe.harness.maps, which would load torch into every process.
_SIGNATURE_KEY = b"halo_probe"
_GENERATION = ("task", "doc_id", "repeat", "call")
_ROW = ("step", "layer", "layer_type", "end", "visual_mass")
_MAPS = ("grid", "map_eq1", "map_raw", "visible")

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
        *((key, pa.float64()) for key in SCORE_KEYS),
        ("reason", pa.string()),  # why a group of keys is null
    ]
)


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
    fields: dict[str, Any] = json.loads(signature)
    return fields


def score_part(part: Path, dots: Mapping[str, DotSet], *, layers: Layers, null: bool) -> pa.Table:
    """Score the maps of one part.

    Args:
        part: A file of maps.
        dots: The dots of the documents of each task that has them.
        layers: Which of the recorded layers; `last` is that with the highest index.
        null: Whether to compare with the null.

    Returns:
        A row for each row of maps that was scored, in their order, of `SCORES_SCHEMA`.

    Raises:
        HaloError: If the part cannot be read.
    """
    scored = [_score(rows, dots, null=null) for rows in _generations(_read(part), layers)]
    return pa.concat_tables([SCORES_SCHEMA.empty_table(), *scored])


def _open(part: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(part)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part, error) from None


def _read(part: Path) -> pa.Table:
    try:
        return _open(part).read([*_GENERATION, *_ROW, *_MAPS]).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part, error) from None


def _damaged(part: Path, error: Exception) -> HaloError:
    why = str(error).splitlines()[0]
    return HaloError(f"{part}: cannot be read, or only half of it ({why}); remove it, or run the evaluation again.")


def _generations(table: pa.Table, layers: Layers) -> Iterator[pa.Table]:
    """The rows of each `generate` call, which stand together."""
    start = 0
    for _, same in groupby(zip(*(table[name].to_pylist() for name in _GENERATION), strict=True)):
        rows = table.slice(start, len(list(same)))
        start += rows.num_rows
        layer = rows["layer"].to_numpy()
        yield rows.filter(pa.array(layer == layer.max())) if layers == "last" else rows


def _score(rows: pa.Table, dots: Mapping[str, DotSet], *, null: bool) -> pa.Table:
    task = rows["task"][0].as_py()
    generation = Generation(
        doc_id=rows["doc_id"][0].as_py(),
        grids=tuple((height, width) for height, width in rows["grid"][0].as_py()),
        steps=rows["step"].to_numpy(),
        layers=rows["layer"].to_numpy(),
        eq1=_stacked(rows["map_eq1"]),
        raw=_stacked(rows["map_raw"]),
        visible=rows["visible"].to_numpy(),
    )
    scores, reasons = score_generation(generation, dots.get(task), null=null)
    columns = {
        **{name: rows[name] for name in (*_GENERATION, *_ROW)},
        "image_tokens": np.full(rows.num_rows, generation.eq1.shape[1]),
        **{key: pa.array(values, from_pandas=True) for key, values in scores.items()},  # NaN is null
        "reason": reasons,
    }
    return pa.table({name: columns[name] for name in SCORES_SCHEMA.names}).cast(SCORES_SCHEMA)


def _stacked(maps: pa.ChunkedArray) -> NDArray[np.float32]:
    """(rows, M)."""
    return np.asarray(pc.list_flatten(maps)).reshape(len(maps), -1)
