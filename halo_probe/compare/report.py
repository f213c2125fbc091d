"""The report of a comparison: records, and the same as JSON."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from halo_probe.archive.runs import Run
from halo_probe.compare import answer_tables, attention_tables
from halo_probe.compare.comparability import find_differences
from halo_probe.compare.documents import adjusted
from halo_probe.compare.evidence import COUNT, ECHO, group_models, judge
from halo_probe.compare.verdicts import Verdict
from halo_probe.errors import UsageError
from halo_probe.statistics.intervals import remember_draws


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """What a run is: without it, attention values of two models cannot be read side by side."""

    run: str
    model: str
    family: str
    intervention: str
    grid: str
    """Rows x columns of image tokens of each image of the first document."""
    heads: str
    recorded_layers: str
    dtype: str
    kernel: str
    not_recorded: int
    """Documents whose attention could not be recorded."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A comparison: everything that is printed, as records."""

    runs: tuple[RunRow, ...]
    left_out: tuple[str, ...]
    """Tasks of the runs that are no counting tasks."""
    differences: tuple[str, ...]
    """What makes the runs incomparable: empty unless the comparison was forced."""
    verdicts: tuple[Verdict, ...]
    scores: tuple[answer_tables.ScoreRow, ...]
    pairs: tuple[answer_tables.PairRow, ...]
    replies: tuple[answer_tables.ReplyRow, ...]
    attention: tuple[attention_tables.AttentionRow, ...]
    digits: tuple[answer_tables.DigitRow, ...]
    reliance: tuple[attention_tables.RelianceRow, ...]
    masks: tuple[answer_tables.MaskRow, ...]
    decays: tuple[attention_tables.ChangeRow, ...]
    contrasts: tuple[attention_tables.ChangeRow, ...]
    associations: tuple[attention_tables.AssociationRow, ...]
    scatters: tuple[attention_tables.ScatterRow, ...]


def compare(runs: Sequence[Run]) -> Report:
    """Compare runs, of one model or several, comparable or not.

    Raises:
        UsageError: If no run has a counting task, or two runs could be the same piece of evidence.
    """
    names = tuple(dict.fromkeys(task for run in runs for task in run.tasks))
    if not names:
        labels = ", ".join(run.label for run in runs)
        raise UsageError(f"{labels}: no counting task; evaluate halo_count or another task of this package.")
    models = group_models(runs)
    draws_of = remember_draws()
    rows: defaultdict[str, list[Any]] = defaultdict(list)
    for task in names:
        taken = {run.label: run.tasks[task] for run in runs if task in run.tasks}
        rows["scores"] += answer_tables.score_rows(task, taken)
        rows["pairs"] += answer_tables.pair_rows(task, taken)
        rows["replies"] += answer_tables.reply_rows(task, taken)
        rows["attention"] += attention_tables.attention_rows(
            task, [run for run in runs if task in run.tasks], draws_of=draws_of
        )
        rows["digits"] += answer_tables.digit_rows(task, taken)
        rows["reliance"] += attention_tables.reliance_rows(task, taken, draws_of=draws_of)
        rows["decays"] += attention_tables.decay_rows(task, taken, draws_of=draws_of)
        rows["associations"] += attention_tables.association_rows(task, taken)
        rows["scatters"] += attention_tables.scatter_rows(
            task, {label: ones[task] for label, ones in models.items() if task in ones}
        )
    run_models = {run.label: run.model for run in runs}
    for label, ones in models.items():
        others = [run for run in runs if run.intervention and run.model == run_models[label]]
        rows["masks"] += answer_tables.mask_rows(label, ones, others)
        if {COUNT, ECHO} <= ones.keys():
            rows["contrasts"] += attention_tables.contrast_rows(label, ones[COUNT], ones[ECHO], draws_of=draws_of)
    return Report(
        runs=tuple(map(run_row, runs)),
        left_out=tuple(dict.fromkeys(task for run in runs for task in run.left_out)),
        differences=find_differences(runs),
        verdicts=judge(runs, draws_of=draws_of),
        scores=tuple(rows["scores"]),
        pairs=adjusted(rows["pairs"]),
        replies=tuple(rows["replies"]),
        attention=tuple(rows["attention"]),
        digits=tuple(rows["digits"]),
        reliance=tuple(rows["reliance"]),
        masks=tuple(rows["masks"]),
        decays=adjusted(rows["decays"], is_primary),
        contrasts=adjusted(rows["contrasts"], is_primary),
        associations=adjusted(rows["associations"]),
        scatters=tuple(rows["scatters"]),
    )


def is_primary(row: attention_tables.ChangeRow) -> bool:
    """Whether a change is one that the paper claims: of sparsity and entropy, when counting and beyond echoing."""
    return row.measure in {"sparsity", "entropy"} and row.task in {COUNT, attention_tables.BEYOND_ECHO}


def write_json(report: Report, path: Path) -> None:
    """Write the records of a report, null where a value is undefined.

    Raises:
        UsageError: If the file cannot be written.
    """
    text = json.dumps(without_nan(asdict(report)), indent=1, allow_nan=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another --json file.") from None


def run_row(run: Run) -> RunRow:
    """What a run says of itself."""
    model = {key: str(value) for key, value in run.model.items()}
    return RunRow(
        run=run.label,
        model=run.model_name,
        family=model.get("family", ""),
        intervention=" ".join(f"{key}={value}" for key, value in (run.intervention or {}).items()),
        grid=" ".join(f"{rows}x{columns}" for rows, columns in run.grid),
        heads=model.get("heads", ""),
        recorded_layers=" ".join(f"{layer['index']}:{layer['type']}" for layer in run.layers),
        dtype=model.get("dtype", ""),
        kernel=model.get("kernel", ""),
        not_recorded=run.failures,
    )


def without_nan(value: Any) -> Any:
    """Records as JSON can hold them: None for NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
