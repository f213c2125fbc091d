"""The tables of a comparison that are about the answers of runs: what each scored, and how they differ.

Every row is a plain record; a value is NaN where it is undefined on these documents. Intervals are at 95 %. The
functions leave `p_adjusted` undefined: it is over all rows of a table, and `adjusted` fills it in.

Source: the measurement specification, sections 4, 5 and 10.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from halo_probe.archive.runs import Run
from halo_probe.archive.tasks import TaskRun
from halo_probe.compare.documents import UNDEFINED, enough, shared
from halo_probe.errors import UsageError
from halo_probe.statistics.intervals import (
    Floats,
    Interval,
    error_interval,
    error_p,
    wilson_interval,
)
from halo_probe.statistics.paired import mcnemar
from lmms_eval_tasks import counting

MASKS = ("top30", "random30", "bottom30")
"""The interventions that hide 30 % of the image tokens."""

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
    mbe_clip: float
    """With each error within ± the true count: rare huge errors do not decide it."""
    mae: float
    mae_interval: Interval
    slope: float
    slope_r: float


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
class DigitRow:
    """How the digits of the replies of a probed run fall on tokens: numbers of documents."""

    task: str
    run: str
    split: int
    merged: int
    single: int
    not_found: int
    missed: int
    """Whose intervention acted on the digits of another number than the count: left out of what rests on it."""


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """Two runs on the same documents: second minus first."""

    task: str
    first: str
    second: str
    measure: str
    n: int
    """Documents that both answered; below 20, or 80 % of the task, no interval and no p."""
    documents: int
    """Of the whole task, evaluated, answered or not."""
    missed: int
    """Documents left out because an intervention of one of the two missed their count."""
    difference: float
    difference_interval: Interval
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """Accuracy with 30 % of the image tokens hidden: those with the most attention, beside the two controls.

    All of it on the documents in which every mask took place.
    """

    task: str
    run: str
    """The plain run of the model."""
    where: str
    """Steps and layers."""
    plain: float
    top30: float
    random30: float
    bottom30: float
    missed: int
    """Documents left out because a mask missed their count."""


def score_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[ScoreRow]:
    """The scores of each run on a task, then those of two constants: the most frequent and the median true count."""
    for label, one in taken.items():
        true, predicted = one.counts.tolist(), _counts(one.predicted)
        e = one.predicted - one.counts
        slope = counting.count_slope(true, predicted)
        yield ScoreRow(
            task=task,
            run=label,
            n=len(true),
            accuracy=float(one.correct.mean()),
            accuracy_interval=wilson_interval(int(one.correct.sum()), len(true)),
            answered=counting.answered(true, predicted),
            mbe=_value(counting.mbe(true, predicted)),
            mbe_interval=error_interval(e),
            mbe_bounds=(counting.mbe_lo(true, predicted), counting.mbe_hi(true, predicted)),
            mbe_clip=_value(counting.mbe_clip(true, predicted)),
            mae=_value(counting.mae(true, predicted)),
            mae_interval=error_interval(np.abs(e)),
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
            accuracy_interval=UNDEFINED,
            answered=1.0,
            mbe=constant.mbe,
            mbe_interval=UNDEFINED,
            mbe_bounds=(constant.mbe, constant.mbe),
            mbe_clip=_value(counting.mbe_clip(true, [answer] * len(true))),
            mae=constant.mae,
            mae_interval=UNDEFINED,
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


def digit_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[DigitRow]:
    """The statuses of the digits of each probed run."""
    for label, one in taken.items():
        if one.digit_status:
            numbers = {status: one.digit_status.get(status, 0) for status in ("split", "merged", "single", "not_found")}
            yield DigitRow(task=task, run=label, **numbers, missed=int(one.missed.sum()))


def pair_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[PairRow]:
    """All pairs of runs on a task, on the documents that both answered and whose intervention, if any, took place."""
    for (first, a), (second, b) in combinations(taken.items(), 2):
        mine, theirs = shared(a, b)
        e_a, e_b = (a.predicted - a.counts)[mine], (b.predicted - b.counts)[theirs]
        missed = a.missed[mine] | b.missed[theirs]
        both = ~np.isnan(e_a) & ~np.isnan(e_b) & ~missed
        if not both.any():
            continue
        e_a, e_b = e_a[both], e_b[both]
        right_a, right_b = e_a == 0, e_b == 0
        differences: dict[str, Floats] = {
            "accuracy": right_b.astype(np.float64) - right_a,
            "mbe": e_b - e_a,
            "mae": np.abs(e_b) - np.abs(e_a),
        }
        n, documents = int(both.sum()), max(a.documents, b.documents)
        p = mcnemar(int((right_a & ~right_b).sum()), int((~right_a & right_b).sum()))
        for measure, values in differences.items():
            yield PairRow(
                task=task,
                first=first,
                second=second,
                measure=measure,
                n=n,
                documents=documents,
                missed=int(missed.sum()),
                difference=float(values.mean()),
                difference_interval=error_interval(values) if enough(n, documents) else UNDEFINED,
                p=np.nan if not enough(n, documents) else p if measure == "accuracy" else error_p(values),
                p_adjusted=np.nan,
            )


def mask_rows(run: str, plain: Mapping[str, TaskRun], others: Sequence[Run]) -> Iterator[MaskRow]:
    """A model's accuracy without and with masks; NaN where one was not run.

    Args:
        run: Label of the plain run.
        plain: Its tasks.
        others: The runs of the same model with an intervention.

    Raises:
        UsageError: If two runs have the same mask: the row would hang on their order.
    """
    masked: dict[tuple[str, str], dict[str, Run]] = {}
    for other in others:
        did = other.intervention or {}
        for task in other.tasks if did["name"] in MASKS else ():
            found = masked.setdefault((task, f"steps {did['steps']}, layers {did['layers']}"), {})
            if did["name"] in found:
                raise UsageError(
                    f"{found[did['name']].label} and {other.label}: are both runs of {task} with {did['name']} by the "
                    "same model; name one of them."
                )
            found[did["name"]] = other
    for (task, where), by_name in masked.items():
        ones = {name: by_name[name].tasks[task] for name in MASKS if name in by_name}
        missed = {name for one in ones.values() for name, out in zip(one.ids, one.missed, strict=True) if out}
        hidden = {**dict.fromkeys(MASKS, np.nan), **{name: _accuracy(one, missed) for name, one in ones.items()}}
        whole = _accuracy(plain[task], missed) if task in plain else np.nan
        yield MaskRow(task=task, run=run, where=where, plain=whole, **hidden, missed=len(missed))


def _accuracy(one: TaskRun, left_out: Collection[str]) -> float:
    """Over the documents that are not left out; NaN where all are."""
    kept = np.array([name not in left_out for name in one.ids], dtype=np.bool_)
    return float(one.correct[kept].mean()) if kept.any() else np.nan


def _counts(predicted: Floats) -> list[int | None]:
    return [None if np.isnan(value) else int(value) for value in predicted]


def _value(value: float | None) -> float:
    return np.nan if value is None else value
