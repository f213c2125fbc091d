"""What lmms-eval wrote of a run, read and checked: the results (`--output_path`) and samples (`--log_samples`)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from halo_probe.archive.signature import hash_of, is_whole
from halo_probe.archive.writing import stored_parts
from halo_probe.errors import UsageError, first_line

RESULTS = "_results.json"
"""How the name of a results file ends."""
MAPS = "halo"
"""The folder of the maps, in the `--output_path`."""

_FILES = "files"
_PARTS = {"config", "configs", "n-samples", "versions"}
# What the probe leaves in a sample.
_RECORDED = {
    "digit_status": str,
    "digit_steps": list,
    "reliance": str,
    "true_digits": str,
    "digit_probabilities": list,
}
NUMBER = int | float
"""The kind of a number in JSON."""
_KINDS = {dict: "object", list: "list", str: "text", NUMBER: "number"}
# Characters of what is damaged.
_SHOWN = 40


class DamagedFileError(UsageError):
    """A file of lmms-eval that is not what was written."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"{path}: is damaged ({first_line(str(why))}); run the evaluation again.")


def results_files(folder: Path) -> list[Path]:
    """The results files in a folder, of a model that has a name too: lmms-eval makes a folder for it."""
    return sorted({*folder.glob(f"*{RESULTS}"), *folder.glob(f"*/*{RESULTS}")})


def find_results(path: Path) -> Path:
    """The results file of a run.

    Args:
        path: The `--output_path` of lmms-eval, or the file.

    Raises:
        UsageError: If there is none, or more than one.
    """
    if path.is_file():
        return path
    files = results_files(path)
    if len(files) == 1:
        return files[0]
    if files:
        whole = [file for file in files if _loads(file)]
        damaged = "".join(f" {file} is damaged." for file in files if file not in whole)
        name = f"; name one results file, such as {whole[-1]}." if whole else "; run the evaluation again."
        raise UsageError(f"{path}: holds {len(files)} runs{name}{damaged}")
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such folder; give the --output_path of an lmms-eval run.")
    if any(path.iterdir()):
        raise UsageError(f"{path}: holds no *{RESULTS}: the run did not finish, or it is no run; evaluate again.")
    raise UsageError(f"{path}: is empty; give the --output_path of an lmms-eval run.")


def folder_of(file: Path, path: Path) -> Path:
    """The `--output_path` of the run with a results file that was found at a path."""
    probed = (folder for folder in (file.parent, file.parent.parent) if stored_parts(folder / MAPS))
    return next(probed, file.parent.parent if path == file else path)


def _loads(file: Path) -> bool:
    try:
        load_results(file)
    except UsageError:
        return False
    return True


def load_results(file: Path) -> dict[str, Any]:
    """A results file, whose fields are of the kinds that a run writes.

    Raises:
        DamagedFileError: If it is not what was written.
        UsageError: If it is no results file.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror or error}); let it be read, or move it.") from None
    except ValueError as error:
        raise DamagedFileError(file, f"cannot be read, or only half of it: {error}") from None
    if not isinstance(results, dict) or not results.keys() >= _PARTS:
        raise UsageError(f"{file}: is no results file of lmms-eval; give its --output_path.")
    _require_probed(results, file)
    for name in _PARTS:
        require(results[name], dict, file, name)
    if not results.get("halo") and not results["config"].keys() >= {"model", "model_args"}:
        raise DamagedFileError(file, "config has no model and model_args")
    for task, fields in (*results["configs"].items(), *results["n-samples"].items()):
        require(fields, dict, file, f"what it says of {task}")
    return results


def _require_probed(results: Mapping[str, Any], file: Path) -> None:
    """Check what the probe says of a run, if there was one."""
    halo = require(results.get("halo", {}), dict, file, "halo")
    signature = require(halo.get("signature", {}), dict, file, "the signature")
    if signature and not is_whole(signature):
        raise DamagedFileError(file, "the signature of the run is not the one that its hash is of")
    files = require(halo.get(_FILES, {}), dict, file, "the hashes of its files")
    if files and files.get("results") != _hash_without_files(results):
        raise DamagedFileError(file, "it is not what its hash is of")
    require(halo.get("failures", []), list, file, "failures")
    for task, given in require(halo.get("given", {}), dict, file, "what was given").items():
        require(require(given, dict, file, f"what was given of {task}").get("without_effect", []), list, file, task)


def seal_results(file: Path) -> None:
    """Write hashes of a run's files into its results file, so that a change in any of them shows.

    Under `halo.files`: `samples`, the SHA-256 of each task's samples file that is there, and `results`, that of all
    else that the results file says. The file keeps the form in which lmms-eval wrote it.

    Raises:
        OSError: If a file cannot be read or written.
    """
    results = json.loads(file.read_text(encoding="utf-8"))
    samples = {task: samples_file(file, task) for task in results["configs"]}
    hashes = {task: _file_sha256(path) for task, path in samples.items() if path.exists()}
    results["halo"][_FILES] = {"samples": hashes, "results": _hash_without_files(results)}
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_text(json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8")
    unfinished.replace(file)


def _hash_without_files(results: Mapping[str, Any]) -> str:
    halo = {name: value for name, value in results["halo"].items() if name != _FILES}
    return hash_of({**results, "halo": halo})


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def samples_file(file: Path, task: str) -> Path:
    """Where the samples of a task are, beside a results file."""
    return file.with_name(f"{file.name.removesuffix(RESULTS)}_samples_{task}.jsonl")


def load_samples(path: Path, results: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    """The documents of a task, as lmms-eval wrote them.

    Raises:
        DamagedFileError: If the file is not what was written.
        UsageError: If it is missing, or has fewer documents than the results are of.
    """
    if not path.exists():
        raise UsageError(f"{path}: is missing; run the evaluation again with --log_samples.")
    written = results.get("halo", {}).get(_FILES, {}).get("samples", {}).get(task)
    try:
        # Not splitlines: a reply may hold other line breaks, which lmms-eval writes as they are.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        changed = written is not None and written != _file_sha256(path)
    except (ValueError, OSError) as error:
        raise DamagedFileError(path, error) from None
    if changed:
        raise DamagedFileError(path, "it is not the file that the hash in the results is of")
    expected = results["n-samples"].get(task, {}).get("effective")
    if not lines or len(lines) != expected:
        raise UsageError(f"{path}: has {len(lines)} documents instead of {expected}; run the evaluation again.")
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        raise DamagedFileError(path, error) from None
    return [require(row, dict, path, "a document") for row in rows]


def recorded(sample: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """What the probe recorded of a document, under `token_counts.halo`; empty without it.

    Raises:
        DamagedFileError: If a field is of another kind than a run writes.
    """
    first = (require(sample.get("token_counts") or [], list, path, "token_counts") or [None])[0]
    counted = require(first or {}, dict, path, "token_counts")
    halo: dict[str, Any] = require(counted.get("halo", {}), dict, path, "halo")
    for name, kind in _RECORDED.items():
        if halo.get(name) is not None:
            require(halo[name], kind, path, name)
    return halo


def require(value: Any, kind: type | UnionType, path: Path, what: str) -> Any:
    """The value, where it is of the kind that a whole run has there.

    Raises:
        DamagedFileError: If it is not.
    """
    if not isinstance(value, kind):
        raise DamagedFileError(path, f"{what} is {json.dumps(value)[:_SHOWN]}, no {_KINDS[kind]}")
    return value
