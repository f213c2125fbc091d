"""What the runs at hand have to say to each decision rule."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from halo_probe.archive.runs import Run
from halo_probe.archive.tasks import TaskRun
from halo_probe.compare.attention_tables import decay_differences
from halo_probe.compare.documents import find_mispairing, shared
from halo_probe.compare.verdicts import (
    BOOST,
    CONTRASTS,
    Differences,
    HaloCell,
    UnitsPair,
    Verdict,
    WideReplies,
    halo,
    language_takeover,
    noisy_magnitude,
)
from halo_probe.errors import UsageError
from halo_probe.statistics.intervals import DrawsOf

COUNT, ECHO, WIDE, REVERSED = "halo_count", "halo_echo", "halo_count_wide", "halo_count_rev"
PAIRED_TASKS = ((COUNT, ECHO), (WIDE, REVERSED))
"""Different questions on the same images, which evidence pairs by document."""


def plain_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs without an intervention, those of one model together: the one grouping of runs into models."""
    groups: list[list[Run]] = []
    for run in runs:
        if run.intervention is None:
            same = next((group for group in groups if group[0].model == run.model), None)
            if same is None:
                groups.append([run])
            else:
                same.append(run)
    return groups


def group_models(runs: Sequence[Run]) -> dict[str, Mapping[str, TaskRun]]:
    """The tasks of each model over its plain runs, by the label of its first.

    The first run with a task counts, one with digit probabilities before one without.
    """
    return {
        group[0].label: {task: _candidates(group, task)[0].tasks[task] for task in _names(group)}
        for group in plain_runs(runs)
    }


def _names(runs: Sequence[Run]) -> Iterable[str]:
    return dict.fromkeys(task for run in runs for task in run.tasks)


def _candidates(runs: Sequence[Run], task: str) -> list[Run]:
    """The runs with a task that could be the evidence: those with digit probabilities, where any has them."""
    having = [run for run in runs if task in run.tasks]
    return [run for run in having if run.tasks[task].probabilities is not None] or having


def _evidence(runs: Sequence[Run], task: str) -> TaskRun | None:
    """The one run with a task that a verdict may rest on; none where there are several that cannot be compared.

    Raises:
        UsageError: If there are several that can: the verdict would hang on their order.
    """
    candidates = _candidates(runs, task)
    if not candidates:
        return None
    first, *others = candidates
    if any(find_mispairing(first.tasks[task], other.tasks[task]) for other in others):
        return None
    if others:
        raise UsageError(
            f"{first.label} and {others[0].label}: are both runs of {task} by the same model, and a verdict could rest "
            "on either; name one of them."
        )
    return first.tasks[task]


def judge(runs: Sequence[Run], *, draws_of: DrawsOf) -> tuple[Verdict, ...]:
    """The verdicts on each model, then the one on the Halo over all runs.

    Raises:
        UsageError: If two runs could be the same piece of evidence.
    """
    verdicts: list[Verdict] = []
    for group in plain_runs(runs):
        label = group[0].label
        tasks = {task: one for task in _names(group) if (one := _evidence(group, task))}
        wide = tasks.get(WIDE)
        replies = None if wide is None else _wide_replies(wide, draws_of)
        boosted = [run for run in runs if run.model == group[0].model and _boosts_units(run)]
        verdicts += [
            language_takeover(
                label,
                decay_difference=_decay_difference(tasks),
                wide=replies,
                reversed_units=_units_pair(wide, tasks.get(REVERSED), draws_of=draws_of),
                boosted_units=_units_pair(wide, _evidence(boosted, WIDE), draws_of=draws_of),
            ),
            noisy_magnitude(label, wide=replies),
        ]
    return (*verdicts, halo("all runs", tuple(_cells(runs, draws_of))))


def _decay_difference(tasks: Mapping[str, TaskRun]) -> Differences | None:
    if not {COUNT, ECHO} <= tasks.keys() or find_mispairing(tasks[COUNT], tasks[ECHO]):
        return None
    differences = decay_differences(tasks[COUNT], tasks[ECHO], "sparsity")
    return Differences(values=differences[~np.isnan(differences)], documents=tasks[COUNT].documents)


def _wide_replies(wide: TaskRun, draws_of: DrawsOf) -> WideReplies:
    tens_and_units = wide.probabilities
    return WideReplies(
        counts=wide.counts,
        predicted=wide.predicted,
        units=None if tens_and_units is None else tens_and_units[:, 1],
        draws=draws_of(wide.counts),
        documents=wide.documents,
    )


def _units_pair(before: TaskRun | None, after: TaskRun | None, *, draws_of: DrawsOf) -> UnitsPair | None:
    """Units of the documents that both answered; none where the two cannot be paired.

    Documents that an intervention of either missed are left out: they say nothing of it.
    """
    if before is None or after is None or find_mispairing(before, after):
        return None
    mine, theirs = shared(before, after)
    missed = before.missed[mine] | after.missed[theirs]
    both = ~np.isnan(before.predicted[mine]) & ~np.isnan(after.predicted[theirs]) & ~missed
    mine, theirs = mine[both], theirs[both]
    if not mine.size:
        return None
    return UnitsPair(
        before=(before.predicted % 10 == before.counts % 10)[mine],
        after=(after.predicted % 10 == after.counts % 10)[theirs],
        draws=draws_of(before.counts[mine]),
        documents=max(before.documents, after.documents),
        missed=int(missed.sum()),
    )


def _boosts_units(run: Run) -> bool:
    did = run.intervention or {}
    return WIDE in run.tasks and {name: did.get(name) for name in BOOST} == BOOST


def _cells(runs: Sequence[Run], draws_of: DrawsOf) -> Iterator[HaloCell]:
    for run in runs:
        for task, one in run.tasks.items():
            if run.intervention is None and one.contrasts and (task == COUNT or task.startswith("halo_layout_")):
                yield HaloCell(
                    family=run.model.get("family", ""),
                    layout=task,
                    raw={name: one.contrasts[f"{name}_ns"] for name in CONTRASTS},
                    z={name: one.contrasts[f"{name}_ns_z"] for name in CONTRASTS},
                    draws=draws_of(one.counts),
                    documents=one.documents,
                )
