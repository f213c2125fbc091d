import json
import random
import re
import time
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_eval_tasks.parsing import UnvaluedStatus, ValuedStatus, parse_count

STATUSES = {*get_args(ValuedStatus), *get_args(UnvaluedStatus)}

DATA = Path(__file__).parents[1] / "data"


def read_replies(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


SPECIFIED = read_replies("specification_replies.jsonl")
"""The replies of the specification."""
COLLECTED = read_replies("replies.jsonl")
"""Replies of other people's models, each with its source and the count that a careful reader takes, judged before the
parser read them. What was counted there is called dots."""

# reply: (value, status, lenient value), beside the vectors of the specification.
FIRST = {
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
    "Answer: -12. So it says": (None, "negative", None),
    "-12 12": (None, "multi", None),
    "12.5 and 13.5": (None, "multi", None),
    "12 twice: 12.0": (12, "ok", 12),
    "the 2nd row has 12": (12, "ok", 12),
    "the 2nd row has twelve": (12, "ok", 12),
    "the 1,024th": (None, "none", None),
    "The answer is 12, not 13.": (12, "ok", 12),
    "Answer: 12\nAnswer: 13": (13, "ok", 13),
    "answer: 12, or 13 in total": (None, "range", 12),
    "A total of 12: 10 black and 2 grey": (12, "ok", 12),
    "13 in total, no, 12 in total": (12, "ok", 12),
    "subtotal 5, 12 dots": (None, "multi", 5),
    "There are exactly 12 dots, 2 of them grey": (None, "multi", 12),
    "There are 12 black dots and there are 2 grey dots": (None, "multi", 12),
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
    # Beside the specification's own: dropped numbers.
    "12½": (None, "non_integer", None),
    "12² dots": (None, "multi", 12),
    "1 024 dots": (None, "multi", 1),
    "Qwen3 counts 12": (12, "ok", 12),
    "I am 95% sure: 12": (12, "ok", 12),
    "12 dots at (100, 200) and x=5": (12, "ok", 12),
    "12 dots, 4 per row": (12, "ok", 12),
    "Each row has 4 dots, 12 in total": (12, "ok", 12),
    "12 ± 2": (None, "range", 12),
    "Row 1: 4\nRow 2: 5\nRow 3: 3": (None, "multi", 4),
    "4\nImages and rows": (4, "ok", 4),
    "I count 4 dots in the top row and": (None, "multi", 4),
    "5 on the left, 7 on the right": (None, "multi", 5),
    "12, maybe 13": (None, "range", 12),
    "<|begin_of_box|>15<|end_of_box|>": (15, "ok", 15),
    "3 rows of 4. <answer>12</answer>": (12, "ok", 12),
    "[THINK]11[/THINK]12": (12, "ok", 12),
    "◁think▷11◁/think▷12": (12, "ok", 12),
    "<|channel>thought\n11<channel|>12": (12, "ok", 12),
    "<THINK>11</THINK>12": (12, "ok", 12),
    "<reasoning>11": (None, "empty", None),
    # Disagreements, and what only looks like one.
    "12\n\nLet me check: 4 + 4 = 8": (None, "multi", 12),
    "12\n... Answer: 13": (None, "multi", 12),
    "12\nWait, actually 13": (13, "ok", 13),
    "Answer: 12. The first row had 4, sorry, 5": (None, "multi", 12),
    "12 dots. Sorry if I am off by 1": (12, "ok", 12),
    "12 rather than 13": (12, "ok", 12),
    "Number of black dots: 10\nNumber of grey dots: 2": (None, "multi", 10),
    "Number of black dots: 10\nNumber of grey dots: 2\nTotal: 12": (12, "ok", 12),
    "Count: 1, 2, 3": (3, "ok", 3),
    "three rows of 4 dots": (None, "multi", 4),
    "4 rows of 4 dots": (None, "multi", 4),
    "1 red dot, 2 blue dots and 3 green dots": (None, "multi", 1),
    "Let's count them:\n1. Top left\n2. Middle\nSo 2.": (2, "ok", 2),
    "1. Left\n2. Right\n3. Top\n4. Middle\n5. Bottom": (5, "ok", 5),
    "12\n\nQuestion: How many squares?\nAnswer: 3": (12, "ok", 12),
}

FINAL = {
    "Row 1: 3\nRow 2: 4\nAnswer: 7": (7, "ok", 7),
    "I count 1, 2, 3, 4, 5. So 5.": (5, "ok", 5),
    "12": (12, "fallback_last", 12),
    "12 + 3": (None, "multi", 12),
    "10 dots on the left and 3 on the right": (None, "multi", 10),
    "12\nRow by row. Answer: 13": (13, "ok", 13),
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
    "2 1": (12, "ok", 12),
    "0 1": (10, "ok", 10),
    "twelve": (12, "ok", 12),
    "12.5": (None, "non_integer", None),
    "-21": (None, "negative", None),
    "Units digit: 2, tens digit: 1": (12, "ok", 12),
    "Many": (None, "none", None),
    "2, 1": (12, "ok", 12),
    "2\n1": (12, "ok", 12),
    "2 and 1": (12, "ok", 12),
    "3 2 1": (123, "ok", 123),
    "The units digit is 2 and the tens digit is 1.": (12, "ok", 12),
    "Tens: 1, units: 2": (12, "ok", 12),
    "Units: 2, tens: 1. So 21": (12, "ok", 12),
    "Units: 2, tens: 1. So 12": (None, "multi", 2),
}


def told(parsed):
    return parsed.value, parsed.status, parsed.lenient


@pytest.mark.parametrize("given", SPECIFIED)
def test_a_reply_of_the_specification_is_read_as_it_says(given):
    parsed = parse_count(given["reply"], mode=given["mode"])
    assert parsed.value == given["count"]
    assert parsed.status == given.get("status", parsed.status)
    assert parsed.lenient == given.get("lenient", parsed.lenient)


def test_no_collected_reply_gives_a_wrong_number_and_few_give_none():
    read = [parse_count(given["reply"], mode=given["mode"]).value for given in COLLECTED]
    judged = [given["count"] for given in COLLECTED]
    assert len(judged) >= 120
    assert all(re.match(r"(github\.com|huggingface\.co|arxiv\.org)/\S", given["source"]) for given in COLLECTED)
    wrong = [one for one, value in zip(COLLECTED, read, strict=True) if value not in {None, one["count"]}]
    assert not wrong
    assert sum(value != count for value, count in zip(read, judged, strict=True)) <= 6


@pytest.mark.parametrize(("reply", "expected"), FIRST.items())
def test_a_reply_has_the_value_and_status_of_the_specification(reply, expected):
    assert told(parse_count(reply)) == expected


@pytest.mark.parametrize(("reply", "expected"), FINAL.items())
def test_mode_final_takes_the_last_answer_else_the_last_number(reply, expected):
    assert told(parse_count(reply, mode="final")) == expected


def test_every_status_can_occur():
    said = {status for _, status, _ in (*FIRST.values(), *FINAL.values())} | {
        one.get("status") for one in SPECIFIED
    } - {None}
    assert said == STATUSES


@pytest.mark.parametrize(("reply", "expected"), REVERSED.items())
def test_with_the_units_digit_first_a_number_is_turned_round_as_text(reply, expected):
    assert told(parse_count(reply, mode="reversed")) == expected


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
            assert told(parse_count(reply)) == (number, "ok", number), reply


@given(st.text(), st.sampled_from(["first", "final"]))
def test_any_text_has_a_status_and_a_value_in_range_exactly_where_the_status_says_so(reply, mode):
    parsed = parse_count(reply, mode=mode)
    assert parsed.status in STATUSES
    assert (parsed.value is not None) == (parsed.status in get_args(ValuedStatus))
    assert parsed.value is None or parsed.lenient == parsed.value
    assert parsed.lenient is None or 0 <= parsed.lenient <= 9999
    assert (parsed.span is None) == (parsed.value is None)
    if parsed.span:
        assert 0 <= parsed.span[0] < parsed.span[1] <= len(reply)


@given(
    st.integers(0, 9999),
    st.sampled_from(
        [
            "{}",
            "**{}** dots",
            "<think>{}? 3?</think>There are {} dots",
            "# {:,} ½ <b>",
            "ﷺ {} ①",
            "½ off\u202f. Answer: {}",
        ]
    ),
)
def test_the_span_is_where_the_number_stands_in_the_reply(count, text):
    reply = text.format(*[count] * 2)
    parsed = parse_count(reply)
    if parsed.value is not None:
        assert parsed.value == count
        assert reply[slice(*parsed.span)].replace(",", "") == str(count)
    if "</think>" in reply:
        assert parsed.span[0] > reply.index("</think>")


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
    assert slowest < 0.5


@pytest.mark.parametrize(
    "piece",
    [
        "a", "1", "0", " ", "1 ", "12 13 ", "1,", ",000", "1.", "1x", "1 x ", "-", "- ", "<think>", "</think>", "½", "\ufdfa",
        "\u0315\u0300", "twenty ", "no ", "no black ", "a thousand and ", "one hundred ", "answer is: ", "\\boxed{", "total ",
        "total 1 ", "1 + ", "1 rows of ", "image 1 ", "each row ", "1 (", "number of a b c ", "1 black red ", "wait 1 ",
        "#\n", "1 in ", "= ", "there are about ", "between 1 and ", "at least ", "1 or ",
    ],
)  # fmt: skip
def test_the_time_is_linear_in_the_length_of_the_reply(piece):
    # As long as replies are read whole: four times the reply, and far from sixteen times the work.
    for mode in ("first", "final"):
        short, whole = (seconds("7 " + piece * (length // len(piece)) + " 12 13", mode) for length in (8_000, 32_000))
        assert whole < 9 * max(short, 0.002)


def seconds(reply, mode):
    """Processor time of reading a reply, the least of three."""
    spent = []
    for _ in range(3):
        start = time.thread_time()
        assert parse_count(reply, mode=mode).status in STATUSES
        spent.append(time.thread_time() - start)
    return min(spent)


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
    assert told(parse_count(reply, mode=mode)) == expected
    assert time.thread_time() - start < 5  # quadratic time would take hours


@pytest.mark.parametrize("mark", ["</think>", "<think>", "</think>a", "[/THINK]"])
def test_ten_megabytes_of_marks_take_no_half_second(mark):
    reply = mark * (10_000_000 // len(mark))
    start = time.thread_time()
    assert parse_count(reply).value is None
    assert time.thread_time() - start < 5  # as above
