"""How far a signal tells right answers from wrong ones, and how far repeated answers agree.

Counting is harder for more dots, and most signals change with their number: every association here is within images of
the same number of dots.

Source: the measurement specification, section 7; arXiv 2606.17389 and 2605.08200.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from halo_probe.errors import UsageError

_NORMAL_95 = 1.959963984540054
_TINY = 1e-12

LEAST_EACH = 10
"""With fewer right or fewer wrong documents an association says nothing: one of 256 has a p of .0003."""


def self_consistency(values: Sequence[int | None]) -> float:
    """Share of the most frequent of several sampled answers: 1/K (all differ) to 1 (all agree).

    Args:
        values: The K parsed counts of one document; None, no count, is a value of its own.

    Raises:
        UsageError: If there is none.

    >>> self_consistency([12, 12, 13, None])
    0.5
    """
    if not values:
        raise UsageError("self_consistency: no answers: sample the document at least once")
    return max(Counter(values).values()) / len(values)


def pairwise_agreement(values: Sequence[int | None]) -> float:
    """Share of the pairs of sampled answers that are the same: 0 (all differ) to 1 (all agree).

    Args:
        values: The K parsed counts of one document, at least 2; None, no count, is a value of its own.

    Raises:
        UsageError: If there are fewer than two.

    >>> pairwise_agreement([12, 12, 13])
    0.3333333333333333
    """
    if len(values) < 2:  # noqa: PLR2004
        raise UsageError(f"pairwise_agreement: {len(values)} answers: sample the document at least twice")
    same = sum(times * (times - 1) for times in Counter(values).values())
    return same / (len(values) * (len(values) - 1))


@dataclass(frozen=True, kw_only=True)
class RankSum:
    """The stratified rank-sum test of a score: whether right answers rank higher than wrong ones to the same count."""

    w: float
    """Rank sum of the right ones, mid-ranks within each count."""
    expected: float
    """Of W where the score does not tell them apart."""
    variance: float
    """Of W then; 0 where nothing varies."""
    p: float
    """Two-sided, by the normal distribution; NaN where the variance is 0."""


@dataclass(frozen=True, kw_only=True)
class Association:
    """A score against correctness within images of the same count. NaN: not defined on these data.

    Where fewer than 10 documents are right, or fewer than 10 wrong, there is nothing but these two numbers.
    """

    n: int
    """Number of documents."""
    counts: int
    """Number of different counts among them."""
    right: int
    """Number of documents answered right."""
    wrong: int
    """Number of the others."""
    r: float
    """Point-biserial correlation, both sides less their means per count: -1..1; NaN where a side does not vary."""
    r_interval: tuple[float, float]
    """95 % interval of r, Fisher's z with n - counts - 2 in its standard error; NaN where that is not positive."""
    p: float
    """Two-sided p-value of the stratified rank-sum test; NaN where nothing varies."""
    auroc: float
    """Share of the pairs of a right and a wrong answer to the same count where the right one scores higher, ties ½."""
    auroc_interval: tuple[float, float]
    """95 % score interval (Newcombe 2006) with the variance of Hanley and McNeil (1982), summed over the counts."""


def associate(scores: ArrayLike, correct: ArrayLike, *, counts: ArrayLike) -> Association:
    """Associate a score with correctness, within images of the same number of dots.

    The p-value is that of `rank_sum`; r and the AUROC describe. Args and errors are those of `rank_sum`.

    >>> found = associate([0.5] * 9 + [0.9], [1] * 9 + [0], counts=[12] * 10)
    >>> found.right, found.wrong, found.p
    (9, 1, nan)
    """
    s, right, members = _checked(scores, correct, counts)
    number, rights = int(members.max()) + 1, int(right.sum())
    few = min(rights, s.size - rights) < LEAST_EACH
    nothing = np.nan, (np.nan, np.nan)
    r, r_interval = nothing if few else correlation(scores, correct, counts=counts)
    auroc, auroc_interval = nothing if few else within_auroc(scores, correct, counts=counts)
    return Association(
        n=s.size,
        counts=number,
        right=rights,
        wrong=s.size - rights,
        r=r,
        r_interval=r_interval,
        p=np.nan if few else rank_sum(scores, correct, counts=counts).p,
        auroc=auroc,
        auroc_interval=auroc_interval,
    )


