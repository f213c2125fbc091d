import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from halo_probe.errors import UsageError
from halo_probe.statistics.intervals import (
    LEAST_STRATUM,
    document_values,
    drawn_means,
    drawn_slopes,
    error_interval,
    error_p,
    percentile_interval,
    remember_draws,
    stratified_draws,
    wilson_interval,
)

COUNTS = np.repeat(np.arange(10, 17), 30)


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(71, 256, (0.22610219, 0.33516874)), (15, 256, (0.03582661, 0.09441227)), (0, 256, (0, 0.01478386))],
)
def test_the_wilson_intervals_of_the_specification_hold(successes, n, expected):
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_bound_is_a_rate_at_which_the_observed_one_is_just_not_rejected(pair):
    successes, n = pair
    rate = successes / n
    for bound in wilson_interval(successes, n):
        assert 0 <= bound <= 1
        if 0 < bound < 1:
            assert (rate - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / n, rel=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_a_rate_of_nothing_has_no_interval(successes, n):
    with pytest.raises(UsageError, match="of at least one trial"):
        wilson_interval(successes, n)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0] * 32, (-0.09157686, 0.09157686)),
        ([0] * 31 + [-1], (-0.14282260, 0.08032260)),
        ([0] * 256, (-0.01090032, 0.01090032)),
    ],
)
def test_the_error_intervals_of_the_specification_hold(errors, expected):
    assert error_interval(errors) == pytest.approx(expected, abs=1e-8)
    assert error_interval([*errors, np.nan]) == error_interval(errors)


@given(st.lists(st.integers(-9, 90), min_size=20, max_size=60))
def test_an_error_interval_is_that_of_the_errors_with_one_dot_more_and_one_less_in_their_spread(errors):
    n, mean = len(errors), sum(errors) / len(errors)
    # Deviations of +1 and -1 beside those that were seen, in the sum of squares alone.
    squares = sum((e - mean) ** 2 for e in [*errors, mean + 1, mean - 1])
    half = stats.t.isf(0.025, n - 1) * math.sqrt(squares / (n - 1) / n)
    assert error_interval(errors) == pytest.approx((mean - half, mean + half))
    assert error_p(errors) == pytest.approx(2 * stats.t.sf(abs(mean) / math.sqrt(squares / (n - 1) / n), n - 1))
    level = 1 - error_p(errors)
    if 0 < level < 1 - 1e-9:
        assert min(map(abs, error_interval(errors, level=level))) == pytest.approx(0, abs=1e-6)


def test_fewer_than_twenty_errors_have_neither_interval_nor_p_value():
    few = [1.0] * 19 + [np.nan] * 5
    assert np.isnan(error_interval(few)).all()
    assert math.isnan(error_p(few))
    assert np.isnan(error_interval([])).all()


@pytest.mark.parametrize(("n", "share"), [(32, 0.02), (256, 0.02), (32, 0.3), (20, 0.1)])
def test_an_error_interval_covers_the_truth_however_rare_errors_are(n, share):
    errors = -(np.random.default_rng(6).random((2000, n)) < share).astype(float)
    covered = [low <= -share <= high for low, high in map(error_interval, errors)]
    assert np.mean(covered) >= 0.93


def test_every_draw_takes_as_many_documents_of_each_count_as_there_are():
    draws = stratified_draws(COUNTS, draws=50)
    for count in np.unique(COUNTS):
        assert (draws[:, count == COUNTS].sum(axis=1) == 30).all()
    assert len(np.unique(draws, axis=0)) == 50


def test_counts_with_few_documents_are_drawn_together_with_their_neighbours():
    wide = stratified_draws(np.repeat(np.arange(10, 100), 4), draws=50)
    sizes = wide.reshape(50, -1, LEAST_STRATUM).sum(axis=2)
    assert (sizes == LEAST_STRATUM).all()
    assert len(set(wide[:, :4].sum(axis=1))) > 1
    one_each = stratified_draws(np.arange(100, 150), draws=200)
    assert np.std(drawn_means(np.arange(50) % 2, one_each)) > 0.05


