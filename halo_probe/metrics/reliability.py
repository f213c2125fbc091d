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
class Association:
    """A score against correctness within images of the same count. NaN: not defined on these data."""

    n: int
    """Number of documents."""
    counts: int
    """Number of different counts among them."""
    r: float
    """Point-biserial correlation, both sides less their means per count: -1..1; NaN where a side does not vary."""
    p: float
    """Two-sided p-value of r, t distribution with n - counts - 1 degrees of freedom; NaN where there are none."""
    r_interval: tuple[float, float]
    """95 % interval of r, Fisher's z with n - counts - 2 in its standard error; NaN where that is not positive."""
    auroc: float
    """Share of the pairs of a right and a wrong answer to the same count where the right one scores higher, ties ½."""
    auroc_interval: tuple[float, float]
    """95 % score interval (Newcombe 2006) with the variance of Hanley and McNeil (1982), summed over the counts."""


def associate(scores: ArrayLike, correct: ArrayLike, *, counts: ArrayLike) -> Association:
    """Associate a score with correctness, within images of the same number of dots.

    With one count, r is the plain point-biserial correlation and the AUROC the plain one.

    Args:
        scores: The score of each document, (n,), finite.
        correct: Whether its answer is right, (n,), bool or 0 and 1.
        counts: Its true number of dots, (n,).

    Raises:
        UsageError: If the lengths differ, there is no document, a score is not finite, or `correct` is not 0 or 1.

    >>> found = associate([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], counts=[10, 10, 10, 10])
    >>> round(found.r, 6), found.auroc
    (0.447214, 0.75)
    """
    s, y, groups = np.asarray(scores, np.float64), np.asarray(correct, np.float64), np.asarray(counts)
    if not s.shape == y.shape == groups.shape == (s.size,) or not s.size:
        raise UsageError(
            f"associate: scores {s.shape}, correct {y.shape}, counts {groups.shape}: give one of each per document"
        )
    if not np.isfinite(s).all() or not np.isin(y, (0, 1)).all():
        raise UsageError("associate: a score is not finite or `correct` is not 0 or 1: leave out unscored documents")
    _, members = np.unique(groups, return_inverse=True)
    number = int(members.max()) + 1
    r, p, r_interval = _correlation(_demeaned(s, members), _demeaned(y, members), degrees=s.size - number - 1)
    auroc, auroc_interval = _auroc(s, y == 1, members)
    return Association(
        n=s.size, counts=number, r=r, p=p, r_interval=r_interval, auroc=auroc, auroc_interval=auroc_interval
    )


def _demeaned(values: NDArray[np.float64], members: NDArray[np.intp]) -> NDArray[np.float64]:
    means = np.bincount(members, values) / np.bincount(members)
    residuals = values - means[members]
    # What a constant leaves is rounding, not variation.
    return np.asarray(np.where(np.abs(residuals) > _TINY * np.abs(values).max(), residuals, 0.0))


def _correlation(
    s: NDArray[np.float64], y: NDArray[np.float64], *, degrees: int
) -> tuple[float, float, tuple[float, float]]:
    with np.errstate(divide="ignore", invalid="ignore"):
        r = float(np.clip(s @ y / np.sqrt(np.float64(s @ s) * (y @ y)), -1, 1))
        t = r * np.sqrt(np.float64(degrees) / (1 - r**2))
        p = 2 * stats.t.sf(abs(t), degrees) if degrees > 0 else np.nan
        half = _NORMAL_95 / np.sqrt(np.float64(degrees - 1)) if degrees > 1 else np.nan
        low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return r, float(p), (float(low), float(high))


def _auroc(
    s: NDArray[np.float64], right: NDArray[np.bool_], members: NDArray[np.intp]
) -> tuple[float, tuple[float, float]]:
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
