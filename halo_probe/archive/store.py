"""The folder of a run's maps: one run at a time, and what an earlier one with the same signature has finished."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from loguru import logger

from halo_probe.archive.answers import Answer, Key, read_answers
from halo_probe.archive.footer import is_footer_whole
from halo_probe.archive.maps import ANSWERS_KEY, SIGNATURE_KEY, stored_parts
from halo_probe.errors import UsageError, first_line

_SHOWN = 5
_ABSENT = "nothing"
_FORMAT = "format"
_NAMES = {
    "model.weights": "the hash of the weights that were loaded",
    "model.settings": "the hash of the settings that were loaded (configuration, generation, tokenizer, processor)",
    "model.code": "the hash of the code that was loaded",
}
"""Of fields whose path does not say what differs."""
_DOCUMENT = ["task", "doc_id", "repeat"]


@contextmanager
def own_folder(folder: Path, *, rank: int = 0) -> Iterator[None]:
    """Make the folder, and keep other runs out of it until the context ends; a killed run lets go of it by itself.

    Args:
        folder: Where the maps go.
        rank: Of this process; the first one answers for the others.

    Raises:
        UsageError: If it cannot be written, or another run writes there.
    """
    if rank:
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        for unfinished in folder.glob("part-*.unfinished"):
            unfinished.unlink()
    except Timeout:
        raise UsageError(f"{folder}: another run writes there; choose another --output_path, or wait for it.") from None
    except OSError as error:
        raise UsageError(
            f"{folder}: maps cannot be written there ({error.strerror or error}); choose another --output_path."
        ) from error
    try:
        yield
    finally:
        lock.release()


def finished_answers(folder: Path, *, signature: Mapping[str, Any], resume: bool, rank: int = 0) -> dict[Key, Answer]:
    """Read the answers that the folder holds.

    Args:
        folder: Where the maps are.
        signature: Of the run that is about to go on.
        resume: Whether answers may be there.
        rank: Of this process; the first one answers for the others.

    Raises:
        UsageError: If there are some and `resume` is false, if they are of a run with another signature, if a part
            cannot be read or holds maps of a document without its answer, or if two parts hold the same document.
    """
    parts = stored_parts(folder)
    if not resume:
        if parts and rank == 0:
            raise UsageError(
                f"{folder}: holds the maps of an earlier run; choose another --output_path, remove that folder, or "
                "leave resume=false out to go on from there."
            )
        return {}
    answers: dict[Key, Answer] = {}
    for part in parts:
        stored = _read_metadata(part)
        _check_signature(part, stored[SIGNATURE_KEY], signature)
        found = read_answers(stored[ANSWERS_KEY])
        _require_answered(part, found)
        if twice := answers.keys() & found.keys():
            task, document, _ = min(twice)
            raise UsageError(f"{part}: holds {task} {document}, as a part before it does; remove one of the two.")
        answers |= found
    if answers:
        logger.info(f"halo-probe: {len(answers)} answers are in {folder} already and are taken from there.")
    return answers


def _read_metadata(part: Path) -> Mapping[bytes, bytes]:
    try:
        whole = is_footer_whole(part)
        stored = (pq.read_schema(part).metadata or {}) if whole else {}
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{part}: cannot be read ({first_line(error)}); remove it, and its documents are redone."
        ) from error
    if SIGNATURE_KEY not in stored or ANSWERS_KEY not in stored:
        raise UsageError(
            f"{part}: its answers are damaged, or of an earlier version; remove it, and its documents are redone, or "
            "choose another --output_path."
        )
    return stored


def _require_answered(part: Path, answers: Mapping[Key, Answer]) -> None:
    """Refuse maps whose answer is not beside them: their document would be redone, and be there twice."""
    try:
        rows = pq.read_table(part, columns=_DOCUMENT, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{part}: cannot be read ({first_line(error)}); remove it, and its documents are redone."
        ) from error
    recorded = {tuple(row.values()) for row in rows.group_by(_DOCUMENT).aggregate([]).select(_DOCUMENT).to_pylist()}
    if unanswered := recorded - answers.keys():
        task, document, _ = min(unanswered)
        raise UsageError(
            f"{part}: holds maps of {task} {document} without its answer; remove it, and its documents are redone."
        )


def _check_signature(part: Path, stored: bytes, signature: Mapping[str, Any]) -> None:
    fields = json.loads(stored)
    if fields.get(_FORMAT) != signature.get(_FORMAT):
        raise UsageError(
            f"{part.parent}: holds maps of another version of halo-probe, whose signature says less or more of a run "
            f"(format {fields.get(_FORMAT, 1)}, now {signature.get(_FORMAT, 1)}). Choose another --output_path, or go "
            "on with the version of the earlier run."
        )
    was, now = _flat(fields), _flat(json.loads(json.dumps(signature)))
    differences = [
        f"{_NAMES.get(field, field)} was {was.get(field, _ABSENT)}, is {now.get(field, _ABSENT)}"
        for field in {**was, **now}
        if field != "sha256" and was.get(field, _ABSENT) != now.get(field, _ABSENT)
    ]
    if differences:
        more = f" (and {len(differences) - _SHOWN} more)" if len(differences) > _SHOWN else ""
        raise UsageError(
            f"{part.parent}: holds maps of another run: {'; '.join(differences[:_SHOWN])}{more}. Choose another "
            "--output_path, or give the settings of the earlier run to go on with it."
        )


def _flat(fields: Any, path: str = "") -> dict[str, str]:
    """Every leaf of nested fields as JSON, by its path."""
    if not isinstance(fields, dict) or not fields:
        return {path: json.dumps(fields)}
    return {name: leaf for key, one in fields.items() for name, leaf in _flat(one, f"{path}.{key}".lstrip(".")).items()}
