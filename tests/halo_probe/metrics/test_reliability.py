import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from halo_probe.errors import UsageError
from halo_probe.metrics.reliability import (
    associate,
    correlation,
    pairwise_agreement,
    rank_sum,
    self_consistency,
    within_auroc,
)

SAMPLES = [12] * 6 + [13] * 2 + [11, None]
S, Y = [0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3], [1, 1, 0, 1, 0, 1, 0, 0]
answers = st.lists(st.one_of(st.none(), st.integers(10, 13)), min_size=2, max_size=12)


@st.composite
def data(draw):
    n = draw(st.integers(6, 40))
    counts = draw(st.lists(st.integers(10, 12), min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(0, 20).map(float), min_size=n, max_size=n))
    correct = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    return np.array(scores), np.array(correct), np.array(counts)


def test_the_self_consistency_vector_of_the_specification_holds():
    assert self_consistency(SAMPLES) == 0.6
    assert pairwise_agreement(SAMPLES) == pytest.approx(0.35555556, abs=1e-8)


@given(answers)
def test_agreement_is_the_share_of_equal_pairs(values):
    equal = [a == b for a, b in combinations(values, 2)]
    assert pairwise_agreement(values) == pytest.approx(sum(equal) / len(equal))
    assert self_consistency(values) == max(values.count(value) for value in values) / len(values)


def test_too_few_answers_are_refused():
    with pytest.raises(UsageError, match="no answers"):
        self_consistency([])
    with pytest.raises(UsageError, match="at least twice"):
        pairwise_agreement([12])


def test_the_association_vectors_of_the_specification_hold():
    r, interval = correlation(S, Y, counts=[12] * 8)
    assert r == pytest.approx(0.56572458, abs=1e-8)
    assert interval == pytest.approx((-0.231061, 0.908302), abs=1e-6)
    assert within_auroc(S, Y, counts=[12] * 8)[0] == 0.8125


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([12] * 8, (23, 18, 12, 0.14891467)), ([1, 1, 1, 2, 2, 2, 2, 1], (13, 10, 3.33333333, 0.10034825))],
)
def test_the_rank_sum_vectors_of_the_specification_hold(counts, expected):
    found = rank_sum(S, Y, counts=counts)
    assert (found.w, found.expected, found.variance, found.p) == pytest.approx(expected, abs=1e-8)


def test_with_one_count_it_is_the_plain_correlation_and_auroc_and_the_test_of_mann_and_whitney():
    rng = np.random.default_rng(0)
    correct = rng.random(60) < 0.4
    scores = (rng.normal(size=60) + correct).round(1)
    found = associate(scores, correct, counts=np.full(60, 12))
    assert found.r == pytest.approx(stats.pointbiserialr(correct, scores).statistic, abs=1e-10)
    interval = stats.pearsonr(correct.astype(float), scores).confidence_interval()
    assert found.r_interval == pytest.approx((interval.low, interval.high), abs=1e-10)
    assert found.auroc == pytest.approx(roc_auc_score(correct, scores))
    plain = stats.mannwhitneyu(scores[correct], scores[~correct], use_continuity=False, method="asymptotic")
    assert found.p == pytest.approx(plain.pvalue, abs=1e-10)


@given(data())
def test_within_counts_it_is_the_correlation_of_what_a_mean_per_count_leaves(columns):
    scores, correct, counts = columns
    r, _ = correlation(scores, correct, counts=counts)
    dummies = (counts[:, None] == np.unique(counts)).astype(float)
    left = [side - dummies @ np.linalg.lstsq(dummies, side, rcond=None)[0] for side in (scores, correct.astype(float))]
    if min(np.abs(side).max() for side in left) > 1e-9:
        assert r == pytest.approx(np.corrcoef(left)[0, 1], abs=1e-8)
    else:
        assert math.isnan(r)


def test_the_rank_sum_is_what_all_ways_to_be_right_as_often_within_each_count_give():
    scores, correct, counts = [3, 1, 2, 2, 5, 1, 4], [1, 0, 1, 0, 1, 0, 0], [10, 10, 10, 10, 11, 11, 11]
    ranks = [*stats.rankdata(scores[:4]), *stats.rankdata(scores[4:])]
    sums = [sum(first) + second for first in combinations(ranks[:4], 2) for second in ranks[4:]]
    found = rank_sum(scores, correct, counts=counts)
    assert found.w == ranks[0] + ranks[2] + ranks[4]
    assert (found.expected, found.variance) == pytest.approx((np.mean(sums), np.var(sums)))


