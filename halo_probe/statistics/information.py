"""How much of the image is in a digit: divergences of next-token distributions, and their information on the count.

Conventions: distributions are over the last axis, finite and not negative, of any positive sum; for a digit that axis
is the alphabet {0..9, END, OTHER}. They come from teacher forcing: the true digits before the one asked about are
given, so that nothing is selected on the outcome. Bits and nats are named with each function.

Source: the measurement specification, section 9.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.spatial import distance

from halo_probe.errors import UsageError
from halo_probe.statistics.intervals import LEVEL, Floats, Interval, uniform_words

PERMUTATIONS = 200
# The places of 0..9 in the alphabet.
_DIGITS = 10

# Less probability than this adds less than rounding does.
_NOTHING = 1e-200


def kl_divergence(p: ArrayLike, q: ArrayLike) -> Floats:
    """Kullback-Leibler divergence of p from q in nats: 0 where equal, infinite where q has no mass and p has.

    Args:
        p: Distributions, (..., A).
        q: Distributions, (..., A).

    Raises:
        UsageError: If one is no distribution.

    >>> float(kl_divergence([0.5, 0.5], [0.25, 0.75]).round(6))
    0.143841
    """
    return np.asarray(special.rel_entr(_distributions(p), _distributions(q)).sum(axis=-1))


def js_divergence(p: ArrayLike, q: ArrayLike) -> Floats:
    """Jensen-Shannon divergence of p and q in bits: 0 (equal) to 1 (disjoint).

    `vr_k`, the visual reliance of the k-th digit, is that of its distributions with the image and with a blank one;
    `vrd_k` that with the image and with its keys knocked out at that step alone.

    Args:
        p: Distributions, (..., A).
        q: Distributions, (..., A).

    Raises:
        UsageError: If one is no distribution.

    >>> float(js_divergence([1, 0], [0, 1]))
    1.0
    """
    # scipy returns the root of the divergence, and NaN for the root of a rounding below 0.
    return np.asarray(np.nan_to_num(distance.jensenshannon(_distributions(p), _distributions(q), base=2, axis=-1)) ** 2)


def log_gain(image: ArrayLike, blank: ArrayLike, digits: ArrayLike) -> Floats:
    """`dlogp_k`: how much the image raises the log-probability of the true digit, in nats; negative where it lowers it.

    Infinite where one of the two gives it nothing, NaN where both do.

    Args:
        image: Distributions with the image, (n, A).
        blank: Distributions with a blank image, (n, A).
        digits: The true digits, (n,): places in the alphabet.

    Raises:
        UsageError: If one is no distribution.

    >>> log_gain([[0.5, 0.5]], [[0.25, 0.75]], [0]).round(6).tolist()
    [0.693147]
    """
    places = np.asarray(digits)[:, np.newaxis]
    with np.errstate(divide="ignore", invalid="ignore"):
        with_image, without = (
            np.log(np.take_along_axis(_distributions(side), places, axis=-1)[:, 0]) for side in (image, blank)
        )
        return np.asarray(with_image - without)


def information_terms(distributions: ArrayLike, counts: ArrayLike) -> Floats:
    """What each document adds to the information between a digit and the count, in bits, (n,); their mean is I.

    I = H(mean distribution) - Σ_N P(N) H(mean distribution given N), which is the mean over the documents of
    Σ_d p(d) log2(mean(d | N) / mean(d)). It is never negative and grows with few documents per count: see `digit_use`.

    Args:
        distributions: (n, A).
        counts: The true count N of each document, (n,).

    Raises:
        UsageError: If one is no distribution, or the lengths differ.

    >>> float(information_terms([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]], [10, 11, 12]).mean().round(8))
    0.38403196
    """
    p = _distributions(distributions)
    groups = np.asarray(counts)
    if p.ndim != 2 or groups.shape != p.shape[:1]:  # noqa: PLR2004
        raise UsageError(f"information: distributions {p.shape}, counts {groups.shape}: give one of each per document")
    return _terms(p, _members(groups), p.mean(axis=0))


@dataclass(frozen=True, kw_only=True)
class DigitAgreement:
    """How far two images with the same digit agree on it: T_k, the share that decides."""

    n: int
    """Number of documents with probabilities."""
    left_out: int
    """Number of documents without."""
    t: float
    """T_k: 1 for a perfect reader, about 0 where the image tells nothing that the digits before do not; it may be a
    little negative. NaN where no prefix has both kinds of pairs."""
    interval: Interval
    """T_k ± t(n - 1) jackknife standard errors, never narrower than √(2 / (n (n - 1))); NaN where leaving one document
    out leaves nothing to compare."""


def digit_agreement(
    distributions: ArrayLike, written: Sequence[str], *, digit: int, level: float = LEVEL
) -> DigitAgreement:
    """Measure how much more two images agree on their k-th digit where it is the same than where it is another.

    T_k is the mean over prefixes, weighted by their documents, of the mean of Σ_d p_i(d) p_j(d) over ordered pairs of
    documents with the same prefix and the same true digit k, less that over pairs with the same prefix and another
    digit k; d is 0..9. A prefix without both kinds of pairs is left out. T_k is unbiased for any number of documents.

    Args:
        distributions: Of the k-th digit, (n, A): the digits first, then what else there is. A row of NaN is a document
            without probabilities.
        written: The true digits of each document in the order in which they are asked for, (n,): "12".
        digit: k, from 1.
        level: Of the interval.

    Raises:
        UsageError: If a row is no distribution, the lengths differ, or a document has fewer digits.

    >>> rows = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.1, 0.7, 0.2]]
    >>> round(digit_agreement(rows, ["10", "10", "11", "11"], digit=2).t, 6)
    0.245
    """
    asked = _asked(distributions, written, digit)
    n, x = len(asked.p), asked.prefixes
    if not n:
        return DigitAgreement(n=0, left_out=asked.left_out, t=np.nan, interval=(np.nan, np.nan))
    p = asked.p[:, :_DIGITS]
    alike, before = (np.bincount(members)[members] for members in (asked.digits, x))
    with_same, with_all = (
        (_group_means(p, members) * size[:, np.newaxis] * p).sum(axis=1)
        for members, size in ((asked.digits, alike), (x, before))
    )
    # Of the pairs that begin with each document: sum and number, of those with the same digit and of the others.
    pairs = np.array([with_same - (p * p).sum(axis=1), alike - 1, with_all - with_same, before - alike])
    sums = np.array([np.bincount(x, row) for row in pairs])
    sizes = np.bincount(x).astype(np.float64)
    weights, parts = _weighted(sums, sizes)
    # Without a document its prefix loses the pairs that begin or end with it.
    left_weights, left_parts = _weighted(sums[:, x] - 2 * pairs, sizes[x] - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = parts.sum() / weights.sum()
        without = (parts.sum() - parts[x] + left_parts) / (weights.sum() - weights[x] + left_weights)
        error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
        half = np.maximum(error, np.sqrt(np.float64(2) / (n * (n - 1)))) * stats.t.ppf((1 + level) / 2, n - 1)
    return DigitAgreement(n=n, left_out=asked.left_out, t=float(t), interval=(float(t - half), float(t + half)))


def _weighted(sums: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """The weights of prefixes with both kinds of pairs, and their agreements times these; 0 for the others.

    Args:
        sums: Sum and number of the pairs with the same digit, and of the others, (4, prefixes).
        sizes: Documents of each prefix.
    """
    same, same_pairs, other, other_pairs = sums
    weights = np.where((same_pairs > 0) & (other_pairs > 0), sizes, 0.0)
    agreements = same / np.maximum(same_pairs, 1) - other / np.maximum(other_pairs, 1)
    return weights, weights * agreements


@dataclass(frozen=True, kw_only=True)
class DigitUse:
    """How much of what a digit can say the model says through it: three estimates of U_k, none of which decides.

    U_k is the information between the digit and the count, given the digits before, over `digit_entropy`: 0 (the image
    does not matter) to 1; NaN where that entropy is 0.
    """

    n: int
    """Number of documents with probabilities."""
    left_out: int
    """Number of documents without."""
    digit_entropy: float
    """Entropy of the true digit given the digits before it, in bits: what it can say."""
    plain: float
    """U_k as it is: too high where there are few documents per count, by .44 for noise that is sure of itself at 4."""
    less_chance: float
    """Less its mean over permutations of the counts within prefixes: too low, .52 for a perfect reader at 4."""
    jackknife: float
    """With the jackknife estimate of the entropy given the count: right for soft distributions, too high for noise that
    is sure of itself, .18 where the truth is .06."""


def digit_use(distributions: ArrayLike, written: Sequence[str], *, digit: int) -> DigitUse:
    """Measure the information of the k-th digit on the count as a share of what the digit can say.

    I_k is the mean over prefixes, weighted by their documents, of H(mean distribution) - Σ_N P(N) H(N). The counts are
    permuted 200 times among the documents of the same prefix.

    Args:
        distributions: Of the k-th digit, (n, A). A row of NaN is a document without probabilities.
        written: The true digits of each document in the order in which they are asked for, (n,): "12".
        digit: k, from 1.

    Raises:
        UsageError: If a row is no distribution, the lengths differ, or a document has fewer digits.

    >>> round(digit_use([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]], ["10", "11", "12"], digit=2).plain, 6)
    0.242297
    """
    asked = _asked(distributions, written, digit)
    if not len(asked.p):
        return DigitUse(
            n=0,
            left_out=asked.left_out,
            digit_entropy=np.nan,
            plain=np.nan,
            less_chance=np.nan,
            jackknife=np.nan,
        )
    reference = _group_means(asked.p, asked.prefixes)
    information = float(_terms(asked.p, asked.counts, reference).mean())
    chance = np.mean(
        [_terms(asked.p, members, reference).mean() for members in _permuted(asked.counts, asked.prefixes)]
    )
    jackknife = float((_entropies(reference) - _jackknife_entropies(asked.p, asked.counts)).mean())
    alike = np.bincount(asked.digits)[asked.digits] / np.bincount(asked.prefixes)[asked.prefixes]
    entropy = float(-np.log2(alike).mean()) + 0.0
    scale = 1 / entropy if entropy else np.nan
    return DigitUse(
        n=len(asked.p),
        left_out=asked.left_out,
        digit_entropy=entropy,
        plain=information * scale,
        less_chance=(information - float(chance)) * scale,
        jackknife=jackknife * scale,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """The documents with probabilities: what each said and which groups it is in, (n,), numbered from 0."""

    p: Floats
    """(n, A)."""
    prefixes: NDArray[np.intp]
    """By the digits before the one that is asked for."""
    digits: NDArray[np.intp]
    """By these and the digit itself."""
    counts: NDArray[np.intp]
    """By all digits."""
    left_out: int


def _asked(distributions: ArrayLike, written: Sequence[str], digit: int) -> _Asked:
    p, texts = np.asarray(distributions, dtype=np.float64), np.asarray(written, dtype=np.str_)
    fits = p.ndim == 2 and texts.shape == p.shape[:1] and digit > 0  # noqa: PLR2004
    present = ~np.isnan(p).all(axis=1) if fits else np.ones(0, dtype=np.bool_)
    if not fits or (np.char.str_len(texts[present]) < digit).any():
        raise UsageError(
            f"digit {digit}: distributions {p.shape}, {texts.size} numbers such as {min(written, default='')!r}: give "
            f"one of each per document, and numbers of at least {digit} digits"
        )
    return _Asked(
        p=_distributions(p[present]),
        prefixes=_members(np.array([text[: digit - 1] for text in texts[present]], dtype=np.str_)),
        digits=_members(np.array([text[:digit] for text in texts[present]], dtype=np.str_)),
        counts=_members(texts[present]),
        left_out=int((~present).sum()),
    )


def _members(groups: NDArray[Any]) -> NDArray[np.intp]:
    return np.asarray(np.unique(groups, return_inverse=True)[1])


def _group_means(p: Floats, members: NDArray[np.intp]) -> Floats:
    """The mean distribution of the group of each document, (n, A)."""
    sums = np.zeros((members.max() + 1, p.shape[1]))
    np.add.at(sums, members, p)
    return np.asarray((sums / np.bincount(members)[:, np.newaxis])[members])


def _entropies(p: Floats) -> Floats:
    """In bits, of each row: (n,)."""
    return np.asarray(stats.entropy(p, base=2, axis=1))


def _jackknife_entropies(p: Floats, members: NDArray[np.intp]) -> Floats:
    """The jackknife estimate of the entropy of each group, as the mean of one value per document: (n,)."""
    means, sizes = _group_means(p, members), np.bincount(members)[members]
    # A group of one has the entropy itself, whatever is left without it.
    others = np.maximum(means * sizes[:, np.newaxis] - p, 0) + np.where(sizes == 1, 1.0, 0.0)[:, np.newaxis]
    return np.asarray(sizes * _entropies(means) - (sizes - 1) * _entropies(others))


def _terms(p: Floats, members: NDArray[np.intp], reference: Floats) -> Floats:
    # Where p is 0 the term is, and where it is not, both means are above 0 and in range.
    ratio = np.divide(_group_means(p, members), reference, out=np.ones_like(p), where=p > _NOTHING)
    return np.asarray((p * np.log2(ratio)).sum(axis=1))


def _permuted(members: NDArray[np.intp], before: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """The members of counts, permuted among the documents with the same digits before, each permutation (n,)."""
    together = np.argsort(before, kind="stable")
    for keys in uniform_words("permutation", (PERMUTATIONS, members.size)):
        permuted = np.empty_like(members)
        permuted[np.lexsort((keys, before))] = members[together]
        yield permuted


def _distributions(values: ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim == 0 or not np.isfinite(p).all() or (p < 0).any() or not (p.sum(axis=-1) > 0).all():
        raise UsageError(f"distributions of shape {p.shape}: give finite weights, none negative, not all zero")
    return np.asarray(p / p.sum(axis=-1, keepdims=True))
