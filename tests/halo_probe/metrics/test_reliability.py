import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from halo_probe.errors import UsageError
from halo_probe.metrics.reliability import associate, pairwise_agreement, self_consistency

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


def test_the_association_vector_of_the_specification_holds():
    found = associate(S, Y, counts=[12] * 8)
    assert (found.n, found.counts) == (8, 1)
    assert [found.r, found.p, found.auroc] == pytest.approx([0.56572458, 0.14385774, 0.8125], abs=1e-8)
    assert found.r_interval == pytest.approx((-0.231061, 0.908302), abs=1e-6)


def test_with_one_count_it_is_the_plain_correlation_and_auroc():
    rng = np.random.default_rng(0)
    correct = rng.random(60) < 0.4
    scores = rng.normal(size=60) + correct
    found = associate(scores, correct, counts=np.full(60, 12))
    expected = stats.pointbiserialr(correct, scores)
    assert [found.r, found.p] == pytest.approx([expected.statistic, expected.pvalue], abs=1e-10)
    interval = stats.pearsonr(correct.astype(float), scores).confidence_interval()
    assert found.r_interval == pytest.approx((interval.low, interval.high), abs=1e-10)
    assert found.auroc == pytest.approx(roc_auc_score(correct, scores))


@given(data())
def test_within_counts_it_is_the_regression_with_a_mean_per_count(columns):
    scores, correct, counts = columns
    found = associate(scores, correct, counts=counts)
    dummies = (counts[:, None] == np.unique(counts)).astype(float)
    design = np.column_stack([scores, dummies])
    degrees = len(scores) - design.shape[1]
    if degrees < 2 or np.linalg.matrix_rank(design) < design.shape[1] or math.isnan(found.r) or abs(found.r) > 0.999:
        return
    coefficients, *_ = np.linalg.lstsq(design, correct.astype(float), rcond=None)
    residuals = correct - design @ coefficients
    variance = residuals @ residuals / degrees * np.linalg.inv(design.T @ design)[0, 0]
    t = coefficients[0] / np.sqrt(variance)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), degrees), abs=1e-8)
    assert found.r == pytest.approx(t / np.sqrt(t**2 + degrees), abs=1e-8)


@given(data())
def test_the_auroc_counts_pairs_of_the_same_count(columns):
    scores, correct, counts = columns
    wins = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i in np.flatnonzero(correct == 1)
        for j in np.flatnonzero(correct == 0)
        if counts[i] == counts[j]
    ]
    found = associate(scores, correct, counts=counts)
    assert found.auroc == pytest.approx(np.mean(wins) if wins else np.nan, nan_ok=True)
    if wins:
        low, high = found.auroc_interval
        assert 0 <= low <= found.auroc <= high <= 1
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
    found = associate([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1], counts=[10] * 6)
    assert found.auroc == 1
    assert found.auroc_interval[1] == 1
    assert 0.3 < found.auroc_interval[0] < 0.9
    mirrored = associate([6, 5, 4, 3, 2, 1], [0, 0, 0, 1, 1, 1], counts=[10] * 6)
    assert mirrored.auroc == 0
    assert mirrored.auroc_interval == pytest.approx((0, 1 - found.auroc_interval[0]))


@pytest.mark.parametrize("correct", [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])
def test_correctness_that_does_not_vary_within_a_count_has_no_association(correct):
    found = associate([0.1, 0.5, 0.3, 0.7, 0.9], correct, counts=[10, 10, 10, 11, 11])
    assert np.isnan([found.r, found.p, *found.r_interval, found.auroc, *found.auroc_interval]).all()


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