def test_the_draws_follow_the_documents_and_not_their_order():
    order = np.argsort(np.arange(COUNTS.size) % 7, kind="stable")
    values = np.arange(COUNTS.size, dtype=float)
    assert stratified_draws(COUNTS[order]).shape == (10_000, COUNTS.size)
    spread = [np.std(drawn_means(values[places], stratified_draws(COUNTS[places]))) for places in (slice(None), order)]
    assert spread[0] == pytest.approx(spread[1], rel=0.05)


def test_the_draws_are_the_same_on_every_machine():
    drawn = stratified_draws([10, 10, 11, 12, 10, 11], draws=100).astype(np.uint8)
    assert drawn[0].tolist() == [1, 2, 2, 0, 1, 0]
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "735c8b7147ec474c"


def test_each_document_is_drawn_once_on_average_and_as_often_as_the_binomial_says():
    drawn = stratified_draws(np.full(30, 12))
    assert drawn.mean(axis=0) == pytest.approx(np.ones(30), abs=0.05)
    assert drawn.var(axis=0) == pytest.approx(np.full(30, 29 / 30), abs=0.06)


def test_the_bootstrap_spread_is_the_standard_error_within_strata():
    values = COUNTS + np.random.default_rng(1).normal(size=COUNTS.size)
    within = [values[count == COUNTS].var() for count in np.unique(COUNTS)]
    assert np.std(drawn_means(values, stratified_draws(COUNTS))) == pytest.approx(
        math.sqrt(sum(30**2 * variance / 30 for variance in within)) / COUNTS.size, rel=0.03
    )


def test_with_one_stratum_the_interval_is_that_of_scipy():
    values = np.random.default_rng(2).exponential(size=80)
    low, high = percentile_interval(drawn_means(values, stratified_draws(np.full(80, 12))), level=0.9)
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", confidence_level=0.9, rng=3
    )
    assert (low, high) == pytest.approx(tuple(reference.confidence_interval), abs=0.015)


def test_missing_values_stay_out_of_every_draw():
    values = np.where(COUNTS % 2, np.nan, COUNTS.astype(float))
    draws = stratified_draws(COUNTS, draws=20)
    repeated = [np.nanmean(np.repeat(values, row.astype(int))) for row in draws]
    assert drawn_means(values, draws) == pytest.approx(repeated)
    assert np.isnan(drawn_means(np.full(COUNTS.size, np.nan), draws)).all()


def test_the_slope_of_a_draw_is_that_of_its_documents():
    predicted = np.where(COUNTS == 13, np.nan, 0.5 * COUNTS + np.random.default_rng(4).normal(size=COUNTS.size))
    draws = stratified_draws(COUNTS, draws=20)
    for row, slope in zip(draws.astype(int), drawn_slopes(COUNTS, predicted, draws), strict=True):
        x, y = np.repeat(COUNTS, row), np.repeat(predicted, row)
        assert slope == pytest.approx(np.polyfit(x[~np.isnan(y)], y[~np.isnan(y)], 1)[0])


def test_one_true_count_has_no_slope():
    draws = stratified_draws(np.full(10, 12), draws=5)
    assert np.isnan(drawn_slopes(np.full(10, 12), np.arange(10.0), draws)).all()


def test_a_mean_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    draws = stratified_draws(COUNTS, draws=1000)
    covered = 0
    for _ in range(400):
        low, high = percentile_interval(drawn_means(COUNTS + rng.normal(size=COUNTS.size), draws))
        covered += low <= COUNTS.mean() <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_what_no_draw_has_is_an_error():
    with pytest.raises(UsageError, match="no draw has a value"):
        percentile_interval(np.full(3, np.nan))
    with pytest.raises(UsageError, match="n > 0 documents"):
        stratified_draws([])


def test_remembered_draws_are_the_draws():
    draws_of = remember_draws()
    assert draws_of(COUNTS) is draws_of(COUNTS.copy())
    assert (draws_of(COUNTS) == stratified_draws(COUNTS)).all()


def test_a_document_without_a_value_is_nan():
    assert np.isnan(document_values([None, 1])).tolist() == [True, False]
