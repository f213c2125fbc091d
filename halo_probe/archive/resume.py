"""The folder of a run's maps: one run at a time, and what an earlier one with the same signature has finished."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from loguru import logger

from halo_probe.archive.answers import Answer, Key
from halo_probe.archive.reading import Maps, Part, open_part
from halo_probe.archive.writing import stored_parts
from halo_probe.errors import UsageError

_SHOWN = 5
_ABSENT = "nothing"
_FORMAT = "format"
_NAMES = {
    "model.weights": "the hash of the weights that were loaded",
    "model.settings": "the hash of the settings that were loaded (configuration, generation, tokenizer, processor)",
    "model.code": "the hash of the code that was loaded",
}
"""Of fields whose path does not say what differs."""


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
        UsageError: If there are some and `resume` is false, if they are of a run with another signature, or if two
            parts hold the same document.
        DamagedPartError: If a part is not what was written, or holds maps of a document without its answer.
    """
    if not resume:
        if stored_parts(folder) and rank == 0:
            raise UsageError(
                f"{folder}: holds the maps of an earlier run; choose another --output_path, remove that folder, or "
                "leave resume=false out to go on from there."
            )
        return {}
    parts = tuple(map(open_part, stored_parts(folder)))
    for part in parts:
        _check_signature(part, signature)
        part.require_answers()
    answers = dict(Maps(folder, parts).answers())
    if answers:
        logger.info(f"halo-probe: {len(answers)} answers are in {folder} already and are taken from there.")
    return answers


def _check_signature(part: Part, signature: Mapping[str, Any]) -> None:
    fields, folder = part.signature, part.path.parent
    if fields.get(_FORMAT) != signature.get(_FORMAT):
        raise UsageError(
            f"{folder}: holds maps of another version of halo-probe, whose signature says less or more of a run "
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
            f"{folder}: holds maps of another run: {'; '.join(differences[:_SHOWN])}{more}. Choose another "
            "--output_path, or give the settings of the earlier run to go on with it."
        )


def _flat(fields: Any, path: str = "") -> dict[str, str]:
    """Every leaf of nested fields as JSON, by its path."""
    if not isinstance(fields, dict) or not fields:
        return {path: json.dumps(fields)}
    return {name: leaf for key, one in fields.items() for name, leaf in _flat(one, f"{path}.{key}".lstrip(".")).items()}
