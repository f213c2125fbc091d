"""How much of the image is in a digit: divergences of next-token distributions, and their information on the count.

Conventions: distributions are over the last axis, finite and not negative, of any positive sum; for a digit that axis
is the alphabet {0..9, END, OTHER}. They come from teacher forcing: the true digits before the one asked about are
given, so that nothing is selected on the outcome. Bits and nats are named with each function.

Source: the measurement specification, section 9.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.spatial import distance

from halo_probe.errors import UsageError
from halo_probe.statistics.intervals import LEVEL, Floats, Interval, drawn_means, percentile_interval, uniform_words

PERMUTATIONS = 200

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
    Σ_d p(d) log2(mean(d | N) / mean(d)). It is never negative and grows with few documents per count: `digit_use` takes
    chance off.

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
class DigitUse:
    """How much of what a digit can say the model says through it."""

    n: int
    """Number of documents."""
    information: float
    """I_k in bits, less its mean over permutations: about 0 where the image does not matter."""
    uncorrected: float
    """I_k in bits, less only what the digits before it say: chance included."""
    digit_entropy: float
    """Entropy of the true digit in bits: what it can say."""
    u: float
    """U_k = information / digit_entropy: about 0 (the image does not matter) to 1; NaN where the entropy is 0.

    With few documents per count an exact reader stays below 1, since so much of its information could be chance: at 4
    of each of 10..99 it has a U_2 of .53."""
    u_bounds: Interval
    """From the lower bootstrap bound of U_k to the upper one of uncorrected / digit_entropy.

    The permutations take off too much where the image does matter, and without them there is too much: the truth is
    between the two."""


def digit_use(
    distributions: ArrayLike, counts: ArrayLike, *, digit: int, draws: Floats, level: float = LEVEL
) -> DigitUse:
    """Measure the information of the k-th digit on the count, and its share U_k of what the digit can say.

    The counts are permuted 200 times among the documents whose forced digits are the same: what the digit owes to those
    digits, which are text, is taken off with what it owes to chance.

    Args:
        distributions: Of the k-th digit, (n, A).
        counts: The true count of each document, (n,), all with the same number of digits.
        digit: k, from 1, the leading one.
        draws: From `stratified_draws` of the same counts, (draws, n).
        level: Of the bounds.

    Raises:
        UsageError: If one is no distribution, the lengths differ, or a count has fewer digits.
    """
    p, n = _distributions(distributions), np.asarray(counts)
    lengths = {len(str(count)) for count in n.tolist()}
    if n.shape != p.shape[:1] or len(lengths) != 1 or digit > min(lengths):
        raise UsageError(
            f"digit_use: distributions {p.shape}, {n.size} counts of {sorted(lengths)} digits: give one of each per "
            f"document, and counts of one length, at least {digit}"
        )
    power = 10 ** (min(lengths) - digit)
    before = _members(n // (10 * power))
    reference = _group_means(p, before)
    terms = _terms(p, _members(n), reference)
    chance = float(np.mean([_terms(p, members, reference).mean() for members in _permuted(_members(n), before)]))
    drawn = drawn_means(terms, draws)
    entropy = float(stats.entropy(np.unique(n // power % 10, return_counts=True)[1], base=2))
    scale = 1 / entropy if entropy else np.nan
    uncorrected = float(terms.mean())
    return DigitUse(
        n=n.size,
        information=uncorrected - chance,
        uncorrected=uncorrected,
        digit_entropy=entropy,
        u=(uncorrected - chance) * scale,
        u_bounds=(
            (percentile_interval(drawn, level=level)[0] - chance) * scale,
            percentile_interval(drawn, level=level)[1] * scale,
        ),
    )


def _members(groups: NDArray[Any]) -> NDArray[np.intp]:
    return np.asarray(np.unique(groups, return_inverse=True)[1])


def _group_means(p: Floats, members: NDArray[np.intp]) -> Floats:
    """The mean distribution of the group of each document, (n, A)."""
    sums = np.zeros((members.max() + 1, p.shape[1]))
    np.add.at(sums, members, p)
    return np.asarray((sums / np.bincount(members)[:, np.newaxis])[members])


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