@pytest.mark.parametrize(("right", "wrong"), [(9, 90), (90, 9), (1, 255), (0, 30)])
def test_fewer_than_ten_right_or_wrong_have_nothing_but_the_two_numbers(right, wrong):
    rng = np.random.default_rng(0)
    correct = np.repeat([1, 0], [right, wrong])
    found = associate(rng.normal(size=right + wrong), correct, counts=np.full(right + wrong, 12))
    assert (found.n, found.right, found.wrong) == (right + wrong, right, wrong)
    assert np.isnan([found.r, found.p, *found.r_interval, found.auroc, *found.auroc_interval]).all()
    enough = associate(rng.normal(size=20), np.repeat([1, 0], 10), counts=np.full(20, 12))
    assert np.isfinite([enough.r, enough.p, *enough.r_interval, enough.auroc, *enough.auroc_interval]).all()


def test_a_score_that_tells_nothing_is_rarely_significant_however_few_are_wrong():
    rng = np.random.default_rng(3)
    counts = np.repeat(np.arange(10, 17), 37)[:256]
    p = []
    for _ in range(2000):
        correct = rng.permutation(np.repeat([1, 0], [244, 12]))
        p.append(associate(rng.lognormal(0, 1.5, 256) * counts, correct, counts=counts).p)
    assert np.mean(np.array(p) <= 0.001) < 0.004
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.07


@given(data())
def test_the_auroc_counts_pairs_of_the_same_count(columns):
    scores, correct, counts = columns
    wins = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i in np.flatnonzero(correct == 1)
        for j in np.flatnonzero(correct == 0)
        if counts[i] == counts[j]
    ]
    found, (low, high) = within_auroc(scores, correct, counts=counts)
    assert found == pytest.approx(np.mean(wins) if wins else np.nan, nan_ok=True)
    if wins:
        assert 0 <= low <= found <= high <= 1
        assert high - low > 1e-3


def test_a_score_that_only_follows_the_count_is_not_associated():
    counts = np.repeat([10, 11, 12], 20)
    correct = np.r_[np.ones(18), np.zeros(2), np.tile([0, 1], 10), np.ones(2), np.zeros(18)]
    assert stats.pointbiserialr(correct, -counts).statistic > 0.6
    found = associate(-0.1 * counts, correct, counts=counts)
    assert math.isnan(found.r)
    assert found.auroc == 0.5


def test_the_interval_of_the_auroc_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    covered = 0
    for _ in range(300):
        counts = np.repeat(np.arange(10, 17), 20)
        correct = rng.random(140) < 0.3
        scores = rng.normal(size=140) + correct + 5 * counts
        low, high = associate(scores, correct, counts=counts).auroc_interval
        covered += low <= truth <= high
    assert 0.91 < covered / 300 < 0.985


def test_a_perfect_score_has_an_interval_up_to_one():
    auroc, (low, high) = within_auroc([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1], counts=[10] * 6)
    assert auroc == high == 1
    assert 0.3 < low < 0.9
    mirrored, interval = within_auroc([6, 5, 4, 3, 2, 1], [0, 0, 0, 1, 1, 1], counts=[10] * 6)
    assert mirrored == 0
    assert interval == pytest.approx((0, 1 - low))


@pytest.mark.parametrize("correct", [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])
def test_correctness_that_does_not_vary_within_a_count_has_no_association(correct):
    counts = np.repeat([10, 10, 10, 11, 11], 10)
    found = associate(np.arange(50.0), np.repeat(correct, 10), counts=counts)
    assert np.isnan([found.r, found.p, *found.r_interval, found.auroc, *found.auroc_interval]).all()
    assert math.isnan(rank_sum(np.arange(50.0), np.repeat(correct, 10), counts=counts).p)


BAD = {
    "lengths differ": ([0.1, 0.2], [1], [10, 10], "one of each per document"),
    "nothing": ([], [], [], "one of each per document"),
    "a table": ([[0.1]], [[1]], [[10]], "one of each per document"),
    "not finite": ([0.1, np.nan], [1, 0], [10, 10], "leave out unscored"),
    "not 0 or 1": ([0.1, 0.2], [1, 2], [10, 10], "leave out unscored"),
}


@pytest.mark.parametrize("name", BAD)
def test_data_that_are_not_scored_documents_are_refused(name):
    scores, correct, counts, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        associate(scores, correct, counts=counts)
