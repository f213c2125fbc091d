"""Runs of many models on one task, ranked by accuracy, no finer than a test tells them apart.

Never ranked by attention. Runs that are not comparable stand in tables of their own, with the reason.

Source: the measurement specification, section 10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath

import numpy as np

from halo_probe.archive.runs import Run, open_runs
from halo_probe.archive.tasks import TaskRun
from halo_probe.compare.answer_tables import score_rows
from halo_probe.compare.attention_tables import contrast_rows, reliance_rows
from halo_probe.compare.comparability import find_differences
from halo_probe.compare.documents import UNDEFINED, shared
from halo_probe.compare.evidence import COUNT, ECHO, WIDE, group_models
from halo_probe.compare.report import run_row
from halo_probe.errors import UsageError
from halo_probe.statistics.intervals import DrawsOf, Interval, remember_draws
from halo_probe.statistics.ranks import Rank, rank_models

_HASH = 12  # its first characters tell two apart


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run on the leaderboard; a value is NaN, or a text empty, where the run does not have it."""

    rank: int
    """From 1: 1 + the number of runs that are surely better, and no less than that of any run more accurate."""
    rank_interval: tuple[int, int]
    """The best and the worst rank that the test leaves open."""
    model: str
    intervention: str
    n: int
    accuracy: float
    accuracy_interval: Interval
    answered: float
    mbe: float
    mbe_interval: Interval
    slope: float
    t_2: float
    """How far two images with the same second digit agree on it, of `halo_count_wide`: 0 (not at all) to 1."""
    t_2_interval: Interval
    decay_beyond_echo: float
    """Change of the sparsity from digit 1 to digit 2 when counting, minus that when repeating a number."""
    decay_beyond_echo_interval: Interval
    image_tokens: str
    """M of the first document."""
    heads: str
    layer: str
    """Index and type of the last layer recorded."""
    prompt: str
    """Beginning of the hash of the questions."""
    dtype: str
    signature: str
    """Beginning of the hash of all that the numbers depend on."""
    run: str
    """The folder as it was given."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """What always giving one answer scores on these documents."""

    answer: str
    accuracy: float
    mbe: float


@dataclass(frozen=True, kw_only=True)
class Board:
    """Runs that are comparable with each other."""

    version: str
    """Of the task."""
    question: str
    """Of the first document."""
    reasons: tuple[str, ...]
    """What keeps these runs out of the first table; empty for that one."""
    entries: tuple[Entry, ...]
    constants: tuple[Constant, ...]


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All runs that have a task, in one table or several."""

    task: str
    boards: tuple[Board, ...]
    """At least one; the one with the most runs first."""
    left_out: tuple[str, ...]
    """Runs without the task."""


def build_leaderboard(runs: Sequence[Path], *, task: str = COUNT) -> Leaderboard:
    """Rank runs of lmms-eval, of any model, probed or not.

    Args:
        runs: `--output_path`s with `--log_samples`.
        task: What to rank by.

    Raises:
        UsageError: If a run cannot be read or is named twice, or none has the task.
    """
    return rank_runs(open_runs(runs), task=task)


def rank_runs(runs: Sequence[Run], *, task: str = COUNT) -> Leaderboard:
    """As `build_leaderboard`, of runs that are read already."""
    having = [run for run in runs if task in run.tasks]
    if not having:
        others = ", ".join(dict.fromkeys(name for run in runs for name in run.tasks)) or "no counting task"
        raise UsageError(f"the leaderboard of {task} is empty: no run has it, they have {others}; give another --task.")
    draws_of = remember_draws()
    tasks_of = _tasks_by_label(runs)
    groups = _comparable_groups(having, task)
    return Leaderboard(
        task=task,
        boards=tuple(_board(group, task, main=groups[0], tasks_of=tasks_of, draws_of=draws_of) for group in groups),
        left_out=tuple(run.label for run in runs if task not in run.tasks),
    )


def _tasks_by_label(runs: Sequence[Run]) -> dict[str, Mapping[str, TaskRun]]:
    """The tasks that tell of the model of each run: those of all its plain runs, or those of the intervention's."""
    models = {run.label: run.model for run in runs}
    plain = [(models[label], tasks) for label, tasks in group_models(runs).items()]
    found = {}
    for run in runs:
        pooled = next((tasks for model, tasks in plain if model == run.model), {})
        found[run.label] = run.tasks if run.intervention else {**pooled, **run.tasks}
    return found


