"""The numbers of a normalised reply, and the skeleton that the rules of the parser look at.

The skeleton is as long as its text, but for numbers: each is one sign. `#` is a number in digits, `@` one in words, `·`
one that is no number of the count.

Source: the measurement specification, section 3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

DIGITS, WORDS, NONE = "#", "@", "·"

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


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a reply.

    Attributes:
        start: Where it begins in the normalised text.
        end: Where its whole part ends.
        digits: As it is written, with sign and fraction; one in words in digits.
    """

    start: int
    end: int
    digits: str

    @property
    def canonical(self) -> tuple[bool, str, str]:
        """Sign, whole part and fraction, without the zeros that say nothing."""
        whole, _, fraction = self.digits.lstrip("-−").replace(",", "").partition(".")
        return self.digits[0] in "-−", whole.lstrip("0") or "0", fraction.rstrip("0")


# A minus is a sign only where nothing stands before it that it could join or subtract from: "-12", not "10-12".
# Digits that follow a letter are part of a word (qwen3), as are those before an ordinal's end or a unit.
_WRITTEN = (
    r"(?P<number>(?:[-−](?<!\w.)(?<!\d\s.))?(?<![0-9a-z])(?<![0-9]\.)"
    r"(?P<whole>(?>[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++))(?:\.[0-9]++)?+|(?<![\w.])\.[0-9]++)"
    r"(?:\s++(?P<scale>dozen|hundred|thousand)\b)?+"
)
_NO_NUMBER_AFTER = r"(?!(?:st|nd|rd|th|d|k|px|pt|cm|mm|x)\b|\s?%|\s?°)"


def _spelled_pattern() -> str:
    """English number words up to thousands, "a dozen" and "no dots"; not "no one", "this one" or "one of them"."""
    unit, teen, ten = "|".join(_UNITS), "|".join(_TEENS), "|".join(_TENS)
    small = rf"(?:(?:zero|{teen}|{unit})\b|(?:{ten})\b(?:[\s-]++(?:{unit})\b)?)"
    hundreds = rf"(?:(?:a|{unit}|{teen})[\s-]++hundred\b(?:\s++(?:and\s++)?{small})?|{small})"
    thousands = rf"(?:a|{small})\s++thousand\b(?:\s++(?:and\s++)?{hundreds})?"
    dozens = rf"(?:(?:half\s++a|a|{small})\s++)?dozen\b"
    here = r"(?=\s*+(?:$|[.,;!?)\n\"']|in\b|on\b|here\b|at all|visible|present|shown|found|inside|within|to be|are\b))"
    nothing = (
        rf"no\s++(?:(?:black|gr[ae]y|dark|visible)\s++)?(?:dots?|circles?)\b{here}"
        r"|none\b(?!\s++of\b)|(?:are|is)(?:n['’]t|\s++not)\s++any\b(?!\s++(?:other|more))"
    )
    not_after = "".join(
        rf"(?<!\b{word}\s)" for word in ("no", "any", "every", "each", "this", "that", "which", "another")
    )
    not_before = (
        r"(?!one\s++(?:of|by|from|after|at\s++a|another|can|could|may|might|must|should|would|who|that|which)\b)"
    )
    first_letter = r"\b(?=[adefhinostz])"
    return rf"{first_letter}{not_after}{not_before}(?:{nothing}|{thousands}|{dozens}|{hundreds})"


_SPELLED = _spelled_pattern()
_NUMBER = re.compile(rf"{_WRITTEN}{_NO_NUMBER_AFTER}|(?P<part>[0-9][0-9.,]*+[a-z]*+)|(?P<spelled>{_SPELLED})")


def take_out_numbers(text: str) -> tuple[str, Mapping[int, Number]]:
    """The skeleton of a normalised text, and the number at each of its signs."""
    pieces: list[str] = []
    numbers: dict[int, Number] = {}
    done = length = 0
    for match in _NUMBER.finditer(text):
        between = text[done : match.start()].translate(_NO_SIGNS)
        length += len(between)
        if match["part"]:
            sign = NONE
        elif match["spelled"]:
            sign = WORDS
            numbers[length] = Number(*match.span(), in_digits(match["spelled"]))
        else:
            sign = DIGITS
            numbers[length] = _written(match)
        pieces += [between, sign]
        length += 1
        done = match.end()
    return "".join([*pieces, text[done:].translate(_NO_SIGNS)]), numbers


_NO_SIGNS = str.maketrans(dict.fromkeys((DIGITS, WORDS, NONE), " "))


def _written(match: re.Match[str]) -> Number:
    number = match["number"]
    if scale := match["scale"]:
        # Looked at as text: int() refuses thousands of digits.
        whole = match["whole"] or ""
        if whole.isdecimal() and len(whole) <= len("9999"):
            return Number(match.start(), match.end(), str(int(whole) * _SCALES[scale]))
        return Number(match.start(), match.end(), f"{number}.5" if "." not in number else number)
    return Number(match.start(), match.end("whole") if match["whole"] else match.end(), number)


def in_digits(phrase: str) -> str:
    """The value of number words."""
    total = part = 0.0
    for word in re.findall("[a-z]+", phrase):
        if word in _SCALES:
            part = (part or 1) * _SCALES[word]
        else:
            part += _WORD_VALUES.get(word, 0)
        if word == "thousand":
            total, part = part, 0
    return str(int(total + part))
