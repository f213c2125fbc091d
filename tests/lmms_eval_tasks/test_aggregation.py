from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem

from lmms_eval_tasks.aggregation import mean_of_present

values = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)))


@given(values)
def test_the_mean_and_its_standard_error_are_those_of_the_values_that_are_there(items):
    present = [item for item in items if item is not None]
    assert mean_of_present(items) == (pytest.approx(fmean(present)) if present else None)
    error = mean_of_present.standard_error(items)
    assert error == (pytest.approx(sem(present), rel=1e-6, abs=1e-6) if len(present) > 1 else None)


def test_without_a_missing_value_it_is_the_harness_mean_with_the_harness_standard_error():
    from lmms_eval.api.metrics import mean, mean_stderr

    items = [-3.0, 0.0, 1.0, 1.0]
    assert mean_of_present(items) == pytest.approx(mean(items))
    assert mean_of_present.standard_error(items) == pytest.approx(mean_stderr(items))