def _comparable_groups(runs: Sequence[Run], task: str) -> list[list[Run]]:
    """Runs in groups of which any two are comparable, the largest first."""
    groups: list[list[Run]] = []
    for run in runs:
        group = next((one for one in groups if not any(_differences(other, run, task) for other in one)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return sorted(groups, key=len, reverse=True)


def _differences(first: Run, second: Run, task: str) -> list[str]:
    prefix = f"{task}: "
    lines = find_differences([first, second])
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def _board(
    group: Sequence[Run],
    task: str,
    *,
    main: Sequence[Run],
    tasks_of: Mapping[str, Mapping[str, TaskRun]],
    draws_of: DrawsOf,
) -> Board:
    ranks = dict(zip([run.label for run in group], _ranks([run.tasks[task] for run in group]), strict=True))
    runs = sorted(group, key=lambda run: (-run.tasks[task].correct.mean(), ranks[run.label].rank))
    taken = {run.label: run.tasks[task] for run in runs}
    scores = list(score_rows(task, taken))
    entries = []
    for run, score in zip(runs, scores, strict=False):
        tasks, row = tasks_of[run.label], run_row(run)
        t_2, t_2_interval = _t_2(tasks, draws_of)
        decay, decay_interval = _decay_beyond_echo(tasks, draws_of)
        entries.append(
            Entry(
                rank=ranks[run.label].rank,
                rank_interval=(ranks[run.label].best, ranks[run.label].worst),
                model=_public_name(row.model),
                intervention=row.intervention,
                n=score.n,
                accuracy=score.accuracy,
                accuracy_interval=score.accuracy_interval,
                answered=score.answered,
                mbe=score.mbe,
                mbe_interval=score.mbe_interval,
                slope=score.slope,
                t_2=t_2,
                t_2_interval=t_2_interval,
                decay_beyond_echo=decay,
                decay_beyond_echo_interval=decay_interval,
                image_tokens=str(sum(map(prod, run.grid))) if run.grid else "",
                heads=row.heads,
                layer=row.recorded_layers.rpartition(" ")[2],
                prompt=taken[run.label].fields["set of questions"][:_HASH],
                dtype=row.dtype,
                signature=run.signature.get("sha256", "")[:_HASH],
                run=run.label,
            )
        )
    reasons = [] if group is main else [line for run in runs for line in _differences(main[0], run, task)]
    one = next(iter(taken.values()))
    return Board(
        version=str(one.fields["task version"]),
        question=str(one.samples[0].get("input", "")),
        reasons=tuple(dict.fromkeys(reasons)),
        entries=tuple(entries),
        constants=tuple(Constant(answer=row.run, accuracy=row.accuracy, mbe=row.mbe) for row in scores[len(taken) :]),
    )


def _ranks(runs: Sequence[TaskRun]) -> list[Rank]:
    def wins(a: TaskRun, b: TaskRun) -> int:
        mine, theirs = shared(a, b)
        return int((a.correct[mine] & ~b.correct[theirs]).sum())

    return rank_models([one.correct.mean() for one in runs], [[wins(a, b) for b in runs] for a in runs])


def _t_2(tasks: Mapping[str, TaskRun], draws_of: DrawsOf) -> tuple[float, Interval]:
    if WIDE in tasks:
        for row in reliance_rows(WIDE, {"": tasks[WIDE]}, draws_of=draws_of):
            if row.digit == 2:  # noqa: PLR2004 - the second digit
                return row.t, row.t_interval
    return np.nan, UNDEFINED


def _decay_beyond_echo(tasks: Mapping[str, TaskRun], draws_of: DrawsOf) -> tuple[float, Interval]:
    if {COUNT, ECHO} <= tasks.keys():
        for row in contrast_rows("", tasks[COUNT], tasks[ECHO], draws_of=draws_of):
            if row.measure == "sparsity":
                return row.mean, row.mean_interval
    return np.nan, UNDEFINED


def _public_name(model: str) -> str:
    """The name of a model; of a checkpoint on this machine, that of its folder."""
    return PurePath(model).name if model.startswith(("/", ".", "~")) else model
