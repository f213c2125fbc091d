"""Writing attention maps to parquet while a run goes on.

One row for each document, generation step and recorded layer. Parts appear under their final name only when they are
whole, so a reader never meets half a file.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from halo_probe.capture import Generation
from halo_probe.errors import UsageError

SIGNATURE_KEY = b"halo_probe"
"""Key of the run signature (JSON) in the parquet schema metadata."""

_MAP = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("repeat", pa.int32()),  # which of --repeats
        ("call", pa.int32()),  # which generate call of the document: above 0 in multi-round tasks
        ("step", pa.int32()),
        ("token_id", pa.int64()),
        ("token_text", pa.string()),
        ("end", pa.bool_()),  # the end-of-sequence token
        ("layer", pa.int32()),
        ("layer_type", pa.string()),
        ("grid", pa.list_(pa.list_(pa.int32()))),  # height and width in tokens of each image
        ("map_eq1", _MAP),
        ("map_raw", _MAP),
        ("visual_mass", pa.float32()),
        ("visible", pa.int32()),  # image tokens that the layer could attend to
    ]
)
_PART_BYTES = 32 * 2**20
_PART_DOCUMENTS = 32


class MapWriter:
    """Writes the maps of one run into a folder, in parts of a bounded size.

    Args:
        folder: Where the parts go; created if needed.
        signature: Stored as JSON in the metadata of every part.

    Raises:
        UsageError: If the folder cannot be written or holds the maps of an earlier run.
    """

    def __init__(self, folder: Path, *, signature: Mapping[str, Any]) -> None:
        self._folder = folder
        self._schema = SCHEMA.with_metadata({SIGNATURE_KEY: json.dumps(signature)})
        self._rows: list[dict[str, Any]] = []
        self._documents = 0
        self._bytes = 0
        self._parts = 0
        _check_folder(folder)

    def add(
        self, generations: Sequence[tuple[Generation, Sequence[str]]], *, task: str, doc_id: int, repeat: int
    ) -> None:
        """Add the generations of one document, each with the text of its tokens."""
        for call, (generation, pieces) in enumerate(generations):
            self._rows += _rows(generation, pieces, {"task": task, "doc_id": doc_id, "repeat": repeat, "call": call})
            self._bytes += generation.eq1.nbytes + generation.raw.nbytes
        self._documents += 1
        if self._documents >= _PART_DOCUMENTS or self._bytes >= _PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last part.

        Raises:
            UsageError: If the disk refuses; the parts written so far stay readable.
        """
        if not self._rows:
            return
        part = self._folder / f"part-{self._parts:05d}.parquet"
        unfinished = part.with_suffix(".unfinished")
        try:
            pq.write_table(pa.Table.from_pylist(self._rows, schema=self._schema), unfinished, compression="zstd")
            unfinished.replace(part)
        except OSError as error:
            raise UsageError(
                f"{part}: cannot be written ({error.strerror or error}); {self._parts} parts before it are whole. "
                "Free some space or choose another --output_path, and run again."
            ) from error
        self._parts += 1
        self._rows, self._documents, self._bytes = [], 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        occupied = any(folder.glob("*.parquet"))
    except OSError as error:
        raise UsageError(
            f"{folder}: maps cannot be written there ({error.strerror or error}); choose another --output_path."
        ) from error
    if occupied:
        raise UsageError(
            f"{folder}: holds the maps of an earlier run; choose another --output_path, or remove that folder."
        )


def _rows(generation: Generation, pieces: Sequence[str], document: Mapping[str, Any]) -> list[dict[str, Any]]:
    last = len(generation.token_ids) - 1
    return [
        {
            **document,
            "step": step,
            "token_id": int(token_id),
            "token_text": pieces[step],
            "end": generation.ended and step == last,
            "layer": layer.index,
            "layer_type": layer.type,
            "grid": generation.grids,
            "map_eq1": generation.eq1[step, index],
            "map_raw": generation.raw[step, index],
            "visual_mass": float(generation.visual_mass[step, index]),
            "visible": int(generation.visible[step, index]),
        }
        for step, token_id in enumerate(generation.token_ids)
        for index, layer in enumerate(generation.layers)
    ]
