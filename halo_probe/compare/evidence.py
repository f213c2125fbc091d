"""What the runs at hand have to say to each decision rule."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from halo_probe.compare.attention_tables import decay_differences
from halo_probe.compare.documents import find_mispairing, shared
from halo_probe.compare.runs import Run, TaskRun
from halo_probe.compare.verdicts import (
    HaloCell,
    UnitsPair,
    Verdict,
    WideReplies,
    halo,
    language_takeover,
    noisy_magnitude,
)
from halo_probe.statistics.intervals import DrawsOf, Floats

COUNT, ECHO, WIDE, REVERSED = "halo_count", "halo_echo", "halo_count_wide", "halo_count_rev"
PAIRED_TASKS = ((COUNT, ECHO), (WIDE, REVERSED))
"""Different questions on the same images, which evidence pairs by document."""


def group_models(runs: Sequence[Run]) -> dict[str, Mapping[str, TaskRun]]:
    """The tasks of each model over its plain runs, by the label of its first.

    The first run with a task counts, one with digit probabilities before one without.
    """
    groups: list[list[Run]] = []
    for run in runs:
        if run.intervention is None:
            same = next((group for group in groups if group[0].model == run.model), None)
            if same is None:
                groups.append([run])
            else:
                same.append(run)
    tasks: dict[str, Mapping[str, TaskRun]] = {}
    for group in groups:
        found = [item for run in reversed(group) for item in run.tasks.items()]
        measured = [(task, one) for task, one in found if one.probabilities is not None]
        tasks[group[0].label] = dict([*found, *measured])
    return tasks


def judge(runs: Sequence[Run], *, draws_of: DrawsOf) -> tuple[Verdict, ...]:
    """The verdicts on each model, then the one on the Halo over all runs."""
    models = {run.label: run.model for run in runs}
    verdicts: list[Verdict] = []
    for label, tasks in group_models(runs).items():
        wide = tasks.get(WIDE)
        replies = None if wide is None else _wide_replies(wide, draws_of)
        boosted = next((run.tasks[WIDE] for run in runs if run.model == models[label] and _boosts_units(run)), None)
        verdicts += [
            language_takeover(
                label,
                decay_difference=_decay_difference(tasks),
                wide=replies,
                reversed_units=_units_pair(wide, tasks.get(REVERSED), draws_of=draws_of),
                boosted_units=_units_pair(wide, boosted, draws_of=draws_of),
            ),
            noisy_magnitude(label, wide=replies),
        ]
    return (*verdicts, halo("all runs", tuple(_cells(runs, draws_of))))


def _decay_difference(tasks: Mapping[str, TaskRun]) -> Floats | None:
    if not {COUNT, ECHO} <= tasks.keys():
        return None
    differences = decay_differences(tasks[COUNT], tasks[ECHO], "sparsity")
    return differences[~np.isnan(differences)]


def _wide_replies(wide: TaskRun, draws_of: DrawsOf) -> WideReplies:
    tens_and_units = wide.probabilities
    return WideReplies(
        counts=wide.counts,
        predicted=wide.predicted,
        units=None if tens_and_units is None else tens_and_units[:, 1],
        draws=draws_of(wide.counts),
    )


def _units_pair(before: TaskRun | None, after: TaskRun | None, *, draws_of: DrawsOf) -> UnitsPair | None:
    if before is None or after is None or find_mispairing(before, after):
        return None
    mine, theirs = shared(before, after)
    if not mine.size:
        return None
    return UnitsPair(
        before=(before.predicted % 10 == before.counts % 10)[mine],
        after=(after.predicted % 10 == after.counts % 10)[theirs],
        draws=draws_of(before.counts[mine]),
    )


def _boosts_units(run: Run) -> bool:
    did = run.intervention or {}
    return WIDE in run.tasks and did.get("name") == "boost" and did.get("steps") == "d2" and did.get("strength", 0) > 1


def _cells(runs: Sequence[Run], draws_of: DrawsOf) -> Iterator[HaloCell]:
    for run in runs:
        for task, one in run.tasks.items():
            if run.intervention is None and one.null_scores and (task == COUNT or task.startswith("halo_layout_")):
                yield HaloCell(
                    family=run.model.get("family", ""),
                    layout=task,
                    halo_index=one.null_scores["halo_index_ns"],
                    hull_contrast=one.null_scores["hull_contrast_ns"],
                    draws=draws_of(one.counts),
                )
