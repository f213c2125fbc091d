"""The tables of a comparison: what each run scored, how its attention changes, and how runs differ.

Every row is a plain record; a value is NaN where it is undefined on these documents. Intervals are at 95 %. The
functions leave `p_adjusted` undefined: it is over all rows of a table, and `adjusted` fills it in.

Source: the measurement specification, sections 4, 5, 7 and 10.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from halo_probe.compare.runs import ATTENTION_KEYS, MEASURES, Run, TaskRun
from halo_probe.metrics.reliability import associate
from halo_probe.statistics.information import digit_use
from halo_probe.statistics.intervals import (
    DrawsOf,
    Floats,
    Interval,
    bootstrap_p,
    drawn_means,
    percentile_interval,
    wilson_interval,
)
from halo_probe.statistics.paired import mcnemar, signed_rank
from halo_probe.statistics.scatter import LEAST_MODELS, model_scatter
from lmms_eval_tasks import counting

MASKS = ("top30", "random30", "bottom30")
"""The interventions that hide 30 % of the image tokens."""

_NONE = (np.nan, np.nan)
# Counts that are listed.
_FREQUENT = 5


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """How a run counts in a task; a row of constants is what always giving one answer scores."""

    task: str
    run: str
    n: int
    accuracy: float
    accuracy_interval: Interval
    answered: float
    mbe: float
    mbe_interval: Interval
    mbe_bounds: Interval
    """`mbe_lo` and `mbe_hi`."""
    mae: float
    mae_interval: Interval
    slope: float
    slope_r: float


@dataclass(frozen=True, kw_only=True)
class DigitRow:
    """How the digits of the replies of a probed run fall on tokens: numbers of documents."""

    task: str
    run: str
    split: int
    merged: int
    single: int
    not_found: int


@dataclass(frozen=True, kw_only=True)
class ReplyRow:
    """What a run replies: on blank images, its prior."""

    task: str
    run: str
    n: int
    most_frequent: float
    """The count that is replied most often, the smallest where tied; NaN where no reply gives one."""
    share: float
    """Of the documents that get it."""
    distinct: int
    """Number of different counts."""
    entropy: float
    """Of the counts, in bits: 0 where there is one."""
    counts: str
    """The most frequent, each with its share."""
    statuses: str
    """Of all replies as the parser read them, each with its number."""


@dataclass(frozen=True, kw_only=True)
class AttentionRow:
    """The attention of a run, with what it depends on besides the model's looking: means over documents."""

    task: str
    run: str
    image_tokens: float
    """M of the first document; NaN without maps."""
    heads: str
    layer: str
    """Index and type of the layer that is shown."""
    sparsity: float
    sparsity_interval: Interval
    sparsity_g16: float
    sparsity_g16_interval: Interval
    entropy: float
    entropy_interval: Interval
    visual_mass: float
    visual_mass_interval: Interval


@dataclass(frozen=True, kw_only=True)
class RelianceRow:
    """What a digit owes to the image: how much of the count it tells, and what taking the image away does to it."""

    task: str
    run: str
    digit: int
    """In the order in which they are asked for, from 1."""
    n: int
    """Documents measured; the others have digits merged in one token."""
    u: float
    u_interval: Interval
    vr: float
    vr_interval: Interval
    vrd: float
    vrd_interval: Interval
    dlogp: float
    dlogp_interval: Interval


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """Accuracy with 30 % of the image tokens hidden: those with the most attention, beside the two controls."""

    task: str
    run: str
    """The plain run of the model."""
    where: str
    """Steps and layers."""
    plain: float
    top30: float
    random30: float
    bottom30: float


@dataclass(frozen=True, kw_only=True)
class ChangeRow:
    """A paired change of an attention measure: from digit 1 to digit 2, or of that decay from echo to count."""

    task: str
    run: str
    measure: str
    pairs: int
    """Documents with both values."""
    mean: float
    mean_interval: Interval
    shift: float
    r: float
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """Two runs on the same documents: second minus first."""

    task: str
    first: str
    second: str
    measure: str
    n: int
    difference: float
    difference_interval: Interval
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class AssociationRow:
    """An attention value against correctness, within documents of the same count."""

    task: str
    run: str
    key: str
    n: int
    r: float
    r_interval: Interval
    auroc: float
    auroc_interval: Interval
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class ScatterRow:
    """Accuracy against the mean of an attention value, over models."""

    task: str
    key: str
    models: int
    r: float
    needed: float


