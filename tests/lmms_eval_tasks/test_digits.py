import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmms_eval_tasks.digits import DigitSteps, digit_steps
from lmms_eval_tasks.parsing import parse_count

VECTORS = [
    (["1", "2"], 12, (0, 1), "split"),
    (["12"], 12, (0, 0), "merged"),
    (["There", " are", " ", "1", "2", " dots"], 12, (3, 4), "split"),
    (["7"], 7, (0,), "single"),
    (["10", "5"], 105, (0, 0, 1), "merged"),
    (["1", ",", "0", "2", "4"], 1024, (0, 2, 3, 4), "split"),
    (["tw", "elve"], 12, None, "not_found"),
    # The rest of the rules.
    ([], 12, None, "not_found"),
    (["1", "2"], None, None, "not_found"),
    (["1", "12"], 12, None, "not_found"),
    (["1", "2", "0"], 12, None, "not_found"),
    (["7", " + ", "5", " = ", "1", "2"], 12, (4, 5), "split"),
    (["1", "2", " of ", "12"], 12, (0, 1), "split"),
    (["", "1", "", "", "2", ""], 12, (1, 4), "split"),
    (["0", "1", "2"], 12, (1, 2), "split"),
    (["0", "0"], 0, (1,), "single"),
    (["**1", "2**"], 12, (0, 1), "split"),
    (["１", "２"], 12, (0, 1), "split"),
    (["1", "\u202f", "024"], 1024, (0, 2, 2, 2), "merged"),
    (["1", ",", "02"], 102, None, "not_found"),
    (["1", ",", "0245"], 245, (2, 2, 2), "merged"),
    (["\ufffd", "1", "2"], 12, (1, 2), "split"),
    (["9" * 5000, " ", "1", "2"], 12, (2, 3), "split"),
]


@pytest.mark.parametrize(("pieces", "value", "steps", "status"), VECTORS)
def test_each_digit_has_the_step_of_the_token_that_carries_it(pieces, value, steps, status):
    assert digit_steps(pieces, value) == DigitSteps(steps, status)


MODES = [
    ("final", ["1", "2", " dots: ", "1", "2", " of ", "16"], 12, (3, 4), "split"),
    ("final", ["1", ", 2, ", "7", ". Answer: ", "7"], 7, (4,), "single"),
    ("reversed", ["2", "1"], 12, (0, 1), "split"),
    ("reversed", ["0", "1"], 10, (0, 1), "split"),
    ("reversed", ["01"], 10, (0, 0), "merged"),
    ("reversed", ["1", "0"], 1, (0,), "single"),
    ("reversed", ["1", "2", " is ", "2", "1"], 12, (3, 4), "split"),
    ("reversed", ["1", "2"], 12, None, "not_found"),
]


@pytest.mark.parametrize(("mode", "pieces", "value", "steps", "status"), MODES)
def test_the_digits_are_found_where_the_mode_of_parsing_reads_them(mode, pieces, value, steps, status):
    assert digit_steps(pieces, value, mode=mode) == DigitSteps(steps, status)


@given(st.integers(0, 9999), st.data())
def test_a_count_that_the_parser_reads_in_digits_is_found_however_it_is_cut(value, data):
    reply = data.draw(st.sampled_from(["{}", "{:,}", "There are {} dots.", "**{}**", "x {:04}"])).format(value)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)))))
    pieces = [reply[start:end] for start, end in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    assert parse_count(reply).value == value
    found = digit_steps(pieces, value)
    assert found.status != "not_found"
    assert len(found.steps) == len(str(value))
    for step, digit in zip(found.steps, str(value), strict=True):
        assert digit in pieces[step]
    assert list(found.steps) == sorted(found.steps)
    assert (found.status == "merged") == (len(set(found.steps)) < len(found.steps))


def test_the_pieces_are_not_changed():
    pieces = ["1", "2"]
    digit_steps(pieces, 12)
    assert pieces == ["1", "2"]
