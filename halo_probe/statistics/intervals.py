"""Intervals for rates and means: Wilson for a rate, a widened t for a mean of errors, the bootstrap for any other mean.

Conventions: intervals are (low, high) at the given level, two-sided. Values are one per document, NaN where a document
has none; a mean is over the documents that have one. The same documents get the same draws, whatever is drawn: two
models on the same images differ by the models alone.

Source: the measurement specification, section 10.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from dataset_builder.stream import stream_key
from halo_probe.errors import UsageError

Floats = NDArray[np.float64]
Interval = tuple[float, float]
DrawsOf = Callable[[NDArray[np.int64]], Floats]
"""From the true counts of n documents to their draws, (draws, n)."""

LEVEL = 0.95
DRAWS = 10_000
LEAST_STRATUM = 20
"""Strata with fewer documents are joined with the next: drawing from few understates the spread, from one hides it."""


def wilson_interval(successes: int, n: int, *, level: float = LEVEL) -> Interval:
    """Interval of a rate (Wilson 1927): within 0..1, and of positive length for 0 of n too.

    Args:
        successes: From 0 to n.
        n: Number of trials, at least 1.
        level: Of confidence, between 0 and 1.

    Raises:
        UsageError: If there is no trial, or there are more successes than trials.

    >>> [round(bound, 6) for bound in wilson_interval(71, 256)]
    [0.226102, 0.335169]
    """
    if not 0 <= successes <= n or n == 0:
        raise UsageError(f"wilson_interval: {successes} successes of {n}: give 0 to n of at least one trial")
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def error_interval(errors: ArrayLike, *, level: float = LEVEL) -> Interval:
    """Interval of a mean of errors in dots: mean ± t(n - 1) · √((Σ(e - m)² + 2) / (n - 1)) / √n.

    The bootstrap draws nothing from errors that are nearly all 0, and does not cover. The 2 stands for the errors that
    so few documents did not show: no interval is of zero width. Where few documents have huge errors nothing covers.

    Args:
        errors: One per document, or their differences between two runs, (n,); NaN where it has none.
        level: Of confidence, between 0 and 1.

    Returns:
        NaN, twice, where fewer than 20 documents have one.

    >>> [round(bound, 8) for bound in error_interval([0] * 31 + [-1])]
    [-0.1428226, 0.0803226]
    """
    values = np.asarray(errors, dtype=np.float64)
    e = values[~np.isnan(values)]
    if e.size < LEAST_STRATUM:
        return np.nan, np.nan
    mean = e.mean()
    half = _error_scale(e) * stats.t.ppf((1 + level) / 2, e.size - 1)
    return float(mean - half), float(mean + half)


def error_p(errors: ArrayLike) -> float:
    """Two-sided p-value against 0 of a mean of errors: 1 - level of the `error_interval` that just reaches 0.

    Args:
        errors: As there.

    Returns:
        NaN where fewer than 20 documents have one.

    >>> round(error_p([0] * 31 + [-1]), 6)
    0.571955
    """
    values = np.asarray(errors, dtype=np.float64)
    e = values[~np.isnan(values)]
    return np.nan if e.size < LEAST_STRATUM else float(2 * stats.t.sf(abs(e.mean()) / _error_scale(e), e.size - 1))


def _error_scale(e: Floats) -> float:
    return float(np.sqrt((((e - e.mean()) ** 2).sum() + 2) / (e.size - 1) / e.size))


def uniform_words(name: str, shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Uniform integers in [0, 2**32), the same on every machine and for every version of numpy.

    Args:
        name: Of the stream.
        shape: Draws and documents; another shape is another stream.
    """
    digest = hashlib.shake_256(stream_key("statistics", name, *shape)).digest(4 * shape[0] * shape[1])
    return np.frombuffer(digest, dtype="<u4").reshape(shape)


