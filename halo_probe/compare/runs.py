"""Reading the runs of lmms-eval, of any model, probed or not.

A run is one results file of lmms-eval (`--output_path`) with its samples (`--log_samples`) beside it. Tasks whose
samples have no `id`, `count`, `predicted` and `accuracy` are no counting tasks; they are left out, by name.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halo_probe.archive.scored import SCORES, STATE_KEY, state_of
from halo_probe.errors import UsageError, first_line
from halo_probe.statistics.intervals import Floats, document_values
from halo_probe.statistics.reliance import RELIANCE_KEYS, mostly_other

MEASURES = ("sparsity", "entropy", "visual_mass")
ATTENTION_KEYS = (
    *("vision_sparsity", "vision_sparsity_g16", "vision_entropy", "vision_mass"),
    *(f"{measure}_d{digit}" for measure in MEASURES for digit in (1, 2)),
    *("halo_index_d1", "auroc_dot_d1", "coverage_d1", "dot_mass_d1", "hull_contrast_ns_d1", "sink_share_d1"),
    "self_consistency",
)
"""What may go with being right, of `docs/metrics.md`."""
CONTRASTS = ("ring_contrast_ns", "halo_index_ns", "hull_contrast_ns")
"""The spatial metrics of the Halo rule, after sink removal; their z-scores against the null have `_z` behind them."""

_RESULTS = "_results.json"
_SYSTEM = "system_instruction"
# What lmms-eval's models call the argument that says which model.
_NAMES = ("pretrained", "model", "model_version", "model_name", "checkpoint")
_PARTS = {"config", "configs", "n-samples", "versions"}
# What the probe leaves in a sample.
_RECORDED = {
    "digit_status": str,
    "digit_steps": list,
    "reliance": str,
    "true_digits": str,
    "digit_probabilities": list,
}
_NUMBER = int | float
_KINDS = {dict: "object", list: "list", str: "text", _NUMBER: "number"}
# Characters of what is damaged.
_SHOWN = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskRun:
    """One task of one run: n documents in the order of the samples."""

    name: str
    """Of the task."""
    ids: tuple[str, ...]
    counts: NDArray[np.int64]
    """True counts, (n,)."""
    predicted: Floats
    """Predicted counts, (n,); NaN where the reply gave none."""
    correct: NDArray[np.bool_]
    """(n,)."""
    attention: Mapping[str, Floats]
    """Those of `ATTENTION_KEYS` that any document has a value of, each (n,), NaN where one has none."""
    digit_status: Mapping[str, int]
    """Number of documents with each status of `lmms_eval_tasks.digits`; empty where the run was not probed."""
    probabilities: Floats | None
    """What {0..9, END, OTHER} got at each digit, the true ones before it given, (n, digits, 12); None if unrecorded."""
    true_digits: tuple[str, ...]
    """Those digits, in the order in which they are asked for, (n,); empty where nothing was recorded."""
    reliance: Mapping[str, Floats]
    """Those of `RELIANCE_KEYS` that any document has a value of, each (n,), NaN where one has none."""
    reliance_status: Mapping[str, int]
    """Number of documents whose reliance is `measured`, or not because digits are `merged`; empty if unrecorded."""
    mostly_other: tuple[tuple[int, ...], ...]
    """The digits, from 1, at which each document has more than half of its probability on OTHER, (n,)."""
    missed: NDArray[np.bool_]
    """Whose intervention acted on the digits of another number than the count of the reply, (n,)."""
    contrasts: Mapping[str, Floats]
    """`CONTRASTS` and their z-scores at the first digit and the last layer scored, each (n,); empty without scores."""
    documents: int
    """Documents of the task's data, evaluated or not."""
    fields: Mapping[str, Any]
    """What the numbers depend on besides the model, by name; None where the run does not say."""
    samples: tuple[Mapping[str, Any], ...]
    """The documents as lmms-eval wrote them, (n,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One results file."""

    label: str
    """The folder as it was given."""
    folder: Path
    """The `--output_path`: maps are in its `halo`, spatial scores in its `scores.parquet`."""
    results: Mapping[str, Any]
    """The results file."""
    model: Mapping[str, Any]
    """What was evaluated: the signature's `model`, or lmms-eval's `model` and `model_args` without a probe."""
    intervention: Mapping[str, Any] | None
    """The signature's `intervention`: `name`, `steps`, `strength`, ...; None for a plain run."""
    layers: tuple[Mapping[str, Any], ...]
    """The recorded layers."""
    grid: tuple[tuple[int, int], ...]
    """Rows and columns of image tokens of each image of the first document; empty without maps."""
    tasks: Mapping[str, TaskRun]
    """The counting tasks by name."""
    left_out: Mapping[str, Sequence[Mapping[str, Any]]]
    """The documents of the other tasks, as lmms-eval wrote them, by task."""
    failures: int
    """Documents whose attention could not be recorded."""

    @property
    def samples(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The documents of every task, as lmms-eval wrote them."""
        return {**{name: task.samples for name, task in self.tasks.items()}, **self.left_out}

    @property
    def signature(self) -> Mapping[str, Any]:
        """That of the probe; empty without it."""
        signature: Mapping[str, Any] = self.results.get("halo", {}).get("signature", {})
        return signature

    @property
    def model_name(self) -> str:
        """The checkpoint, or what an API or a server was asked for.

        Never the model arguments as they are: they may hold a key.
        """
        given = self.model.get("arguments") or {}
        if isinstance(given, str):
            given = dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)
        names = (self.model.get("pretrained"), *(given.get(key) for key in _NAMES))
        return str(next(filter(None, names), self.model["base"]))


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read several runs; see `read_run`.

    Raises:
        UsageError: If one cannot be read, or is named twice, however its path is written.
    """
    files = [_results_file(path).resolve() for path in paths]
    for place, file in enumerate(files):
        if file in files[:place]:
            raise UsageError(f"{paths[place]}: is named twice; name each run once.")
    return [read_run(path) for path in paths]


def read_run(path: Path) -> Run:
    """Read a run.

    Args:
        path: The `--output_path` of lmms-eval with one results file, or that file.

    Raises:
        UsageError: If there is no run, more than one, half of one, or one without samples; if its spatial scores are of
            an earlier state of it.
    """
    file = _results_file(path)
    folder = _folder_of(file, path)
    results = _load(file)
    signature = results.get("halo", {}).get("signature", {})
    config = results["config"]
    samples = {task: _read_samples(_samples_file(file, task), results, task) for task in results["configs"]}
    scores = _read_scores(folder, signature)
    return Run(
        label=str(path),
        folder=folder,
        results=results,
        model=signature.get("model") or {"base": config["model"], "arguments": config["model_args"]},
        intervention=signature.get("intervention"),
        layers=tuple(signature.get("recorded_layers", ())),
        grid=_first_grid(folder / "halo"),
        tasks={
            task: _task_run(
                task,
                rows,
                fields=_fields(results, signature, task, rows),
                scores=scores.get(task, {}),
                documents=int(results["n-samples"].get(task, {}).get("original") or len(rows)),
                path=_samples_file(file, task),
            )
            for task, rows in samples.items()
            if all(map(_is_counted, rows))
        },
        left_out={task: rows for task, rows in samples.items() if not all(map(_is_counted, rows))},
        failures=len(results.get("halo", {}).get("failures", ())),
    )


def _results_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted({*path.glob(f"*{_RESULTS}"), *path.glob(f"*/*{_RESULTS}")})
    if len(files) == 1:
        return files[0]
    if files:
        raise UsageError(f"{path}: holds {len(files)} runs; name one results file, such as {files[-1]}.")
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such folder; give the --output_path of an lmms-eval run.")
    if any(path.iterdir()):
        raise UsageError(f"{path}: holds no *{_RESULTS}: the run did not finish, or it is no run; evaluate again.")
    raise UsageError(f"{path}: is empty; give the --output_path of an lmms-eval run.")


def _folder_of(file: Path, path: Path) -> Path:
    """The `--output_path`: lmms-eval makes a folder in it for the results of a model that has a name."""
    probed = (one for one in (file.parent, file.parent.parent) if any(one.glob("halo/part-*.parquet")))
    return next(probed, file.parent.parent if path == file else path)


def _load(file: Path) -> dict[str, Any]:
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UsageError(f"{file}: cannot be read, or only half of it ({error}); run the evaluation again.") from None
    if not isinstance(results, dict) or not results.keys() >= _PARTS:
        raise UsageError(f"{file}: is no results file of lmms-eval; give its --output_path.")
    halo = _require(results.get("halo", {}), dict, file, "halo")
    signature = _require(halo.get("signature", {}), dict, file, "the signature")
    _require(halo.get("failures", []), list, file, "failures")
    for name in ("model", "intervention"):
        _require(signature.get(name) or {}, dict, file, f"the signature's {name}")
    for layer in _require(signature.get("recorded_layers", []), list, file, "the signature's recorded_layers"):
        if not _require(layer, dict, file, "a recorded layer").keys() >= {"index", "type"}:
            raise _damaged(file, "a recorded layer has no index and type")
    for task, given in _require(halo.get("given", {}), dict, file, "what was given").items():
        _require(_require(given, dict, file, f"what was given of {task}").get("without_effect", []), list, file, task)
    tasks = _require(signature.get("tasks", {}), dict, file, "the signature's tasks")
    for name in _PARTS:
        _require(results[name], dict, file, name)
    if not signature.get("model") and not results["config"].keys() >= {"model", "model_args"}:
        raise _damaged(file, "config has no model and model_args")
    for task, fields in (*results["configs"].items(), *results["n-samples"].items(), *tasks.items()):
        _require(fields, dict, file, f"what it says of {task}")
    return results


def _require(value: Any, kind: type | UnionType, path: Path, what: str) -> Any:
    """The value, where it is of the kind that a whole run has there."""
    if not isinstance(value, kind):
        raise _damaged(path, f"{what} is {json.dumps(value)[:_SHOWN]}, no {_KINDS[kind]}")
    return value


def _damaged(path: Path, why: object) -> UsageError:
    return UsageError(f"{path}: is damaged ({why}); run the evaluation again.")


def _is_counted(row: Mapping[str, Any]) -> bool:
    return (
        isinstance(row.get("id"), str)
        and isinstance(row.get("count"), int)
        and isinstance(row.get("predicted", ""), int | None)
        and isinstance(row.get("accuracy"), float)
    )


def _samples_file(file: Path, task: str) -> Path:
    return file.with_name(f"{file.name.removesuffix(_RESULTS)}_samples_{task}.jsonl")


def _read_samples(path: Path, results: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    if not path.exists():
        raise UsageError(f"{path}: is missing; run the evaluation again with --log_samples.")
    try:
        # Not splitlines: a reply may hold other line breaks, which lmms-eval writes as they are.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from None
    expected = results["n-samples"].get(task, {}).get("effective")
    if not lines or len(lines) != expected:
        raise UsageError(f"{path}: has {len(lines)} documents instead of {expected}; run the evaluation again.")
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        raise _damaged(path, error) from None
    return [_require(row, dict, path, "a document") for row in rows]


def _fields(
    results: Mapping[str, Any], signature: Mapping[str, Any], task: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    config, signed = results["configs"][task], signature.get("tasks", {}).get(task, {})
    idle = results.get("halo", {}).get("given", {}).get(task, {}).get("without_effect", ())
    system = results.get("system_instruction") or "none"
    options = config.get("generation_kwargs")
    return {
        "task version": results["versions"].get(task),
        "data hash": signed.get("dataset_sha256"),
        "prompt hash": signed.get("prompt_sha256"),
        "number of documents": len(rows),
        "set of documents": _sha256(sorted((row["id"], row["count"]) for row in rows)),
        "set of questions": _sha256(sorted((row["id"], row.get("input", "")) for row in rows)),
        "system prompt": ("none" if _SYSTEM in idle else system) if _SYSTEM in results else None,
        "generation configuration": options and {name: one for name, one in options.items() if name not in idle},
        "number of examples in the prompt": config.get("num_fewshot"),
        "marks of thoughts": signature.get("call", {}).get("reasoning_tags"),
    }


def _task_run(  # noqa: PLR0913 - all that there is of a task
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    fields: Mapping[str, Any],
    scores: Mapping[str, Mapping[tuple[int, int], float]],
    documents: int,
    path: Path,
) -> TaskRun:
    ids = tuple(row["id"] for row in rows)
    if twice := next((one for one, number in Counter(ids).items() if number > 1), None):
        raise UsageError(f"{path}: holds the document {twice} more than once, and each counts once; evaluate again.")
    probed = [_recorded(row, path) for row in rows]
    statuses = [halo["digit_status"] for halo in probed if "digit_status" in halo]
    first_steps = [(halo.get("digit_steps") or [None])[0] for halo in probed]
    reliance = [halo["reliance"] for halo in probed if "reliance" in halo]
    return TaskRun(
        name=name,
        ids=ids,
        counts=np.array([row["count"] for row in rows], dtype=np.int64),
        predicted=document_values([row["predicted"] for row in rows]),
        correct=np.array([row["accuracy"] for row in rows]) == 1,
        attention=_values(rows, ATTENTION_KEYS, path),
        digit_status={status: statuses.count(status) for status in dict.fromkeys(statuses)},
        probabilities=_probabilities(probed, path),
        true_digits=tuple(halo.get("true_digits") or "" for halo in probed),
        reliance=_values(rows, RELIANCE_KEYS, path),
        reliance_status={status: reliance.count(status) for status in dict.fromkeys(reliance)},
        mostly_other=_mostly_other(probed, path),
        missed=np.array([halo.get("intervention_missed") is True for halo in probed], dtype=np.bool_),
        contrasts={
            key: document_values(
                [found.get((row["doc_id"], step)) for row, step in zip(rows, first_steps, strict=True)]
            )
            for key, found in scores.items()
        },
        documents=documents,
        fields=fields,
        samples=tuple(rows),
    )


def _recorded(row: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """What the probe recorded of a document; empty without it."""
    first = (_require(row.get("token_counts") or [], list, path, "token_counts") or [None])[0]
    counted = _require(first or {}, dict, path, "token_counts")
    halo: dict[str, Any] = _require(counted.get("halo", {}), dict, path, "halo")
    for name, kind in _RECORDED.items():
        if halo.get(name) is not None:
            _require(halo[name], kind, path, name)
    return halo


def _values(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], path: Path) -> dict[str, Floats]:
    """Those of the metrics that any document has a value of."""
    found = {}
    for key in keys:
        given = [row.get(key) for row in rows]
        values = document_values([None if one is None else _require(one, _NUMBER, path, key) for one in given])
        if not np.isnan(values).all():
            found[key] = values
    return found


def _probabilities(probed: Sequence[Mapping[str, Any]], path: Path) -> Floats | None:
    """Those of each document, NaN where one has none; None where none has, or they are of different lengths."""
    found = [_require(halo.get("digit_probabilities") or [], list, path, "digit_probabilities") for halo in probed]
    shapes = {tuple(len(_require(one, list, path, "digit_probabilities")) for one in digits) for digits in found}
    shapes -= {()}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    missing = [[np.nan] * length for length in shape]
    try:
        return np.array([digits or missing for digits in found], dtype=np.float64)
    except (TypeError, ValueError):
        raise _damaged(path, "digit_probabilities are no numbers") from None


def _mostly_other(probed: Sequence[Mapping[str, Any]], path: Path) -> tuple[tuple[int, ...], ...]:
    try:
        return tuple(map(mostly_other, probed))
    except (TypeError, IndexError):
        raise _damaged(path, "digit_probabilities are no numbers over {0..9, END, OTHER}") from None


def _read_scores(folder: Path, signature: Mapping[str, Any]) -> dict[str, dict[str, dict[tuple[int, int], float]]]:
    """`CONTRASTS` and their z-scores by task, key, and document and step, at the last layer; none without the probe."""
    path = folder / SCORES
    if not path.exists() or not signature:
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [name for key in CONTRASTS for name in (key, f"{key}_z")]
    wanted = ["task", "doc_id", "repeat", "call", "step", "layer", *columns]
    try:
        # The samples hold the first reply of a document.
        first = [("repeat", "==", 0), ("call", "==", 0)]
        rows = pq.read_table(path, columns=wanted, filters=first, page_checksum_verification=True).to_pylist()
        state = (pq.read_schema(path).metadata or {}).get(STATE_KEY)
        stale = state is not None and _is_stale(json.loads(state), folder, signature)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be read ({first_line(error)}); score the run again: halo-probe score {folder}"
        ) from None
    if stale:
        raise UsageError(
            f"{path}: is of other maps than the run has now; score it again: halo-probe score {folder} --null"
        )
    last = max((row["layer"] for row in rows), default=0)
    scores: dict[str, dict[str, dict[tuple[int, int], float]]] = {}
    for row in rows:
        if row["layer"] == last:
            task = scores.setdefault(row["task"], {column: {} for column in columns})
            for column in columns:
                task[column][row["doc_id"], row["step"]] = row[column]
    return scores


def _is_stale(state: Any, folder: Path, signature: Mapping[str, Any]) -> bool:
    """Whether scores are of other maps than those in the folder, or, where these were removed, of another run."""
    now = state_of(signature, (folder / "halo").glob("part-*.parquet"))
    return bool(state.get("signature") != now["signature"] or (now["parts"] and state.get("parts") != now["parts"]))


def _first_grid(folder: Path) -> tuple[tuple[int, int], ...]:
    """The grid of the first document with an image; a part of documents without one has no rows."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        return ()
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in parts:
        try:
            file = pq.ParquetFile(part, page_checksum_verification=True)
            batch = next(file.iter_batches(batch_size=1, columns=["grid"]), None)
            if batch is not None and batch.num_rows:
                return tuple((rows, columns) for rows, columns in batch["grid"][0].as_py())
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{part}: cannot be read ({first_line(error)}); run the evaluation again.") from None
        except (KeyError, TypeError, ValueError):
            raise _damaged(part, "a row has no grid") from None
    return ()


def _sha256(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