Row = TypeVar("Row", ChangeRow, PairRow, AssociationRow)


def score_rows(task: str, taken: Mapping[str, TaskRun], *, draws_of: DrawsOf) -> Iterator[ScoreRow]:
    """The scores of each run on a task, then those of two constants: the most frequent and the median true count."""
    for label, one in taken.items():
        true, predicted = one.counts.tolist(), _counts(one.predicted)
        draws, e = draws_of(one.counts), one.predicted - one.counts
        slope = counting.count_slope(true, predicted)
        yield ScoreRow(
            task=task,
            run=label,
            n=len(true),
            accuracy=float(one.correct.mean()),
            accuracy_interval=wilson_interval(int(one.correct.sum()), len(true)),
            answered=counting.answered(true, predicted),
            mbe=_value(counting.mbe(true, predicted)),
            mbe_interval=_interval(e, draws),
            mbe_bounds=(counting.mbe_lo(true, predicted), counting.mbe_hi(true, predicted)),
            mae=_value(counting.mae(true, predicted)),
            mae_interval=_interval(np.abs(e), draws),
            slope=np.nan if slope is None else slope.slope,
            slope_r=np.nan if slope is None else _value(slope.r),
        )
    true = next(iter(taken.values())).counts.tolist()
    for answer in dict.fromkeys((max(sorted(set(true)), key=true.count), sorted(true)[len(true) // 2])):
        constant = counting.constant_baseline(true, answer)
        yield ScoreRow(
            task=task,
            run=f"always {answer}",
            n=len(true),
            accuracy=constant.accuracy,
            accuracy_interval=_NONE,
            answered=1.0,
            mbe=constant.mbe,
            mbe_interval=_NONE,
            mbe_bounds=(constant.mbe, constant.mbe),
            mae=constant.mae,
            mae_interval=_NONE,
            slope=0.0,
            slope_r=np.nan,
        )


def reply_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[ReplyRow]:
    """What each run replies, as the parser read it."""
    for label, one in taken.items():
        n = one.counts.size
        counts = Counter(int(value) for value in one.predicted[~np.isnan(one.predicted)])
        # The most frequent first, the smallest where tied.
        frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        statuses = Counter(row.get("status", "") for row in one.samples)
        yield ReplyRow(
            task=task,
            run=label,
            n=n,
            most_frequent=frequent[0][0] if frequent else np.nan,
            share=frequent[0][1] / n if frequent else np.nan,
            distinct=len(counts),
            entropy=float(stats.entropy(list(counts.values()), base=2)) if counts else np.nan,
            counts=", ".join(f"{count}: {number / n:.0%}" for count, number in frequent[:_FREQUENT]),
            statuses=", ".join(f"{status}: {number}" for status, number in statuses.most_common() if status),
        )


def attention_rows(task: str, runs: Sequence[Run], *, draws_of: DrawsOf) -> Iterator[AttentionRow]:
    """The attention of each probed run, averaged over the generated tokens of each document."""
    for run in runs:
        one = run.tasks[task]
        missing = np.full(one.counts.size, np.nan)
        names = {"sparsity": "sparsity", "sparsity_g16": "sparsity_g16", "entropy": "entropy", "visual_mass": "mass"}
        values = {name: one.attention.get(f"vision_{key}", missing) for name, key in names.items()}
        if np.isnan(list(values.values())).all():
            continue
        draws = draws_of(one.counts)
        shown = run.layers[-1] if run.layers else {"index": "", "type": ""}
        yield AttentionRow(
            task=task,
            run=run.label,
            image_tokens=sum(rows * columns for rows, columns in run.grid) or np.nan,
            heads=str(run.model.get("heads", "")),
            layer=f"{shown['index']} {shown['type']}".strip(),
            sparsity=_mean(values["sparsity"]),
            sparsity_interval=_interval(values["sparsity"], draws),
            sparsity_g16=_mean(values["sparsity_g16"]),
            sparsity_g16_interval=_interval(values["sparsity_g16"], draws),
            entropy=_mean(values["entropy"]),
            entropy_interval=_interval(values["entropy"], draws),
            visual_mass=_mean(values["visual_mass"]),
            visual_mass_interval=_interval(values["visual_mass"], draws),
        )


def digit_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[DigitRow]:
    """The statuses of the digits of each probed run."""
    for label, one in taken.items():
        if one.digit_status:
            numbers = {status: one.digit_status.get(status, 0) for status in ("split", "merged", "single", "not_found")}
            yield DigitRow(task=task, run=label, **numbers)


def reliance_rows(task: str, taken: Mapping[str, TaskRun], *, draws_of: DrawsOf) -> Iterator[RelianceRow]:
    """The first and second digit of each run that recorded reliance; U where all counts are equally long."""
    for label, one in taken.items():
        draws = draws_of(one.counts)
        for digit in (1, 2):
            missing = np.full(one.counts.size, np.nan)
            changes = {name: one.reliance.get(f"{name}_{digit}", missing) for name in ("vr", "vrd", "dlogp")}
            u, interval = _use(one, digit, draws)
            if np.isnan([u, *(_mean(values) for values in changes.values())]).all():
                continue
            yield RelianceRow(
                task=task,
                run=label,
                digit=digit,
                n=one.reliance_status.get("measured", 0),
                u=u,
                u_interval=interval,
                vr=_mean(changes["vr"]),
                vr_interval=_interval(changes["vr"], draws),
                vrd=_mean(changes["vrd"]),
                vrd_interval=_interval(changes["vrd"], draws),
                dlogp=_mean(changes["dlogp"]),
                dlogp_interval=_interval(changes["dlogp"], draws),
            )


def mask_rows(
    run: str, plain: Mapping[str, TaskRun], masked: Sequence[tuple[Mapping[str, Any], Mapping[str, TaskRun]]]
) -> Iterator[MaskRow]:
    """A model's accuracy without and with masks; NaN where one was not run.

    Args:
        run: Label of the plain run.
        plain: Its tasks.
        masked: Intervention and tasks of each other run of the model.
    """
    accuracies: dict[tuple[str, str], dict[str, float]] = {}
    for did, tasks in masked:
        for task, one in tasks.items() if did["name"] in MASKS else ():
            where = f"steps {did['steps']}, layers {did['layers']}"
            accuracies.setdefault((task, where), {})[did["name"]] = float(one.correct.mean())
    for (task, where), found in accuracies.items():
        whole = float(plain[task].correct.mean()) if task in plain else np.nan
        yield MaskRow(task=task, run=run, where=where, plain=whole, **{name: found.get(name, np.nan) for name in MASKS})


def decay(one: TaskRun, measure: str) -> Floats:
    """Second minus first digit of a measure, (n,); NaN where either is missing."""
    missing = np.full(one.counts.size, np.nan)
    return one.attention.get(f"{measure}_d2", missing) - one.attention.get(f"{measure}_d1", missing)


def decay_rows(task: str, taken: Mapping[str, TaskRun], *, draws_of: DrawsOf) -> Iterator[ChangeRow]:
    """The change from digit 1 to digit 2 in each probed run."""
    for label, one in taken.items():
        for measure in MEASURES:
            yield from _change(decay(one, measure), draws_of(one.counts), task=task, run=label, measure=measure)


def decay_differences(count: TaskRun, echo: TaskRun, measure: str) -> Floats:
    """Decay when counting minus decay when echoing, (n,) for the n documents of `count`; NaN where one is missing."""
    mine, theirs = shared(count, echo)
    differences = np.full(count.counts.size, np.nan)
    differences[mine] = decay(count, measure)[mine] - decay(echo, measure)[theirs]
    return differences


def contrast_rows(run: str, count: TaskRun, echo: TaskRun, *, draws_of: DrawsOf) -> Iterator[ChangeRow]:
    """The difference in differences of a model: count minus echo."""
    for measure in MEASURES:
        differences = decay_differences(count, echo, measure)
        yield from _change(differences, draws_of(count.counts), task="count - echo", run=run, measure=measure)


def pair_rows(task: str, taken: Mapping[str, TaskRun], *, draws_of: DrawsOf) -> Iterator[PairRow]:
    """All pairs of runs on a task, on the documents of both."""
    for (first, a), (second, b) in combinations(taken.items(), 2):
        mine, theirs = shared(a, b)
        if not mine.size:
            continue
        draws = draws_of(a.counts[mine])
        right_a, right_b = a.correct[mine], b.correct[theirs]
        p = accuracy_p(a, b)
        e_a, e_b = (a.predicted - a.counts)[mine], (b.predicted - b.counts)[theirs]
        sides: dict[str, tuple[Floats, Floats]] = {
            "accuracy": (right_a.astype(np.float64), right_b.astype(np.float64)),
            "mbe": (e_a, e_b),
            "mae": (np.abs(e_a), np.abs(e_b)),
        }
        for measure, (x, y) in sides.items():
            if np.isnan(x).all() or np.isnan(y).all():
                continue
            drawn = drawn_means(y, draws) - drawn_means(x, draws)
            yield PairRow(
                task=task,
                first=first,
                second=second,
                measure=measure,
                n=mine.size,
                difference=float(np.nanmean(y) - np.nanmean(x)),
                difference_interval=percentile_interval(drawn),
                p=p if measure == "accuracy" else bootstrap_p(drawn),
                p_adjusted=np.nan,
            )


def accuracy_p(a: TaskRun, b: TaskRun) -> float:
    """Exact McNemar p-value that two runs are right equally often, on the documents of both."""
    mine, theirs = shared(a, b)
    right_a, right_b = a.correct[mine], b.correct[theirs]
    return mcnemar(int((right_a & ~right_b).sum()), int((~right_a & right_b).sum()))


def association_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[AssociationRow]:
    """Each attention value of each run against correctness."""
    for label, one in taken.items():
        for key, values in one.attention.items():
            present = ~np.isnan(values)
            found = associate(values[present], one.correct[present], counts=one.counts[present])
            yield AssociationRow(
                task=task,
                run=label,
                key=key,
                n=found.n,
                r=found.r,
                r_interval=found.r_interval,
                auroc=found.auroc,
                auroc_interval=found.auroc_interval,
                p=found.p,
                p_adjusted=np.nan,
            )


def scatter_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[ScatterRow]:
    """Accuracy against the mean of each attention value, where at least three models have both."""
    for key in ATTENTION_KEYS:
        points = [
            (one.correct.mean(), np.nanmean(one.attention[key])) for one in taken.values() if key in one.attention
        ]
        if len(points) >= LEAST_MODELS:
            found = model_scatter(*zip(*points, strict=True))
            yield ScatterRow(task=task, key=key, models=found.models, r=found.r, needed=found.needed)


def adjusted(rows: Sequence[Row], method: Callable[[Sequence[float]], NDArray[np.float64]]) -> tuple[Row, ...]:
    """The rows with the p-values of all of them adjusted as one family; an undefined one is no member of it."""
    values = iter(method([row.p for row in rows if not np.isnan(row.p)]).tolist())
    return tuple(row if np.isnan(row.p) else replace(row, p_adjusted=next(values)) for row in rows)


def shared(a: TaskRun, b: TaskRun) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the documents that both have, in a and in b, in the order of a."""
    places = {name: place for place, name in enumerate(b.ids)}
    mine = [place for place, name in enumerate(a.ids) if name in places]
    theirs = [places[a.ids[place]] for place in mine]
    return np.array(mine, dtype=np.intp), np.array(theirs, dtype=np.intp)


def _change(differences: Floats, draws: Floats, *, task: str, run: str, measure: str) -> Iterator[ChangeRow]:
    present = ~np.isnan(differences)
    if not present.any():
        return
    test = signed_rank(differences[present])
    yield ChangeRow(
        task=task,
        run=run,
        measure=measure,
        pairs=test.n,
        mean=test.mean,
        mean_interval=_interval(differences, draws),
        shift=test.shift,
        r=test.r,
        p=test.p,
        p_adjusted=np.nan,
    )


def _counts(predicted: Floats) -> list[int | None]:
    return [None if np.isnan(value) else int(value) for value in predicted]


def _interval(values: Floats, draws: Floats) -> Interval:
    return _NONE if np.isnan(values).all() else percentile_interval(drawn_means(values, draws))


def _use(one: TaskRun, digit: int, draws: Floats) -> tuple[float, Interval]:
    """U of a digit and its bounds; undefined where nothing was recorded, or the counts are not equally long."""
    if one.probabilities is None or one.probabilities.shape[1] < digit:
        return np.nan, _NONE
    # A 1 before the digits keeps the 0 that a number written backwards may begin with.
    counts = [int(f"1{digits}") for digits in one.true_digits]
    use = digit_use(one.probabilities[:, digit - 1], counts, digit=digit + 1, draws=draws)
    return use.u, use.u_bounds


def _mean(values: Floats) -> float:
    return np.nan if np.isnan(values).all() else float(np.nanmean(values))


def _value(value: float | None) -> float:
    return np.nan if value is None else value
