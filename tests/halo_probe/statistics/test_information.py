import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from halo_probe.errors import UsageError
from halo_probe.statistics.information import digit_use, information_terms, js_divergence, kl_divergence, log_gain
from halo_probe.statistics.intervals import stratified_draws

P = [0.05, 0.10, 0.60, 0.15, 0.05, 0.05]
Q = [0.30, 0.05, 0.20, 0.10, 0.30, 0.05]
WIDE = np.repeat(np.arange(10, 100), 4)
DRAWS = stratified_draws(WIDE, draws=2000)

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


def test_an_exact_reader_uses_all_but_what_could_be_chance():
    for digit, written in ((1, WIDE // 10), (2, WIDE % 10)):
        use = digit_use(one_hot(written), WIDE, digit=digit, draws=DRAWS)
        assert use.digit_entropy == pytest.approx(entropy(np.bincount(written) / WIDE.size))
        # No document is less sure than another.
        assert use.u_bounds == pytest.approx((use.u, use.uncorrected / use.digit_entropy))
    assert use.u == pytest.approx(0.533, abs=0.005)
    shuffled, chances = np.random.default_rng(3), []
    for _ in range(50):
        permuted = np.concatenate([shuffled.permutation(tens) for tens in WIDE.reshape(9, 40)])
        chances.append(information_terms(one_hot(WIDE % 10), permuted).mean())
    assert use.information == pytest.approx(math.log2(10) - np.mean(chances), abs=0.01)
    often = np.repeat(np.arange(10, 100), 40)
    assert digit_use(one_hot(often % 10), often, digit=2, draws=stratified_draws(often, draws=100)).u > 0.94


def test_a_blind_writer_uses_none_however_few_documents_there_are():
    rng = np.random.default_rng(0)
    uses = [digit_use(rng.dirichlet(np.full(12, 0.3), WIDE.size), WIDE, digit=2, draws=DRAWS).u for _ in range(10)]
    assert np.mean(uses) == pytest.approx(0, abs=0.005)
    assert information_terms(rng.dirichlet(np.full(12, 0.3), WIDE.size), WIDE).mean() > 0.3


def test_what_a_digit_owes_to_the_digits_before_it_is_text_and_does_not_count():
    favourite = one_hot(7 * (WIDE // 10) % 10)
    assert information_terms(favourite, WIDE).mean() > 2
    use = digit_use(favourite, WIDE, digit=2, draws=DRAWS)
    assert (use.u, *use.u_bounds) == pytest.approx((0, 0, 0), abs=1e-9)


def test_a_digit_that_is_always_the_same_has_nothing_to_say():
    counts = np.repeat(np.arange(10, 17), 30)
    use = digit_use(one_hot(counts // 10), counts, digit=1, draws=stratified_draws(counts, draws=100))
    assert use.digit_entropy == 0
    assert math.isnan(use.u)
    units = digit_use(one_hot(counts % 10), counts, digit=2, draws=stratified_draws(counts, draws=100))
    assert units.digit_entropy == pytest.approx(math.log2(7))
    assert units.u > 0.95


@pytest.mark.parametrize("share", [0.2, 0.4, 0.7])
def test_the_bounds_hold_what_very_many_documents_show(share):
    def units(counts, seed):
        read = (np.random.default_rng(seed).random(counts.size) < share)[:, np.newaxis]
        return np.where(read, one_hot(counts % 10), np.pad(np.full((counts.size, 10), 0.1), ((0, 0), (0, 2))))

    many = np.repeat(np.arange(10, 100), 1000)
    truth = information_terms(units(many, 0), many).mean() / math.log2(10)
    for seed in range(10):
        low, high = digit_use(units(WIDE, seed), WIDE, digit=2, draws=DRAWS[:500]).u_bounds
        assert low < truth < high


def test_the_use_is_the_same_every_time():
    p = np.random.default_rng(1).dirichlet(np.ones(12), WIDE.size)
    assert digit_use(p, WIDE, digit=2, draws=DRAWS) == digit_use(p, WIDE, digit=2, draws=DRAWS)


@pytest.mark.parametrize("wrong", [[[-0.1, 1.1]], [[np.nan, 1]], [[0.0, 0.0]], 1.0])
def test_what_is_no_distribution_raises(wrong):
    for function in (kl_divergence, js_divergence):
        with pytest.raises(UsageError, match="give finite weights"):
            function(wrong, [[0.5, 0.5]])
    with pytest.raises(UsageError, match="give finite weights"):
        information_terms(wrong, [10])


def test_counts_that_do_not_fit_raise():
    with pytest.raises(UsageError, match="one of each per document"):
        information_terms([P, Q], [10])
    with pytest.raises(UsageError, match="digit_use: distributions"):
        digit_use([P, Q], [9, 10], digit=1, draws=np.ones((1, 2)))
    with pytest.raises(UsageError, match="digit_use: distributions"):
        digit_use([P, Q], [10], digit=1, draws=np.ones((1, 2)))
    with pytest.raises(UsageError, match="at least 3"):
        digit_use([P, Q], [10, 11], digit=3, draws=np.ones((1, 2)))
