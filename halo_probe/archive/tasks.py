"""The tasks of a run that count: their documents as arrays, which tables, figures and verdicts are made from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from halo_probe.archive.results import NUMBER, DamagedFileError, recorded, require
from halo_probe.archive.signature import hash_of
from halo_probe.errors import UsageError
from halo_probe.metrics.keys import ASSOCIATED_KEYS, HALO_RULE_KEYS
from halo_probe.statistics.intervals import Floats, document_values
from halo_probe.statistics.reliance import RELIANCE_KEYS, mostly_other
from lmms_eval_tasks.aggregation import mean_of_present
from lmms_eval_tasks.count_task import scores_of
from lmms_eval_tasks.digits import digit_mode
from lmms_eval_tasks.parsing import ParsedCount, parse_count

_SYSTEM = "system_instruction"
SCORE_COLUMNS = (
    *("task", "doc_id", "step", "layer"),
    *(name for key in HALO_RULE_KEYS for name in (key, f"{key}_z")),
)
"""The columns of the scores that a task is made of."""


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
    """Those of `ASSOCIATED_KEYS` that any document has a value of, each (n,), NaN where one has none."""
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
    """`HALO_RULE_KEYS` and their z-scores, each (n,), at the first digit and the last layer scored; empty without
    scores."""
    documents: int
    """Documents of the task's data, evaluated or not."""
    fields: Mapping[str, Any]
    """What the numbers depend on besides the model, by name; None where the run does not say."""
    samples: tuple[Mapping[str, Any], ...]
    """The documents as lmms-eval wrote them, (n,)."""


Contrasts = Mapping[str, Mapping[tuple[int, int], float | None]]
"""`HALO_RULE_KEYS` and their z-scores, each by document and step."""


def is_counted(row: Mapping[str, Any]) -> bool:
    """Whether a sample is one of a counting task."""
    return (
        isinstance(row.get("id"), str)
        and isinstance(row.get("count"), int)
        and isinstance(row.get("predicted", ""), int | None)
        and isinstance(row.get("accuracy"), float)
    )


def task_run(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    results: Mapping[str, Any],
    contrasts: Contrasts,
    path: Path,
) -> TaskRun:
    """The documents of a counting task as arrays.

    Args:
        name: Of the task.
        rows: Its samples.
        results: The results file.
        contrasts: From the scores of the task's maps.
        path: Of the samples.

    Raises:
        DamagedFileError: If a field is of another kind than a run writes.
        UsageError: If a document stands there twice.
    """
    ids = tuple(row["id"] for row in rows)
    if twice := next((one for one, number in Counter(ids).items() if number > 1), None):
        raise UsageError(f"{path}: holds the document {twice} more than once, and each counts once; evaluate again.")
    probed = [recorded(row, path) for row in rows]
    _require_agreement(rows, probed, results, name, path=path)
    statuses = [halo["digit_status"] for halo in probed if "digit_status" in halo]
    first_steps = [(halo.get("digit_steps") or [None])[0] for halo in probed]
    reliance = [halo["reliance"] for halo in probed if "reliance" in halo]
    return TaskRun(
        name=name,
        ids=ids,
        counts=np.array([row["count"] for row in rows], dtype=np.int64),
        predicted=document_values([row["predicted"] for row in rows]),
        correct=np.array([row["accuracy"] for row in rows]) == 1,
        attention=_values(rows, ASSOCIATED_KEYS, path),
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
            for key, found in contrasts.items()
        },
        documents=int(results["n-samples"].get(name, {}).get("original") or len(rows)),
        fields=_fields(results, name, rows),
        samples=tuple(rows),
    )


