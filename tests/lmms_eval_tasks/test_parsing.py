import random
import time
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_eval_tasks.parsing import ParsedCount, UnvaluedStatus, ValuedStatus, parse_count

STATUSES = {*get_args(ValuedStatus), *get_args(UnvaluedStatus)}

# reply: (value, status, lenient value), the vectors of the specification first.
FIRST = {
    "12": (12, "ok", 12),
    "12.": (12, "ok", 12),
    "12.0": (12, "ok", 12),
    "**12**": (12, "ok", 12),
    "12dots": (12, "ok", 12),
    "１２": (12, "ok", 12),
    "012": (12, "ok", 12),
    "There are 12 dots in the image. 12": (12, "ok", 12),
    "twelve": (12, "ok", 12),
    "a dozen": (12, "ok", 12),
    "12 (twelve)": (12, "ok", 12),
    "one hundred and five": (105, "ok", 105),
    "about 12": (12, "ok", 12),
    "~12": (12, "ok", 12),
    "12+": (12, "ok", 12),
    "- 12": (12, "ok", 12),
    "10 black dots and 2 gray dots, 12 in total": (12, "ok", 12),
    "5 + 7 = 12": (12, "ok", 12),
    "There are 12 dots in a 1024x1024 image.": (12, "ok", 12),
    "no dots": (0, "ok", 0),
    "zero": (0, "ok", 0),
    "1 2": (None, "split_digits", 12),
    "1,024": (1024, "ok", 1024),
    "1 024": (None, "multi", 1),
    "12 or 13": (None, "range", 12),
    "10-12": (None, "range", 10),
    "at least 12": (None, "bound", 12),
    "-12": (None, "negative", None),
    "12.5": (None, "non_integer", None),
    "10 dots on the left and 3 on the right": (None, "multi", 10),
    "12th": (None, "none", None),
    "Many dots": (None, "none", None),
    "No one knows": (None, "none", None),
    "I'm sorry, I cannot count them": (None, "refusal", None),
    "1000000000": (None, "out_of_range", None),
    # The rest of the rules.
    "": (None, "empty", None),
    " \n** ": (None, "empty", None),
    "<think>1, 2, 3</think>": (None, "empty", None),
    "<think>1, 2</think>12<think>3</think>": (12, "ok", 12),
    "I count 12</think>13": (13, "ok", 13),  # the prompt has opened the thought
    "I count 12</think>13</think>14": (14, "ok", 14),
    "1\u202f024": (1024, "ok", 1024),
    "1\u00a0024 dots": (1024, "ok", 1024),
    "1\u202f02": (None, "multi", 1),
    "1\u00a02": (None, "split_digits", 12),
    "12½": (None, "multi", 121),
    "١٢": (12, "ok", 12),
    "⑫": (12, "ok", 12),
    "`12`": (12, "ok", 12),
    "$\\boxed{12}$ of the 13": (12, "ok", 12),
    "12 dots, 1024 × 1024 × 3 pixels": (12, "ok", 12),
    "1 2 3 4 5": (None, "split_digits", None),
    "1 2 dots": (None, "multi", 1),
    "10–12": (None, "range", 10),
    "10 -12": (None, "range", 10),
    "from 10 to 12": (None, "range", 10),
    "between 10 and 12": (None, "range", 10),
    "between ten and twelve": (None, "range", 10),
    "twelve or thirteen": (None, "range", 12),
    "20000-30000": (None, "range", None),
    "more than 12": (None, "bound", 12),
    "up to 12": (None, "bound", 12),
    "12 or more": (None, "bound", 12),
    "\u221212": (None, "negative", None),
    "Answer: -12, or so says 3": (None, "negative", None),
    "-12 12": (None, "multi", None),
    "12.5 and 13.5": (None, "multi", None),
    "12 twice: 12.0": (12, "ok", 12),
    "the 2nd row has 12": (12, "ok", 12),
    "the 2nd row has twelve": (12, "ok", 12),
    "the 1,024th": (None, "none", None),
    "The answer is 12, not 13.": (12, "ok", 12),
    "Answer: 12\nAnswer: 13": (12, "ok", 12),
    "answer: 12, or 13 in total": (12, "ok", 12),
    "A total of 12: 10 black and 2 grey": (12, "ok", 12),
    "13 in total, no, 12 in total": (12, "ok", 12),
    "subtotal 5, 12 dots": (None, "multi", 5),
    "There are exactly 12 dots, 2 of them grey": (12, "ok", 12),
    "There are 12 black dots and there are 2 grey dots": (12, "ok", 12),
    "In 3 groups there are 12": (12, "ok", 12),
    "9999": (9999, "ok", 9999),
    "10000": (None, "out_of_range", None),
    "0000000012": (12, "ok", 12),
    "half a dozen": (6, "ok", 6),
    "two dozen": (24, "ok", 24),
    "no black dots": (0, "ok", 0),
    "No two dots overlap": (None, "none", None),
    "One of them is grey": (None, "none", None),
    "only one": (1, "ok", 1),
    "Someone counted": (None, "none", None),
    "dozens": (None, "none", None),
    "I am unable to see the image": (None, "refusal", None),
    "I can’t": (None, "refusal", None),
    "I cannot count beyond 12": (12, "ok", 12),
}

