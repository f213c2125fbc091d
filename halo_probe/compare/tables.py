"""The tables of a comparison: what each run scored, how its attention changes, and how runs differ.

Every row is a plain record; a value is NaN where it is undefined on these documents. Intervals are at 95 %. The
functions leave `p_adjusted` undefined: it is over all rows of a table, and `adjusted` fills it in.

Source: the measurement specification, sections 4, 5, 7 and 10.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from halo_probe.compare.runs import ATTENTION_KEYS, MEASURES, TaskRun
from halo_probe.metrics.reliability import associate
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

_NONE = (np.nan, np.nan)


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


def digit_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[DigitRow]:
    """The statuses of the digits of each probed run."""
    for label, one in taken.items():
        if one.digit_status:
            numbers = {status: one.digit_status.get(status, 0) for status in ("split", "merged", "single", "not_found")}
            yield DigitRow(task=task, run=label, **numbers)


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
        p = mcnemar(int((right_a & ~right_b).sum()), int((~right_a & right_b).sum()))
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


def _value(value: float | None) -> float:
    return np.nan if value is None else value
