"""The one reader of maps: parts whose footer and pages are what was written, and the generations in them."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from halo_probe.archive.answers import Answer, Key, read_answers
from halo_probe.archive.footer import is_footer_whole
from halo_probe.archive.generation import Generation, Layer, View
from halo_probe.archive.writing import ANSWERS_KEY, SCHEMA, SIGNATURE_KEY, stored_parts
from halo_probe.errors import HaloError, UsageError, first_line

MAPS = "halo"
"""The folder of the parts, in that of the run."""

_CALL = ("task", "doc_id", "repeat", "call")
FIRST_CALL = (pc.field("repeat") == 0) & (pc.field("call") == 0)
"""The first answer and its first `generate` call of a document: what the samples show."""
_NULLABLE = {"map_heads", "sink_tokens"}  # not in every run


class DamagedPartError(HaloError):
    """A part that is not what was written: its documents are answered again once it is removed."""

    def __init__(self, part: Path, why: object) -> None:
        super().__init__(
            f"{part}: is damaged ({first_line(str(why))}); remove it and give the same lmms-eval command again: only "
            "its documents are redone."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredCall:
    """One `generate` call as it is stored."""

    key: Key
    """Task, document and repeat."""
    call: int
    """Which call of the document: above 0 in multi-round tasks."""
    pieces: tuple[str, ...]
    """The text of each generated token."""
    generation: Generation
    """What was recorded of it."""


@dataclass(frozen=True, eq=False)
class Part:
    """One file of maps and answers, whose footer was found whole; its pages are checked as they are read."""

    path: Path
    metadata: Mapping[bytes, bytes] = field(repr=False)
    """The signature and the answers, as they are stored."""

    @cached_property
    def signature(self) -> dict[str, Any]:
        """That of the run."""
        try:
            fields: Any = json.loads(self.metadata[SIGNATURE_KEY])
        except ValueError as error:
            raise DamagedPartError(self.path, error) from None
        if not isinstance(fields, dict) or not all(isinstance(fields.get(name), dict) for name in ("model", "tasks")):
            raise DamagedPartError(self.path, "its signature does not say which model and tasks the run had")
        return fields

    @cached_property
    def answers(self) -> dict[Key, Answer]:
        """The answers whose maps the part holds."""
        try:
            return read_answers(self.metadata[ANSWERS_KEY])
        except (TypeError, ValueError, KeyError) as error:
            raise DamagedPartError(self.path, f"its answers are none that a run writes: {error}") from None

    def rows(self, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
        """Columns of the rows that meet a condition.

        Raises:
            DamagedPartError: If a page is not what was written.
        """
        try:
            return pq.read_table(self.path, columns=list(columns), filters=where, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise DamagedPartError(self.path, error) from None

    def calls(self, where: pc.Expression | None = None, *, heads: bool = False) -> Iterator[StoredCall]:
        """The generations, in the order in which they were recorded.

        Args:
            where: A condition on `task`, `doc_id`, `repeat`, `call`, `step` or `layer`.
            heads: Whether the maps of single heads are read, where they were recorded.

        Raises:
            DamagedPartError: If a page is not what was written, or the rows are none that a run writes.
        """
        table = self.rows([name for name in SCHEMA.names if heads or name != "map_heads"], where).combine_chunks()
        if missing := [name for name in table.column_names if name not in _NULLABLE and table[name].null_count]:
            raise DamagedPartError(self.path, f"{missing[0]} is missing in a row")
        changes = np.zeros(max(table.num_rows - 1, 0), dtype=np.bool_)
        for name in _CALL:
            codes = pc.dictionary_encode(table[name].combine_chunks()).indices.to_numpy()
            changes |= np.diff(codes) != 0
        starts = [0, *(np.flatnonzero(changes) + 1).tolist(), table.num_rows] if table.num_rows else []
        for start, stop in pairwise(starts):
            rows = table.slice(start, stop - start)
            task, document, repeat, call = (rows[name][0].as_py() for name in _CALL)
            if (task, document, repeat) not in self.answers:
                raise DamagedPartError(self.path, f"it holds maps of {task} {document} without its answer")
            try:
                generation, pieces = _generation(rows)
            except (ValueError, TypeError) as error:
                raise DamagedPartError(self.path, f"{task} {document}: {error}") from None
            yield StoredCall(key=(task, document, repeat), call=call, pieces=pieces, generation=generation)

    def require_answers(self) -> None:
        """Refuse maps whose answer is not beside them: their document would be redone, and be there twice.

        Raises:
            DamagedPartError: If there are some.
        """
        keys = list(_CALL[:3])
        recorded = {
            tuple(row.values()) for row in self.rows(keys).group_by(keys).aggregate([]).select(keys).to_pylist()
        }
        if unanswered := recorded - self.answers.keys():
            task, document, _ = min(unanswered)
            raise DamagedPartError(self.path, f"it holds maps of {task} {document} without its answer")


@dataclass(frozen=True, eq=False)
class Maps:
    """All maps and answers of one run."""

    folder: Path
    """Where the parts are."""
    parts: tuple[Part, ...]

    @property
    def signature(self) -> dict[str, Any]:
        """That of the run; empty without parts."""
        return self.parts[0].signature if self.parts else {}

    def answers(self) -> Iterator[tuple[Key, Answer]]:
        """Every answer, part by part.

        Raises:
            UsageError: If two parts hold the same document.
        """
        seen: set[Key] = set()
        for part in self.parts:
            if twice := seen & part.answers.keys():
                task, document, _ = min(twice)
                raise UsageError(
                    f"{part.path}: holds {task} {document}, as a part before it does; remove one of the two."
                )
            seen |= part.answers.keys()
            yield from part.answers.items()

    def calls(
        self,
        *,
        task: str | None = None,
        documents: Collection[int] | None = None,
        layers: Collection[int] | None = None,
        heads: bool = False,
    ) -> Iterator[StoredCall]:
        """The first answer and its first `generate` call of every document, in the order in which they are stored.

        Args:
            task: Name of the task; None for all.
            documents: Their `doc_id`; None for all.
            layers: Which of the recorded layers; None for all.
            heads: Whether the maps of single heads are read, where they were recorded.

        Raises:
            DamagedPartError: If a part is not what was written.
        """
        where = FIRST_CALL if task is None else FIRST_CALL & (pc.field("task") == task)
        for name, values in (("doc_id", documents), ("layer", layers)):
            where = where if values is None else where & pc.field(name).isin(list(values))
        for part in self.parts:
            yield from part.calls(where, heads=heads)

    def first_grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the views of the first document with an image; empty where there is none."""
        for part in self.parts:
            rows = part.rows(["grid"])
            if rows.num_rows:
                return tuple((height, width) for height, width in rows["grid"][0].as_py())
        return ()


