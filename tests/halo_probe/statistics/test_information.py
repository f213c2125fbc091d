import math
from collections import Counter
from dataclasses import replace
from itertools import permutations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from halo_probe.errors import UsageError
from halo_probe.statistics.information import (
    digit_agreement,
    digit_use,
    information_terms,
    js_divergence,
    kl_divergence,
    log_gain,
)

P = [0.05, 0.10, 0.60, 0.15, 0.05, 0.05]
Q = [0.30, 0.05, 0.20, 0.10, 0.30, 0.05]
WIDE = np.repeat(np.arange(10, 100), 4)
WRITTEN = [str(count) for count in WIDE]

weights = hnp.arrays(float, st.tuples(st.integers(1, 6), st.just(5)), elements=st.floats(0.01, 1))


def entropy(p):
    return -sum(value * math.log2(value) for value in p if value > 0)


def one_hot(digits):
    return np.eye(12)[digits]


def test_the_divergences_of_the_specification_hold():
    assert kl_divergence(P, Q) == pytest.approx(0.61012591, abs=1e-6)
    assert js_divergence(P, Q) == pytest.approx(0.22816227, abs=1e-6)


def test_the_information_of_the_specification_holds():
    rows = [[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]]
    assert information_terms(rows, [10, 11, 12]).mean() == pytest.approx(0.38403196, abs=1e-6)


@given(weights, weights)
def test_the_divergences_follow_their_definitions(p, q):
    p, q = (side[: min(len(p), len(q))] for side in (p, q))
    p, q = (side / side.sum(axis=1, keepdims=True) for side in (p, q))
    nats = [sum(a * math.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    assert kl_divergence(p, q) == pytest.approx(nats, abs=1e-9)
    bits = [entropy((a + b) / 2) - (entropy(a) + entropy(b)) / 2 for a, b in zip(p, q, strict=True)]
    assert js_divergence(p, q) == pytest.approx(bits, abs=1e-9)
    assert js_divergence(p, q) == pytest.approx(js_divergence(q, p), abs=1e-9)


def test_the_divergences_at_their_ends():
    assert js_divergence(P, P) == 0
    assert kl_divergence(P, P) == 0
    assert js_divergence([1, 0], [0, 1]) == pytest.approx(1)
    assert kl_divergence([0.5, 0.5], [1, 0]) == np.inf
    assert js_divergence(np.array(P) * 7, Q) == pytest.approx(js_divergence(P, Q))


@given(weights, st.randoms(use_true_random=False))
def test_the_information_is_the_entropy_that_knowing_the_count_takes_away(p, seed):
    counts = np.array([seed.choice((10, 11, 12)) for _ in p])
    p = p / p.sum(axis=1, keepdims=True)
    given_count = sum((counts == n).mean() * entropy(p[counts == n].mean(axis=0)) for n in set(counts.tolist()))
    assert information_terms(p, counts).mean() == pytest.approx(entropy(p.mean(axis=0)) - given_count, abs=1e-9)


def test_the_gain_of_the_image_is_the_log_ratio_of_the_true_digit():
    image, blank = [[0.2, 0.8], [0.5, 0.5]], [[0.4, 0.6], [0.1, 0.9]]
    assert log_gain(image, blank, [1, 0]) == pytest.approx([math.log(0.8 / 0.6), math.log(5)])


def agreement_pair_by_pair(p, written, digit):
    """T_k by its definition, over every ordered pair of documents."""
    total = weight = 0
    for prefix in {text[: digit - 1] for text in written}:
        members = [i for i, text in enumerate(written) if text[: digit - 1] == prefix]
        products = {True: [], False: []}
        for i, j in permutations(members, 2):
            same = written[i][digit - 1] == written[j][digit - 1]
            products[same].append(sum(a * b for a, b in zip(p[i][:10], p[j][:10], strict=True)))
        if all(products.values()):
            total += len(members) * (fmean(products[True]) - fmean(products[False]))
            weight += len(members)
    return total / weight if weight else math.nan


def interval_by_deleting(p, written, digit):
    """The jackknife of the definition, by leaving out one document after the other."""
    n = len(written)
    without = [agreement_pair_by_pair(np.delete(p, i, axis=0), written[:i] + written[i + 1 :], digit) for i in range(n)]
    error = math.sqrt((n - 1) / n * sum((value - fmean(without)) ** 2 for value in without))
    half = stats.t.ppf(0.975, n - 1) * max(error, math.sqrt(2 / (n * (n - 1))))
    t = agreement_pair_by_pair(p, written, digit)
    return t - half, t + half


VECTORS = {
    "soft": ([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.1, 0.7, 0.2]], 0.245),
    "exact": (np.eye(3)[[0, 0, 1, 1]], 1),
    "blind": ([[0.5, 0.5]] * 4, 0),
    "crossed": (np.eye(3)[[0, 1, 0, 1]], -0.5),
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_agreements_of_the_specification_hold(name):
    rows, expected = VECTORS[name]
    assert digit_agreement(rows, ["10", "10", "11", "11"], digit=2).t == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.sampled_from(["10", "11", "12", "20", "21", "30"]), min_size=2, max_size=14), st.integers(0, 99))