def _require_agreement(
    rows: Sequence[Mapping[str, Any]],
    probed: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
    name: str,
    *,
    path: Path,
) -> None:
    """Hold what a run says twice against each other: scores against counts and replies, means against documents.

    Raises:
        DamagedFileError: If they differ; the message names the document and the field.
    """
    mode = digit_mode(results["configs"][name].get("metadata"))
    for row, halo in zip(rows, probed, strict=True):
        if "status" not in row:  # scored by another package
            continue
        parsed = ParsedCount(row["predicted"], row["status"], lenient=None)
        for key, value in scores_of(row, parsed).items():
            if key in row and row[key] != value:
                raise DamagedFileError(path, f"{row['id']}: {key} is {row[key]}, and by its counts {value}")
        reply = row.get("filtered_resps")
        # Tokens tell what of a probed model's reply was thought; a plain reply is all that was scored.
        if mode and not halo and isinstance(reply, str) and parse_count(reply, mode=mode).value != row["predicted"]:
            raise DamagedFileError(path, f"{row['id']}: predicted is {row['predicted']}, and its reply says another")
    table = results.get("results", {}).get(name, {})
    for key in {*table} & {f"{key},none" for key in rows[0]}:
        values = [row.get(key.removesuffix(",none")) for row in rows]
        if not all(value is None or isinstance(value, NUMBER) for value in values):
            continue
        mean = mean_of_present(values)
        if isinstance(table[key], NUMBER) and (mean is None or not np.isclose(table[key], mean, rtol=1e-9, atol=1e-12)):
            raise DamagedFileError(
                path, f"the mean of {key.removesuffix(',none')} is {mean}, in the table {table[key]}"
            )


def contrasts_of(scores: pa.Table | None, task: str) -> Contrasts:
    """The contrasts of the maps of a task at the last layer that was scored; empty where the run is not scored.

    Args:
        scores: With `SCORE_COLUMNS`.
        task: Name of the task.
    """
    if scores is None or not scores.num_rows:
        return {}
    of_task = scores.filter((pc.field("layer") == pc.max(scores["layer"]).as_py()) & (pc.field("task") == task))
    if not of_task.num_rows:
        return {}
    places = list(zip(of_task["doc_id"].to_pylist(), of_task["step"].to_pylist(), strict=True))
    keys = [name for key in HALO_RULE_KEYS for name in (key, f"{key}_z")]
    return {key: dict(zip(places, of_task[key].to_pylist(), strict=True)) for key in keys}


def _fields(results: Mapping[str, Any], task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    halo, config = results.get("halo", {}), results["configs"][task]
    signed = halo.get("signature", {}).get("tasks", {}).get(task, {})
    idle = halo.get("given", {}).get(task, {}).get("without_effect", ())
    system = results.get("system_instruction") or "none"
    options = config.get("generation_kwargs")
    return {
        "task version": results["versions"].get(task),
        "data hash": signed.get("dataset_sha256"),
        "prompt hash": signed.get("prompt_sha256"),
        "number of documents": len(rows),
        "set of documents": hash_of(sorted((row["id"], row["count"]) for row in rows)),
        "set of questions": hash_of(sorted((row["id"], row.get("input", "")) for row in rows)),
        "system prompt": ("none" if _SYSTEM in idle else system) if _SYSTEM in results else None,
        "generation configuration": options and {name: one for name, one in options.items() if name not in idle},
        "number of examples in the prompt": config.get("num_fewshot"),
        "marks of thoughts": halo.get("signature", {}).get("call", {}).get("reasoning_tags"),
    }


def _values(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], path: Path) -> dict[str, Floats]:
    """Those of the metrics that any document has a value of."""
    found = {}
    for key in keys:
        given = [row.get(key) for row in rows]
        values = document_values([None if one is None else require(one, NUMBER, path, key) for one in given])
        if not np.isnan(values).all():
            found[key] = values
    return found


def _probabilities(probed: Sequence[Mapping[str, Any]], path: Path) -> Floats | None:
    """Those of each document, NaN where one has none; None where none has, or they are of different lengths."""
    found = [require(halo.get("digit_probabilities") or [], list, path, "digit_probabilities") for halo in probed]
    shapes = {tuple(len(require(one, list, path, "digit_probabilities")) for one in digits) for digits in found}
    shapes -= {()}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    missing = [[np.nan] * length for length in shape]
    try:
        return np.array([digits or missing for digits in found], dtype=np.float64)
    except (TypeError, ValueError):
        raise DamagedFileError(path, "digit_probabilities are no numbers") from None


def _mostly_other(probed: Sequence[Mapping[str, Any]], path: Path) -> tuple[tuple[int, ...], ...]:
    try:
        return tuple(map(mostly_other, probed))
    except (TypeError, IndexError):
        raise DamagedFileError(path, "digit_probabilities are no numbers over {0..9, END, OTHER}") from None