def open_part(path: Path) -> Part:
    """Open a part.

    Raises:
        DamagedPartError: If its footer is not what was written.
    """
    try:
        whole = is_footer_whole(path)
        metadata = (pq.read_schema(path).metadata or {}) if whole else {}
    except (OSError, pa.ArrowException) as error:
        raise DamagedPartError(path, error) from None
    if not whole:
        raise DamagedPartError(path, "its end is not what was written, or only half of it is there")
    if SIGNATURE_KEY not in metadata or ANSWERS_KEY not in metadata:
        raise DamagedPartError(path, "it holds no signature and no answers")
    return Part(path, metadata)


def open_maps(folder: Path) -> Maps:
    """Open the maps of a run; none where the folder holds no part.

    Args:
        folder: Where the parts are.

    Raises:
        DamagedPartError: If a part is not what was written.
        UsageError: If the parts are of several runs.
    """
    parts = tuple(map(open_part, stored_parts(folder)))
    for part in parts[1:]:
        if part.metadata[SIGNATURE_KEY] != parts[0].metadata[SIGNATURE_KEY]:
            raise UsageError(f"{part.path}: is of another run than {parts[0].path.name}; keep one run in a folder.")
    return Maps(folder, parts)


def _generation(rows: pa.Table) -> tuple[Generation, tuple[str, ...]]:
    """The generation that rows of steps and layers are of, and the text of its tokens.

    Raises:
        ValueError: If they are no T x L maps of one number of image tokens, in this order.
    """
    layers = dict(zip(rows["layer"].to_pylist(), rows["layer_type"].to_pylist(), strict=True))
    firsts = rows.take(pa.array(range(0, rows.num_rows, len(layers)), pa.int64()))
    steps = firsts["step"].to_pylist()
    shape = (len(steps), len(layers))
    places = [(step, layer) for step in steps for layer in layers]
    if steps != list(range(len(steps))) or places != list(
        zip(rows["step"].to_pylist(), rows["layer"].to_pylist(), strict=True)
    ):
        raise ValueError(f"{rows.num_rows} rows are not {len(steps)} steps of {len(layers)} layers")
    eq1, raw = (_stacked(rows, name).reshape(*shape, -1) for name in ("map_eq1", "map_raw"))
    tokens = eq1.shape[2]
    has_heads = "map_heads" in rows.column_names and not rows["map_heads"].null_count
    heads = _stacked(rows, "map_heads") if has_heads else None
    sinks = rows["sink_tokens"][0].as_py()
    if raw.shape != eq1.shape or (heads is not None and heads.shape[1] % tokens):
        raise ValueError("maps of different numbers of image tokens")
    if sinks is not None and len(sinks) != tokens:
        raise ValueError("maps of different numbers of image tokens")
    ends = firsts["end"].to_pylist()
    generation = Generation(
        token_ids=firsts["token_id"].to_numpy(),
        ended=bool(ends[-1]),
        views=_views(firsts),
        layers=tuple(Layer(index, kind) for index, kind in layers.items()),
        eq1=eq1,
        raw=raw,
        visual_mass=rows["visual_mass"].to_numpy().reshape(shape),
        first_mass=rows["first_mass"].to_numpy().reshape(shape),
        visible=rows["visible"].to_numpy().reshape(shape),
        heads=None if heads is None else heads.reshape(*shape, -1, tokens),
        sink_tokens=None if sinks is None else np.array(sinks, dtype=np.bool_),
    )
    return generation, tuple(firsts["token_text"].to_pylist())


def _views(rows: pa.Table) -> tuple[View, ...]:
    grids, images, boxes = (rows[name][0].as_py() for name in ("grid", "view_image", "view_box"))
    try:
        return tuple(
            View(image, height, width, (left, top, right, bottom))
            for image, (height, width), (left, top, right, bottom) in zip(images, grids, boxes, strict=True)
        )
    except (TypeError, ValueError):
        raise ValueError("view_image and view_box are not those of each grid") from None


def _stacked(rows: pa.Table, name: str) -> NDArray[np.float32]:
    """(rows, weights)."""
    lengths = set(pc.list_value_length(rows[name]).to_pylist())
    if len(lengths) != 1 or not all(lengths):
        raise ValueError(f"{name} has rows of {' and '.join(sorted(map(str, lengths)))} weights")
    return np.asarray(pc.list_flatten(rows[name]).combine_chunks()).reshape(rows.num_rows, -1)
