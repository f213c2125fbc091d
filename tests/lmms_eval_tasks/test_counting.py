import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress
from sklearn.metrics import (
    accuracy_score,
    mean_absolute_error,
    mean_absolute_percentage_error,
    recall_score,
    root_mean_squared_error,
)

from lmms_eval_tasks import counting

A = ([12, 11, 13, 14, 16], [12, 10, None, 15, 14])
B = ([*A[0], 10], [*A[1], 100])

METRICS = {
    name: getattr(counting, name)
    for name in (
        "accuracy", "answered", "mbe", "mbe_lo", "mbe_hi", "mbe_clip", "mae", "rmse", "off_by_one", "mrce", "under", "over",
        "digit_length_mismatch", "accuracy_macro",
    )
}  # fmt: skip
UNDEFINED_WITHOUT_ANSWERS = {"mbe", "mbe_clip", "mae", "rmse", "mrce"}

items = st.lists(
    st.tuples(st.integers(1, 500), st.one_of(st.none(), st.integers(0, 9999))), min_size=1, max_size=40
).map(lambda pairs: tuple(map(list, zip(*pairs, strict=True))))
answered_items = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 9999)), min_size=1, max_size=40).map(
    lambda pairs: tuple(map(list, zip(*pairs, strict=True)))
)


@pytest.mark.parametrize(
    ("vector", "name", "expected"),
    [
        (A, "accuracy", 0.2), (A, "answered", 0.8), (A, "mbe", -0.5), (A, "mbe_lo", -3), (A, "mbe_hi", 2.2), (A, "mae", 1),
        (A, "rmse", 1.22474487), (A, "off_by_one", 0.6), (A, "mbe_clip", -0.5), (A, "mrce", 0.07183442), (A, "under", 0.4),
        (A, "over", 0.2), (A, "digit_length_mismatch", 0), (B, "accuracy", 0.16666667), (B, "mbe", 17.6),
        (B, "mbe_clip", 1.6), (B, "mbe_lo", 12.5), (B, "mbe_hi", 16.83333333), (B, "digit_length_mismatch", 0.16666667),
    ],
)  # fmt: skip
def test_the_vectors_of_the_specification_hold(vector, name, expected):
    assert METRICS[name](*vector) == pytest.approx(expected, abs=1e-6)


def test_the_slope_of_the_specification_holds():
    slope = counting.count_slope(range(10, 17), [10, 10, 12, 12, 12, 15, 15])
    assert (slope.slope, slope.intercept, slope.r) == pytest.approx((0.89285714, 0.67857143, 0.93691461), abs=1e-6)


@pytest.mark.parametrize(("answer", "mbe", "mae"), [(12, -1, 1.857143), (13, 0, 1.714286), (10, -3, 3)])
def test_the_constant_baselines_of_the_specification_hold(answer, mbe, mae):
    baseline = counting.constant_baseline(range(10, 17), answer)
    assert baseline.answer == answer
    assert (baseline.accuracy, baseline.mbe, baseline.mae) == pytest.approx((0.142857, mbe, mae), abs=1e-6)


@given(answered_items)
def test_each_metric_equals_an_independent_reference(pair):
    true, predicted = pair
    e = np.array(predicted) - np.array(true)
    references = {
        "accuracy": accuracy_score(true, predicted),
        "answered": 1,
        "mbe": e.mean(),
        "mbe_lo": e.mean(),
        "mbe_hi": e.mean(),
        "mbe_clip": np.clip(e, -np.array(true), true).mean(),
        "mae": mean_absolute_error(true, predicted),
        "rmse": root_mean_squared_error(true, predicted),
        "off_by_one": np.isclose(predicted, true, atol=1, rtol=0).mean(),
        "mrce": mean_absolute_percentage_error(true, predicted),
        "under": (np.sign(e) == -1).mean(),
        "over": (np.sign(e) == 1).mean(),
        "digit_length_mismatch": np.mean(
            np.floor(np.log10(np.maximum(predicted, 1))) != np.floor(np.log10(np.array(true)))
        ),
    }
    for name, reference in references.items():
        assert METRICS[name](true, predicted) == pytest.approx(reference, rel=1e-9, abs=1e-9), name


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=40))
def test_macro_accuracy_is_the_mean_recall_of_the_true_counts(pairs):
    true, predicted = zip(*pairs, strict=True)
    reference = recall_score(true, predicted, labels=sorted(set(true)), average="macro")
    assert counting.accuracy_macro(true, predicted) == pytest.approx(reference)


