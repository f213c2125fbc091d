"""Metrics of a counting task, as plain functions of the true and the predicted counts.

Conventions: (true, predicted) order everywhere, one entry per item; a predicted count is None where the reply gave
none (an unanswered item). The error of an answered item is e = predicted - true, in dots: negative is undercounting.
A metric over the answered items is None where no item is answered, never 0; no items at all raise ValueError, as do
sequences of unequal length.

Source: the measurement specification, section 4.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from statistics import correlation, fmean, linear_regression

Predicted = Sequence[int | None]


@dataclass(frozen=True, slots=True)
class CountSlope:
    """The least-squares line predicted = slope * true + intercept over the answered items.

    Attributes:
        slope: Dots per dot; 1 when every added dot is counted, 0 when the reply does not depend on the count.
        intercept: In dots.
        r: Pearson correlation, -1..1; None where every reply is the same.
    """

    slope: float
    intercept: float
    r: float | None


@dataclass(frozen=True, slots=True)
class CountRow:
    """The metrics of the items that share one true count.

    Attributes:
        count: The true count N, in dots.
        n: Items, at least 1.
        accuracy: As `accuracy`, 0..1.
        answered: As `answered`, 0..1.
        mbe: As `mbe`, in dots; None where no item is answered.
        mae: As `mae`, in dots; None where no item is answered.
    """

    count: int
    n: int
    accuracy: float
    answered: float
    mbe: float | None
    mae: float | None


@dataclass(frozen=True, slots=True)
class ConstantBaseline:
    """What a blind guess scores: the same answer to every item.

    Attributes:
        answer: The guess, in dots.
        accuracy: As `accuracy`, 0..1.
        mbe: As `mbe`, in dots.
        mae: As `mae`, in dots.
    """

    answer: int
    accuracy: float
    mbe: float
    mae: float


def accuracy(true: Sequence[int], predicted: Predicted) -> float:
    """Share of all items that are exactly right, 0..1, higher is better; an unanswered item is wrong.

    >>> accuracy([12, 11, 13, 14, 16], [12, 10, None, 15, 14])
    0.2
    """
    return fmean(p == t for t, p in _items(true, predicted))


def answered(true: Sequence[int], predicted: Predicted) -> float:
    """Share of all items with a predicted count, 0..1, higher is better."""
    return fmean(p is not None for _, p in _items(true, predicted))


def mbe(true: Sequence[int], predicted: Predicted) -> float | None:
    """Mean bias error: mean e over the answered items, in dots; 0 is best, negative is undercounting.

    Never shown without `answered`: a model that answers only what it finds easy has a small one.
    """
    return _mean(_errors(true, predicted))


def mbe_lo(true: Sequence[int], predicted: Predicted) -> float:
    """The mean bias error over all items, had every unanswered item been counted as 0; in dots, at most `mbe_hi`."""
    return fmean(-t if p is None else p - t for t, p in _items(true, predicted))


def mbe_hi(true: Sequence[int], predicted: Predicted) -> float:
    """The mean bias error over all items, had every unanswered item been counted double; in dots, at least `mbe_lo`."""
    return fmean(t if p is None else p - t for t, p in _items(true, predicted))


def mbe_clip(true: Sequence[int], predicted: Predicted) -> float | None:
    """Mean bias error with each e clipped to -true..true, so that one wild reply cannot decide it; in dots."""
    return _mean([max(-t, min(p - t, t)) for t, p in _answered_items(true, predicted)])


def mae(true: Sequence[int], predicted: Predicted) -> float | None:
    """Mean absolute error over the answered items, in dots, 0 or more, lower is better."""
    return _mean([abs(e) for e in _errors(true, predicted)])


def rmse(true: Sequence[int], predicted: Predicted) -> float | None:
    """Root mean square error over the answered items, in dots, 0 or more, lower is better."""
    mean_square = _mean([e * e for e in _errors(true, predicted)])
    return None if mean_square is None else math.sqrt(mean_square)


def off_by_one(true: Sequence[int], predicted: Predicted) -> float:
    """Share of all items that are right or one off, |e| <= 1; 0..1, at least `accuracy`, higher is better."""
    return fmean(p is not None and abs(p - t) <= 1 for t, p in _items(true, predicted))


def mrce(true: Sequence[int], predicted: Predicted) -> float | None:
    """Mean relative counting error: mean |e| / true over the answered items, 0 or more, lower is better.

    Items without dots are left out, since the ratio is undefined there. Source: arXiv 2511.17722.
    """
    return _mean([abs(p - t) / t for t, p in _answered_items(true, predicted) if t > 0])


def under(true: Sequence[int], predicted: Predicted) -> float:
    """Share of all items that are undercounted, e < 0; 0..1, lower is better."""
    return fmean(p is not None and p < t for t, p in _items(true, predicted))


def over(true: Sequence[int], predicted: Predicted) -> float:
    """Share of all items that are overcounted, e > 0; 0..1, lower is better."""
    return fmean(p is not None and p > t for t, p in _items(true, predicted))


def digit_length_mismatch(true: Sequence[int], predicted: Predicted) -> float:
    """Share of all items whose predicted count has another number of digits than the true one; 0..1, lower is better.

    An unanswered item is no mismatch.
    """
    return fmean(p is not None and len(str(p)) != len(str(t)) for t, p in _items(true, predicted))


def accuracy_macro(true: Sequence[int], predicted: Predicted) -> float:
    """Mean over the true counts of the accuracy within each, 0..1, higher is better: every N weighs the same."""
    return fmean(row.accuracy for row in per_count(true, predicted))


def count_slope(true: Sequence[int], predicted: Predicted) -> CountSlope | None:
    """Least squares of predicted on true over the answered items; None where they have fewer than two true counts.

    >>> count_slope([10, 12, 14], [10, 11, 12])
    CountSlope(slope=0.5, intercept=5.0, r=1.0)
    """
    items = _answered_items(true, predicted)
    if len({t for t, _ in items}) <= 1:
        return None
    trues, predictions = [t for t, _ in items], [p for _, p in items]
    slope, intercept = linear_regression(trues, predictions)
    r = correlation(trues, predictions) if len(set(predictions)) > 1 else None
    return CountSlope(slope=slope, intercept=intercept, r=r)


def per_count(true: Sequence[int], predicted: Predicted) -> tuple[CountRow, ...]:
    """The table per N: one row for each true count, ascending."""
    groups: defaultdict[int, list[int | None]] = defaultdict(list)
    for t, p in _items(true, predicted):
        groups[t].append(p)
    return tuple(
        CountRow(
            count=count,
            n=len(replies),
            accuracy=accuracy([count] * len(replies), replies),
            answered=answered([count] * len(replies), replies),
            mbe=mbe([count] * len(replies), replies),
            mae=mae([count] * len(replies), replies),
        )
        for count, replies in sorted(groups.items())
    )


def constant_baseline(true: Sequence[int], answer: int) -> ConstantBaseline:
    """What always giving one answer scores: shown beside every result.

    On counts that are uniform over 10..16 every constant among them is right in 14.3 % of the items: a model below
    that has a systematic bias, it is not at chance.

    >>> constant_baseline(range(10, 17), 13)
    ConstantBaseline(answer=13, accuracy=0.14285714285714285, mbe=0.0, mae=1.7142857142857142)
    """
    items = _items(true, [answer] * len(true))
    return ConstantBaseline(
        answer=answer,
        accuracy=fmean(t == answer for t, _ in items),
        mbe=fmean(answer - t for t, _ in items),
        mae=fmean(abs(answer - t) for t, _ in items),
    )


def _items(true: Sequence[int], predicted: Predicted) -> list[tuple[int, int | None]]:
    if len(true) != len(predicted):
        raise ValueError(
            f"counting: {len(true)} true and {len(predicted)} predicted counts: give one predicted, or None, per item"
        )
    if len(true) == 0:
        raise ValueError("counting: no items, so no metric is defined: give at least one")
    # index() turns integers of any library into exact ones and refuses NaN and fractions.
    return [(index(t), None if p is None else index(p)) for t, p in zip(true, predicted, strict=True)]


def _answered_items(true: Sequence[int], predicted: Predicted) -> list[tuple[int, int]]:
    return [(t, p) for t, p in _items(true, predicted) if p is not None]


def _errors(true: Sequence[int], predicted: Predicted) -> list[int]:
    return [p - t for t, p in _answered_items(true, predicted)]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
