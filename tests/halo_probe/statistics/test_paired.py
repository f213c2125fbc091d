import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from halo_probe.errors import UsageError
from halo_probe.statistics.paired import mcnemar, signed_rank

G1 = np.array([0.80, 0.75, 0.82, 0.78, 0.70, 0.85, 0.77, 0.79, 0.81, 0.74])
G2 = np.array([0.72, 0.76, 0.70, 0.71, 0.69, 0.75, 0.77, 0.70, 0.73, 0.71])

differences = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=11)


def test_the_decay_test_of_the_specification_holds():
    test = signed_rank(G2 - G1)
    assert (test.n, test.pairs, test.w_plus, test.w_minus) == (10, 9, 1.5, 43.5)
    assert (test.r, test.p, test.mean, test.shift) == pytest.approx((-0.93333333, 0.01171875, -0.057, -0.055), abs=1e-6)


@given(differences)
def test_the_exact_p_value_is_the_share_of_sign_patterns_as_extreme_ties_and_zeros_included(values):
    test = signed_rank(values)
    ranks = stats.rankdata(np.abs([value for value in values if value]))
    sums = [
        sum(ranks[list(signs)]) for k in range(len(ranks) + 1) for signs in itertools.combinations(range(len(ranks)), k)
    ]
    smaller = min(test.w_plus, test.w_minus)
    assert test.p == pytest.approx(min(1, 2 * np.mean([total <= smaller for total in sums])))


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=24, unique=True), st.randoms(use_true_random=False))
def test_without_ties_the_exact_p_value_is_that_of_scipy(sizes, seed):
    values = [size * seed.choice((-1, 1)) for size in sizes]
    test = signed_rank(values)
    reference = stats.wilcoxon(values, method="exact")
    assert test.p == pytest.approx(reference.pvalue)
    assert min(test.w_plus, test.w_minus) == reference.statistic


def test_from_25_pairs_on_it_is_the_normal_approximation_with_ties():
    values = np.random.default_rng(0).integers(-20, 30, size=60).astype(float)
    pairs = values[values != 0]
    _, ties = np.unique(np.abs(pairs), return_counts=True)
    n = pairs.size
    variance = n * (n + 1) * (2 * n + 1) / 24 - (ties**3 - ties).sum() / 48
    test = signed_rank(values)
    z = (test.w_plus - n * (n + 1) / 4) / math.sqrt(variance)
    assert test.p == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_the_approximation_begins_where_the_exact_distribution_ends():
    """p of the normal approximation is not a multiple of 2**-pairs; the exact one is."""
    values = np.random.default_rng(1).normal(0.2, 1, size=25)
    fewer, more = signed_rank(values[:24]), signed_rank(values)
    assert fewer.p * 2**24 == pytest.approx(round(fewer.p * 2**24), abs=1e-6)
    assert more.p == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, rel=0.05)
    assert more.p != stats.wilcoxon(values, method="exact").pvalue


@given(differences)
def test_the_shift_is_the_median_of_the_walsh_averages(values):
    averages = [(values[i] + values[j]) / 2 for i in range(len(values)) for j in range(i, len(values))]
    assert signed_rank(values).shift == pytest.approx(np.median(averages))


@given(differences)
def test_the_effect_sizes_turn_with_the_sign_and_the_p_value_does_not(values):
    test, turned = signed_rank(values), signed_rank([-value for value in values])
    assert (turned.shift, turned.mean, turned.p) == pytest.approx((-test.shift, -test.mean, test.p))
    assert turned.r == pytest.approx(-test.r, nan_ok=True)
    assert np.isnan(test.r) or -1 <= test.r <= 1


def test_differences_of_one_size_are_tied_whatever_their_rounding():
    assert 0.72 - 0.80 != -0.08
    assert signed_rank([0.72 - 0.80, 0.08, 0.3]) == signed_rank([-0.08, 0.08, 0.3])


def test_without_a_difference_nothing_is_found():
    test = signed_rank([0.0, 0.0])
    assert (test.pairs, test.p, test.shift) == (0, 1.0, 0.0)
    assert math.isnan(test.r)


def test_false_findings_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(2)
    for n in (12, 40):
        found = np.mean([signed_rank(rng.normal(size=n)).p <= 0.05 for _ in range(2000)])
        assert found <= 0.055


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf], [[1.0]]])
def test_unpaired_values_raise(values):
    with pytest.raises(UsageError, match="signed_rank: differences of shape"):
        signed_rank(values)


def test_the_mcnemar_test_of_the_specification_holds():
    assert mcnemar(20, 8) == pytest.approx(0.03569814, abs=1e-6)


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_mcnemar_test_is_the_two_sided_binomial_tail(b, c):
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    assert mcnemar(b, c) == pytest.approx(min(1, 2 * tail))
    assert mcnemar(b, c) == mcnemar(c, b)


def test_a_negative_number_of_documents_raises():
    with pytest.raises(UsageError, match="numbers from 0"):
        mcnemar(-1, 3)
