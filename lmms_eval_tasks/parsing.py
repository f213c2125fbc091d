"""From a reply to a count: one parser and one set of statuses for every counting task.

Conventions: a reply is the text that a model generated. "The model gave no number" is data: it has a status and no
value, it is never an error and never a zero. A value is an integer from 0 to 9999. Every pattern is possessive or
bounded, so that the time is linear in the length of the reply.

Source: the measurement specification, section 3.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal[
    "first",  # a direct answer
    "final",  # an answer at the end of a reasoning
    "reversed",  # a direct answer with the units digit first
]

ValuedStatus = Literal[
    "ok",  # a rule gave the value
    "fallback_last",  # mode `final` only: no box and no answer phrase, so the last number
]

UnvaluedStatus = Literal[
    "empty",  # nothing is left of the reply
    "none",  # no number
    "refusal",  # no number, and the model says that it cannot
    "split_digits",  # single digits apart and nothing else: "1 2"
    "range",  # "10-12", "12 or 13", "between 10 and 12"
    "bound",  # "at least 12"
    "multi",  # several numbers, and no rule says which
    "negative",  # "-12"
    "non_integer",  # "12.5"
    "out_of_range",  # above 9999
]


@dataclass(frozen=True, slots=True)
class ParsedCount:
    """What a reply says about the count.

    Attributes:
        value: The count, 0 to 9999; None where the reply gives none.
        status: Why there is a value, or why there is none.
        lenient: What a lenient reader would take, 0 to 9999: the value where there is one, the joined digits of
            `split_digits`, the first number of `range`, `bound` and `multi`; None otherwise.
    """

    value: int | None
    status: ValuedStatus | UnvaluedStatus
    lenient: int | None


_MOST_DIGITS = 4  # of a value: 9999
# Characters read at either end of a reply that is longer than both: no task generates as many.
_END = 1 << 14

_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORD_VALUES = {
    **{word: value for value, word in enumerate(_UNITS + _TEENS, start=1)},
    **{word: value for value, word in zip(range(20, 100, 10), _TENS, strict=True)},
    "half": 0.5,
}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000}

# Patterns begin with a set of characters where they can, and look behind after it: re then skips to the next candidate.
_THOUSANDS_SPACE = re.compile(r"[\u00a0\u2007\u2009\u202f](?<=\d.)(?=\d{3}(?!\d))")
# "#" goes too, because below it stands for a number.
_DECORATION = str.maketrans({"*": None, "_": None, "$": None, "`": None, "#": " "})
_DIMENSIONS = re.compile(r"[0-9](?<![0-9].)[0-9]*+(?:\s*+[x×]\s*+[0-9]++)++")
_DIGITS_APART = re.compile(r"[0-9](?:\s++[0-9])++")
# A minus is a sign only where nothing stands before it that it could join or subtract from: "-12", not "10-12".
_NUMBER = re.compile(
    r"([-−0-9](?:(?<=[0-9])(?<![0-9].)|(?<!\w.)(?<!\d\s.)[0-9])"
    r"(?>[0-9]{0,2}(?:,[0-9]{3})++(?![0-9])|[0-9]*+)(?:\.[0-9]++)?+(?!(?:st|nd|rd|th)\b))"
)


def _spelled_pattern() -> re.Pattern[str]:
    """English number words up to thousands, "a dozen" and "no dots"; not "no one", "this one" or "one of them"."""
    unit, teen, ten = "|".join(_UNITS), "|".join(_TEENS), "|".join(_TENS)
    small = rf"(?:(?:zero|{teen}|{unit})\b|(?:{ten})\b(?:[\s-]++(?:{unit})\b)?)"
    hundreds = rf"(?:(?:a|{unit}|{teen})[\s-]++hundred\b(?:\s++(?:and\s++)?{small})?|{small})"
    thousands = rf"(?:a|{small})\s++thousand\b(?:\s++(?:and\s++)?{hundreds})?"
    dozens = rf"(?:(?:half\s++a|a|{small})\s++)?dozen\b"
    nothing = r"no\s++(?:(?:black|gr[ae]y|dark|visible)\s++)?(?:dots?|circles?)\b"
    not_after = "".join(rf"(?<!\b{word}\s)" for word in ("no", "any", "every", "each", "this", "that", "which"))
    not_before = r"(?!one\s++(?:of|can|could|may|might|must|should|would)\b)"
    first_letter = r"\b(?=[adefhnostz])"
    return re.compile(rf"{first_letter}{not_after}{not_before}({nothing}|{thousands}|{dozens}|{hundreds})")


_SPELLED = _spelled_pattern()

# The patterns below read the skeleton of a reply: its text with every number replaced by "#".
_RANGE = re.compile(r"#(?:\s*+(?:[-‐‑–—−~]|to\b|or\b)\s*+#)++|\bbetween\s++#\s++and\s++#")
_BOUND = re.compile(
    r"\b(?:at least|at most|(?:more|less|fewer|greater) than|up to|(?:min|max)imum of)\s++#"
    r"|#\s++or\s++(?:more|less|fewer)\b"
)
_BOXED = re.compile(r"\\boxed\s*+\{\s*+#")
_ABOUT = r"(?:(?:about|exactly|approximately|around|roughly|nearly|almost|only)\s++)?"
_ANSWER = re.compile(rf"answer\s*+(?:is\b|:)\s*+:?\s*+{_ABOUT}#")
_BOXED_OR_ANSWER = re.compile(f"{_BOXED.pattern}|{_ANSWER.pattern}")
_TOTAL = re.compile(r"(?:\btotal\b[^#\n.]{0,60}|=\s*+)#|#[^#\n.]{0,60}?\bin\s++total\b")
_THERE_ARE = re.compile(rf"there\s++(?:are|is)\s++{_ABOUT}#")
_REFUSAL = re.compile(r"\b(?:sorry|cannot|can not|can[’']t|could not|couldn[’']t|unable|not able|impossible)\b")


def parse_count(reply: str, *, mode: Mode = "first") -> ParsedCount:
    r"""Read the count that a reply gives.

    The reply is normalised (section 3: thousands spaces, NFKC, Unicode digits, thoughts, markup, dimensions) and its
    ordinals are left out. Number words count only where there is no number in digits. Then the first rule that matches
    wins; in mode `first`: nothing left, digits apart, a range, a bound, all numbers equal, `\boxed{N}`, `answer is N`
    or `answer: N`, the last of `total … N`, `= N` and `N in total`, the first `there are N`. Mode `final`, for replies
    that reason before they answer: nothing left, digits apart, the last `\boxed{N}` or answer phrase, the last number;
    a number that is part of a range or a bound has that status here too. Mode `reversed` is mode `first` with the
    digits of each whole number turned round, as text, before it is read: `21` is 12, and `01` is 10. Number words are
    read as they are.

    Of a reply of more than 32 768 characters, thoughts left out, the first and the last 16 384 are read, so that any
    reply takes milliseconds.

    Args:
        reply: The generated text; any length, any characters.
        mode: `first` for direct answers, `final` for step-by-step ones, `reversed` for the units digit first.

    Raises:
        ValueError: If the mode is another one.

    >>> parse_count("10 black dots and 2 gray dots, 12 in total")
    ParsedCount(value=12, status='ok', lenient=12)
    >>> parse_count("12 or 13")
    ParsedCount(value=None, status='range', lenient=12)
    >>> parse_count("I count 1, 2, 3, 4, 5. So 5.", mode="final")
    ParsedCount(value=5, status='fallback_last', lenient=5)
    >>> parse_count("01", mode="reversed")
    ParsedCount(value=10, status='ok', lenient=10)
    """
    if mode not in get_args(Mode):
        raise ValueError(f"parse_count: unknown mode {mode!r}: use {', '.join(map(repr, get_args(Mode)))}")
    text = normalise(reply)
    if not text:
        return ParsedCount(None, "empty", None)
    if _DIGITS_APART.fullmatch(text):
        return ParsedCount(None, "split_digits", _judge(_in_order("".join(text.split()), mode), "ok").value)
    skeleton, numbers = _take_out_numbers(text, mode)
    if not numbers:
        return ParsedCount(None, "refusal" if _REFUSAL.search(skeleton) else "none", None)
    return _final(skeleton, numbers) if mode == "final" else _first(skeleton, numbers)


def normalise(reply: str) -> str:
    """A reply in lower case, normalised as section 3 says: without thoughts, markup and dimensions, trimmed."""
    text = _THOUSANDS_SPACE.sub(",", _shortened(reply))
    text = text.translate({ord(char): _fold(char) for char in set(text) if not char.isascii()}).lower()
    # Shortened again: a character may have become many.
    return _DIMENSIONS.sub(" ", _without_thoughts(_shortened(text)).translate(_DECORATION)).strip()


def _without_thoughts(text: str) -> str:
    """Without thoughts; one that nothing in the text has opened was opened by the prompt, and begins with the text."""
    *thoughtful, rest = text.split("</think>")
    parts = (part.partition("<think>") for part in thoughtful)
    return "".join(before for before, opening, _ in parts if opening) + rest


def _shortened(reply: str) -> str:
    """The two ends of a reply that is too long; the words that are cut are left out."""
    if len(reply) <= 2 * _END or len(text := _without_thoughts(reply)) <= 2 * _END:
        return reply
    head, tail = text[:_END].rsplit(maxsplit=1), text[-_END:].split(maxsplit=1)
    return " ".join([*head[:1], *tail[-1:]])


def _fold(char: str) -> str:
    """NFKC and digits to ASCII, one character at a time: NFKC of a whole string can take quadratic time."""
    digit = unicodedata.decimal(char, None)
    return unicodedata.normalize("NFKC", char) if digit is None else str(digit)


def _in_order(number: str, mode: Mode) -> str:
    """The digits of a number from the leading one on. As text, since "01" is 10 where the units are written first."""
    return number[::-1] if mode == "reversed" and number.isdecimal() else number


def _take_out_numbers(text: str, mode: Mode) -> tuple[str, list[str]]:
    """The skeleton of a text and its numbers in order, as written but for `_in_order`; number words in digits."""
    parts = _NUMBER.split(text)
    if len(parts) > 1:
        parts[1::2] = [_in_order(number, mode) for number in parts[1::2]]
    else:
        parts = _SPELLED.split(text)
        parts[1::2] = [_in_digits(phrase) for phrase in parts[1::2]]
    return "#".join(parts[::2]), parts[1::2]


def _in_digits(phrase: str) -> str:
    total = part = 0.0
    for word in re.findall("[a-z]+", phrase):
        if word in _SCALES:
            part = (part or 1) * _SCALES[word]
        else:
            part += _WORD_VALUES.get(word, 0)
        if word == "thousand":
            total, part = part, 0
    return str(int(total + part))


def _first(skeleton: str, numbers: list[str]) -> ParsedCount:
    qualified = _qualified(skeleton, numbers)
    if qualified is not None:
        return qualified
    canonical = _canonical(numbers[0])
    if all(number == numbers[0] or _canonical(number) == canonical for number in numbers):
        return _judge(numbers[0], "ok")
    match = (
        _BOXED.search(skeleton)
        or _ANSWER.search(skeleton)
        or _last_match(_TOTAL, skeleton)
        or _THERE_ARE.search(skeleton)
    )
    if match:
        return _judge(_first_number_of(match, numbers), "ok")
    return ParsedCount(None, "multi", _judge(numbers[0], "ok").value)


def _final(skeleton: str, numbers: list[str]) -> ParsedCount:
    match = _last_match(_BOXED_OR_ANSWER, skeleton)
    position = match.end() - 1 if match else skeleton.rindex("#")
    qualified = _qualified(skeleton, numbers, position)
    if qualified is not None:
        return qualified
    return _judge(_first_number_of(match, numbers), "ok") if match else _judge(numbers[-1], "fallback_last")


def _qualified(skeleton: str, numbers: list[str], position: int | None = None) -> ParsedCount | None:
    """The range or bound that the number at a position is part of, or the first one of all."""
    qualifiers: tuple[tuple[re.Pattern[str], UnvaluedStatus], ...] = ((_RANGE, "range"), (_BOUND, "bound"))
    for pattern, status in qualifiers:
        for match in pattern.finditer(skeleton):
            if position is None or match.start() <= position < match.end():
                return ParsedCount(None, status, _judge(_first_number_of(match, numbers), "ok").value)
    return None


def _last_match(pattern: re.Pattern[str], skeleton: str) -> re.Match[str] | None:
    last = None
    for match in pattern.finditer(skeleton):
        last = match
    return last


def _first_number_of(match: re.Match[str], numbers: list[str]) -> str:
    return numbers[match.string.count("#", 0, match.start())]


def _canonical(number: str) -> tuple[bool, str, str]:
    """Sign, integer part and fraction, without the zeros that say nothing."""
    whole, _, fraction = number.lstrip("-−").replace(",", "").partition(".")
    return number[0] in "-−", whole.lstrip("0") or "0", fraction.rstrip("0")


def _judge(number: str, status: ValuedStatus) -> ParsedCount:
    negative, whole, fraction = _canonical(number)
    if negative:
        return ParsedCount(None, "negative", None)
    if fraction:
        return ParsedCount(None, "non_integer", None)
    # Looked at as text: int() refuses thousands of digits.
    if len(whole) > _MOST_DIGITS:
        return ParsedCount(None, "out_of_range", None)
    return ParsedCount(int(whole), status, int(whole))