def test_the_agreement_and_its_interval_are_those_of_all_pairs_and_all_deletions(written, seed):
    p = np.random.default_rng(seed).dirichlet(np.full(12, 0.4), len(written))
    for digit in (1, 2):
        found = digit_agreement(p, written, digit=digit)
        assert found.t == pytest.approx(agreement_pair_by_pair(p, written, digit), abs=1e-9, nan_ok=True)
        assert found.interval == pytest.approx(interval_by_deleting(p, written, digit), abs=1e-9, nan_ok=True)


def test_a_prefix_without_pairs_of_both_kinds_is_left_out():
    rows, _ = VECTORS["soft"]
    more = [*rows, [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    found = digit_agreement(more, ["10", "10", "11", "11", "20", "20", "31", "32"], digit=2)
    assert found.t == pytest.approx(0.245)
    alone = digit_agreement(rows, ["10", "10", "10", "10"], digit=2)
    assert math.isnan(alone.t)
    assert np.isnan(alone.interval).all()


def test_what_a_digit_owes_to_the_digits_before_it_is_text_and_does_not_count():
    favourite = one_hot(7 * (WIDE // 10) % 10)
    assert information_terms(favourite, WIDE).mean() > 2
    assert digit_agreement(favourite, WRITTEN, digit=2).t == pytest.approx(0, abs=1e-12)
    use = digit_use(favourite, WRITTEN, digit=2)
    assert (use.plain, use.less_chance, use.jackknife) == pytest.approx((0, 0, 0), abs=1e-9)


def test_a_constant_answer_has_an_interval_with_width():
    found = digit_agreement(one_hot(np.full(360, 7)), WRITTEN, digit=2)
    low, high = found.interval
    assert found.t == 0
    assert low < -0.005 < 0.005 < high


def test_end_and_other_are_no_agreement():
    ended = np.eye(12)[np.where(WIDE % 10 == 3, 10, 11)]
    assert digit_agreement(ended, WRITTEN, digit=2).t == 0
    read = np.eye(12)[WIDE % 10]
    assert digit_agreement(read, WRITTEN, digit=2).t == pytest.approx(1)
    assert digit_agreement(read / 2 + np.eye(12)[[11]] / 2, WRITTEN, digit=2).t == pytest.approx(0.25)


@pytest.mark.parametrize("function", [digit_agreement, digit_use])
def test_a_document_without_probabilities_is_left_out_and_counted(function):
    p = np.random.default_rng(1).dirichlet(np.ones(12), WIDE.size)
    holes = p.copy()
    holes[::7] = np.nan
    found = function(holes, WRITTEN, digit=2)
    kept = np.arange(WIDE.size) % 7 > 0
    assert (found.n, found.left_out) == (kept.sum(), WIDE.size - kept.sum())
    without = function(p[kept], [text for text, here in zip(WRITTEN, kept, strict=True) if here], digit=2)
    assert found == replace(without, left_out=found.left_out)
    none = function(np.full((2, 12), np.nan), ["10", ""], digit=2)
    assert (none.n, none.left_out) == (0, 2)
    assert math.isnan(none.t if function is digit_agreement else none.jackknife)


@pytest.mark.parametrize("sure", [False, True])
def test_the_interval_of_the_agreement_covers_the_truth_about_as_often_as_it_says(sure):
    """Gaussian readers with four documents per count: spread, or one digit drawn from the same distribution."""
    units = np.arange(10)
    reader = np.exp(-((units[:, None] - units) ** 2) / (2 * 3**2))
    reader /= reader.sum(axis=1, keepdims=True)
    overlaps = reader @ reader.T
    truth = np.diag(overlaps).mean() - overlaps[~np.eye(10, dtype=bool)].mean()
    rng, covered = np.random.default_rng(2), 0
    for _ in range(200):
        if sure:
            p = one_hot([rng.choice(10, p=reader[unit]) for unit in WIDE % 10])
        else:
            # A Dirichlet distribution whose mean is the reader's.
            p = np.pad([rng.dirichlet(5 * reader[unit]) for unit in WIDE % 10], ((0, 0), (0, 2)))
        low, high = digit_agreement(p, WRITTEN, digit=2).interval
        covered += low <= truth <= high
    assert covered / 200 >= 0.92


def use_by_definition(p, written, digit):
    """I_k over the entropy of the true digit, plain and with the jackknife, group by group."""
    prefixes = {text[: digit - 1] for text in written}
    plain = jackknife = possible = 0
    for prefix in prefixes:
        inside = [i for i, text in enumerate(written) if text[: digit - 1] == prefix]
        share = len(inside) / len(written)
        whole = entropy(p[inside].mean(axis=0))
        possible += share * entropy([n / len(inside) for n in Counter(written[i][digit - 1] for i in inside).values()])
        for count in {written[i] for i in inside}:
            members = [i for i in inside if written[i] == count]
            n = len(members)
            own = entropy(p[members].mean(axis=0))
            plain += share * n / len(inside) * (whole - own)
            if n > 1:
                own = n * own - (n - 1) * fmean(
                    entropy(p[[i for i in members if i != out]].mean(axis=0)) for out in members
                )
            jackknife += share * n / len(inside) * (whole - own)
    return (plain / possible, jackknife / possible) if possible else (math.nan, math.nan)


@given(st.lists(st.sampled_from(["10", "11", "12", "20", "21", "30"]), min_size=1, max_size=14), st.integers(0, 99))
def test_the_use_is_its_definition_group_by_group(written, seed):
    p = np.random.default_rng(seed).dirichlet(np.full(12, 0.4), len(written))
    for digit in (1, 2):
        found = digit_use(p, written, digit=digit)
        expected = use_by_definition(p, written, digit)
        assert (found.plain, found.jackknife) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_what_permutations_give_is_taken_off():
    found = digit_use(one_hot(WIDE % 10), WRITTEN, digit=2)
    shuffled, chances = np.random.default_rng(3), []
    for _ in range(50):
        permuted = np.concatenate([shuffled.permutation(tens) for tens in WIDE.reshape(9, 40)])
        chances.append(
            information_terms(one_hot(WIDE % 10), permuted).mean()
            - information_terms(one_hot(WIDE % 10), WIDE // 10).mean()
        )
    assert found.less_chance == pytest.approx(1 - np.mean(chances) / math.log2(10), abs=0.005)


def test_each_estimate_errs_as_it_is_said_to():
    exact = digit_use(one_hot(WIDE % 10), WRITTEN, digit=2)
    assert (exact.plain, exact.jackknife) == pytest.approx((1, 1))
    assert exact.less_chance == pytest.approx(0.52, abs=0.02)
    rng = np.random.default_rng(0)
    noise = [digit_use(one_hot(rng.integers(0, 10, WIDE.size)), WRITTEN, digit=2) for _ in range(5)]
    assert np.mean([use.plain for use in noise]) == pytest.approx(0.44, abs=0.02)
    assert np.mean([use.less_chance for use in noise]) == pytest.approx(0, abs=0.01)
    soft = [digit_use(rng.dirichlet(np.full(12, 3), WIDE.size), WRITTEN, digit=2) for _ in range(5)]
    assert np.mean([use.jackknife for use in soft]) == pytest.approx(0, abs=0.01)


def test_an_answer_that_is_always_the_same_or_rounds_uses_what_it_uses_of_the_true_digit():
    constant = digit_use(one_hot(np.full(360, 7)), WRITTEN, digit=2)
    assert constant.digit_entropy == pytest.approx(math.log2(10))
    assert (constant.plain, constant.less_chance, constant.jackknife) == pytest.approx((0, 0, 0), abs=1e-12)
    fives = digit_use(one_hot(WIDE % 10 // 5 * 5), WRITTEN, digit=2)
    assert fives.jackknife == pytest.approx(1 / math.log2(10))


def test_a_digit_that_is_always_the_same_has_nothing_to_say():
    counts = np.repeat(np.arange(10, 17), 30)
    written = [str(count) for count in counts]
    use = digit_use(one_hot(counts // 10), written, digit=1)
    assert use.digit_entropy == 0
    assert math.isnan(use.jackknife)
    units = digit_use(one_hot(counts % 10), written, digit=2)
    assert units.digit_entropy == pytest.approx(math.log2(7))
    assert units.jackknife == pytest.approx(1)


def test_what_a_digit_can_say_is_what_the_digits_before_it_leave_open():
    # The units are those of the tens: 11, 22, ... have nothing left to say.
    doubled = [str(11 * tens) for tens in np.repeat(np.arange(1, 10), 4)]
    assert digit_use(one_hot([int(text[1]) for text in doubled]), doubled, digit=2).digit_entropy == 0


def test_the_use_is_the_same_every_time():
    p = np.random.default_rng(1).dirichlet(np.ones(12), WIDE.size)
    assert digit_use(p, WRITTEN, digit=2) == digit_use(p, WRITTEN, digit=2)


@pytest.mark.parametrize("wrong", [[[-0.1, 1.1]], [[np.nan, 1]], [[0.0, 0.0]], 1.0])
def test_what_is_no_distribution_raises(wrong):
    for function in (kl_divergence, js_divergence):
        with pytest.raises(UsageError, match="give finite weights"):
            function(wrong, [[0.5, 0.5]])
    with pytest.raises(UsageError, match="give finite weights"):
        information_terms(wrong, [10])


@pytest.mark.parametrize("function", [digit_agreement, digit_use])
def test_digits_that_do_not_fit_raise(function):
    with pytest.raises(UsageError, match="one of each per document"):
        information_terms([P, Q], [10])
    with pytest.raises(UsageError, match=r"digit 2: distributions \(2, 6\), 1 numbers"):
        function([P, Q], ["10"], digit=2)
    with pytest.raises(UsageError, match="at least 2 digits"):
        function([P, Q], ["9", "10"], digit=2)
    with pytest.raises(UsageError, match="digit 0"):
        function([P, Q], ["9", "10"], digit=0)
    with pytest.raises(UsageError, match="give finite weights"):
        function([P, [-1, 1, 1, 1, 1, 1]], ["10", "11"], digit=2)
    with pytest.raises(UsageError, match="give finite weights"):
        function([P, [np.nan, 1, 1, 1, 1, 1]], ["10", "11"], digit=2)