@given(answered_items)
def test_the_slope_is_that_of_scipy(pair):
    true, predicted = pair
    slope = counting.count_slope(true, predicted)
    if len(set(true)) == 1:
        assert slope is None
        return
    reference = linregress(true, predicted)
    assert slope.slope == pytest.approx(reference.slope, rel=1e-6, abs=1e-6)
    assert slope.intercept == pytest.approx(reference.intercept, rel=1e-6, abs=1e-6)
    if len(set(predicted)) == 1:
        assert slope.r is None
    else:
        assert slope.r == pytest.approx(reference.rvalue, abs=1e-6)


@given(items)
def test_the_shares_are_a_partition_and_the_bounds_enclose_the_bias(pair):
    true, predicted = pair
    value = {name: metric(true, predicted) for name, metric in METRICS.items()}
    assert value["accuracy"] + value["under"] + value["over"] + 1 - value["answered"] == pytest.approx(1)
    assert value["accuracy"] <= value["off_by_one"] <= value["answered"] <= 1
    assert value["mbe_lo"] <= value["mbe_hi"]
    if value["mbe"] is not None:
        assert abs(value["mbe"]) <= value["mae"] + 1e-9
        assert value["mae"] <= value["rmse"] + 1e-9
        assert abs(value["mbe_clip"]) <= value["mae"] + 1e-9


@given(items)
def test_an_unanswered_item_counts_as_wrong_and_moves_no_mean_error(pair):
    true, predicted = pair
    more = ([*true, 12], [*predicted, None])
    n = len(true)
    assert counting.accuracy(*more) == pytest.approx(counting.accuracy(*pair) * n / (n + 1))
    assert counting.answered(*more) == pytest.approx(counting.answered(*pair) * n / (n + 1))
    for name in UNDEFINED_WITHOUT_ANSWERS:
        assert METRICS[name](*more) == METRICS[name](*pair)


@given(items, st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(pair, seed):
    shuffled = list(zip(*pair, strict=True))
    seed.shuffle(shuffled)
    for name, metric in METRICS.items():
        assert metric(*zip(*shuffled, strict=True)) == pytest.approx(metric(*pair)), name


@given(items)
def test_the_table_per_count_adds_up_to_the_whole(pair):
    rows = counting.per_count(*pair)
    n = len(pair[0])
    assert [row.count for row in rows] == sorted(set(pair[0]))
    assert sum(row.n for row in rows) == n
    assert sum(row.n * row.accuracy for row in rows) / n == pytest.approx(counting.accuracy(*pair))
    answered = sum(row.n * row.answered for row in rows)
    for name in ("mbe", "mae"):
        whole = METRICS[name](*pair)
        parts = [row.n * row.answered * getattr(row, name) for row in rows if getattr(row, name) is not None]
        assert (sum(parts) / answered if answered else None) == pytest.approx(whole), name


@pytest.mark.parametrize("name", METRICS)
def test_without_an_answer_means_of_errors_are_undefined_and_shares_are_not(name):
    value = METRICS[name]([12, 13], [None, None])
    assert (value is None) == (name in UNDEFINED_WITHOUT_ANSWERS)


def test_without_an_answer_there_is_no_slope():
    assert counting.count_slope([12, 13], [None, None]) is None


def test_the_clipped_bias_is_bounded_on_both_sides():
    assert counting.mbe_clip([3, 3], [-5, 30]) == 0
    assert counting.mbe_clip([3, 4], [-5, 40]) == 0.5


def test_the_relative_error_leaves_out_images_without_dots():
    assert counting.mrce([0, 10], [3, 11]) == pytest.approx(0.1)
    assert counting.mrce([0], [3]) is None


ALL = {**METRICS, "count_slope": counting.count_slope, "per_count": counting.per_count}


@pytest.mark.parametrize("name", ALL)
def test_no_items_raise(name):
    with pytest.raises(ValueError, match="counting: no items"):
        ALL[name]([], [])


@pytest.mark.parametrize("name", ALL)
def test_unequal_lengths_raise_with_both_lengths(name):
    with pytest.raises(ValueError, match="counting: 2 true and 1 predicted counts: give one predicted"):
        ALL[name]([12, 13], [12])


@pytest.mark.parametrize("name", ALL)
def test_a_nan_is_no_prediction(name):
    with pytest.raises(TypeError):
        ALL[name]([12], [math.nan])


def test_counts_of_numpy_are_taken_without_overflow():
    narrow = np.array([100, 100], dtype=np.int8)
    assert counting.mbe(narrow, -narrow) == -200