def stratified_draws(counts: ArrayLike, *, draws: int = DRAWS) -> Floats:
    """How often each document is in each bootstrap draw, (draws, n): documents are drawn within those of like count.

    A stratum is the documents of one count, joined with those of the next counts while it has fewer than 20.

    Args:
        counts: The true count of each document, (n,), n at least 1.
        draws: Number of draws.

    Raises:
        UsageError: If there is no document.

    >>> stratified_draws([12, 10, 11]).sum(axis=1).tolist() == [3] * 10_000
    True
    """
    values = np.asarray(counts)
    if values.ndim != 1 or not values.size:
        raise UsageError(f"stratified_draws: counts of shape {values.shape}: give one for each of n > 0 documents")
    words = uniform_words("bootstrap", (draws, values.size))
    weights = np.zeros((draws, values.size))
    rows = np.arange(draws)[:, np.newaxis]
    for members in _strata(values):
        # The high half of word * size is uniform in [0, size), but for 1 in 2**32.
        drawn = words[:, members].astype(np.uint64) * np.uint64(members.size) >> np.uint64(32)
        flat = (rows * members.size + drawn.astype(np.int64)).ravel()
        weights[:, members] = np.bincount(flat, minlength=draws * members.size).reshape(draws, -1)
    return weights


def remember_draws() -> DrawsOf:
    """`stratified_draws` that remembers the last counts: runs on the same documents share their draws."""
    remembered = lru_cache(maxsize=1)(stratified_draws)
    return lambda counts: remembered(tuple(counts.tolist()))


def _strata(counts: NDArray[np.generic]) -> list[NDArray[np.intp]]:
    order = np.argsort(counts, kind="stable")
    groups: list[NDArray[np.intp]] = []
    for group in np.split(order, np.flatnonzero(np.diff(counts[order])) + 1):
        if groups and groups[-1].size < LEAST_STRATUM:
            groups[-1] = np.concatenate([groups[-1], group])
        else:
            groups.append(group)
    if len(groups) > 1 and groups[-1].size < LEAST_STRATUM:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups


def drawn_means(values: ArrayLike, draws: Floats) -> Floats:
    """The mean of the values in each draw, (draws,), or of k kinds of them, (draws, k); NaN for a draw that has none.

    Args:
        values: One per document, (n,), or k, (n, k); NaN where it has none.
        draws: From `stratified_draws`, (draws, n).
    """
    x = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(x)
    with np.errstate(invalid="ignore"):
        return np.asarray((draws @ np.where(present, x, 0.0)) / (draws @ present))


def drawn_slopes(true: ArrayLike, predicted: ArrayLike, draws: Floats) -> Floats:
    """The least-squares slope of predicted on true in each draw, (draws,); NaN for a draw of one true count.

    Args:
        true: (n,).
        predicted: (n,), NaN where a document has none.
        draws: From `stratified_draws`, (draws, n).
    """
    y = np.asarray(predicted, dtype=np.float64)
    x = np.where(np.isnan(y), np.nan, np.asarray(true, dtype=np.float64))
    # About the means, so that little cancels.
    x, y = (side - np.nanmean(side) for side in (x, y))
    covariance = drawn_means(x * y, draws) - drawn_means(x, draws) * drawn_means(y, draws)
    variance = drawn_means(x**2, draws) - drawn_means(x, draws) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(variance > 0, covariance / variance, np.nan))


def percentile_interval(drawn: Floats, *, level: float = LEVEL) -> Interval:
    """The interval between the outer percentiles of drawn values; draws without a value are left out.

    Args:
        drawn: From `drawn_means`, a difference of two of them, or `drawn_slopes`: (draws,).
        level: Of confidence, between 0 and 1.

    Raises:
        UsageError: If no draw has a value.
    """
    present = drawn[~np.isnan(drawn)]
    if not present.size:
        raise UsageError("percentile_interval: no draw has a value: leave out what no document has")
    low, high = np.quantile(present, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def document_values(values: Sequence[float | None]) -> Floats:
    """One value per document as an array, NaN for None.

    >>> document_values([1, None])
    array([ 1., nan])
    """
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
