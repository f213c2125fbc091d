"""Tests of paired values: the same documents seen twice, by two models or at two digits.

Source: the measurement specification, section 10.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from halo_probe.errors import UsageError

EXACT_BELOW = 25
"""Fewer pairs than this get the exact distribution of the signed-rank statistic."""

# Differences that agree to this many decimals are tied: what parts them is rounding.
_DECIMALS = 12


@dataclass(frozen=True, kw_only=True)
class SignedRank:
    """A Wilcoxon signed-rank test of differences against 0, with its effect sizes."""

    n: int
    """Number of differences."""
    pairs: int
    """Those that are not zero: the test is on them."""
    w_plus: float
    """Sum of the ranks of the positive differences."""
    w_minus: float
    """Sum of the ranks of the negative differences."""
    r: float
    """Rank-biserial correlation (W+ - W-) / (W+ + W-): -1 (all negative) to 1 (all positive); NaN without pairs."""
    shift: float
    """Hodges-Lehmann estimate: the median of the means of all two differences, zeros and each with itself included."""
    mean: float
    """Mean difference."""
    p: float
    """Two-sided p-value; 1 without pairs."""


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Test whether paired differences lie around 0 (Wilcoxon 1945).

    Zeros are dropped and ties share their mean rank. Below 25 pairs the p-value is exact, ties included; from 25 on it
    is that of the normal approximation with the variance corrected for ties.

    Args:
        differences: (n,), finite, n at least 1; those that agree to 12 decimals are tied.

    Raises:
        UsageError: If there is no difference, or one is not finite.

    >>> test = signed_rank([-8, 1, -12, -7, -1, -10, 0, -9, -8, -3])
    >>> test.pairs, test.w_plus, test.w_minus, test.shift, test.p
    (9, 1.5, 43.5, -5.5, 0.01171875)
    """
    d = np.asarray(differences, dtype=np.float64).round(_DECIMALS)
    if d.ndim != 1 or not d.size or not np.isfinite(d).all():
        raise UsageError(
            f"signed_rank: differences of shape {d.shape}: give n > 0 finite ones, without unpaired values"
        )
    pairs = d[d != 0]
    ranks = stats.rankdata(np.abs(pairs))
    w_plus, w_minus = float(ranks[pairs > 0].sum()), float(ranks[pairs < 0].sum())
    first, second = np.triu_indices(d.size)
    return SignedRank(
        n=d.size,
        pairs=pairs.size,
        w_plus=w_plus,
        w_minus=w_minus,
        r=(w_plus - w_minus) / (w_plus + w_minus) if pairs.size else np.nan,
        shift=float(np.median(d[first] + d[second]) / 2),
        mean=float(d.mean()),
        p=_p_value(pairs, ranks, min(w_plus, w_minus)) if pairs.size else 1.0,
    )


def _p_value(pairs: NDArray[np.float64], ranks: NDArray[np.float64], smaller: float) -> float:
    if pairs.size >= EXACT_BELOW:
        return float(stats.wilcoxon(pairs, correction=False, method="approx").pvalue)
    # Each rank is in W+ or not, each as likely: a product of polynomials over doubled ranks, which are integers.
    # scipy's exact distribution is the one without ties.
    chances = np.ones(1)
    for doubled in np.rint(2 * ranks).astype(int):
        with_rank = np.concatenate([np.zeros(doubled), chances])
        chances = (with_rank + np.pad(chances, (0, doubled))) / 2
    return float(min(1.0, 2 * chances[: round(2 * smaller) + 1].sum()))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two models are right equally often on the same documents (McNemar 1947).

    Args:
        only_first: Number of documents on which only the first is right.
        only_second: Number of those on which only the second is.

    Returns:
        1 where they never differ.

    Raises:
        UsageError: If a number is negative.

    >>> round(mcnemar(20, 8), 8)
    0.03569814
    """
    if min(only_first, only_second) < 0:
        raise UsageError(f"mcnemar: {only_first} and {only_second} documents: give numbers from 0")
    differing = only_first + only_second
    return float(stats.binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