def rank_sum(scores: ArrayLike, correct: ArrayLike, *, counts: ArrayLike) -> RankSum:
    """Test whether right answers score higher or lower than wrong ones to the same count (Wilcoxon, van Elteren).

    With a right and n - a wrong ones of a count, their expectation is a times the mean rank and their variance
    a (n - a) / n times the variance of the ranks: they are added over the counts.

    Args:
        scores: The score of each document, (n,), finite.
        correct: Whether its answer is right, (n,), bool or 0 and 1.
        counts: Its true number of dots, (n,).

    Raises:
        UsageError: If the lengths differ, there is no document, a score is not finite, or `correct` is not 0 or 1.

    >>> test = rank_sum([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3], [1, 1, 0, 1, 0, 1, 0, 0], counts=[12] * 8)
    >>> test.w, test.expected, test.variance, round(test.p, 8)
    (23.0, 18.0, 12.0, 0.14891467)
    """
    s, right, members = _checked(scores, correct, counts)
    w = expected = variance = 0.0
    for member in range(int(members.max()) + 1):
        inside = members == member
        ranks, a, n = stats.rankdata(s[inside]), int(right[inside].sum()), int(inside.sum())
        w += float(ranks[right[inside]].sum())
        expected += a * (n + 1) / 2
        variance += a * (n - a) / n * float(ranks.var(ddof=1)) if n > 1 else 0.0
    p = 2 * stats.norm.sf(abs(w - expected) / np.sqrt(variance)) if variance else np.nan
    return RankSum(w=w, expected=expected, variance=variance, p=float(p))


def correlation(scores: ArrayLike, correct: ArrayLike, *, counts: ArrayLike) -> tuple[float, tuple[float, float]]:
    """Point-biserial r within counts and its interval: see `Association`. With one count it is the plain one.

    Args and errors are those of `rank_sum`.

    >>> r, _ = correlation([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], counts=[10, 10, 10, 10])
    >>> round(r, 6)
    0.447214
    """
    s, right, members = _checked(scores, correct, counts)
    x, y = _demeaned(s, members), _demeaned(right.astype(np.float64), members)
    freedom = s.size - int(members.max()) - 3
    with np.errstate(divide="ignore", invalid="ignore"):
        r = float(np.clip(x @ y / np.sqrt(np.float64(x @ x) * (y @ y)), -1, 1))
        half = _NORMAL_95 / np.sqrt(np.float64(freedom)) if freedom > 0 else np.nan
        low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return r, (float(low), float(high))


def _checked(
    scores: ArrayLike, correct: ArrayLike, counts: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.intp]]:
    """Scores, whether right, and which count each document has, numbered from 0."""
    s, y, groups = np.asarray(scores, np.float64), np.asarray(correct, np.float64), np.asarray(counts)
    if not s.shape == y.shape == groups.shape == (s.size,) or not s.size:
        raise UsageError(
            f"associate: scores {s.shape}, correct {y.shape}, counts {groups.shape}: give one of each per document"
        )
    if not np.isfinite(s).all() or not np.isin(y, (0, 1)).all():
        raise UsageError("associate: a score is not finite or `correct` is not 0 or 1: leave out unscored documents")
    return s, y == 1, np.asarray(np.unique(groups, return_inverse=True)[1])


def _demeaned(values: NDArray[np.float64], members: NDArray[np.intp]) -> NDArray[np.float64]:
    means = np.bincount(members, values) / np.bincount(members)
    residuals = values - means[members]
    # What a constant leaves is rounding, not variation.
    return np.asarray(np.where(np.abs(residuals) > _TINY * np.abs(values).max(), residuals, 0.0))


def within_auroc(scores: ArrayLike, correct: ArrayLike, *, counts: ArrayLike) -> tuple[float, tuple[float, float]]:
    """AUROC within counts and its interval: see `Association`. With one count it is the plain one.

    Args and errors are those of `rank_sum`.

    >>> within_auroc([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], counts=[10, 10, 10, 10])[0]
    0.75
    """
    s, right, members = _checked(scores, correct, counts)
    rights, wrongs = (np.bincount(members, kept).astype(np.float64) for kept in (right, ~right))
    pairs = rights * wrongs
    total = pairs.sum()
    if not total:
        return np.nan, (np.nan, np.nan)
    wins = 0.0
    for member in np.flatnonzero(pairs):
        inside = members == member
        ranks = stats.rankdata(s[inside])
        wins += ranks[right[inside]].sum() - rights[member] * (rights[member] + 1) / 2
    auroc = float(wins / total)

    def excess(theta: float) -> float:
        """(θ - AUROC)² less the square of 1.96 standard errors at θ: negative inside the interval."""
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        one = theta * (1 - theta) + (rights - 1) * (q1 - theta**2) + (wrongs - 1) * (q2 - theta**2)
        return (theta - auroc) ** 2 - _NORMAL_95**2 * float((pairs * one).sum() / total**2)

    low = optimize.brentq(excess, 0, max(auroc - _TINY, _TINY)) if auroc > _TINY else 0.0
    high = optimize.brentq(excess, min(auroc + _TINY, 1 - _TINY), 1) if auroc < 1 - _TINY else 1.0
    return auroc, (float(low), float(high))
