import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_probe.errors import UsageError
from halo_probe.statistics.multiplicity import benjamini_hochberg, holm
from halo_probe.statistics.scatter import model_scatter

P = [0.001, 0.01, 0.02, 0.04, 0.3]
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=7)


def test_the_families_of_the_specification_hold():
    assert holm(P) == pytest.approx([0.005, 0.04, 0.06, 0.08, 0.3], abs=1e-6)
    assert benjamini_hochberg(P) == pytest.approx([0.005, 0.025, 0.033333, 0.05, 0.3], abs=1e-6)


@given(p_values)
def test_holm_is_the_closed_test_of_bonferroni(p):
    """A hypothesis falls where Bonferroni rejects every intersection that it is in."""
    for index, adjusted in enumerate(holm(p)):
        families = [
            family
            for size in range(1, len(p) + 1)
            for family in itertools.combinations(range(len(p)), size)
            if index in family
        ]
        assert adjusted == pytest.approx(max(min(1, len(family) * min(p[k] for k in family)) for family in families))


@given(p_values)
def test_benjamini_hochberg_is_the_least_rate_at_which_the_step_up_rule_rejects(p):
    for index, adjusted in enumerate(benjamini_hochberg(p)):
        rates = [len(p) * value / sum(other <= value for other in p) for value in p if value >= p[index]]
        assert adjusted == pytest.approx(min(1, *rates) if len(rates) > 1 else min(1, rates[0]))


@pytest.mark.parametrize("method", [holm, benjamini_hochberg])
def test_an_adjustment_keeps_the_places_and_leaves_its_argument_alone(method):
    p = np.array([0.3, 0.001, 0.04, 0.01, 0.02])
    before = p.copy()
    assert method(p)[[1, 3, 4, 2, 0]] == pytest.approx(method(P))
    assert (p == before).all()
    assert (method(p) >= p).all()
    assert method([]).size == 0


@pytest.mark.parametrize("method", [holm, benjamini_hochberg])
@pytest.mark.parametrize("p", [[1.1], [-0.1], [np.nan], [[0.1]]])
def test_what_is_no_p_value_raises(method, p):
    with pytest.raises(UsageError, match="numbers from 0 to 1"):
        method(p)


def test_holm_finds_something_in_a_family_of_nulls_no_more_often_than_the_level():
    rng = np.random.default_rng(0)
    assert np.mean([holm(rng.uniform(size=9)).min() <= 0.05 for _ in range(1000)]) <= 0.06


def test_five_models_need_a_correlation_of_878():
    assert model_scatter([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]).needed == pytest.approx(0.878, abs=5e-4)


def test_the_scatter_of_unrelated_models_passes_what_is_needed_in_one_case_of_twenty():
    rng = np.random.default_rng(1)
    found = [model_scatter(*rng.normal(size=(2, 6))) for _ in range(1000)]
    assert np.mean([abs(one.r) > one.needed for one in found]) == pytest.approx(0.05, abs=0.02)


def test_the_correlation_is_that_of_numpy_and_undefined_where_a_side_is_flat():
    x, y = np.random.default_rng(2).normal(size=(2, 8))
    assert model_scatter(x, y).r == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert np.isnan(model_scatter([1, 1, 1], [1, 2, 3]).r)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, np.nan], [1, 2, 3])])
def test_fewer_than_three_models_are_no_scatter(x, y):
    with pytest.raises(UsageError, match="at least three models"):
        model_scatter(x, y)