FINAL = {
    "Row 1: 3\nRow 2: 4\nAnswer: 7": (7, "ok", 7),
    "I count 1, 2, 3, 4, 5. So 5.": (5, "fallback_last", 5),
    "12": (12, "fallback_last", 12),
    "Answer: 6. Check: \\boxed{7}, from 3 + 4": (7, "ok", 7),
    "\\boxed{6}? No. Answer: 7": (7, "ok", 7),
    "Row 1: 3\nAnswer: 10-12": (None, "range", 10),
    "10 or 11 or 12": (None, "range", 10),
    "6 or 7 or 8 dots. The last row: 8": (8, "fallback_last", 8),
    "Rows 1-3 hold 4 each. Answer: 12": (12, "ok", 12),
    "Row 1: 3, so at least 12": (None, "bound", 12),
    "Row 1: 3. Answer: 12.5": (None, "non_integer", None),
    "Row one: three. Answer: seven": (7, "ok", 7),
    "1 2": (None, "split_digits", 12),
    "": (None, "empty", None),
    "Let me think": (None, "none", None),
}


REVERSED = {
    "21": (12, "ok", 12),
    "01": (10, "ok", 10),
    "01.": (10, "ok", 10),
    "**99**": (99, "ok", 99),
    "1": (1, "ok", 1),
    "10": (1, "ok", 1),
    "There are 21 dots. 21": (12, "ok", 12),
    "21 or 31": (None, "range", 12),
    "2 1": (None, "split_digits", 12),
    "0 1": (None, "split_digits", 10),
    "twelve": (12, "ok", 12),
    "12.5": (None, "non_integer", None),
    "-21": (None, "negative", None),
    "Units digit: 2, tens digit: 1": (None, "multi", 2),
    "Many": (None, "none", None),
}


@pytest.mark.parametrize(("reply", "expected"), FIRST.items())
def test_a_reply_has_the_value_and_status_of_the_specification(reply, expected):
    assert parse_count(reply) == ParsedCount(*expected)


@pytest.mark.parametrize(("reply", "expected"), FINAL.items())
def test_mode_final_takes_the_last_answer_else_the_last_number(reply, expected):
    assert parse_count(reply, mode="final") == ParsedCount(*expected)


def test_every_status_can_occur():
    assert {status for _, status, _ in (*FIRST.values(), *FINAL.values())} == STATUSES


@pytest.mark.parametrize(("reply", "expected"), REVERSED.items())
def test_with_the_units_digit_first_a_number_is_turned_round_as_text(reply, expected):
    assert parse_count(reply, mode="reversed") == ParsedCount(*expected)


@given(st.integers(0, 9999), st.sampled_from(["{}", "There are {} dots.", "**{}**", "Answer: {}", "{0} dots, so {0}"]))
def test_a_count_written_from_its_units_on_is_read_back(count, text):
    assert parse_count(text.format(str(count)[::-1]), mode="reversed").value == count


def test_another_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown mode 'last': use 'first', 'final', 'reversed'"):
        parse_count("12", mode="last")


def spelled(number):
    """English for 0..9999, written without the parser's tables."""
    small = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    ]  # fmt: skip
    if number < 20:
        return small[number]
    if number < 100:
        tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"][number // 10 - 2]
        return tens if number % 10 == 0 else f"{tens}-{small[number % 10]}"
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = "" if number % size == 0 else (" and " if number % size < 100 else " ") + spelled(number % size)
    return f"{spelled(number // size)} {name}{rest}"


