"""Writing attention maps to parquet while a run goes on, and taking up a run that was cut short.

One row for each document, generation step and recorded layer. Parts appear under their final name only when they are
whole, so a reader never meets half a file, and have checksums for all that they hold. A part also carries the answers
of its documents, so that what is on the disk is all that a later run needs to go on.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from halo_probe.archive.answers import Answer, Key, write_answers
from halo_probe.archive.footer import seal_footer
from halo_probe.archive.generation import Generation
from halo_probe.archive.size import bytes_per_token
from halo_probe.errors import UsageError, remedy

SIGNATURE_KEY = b"halo_probe"
"""Key of the run signature (JSON) in the parquet schema metadata."""
ANSWERS_KEY = b"halo_answers"
"""Key of the answers (JSON) whose maps a part holds, in its schema metadata."""

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
        ("grid", pa.list_(pa.list_(pa.int32()))),  # height and width in tokens of each view; empty without a raster
        ("view_image", pa.list_(pa.int32())),  # which image of the prompt each view shows
        ("view_box", pa.list_(_MAP)),  # x0, y0, x1, y1 of each view as fractions of its image; NaN where unknown
        ("map_eq1", _MAP),
        ("map_raw", _MAP),
        ("map_heads", _MAP),  # the raw maps of all heads, head after head; null unless heads=all
        ("visual_mass", pa.float32()),
        ("first_mass", pa.float32()),  # attention to the first token of the prompt; NaN in cross-attention layers
        ("sink_tokens", pa.list_(pa.bool_())),  # image tokens that are visual sinks; null unless sinks=true
        ("visible", pa.int32()),  # image tokens that the layer could attend to
    ]
)
_PART_BYTES = 32 * 2**20
_PART_DOCUMENTS = 32
_ANSWERS_BYTES = 16 * 2**20
# Arrow reads no text of more than 100 MB in a footer, where the answers stand a second time, as base64.
_LONGEST_ANSWER = 64 * 10**6


class MapWriter:
    """Writes the maps and answers of one run into a folder, in parts of a bounded size.

    Args:
        folder: Where the parts go.
        signature: Stored as JSON in the metadata of every part.
        max_gb: Cap on the size of all parts in the folder, in units of 10^9 bytes.
        rank: Of this process, where several write into the folder.
    """

    def __init__(self, folder: Path, *, signature: Mapping[str, Any], max_gb: float = 20.0, rank: int = 0) -> None:
        self.folder = folder
        self._signature = json.dumps(signature)
        self._max_gb = max_gb
        self._suffix = f".rank{rank}.parquet" if rank else ".parquet"
        numbers = [int(part.name.split(".")[0].removeprefix("part-")) for part in stored_parts(folder)]
        self._number = max(numbers, default=-1) + 1
        self._added: list[tuple[Key, Answer, list[dict[str, Any]]]] = []
        self._bytes = self._answers_bytes = 0

    def add(self, key: Key, answer: Answer, generations: Sequence[tuple[Generation, Sequence[str]]] = ()) -> None:
        """Add one answer with its generations, each with the text of its tokens: all of it, or nothing if interrupted.

        Raises:
            UsageError: If a part is due and cannot be written, or no part with the answer could be read again.
        """
        task, doc_id, repeat = key
        length = len(write_answers({key: answer}))
        if length > _LONGEST_ANSWER:
            raise UsageError(
                f"{task} {doc_id}: its answer takes {length / 1e6:.0f} MB, more than the "
                f"{_LONGEST_ANSWER / 1e6:.0f} MB that can be read again; limit the replies with "
                "--gen_kwargs max_new_tokens=…"
            )
        if self._answers_bytes + length > _LONGEST_ANSWER:
            self.flush()
        rows: list[dict[str, Any]] = []
        for call, (generation, pieces) in enumerate(generations):
            rows += _rows(generation, pieces, {"task": task, "doc_id": doc_id, "repeat": repeat, "call": call})
            self._bytes += bytes_per_token(generation) * len(generation.token_ids)
            self._bytes += 0 if generation.heads is None else generation.heads.nbytes
        self._added.append((key, answer, rows))  # the one step that no interrupt can cut in two
        self._answers_bytes += length
        full = self._bytes >= _PART_BYTES or self._answers_bytes >= _ANSWERS_BYTES
        if full or len(self._added) >= _PART_DOCUMENTS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last part.

        Raises:
            UsageError: If the disk refuses or the cap is reached; the parts written so far stay readable.
        """
        if not self._added:
            return
        answers = {key: answer for key, answer, _ in self._added}
        metadata = {SIGNATURE_KEY: self._signature, ANSWERS_KEY: write_answers(answers)}
        every_row = [row for _, _, rows in self._added for row in rows]
        rows = pa.Table.from_pylist(every_row, schema=SCHEMA.with_metadata(metadata))
        self._added, self._bytes, self._answers_bytes = [], 0, 0
        part = self.folder / f"part-{self._number:05d}{self._suffix}"
        try:
            _write(rows, part)
            size = sum(one.stat().st_size for one in stored_parts(self.folder))
        except OSError as error:
            raise UsageError(
                f"{part}: cannot be written ({error.strerror or error}); the parts that are there are whole. "
                f"To go on from them, {remedy(error)}, and give the same command again."
            ) from error
        self._number += 1
        if size > self._max_gb * 1e9:
            raise UsageError(
                f"{self.folder}: holds {size / 1e9:.3g} GB of maps, more than max_gb={self._max_gb:g}; give the same "
                "command with a larger max_gb to go on from there."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def stored_parts(folder: Path) -> list[Path]:
    """The whole parts in a folder, in order."""
    return sorted(folder.glob("part-*.parquet"))


def _write(rows: pa.Table, part: Path) -> None:
    """Write a part so that neither a killed process nor a lost disk leaves half of it under its name."""
    unfinished = part.with_suffix(".unfinished")
    try:
        with unfinished.open("w+b") as file:
            pq.write_table(rows, file, compression="zstd", write_page_checksum=True)
            seal_footer(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(part)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


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
            "view_image": [view.image for view in generation.views],
            "view_box": [view.box for view in generation.views],
            "map_eq1": generation.eq1[step, index],
            "map_raw": generation.raw[step, index],
            "map_heads": None if generation.heads is None else generation.heads[step, index].ravel(),
            "visual_mass": float(generation.visual_mass[step, index]),
            "first_mass": float(generation.first_mass[step, index]),
            "sink_tokens": generation.sink_tokens,
            "visible": int(generation.visible[step, index]),
        }
        for step, token_id in enumerate(generation.token_ids)
        for index, layer in enumerate(generation.layers)
    ]