def test_every_count_is_read_in_digits_and_in_words():
    for number in range(10_000):
        for reply in (f"{number}", f"{number:,}", f"There are {number} dots.", spelled(number).capitalize()):
            assert parse_count(reply) == ParsedCount(number, "ok", number), reply


@given(st.text(), st.sampled_from(["first", "final"]))
def test_any_text_has_a_status_and_a_value_in_range_exactly_where_the_status_says_so(reply, mode):
    parsed = parse_count(reply, mode=mode)
    assert parsed.status in STATUSES
    assert (parsed.value is not None) == (parsed.status in get_args(ValuedStatus))
    assert parsed.value is None or parsed.lenient == parsed.value
    assert parsed.lenient is None or 0 <= parsed.lenient <= 9999


@settings(deadline=None)
@given(
    st.integers(0, 9999), st.sampled_from(["{}", "**{}**", "_{}_", "  {}\n", "${}$", "<think>3</think>{}", "{} (4x4)"])
)
def test_markup_thoughts_and_dimensions_do_not_change_a_count(number, wrapping):
    assert parse_count(wrapping.format(number)).value == number


def test_ten_thousand_fuzzed_replies_all_have_a_status_in_milliseconds():
    seed = random.Random(0)
    fragments = [
        *FIRST,
        *FINAL,
        *"0123456789 \n-.,#{}x×½\ufdfa\u0300\u202f\ud800",
        "answer is ",
        "there are ",
        "total ",
        "<think>",
    ]
    slowest = 0.0
    for number in range(10_000):
        reply = "".join(seed.choices(fragments, k=seed.randrange(12)))
        if number % 100 == 0:  # of a megabyte
            reply = reply + "".join(seed.choices(fragments, k=200)) * 300 + reply
        start = time.thread_time()
        assert parse_count(reply, mode=seed.choice(["first", "final", "reversed"])).status in STATUSES, reply
        slowest = max(slowest, time.thread_time() - start)
    # A few milliseconds on a quiet machine; quadratic time would take minutes.
    assert slowest < 0.25


@pytest.mark.parametrize(
    "piece",
    [
        "a", "1", "0", " ", "1 ", "12 13 ", "1,", ",000", "1.", "1x", "1 x ", "-", "- ", "<think>", "</think>", "½", "\ufdfa",
        "\u0315\u0300", "twenty ", "no ", "no black ", "a thousand and ", "one hundred ", "answer is: ", "\\boxed{", "total ",
        "total 1 ", "1 in ", "= ", "there are about ", "between 1 and ", "at least ", "1 or ",
    ],
)  # fmt: skip
def test_the_time_is_linear_in_the_length_of_the_reply(piece):
    # As long as replies are read whole.
    reply = "7 " + piece * (32_000 // len(piece)) + " 12 13"
    for mode in ("first", "final"):
        start = time.thread_time()
        assert parse_count(reply, mode=mode).status in STATUSES
        # Milliseconds; quadratic time would take seconds.
        assert time.thread_time() - start < 0.2


PROSE = "I see some dots in the image and then " * 27_000


@pytest.mark.parametrize(
    ("reply", "mode", "expected"),
    [
        (PROSE + "12 dots.", "first", (12, "ok", 12)),
        ("12 dots. " + PROSE, "first", (12, "ok", 12)),
        ("12 dots. " + PROSE + "13 dots", "first", (None, "multi", 12)),
        (PROSE + "Answer: 7", "final", (7, "ok", 7)),
        ("<think>" + PROSE + "1, 2, 3</think>12", "first", (12, "ok", 12)),
        (PROSE, "first", (None, "none", None)),
        (" " * 1_000_000, "first", (None, "empty", None)),
        ("1" * 1_000_000, "first", (None, "out_of_range", None)),
        # Words are cut whole: neither 12 nor 34 is read here.
        ("a" * 16_382 + " 12345" + "b" * 20_000 + "12345 " + "c" * 16_382, "first", (None, "none", None)),
    ],
)
def test_the_two_ends_of_a_megabyte_are_read(reply, mode, expected):
    start = time.thread_time()
    assert parse_count(reply, mode=mode) == ParsedCount(*expected)
    assert time.thread_time() - start < 0.2
