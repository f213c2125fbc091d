"""From a reply to a count: one parser and one set of statuses for every counting task.

Conventions: a reply is the text that a model generated. "The model gave no number" is data: it has a status and no
value, it is never an error and never a zero. A value is an integer from 0 to 9999. A wrong number is worse than none:
where two statements of a reply disagree, it gives no count. The time is linear in the length of the reply.

A reply is made ready by `reading`, its numbers are taken out by `numbers`, and the rules below look at what is left
through the patterns of `phrases`.

Source: the measurement specification, section 3.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, get_args

from lmms_eval_tasks import phrases
from lmms_eval_tasks.numbers import DIGITS, NONE, WORDS, Number, take_out_numbers
from lmms_eval_tasks.reading import read
from lmms_eval_tasks.thoughts import Span

Mode = Literal[
    "first",  # a direct answer
    "final",  # an answer at the end of a reasoning
    "reversed",  # a direct answer with the units digit first
]

ValuedStatus = Literal[
    "ok",  # a rule gave the value
    "fallback_last",  # mode `final` only: no rule gave a value, so the last number
]

UnvaluedStatus = Literal[
    "empty",  # nothing is left of the reply
    "none",  # no number
    "refusal",  # no number, and the model says that it cannot
    "split_digits",  # single digits apart and nothing else: "1 2"
    "range",  # "10-12", "12 or 13", "between 10 and 12"
    "bound",  # "at least 12"
    "multi",  # several numbers, and no rule says which or two rules disagree
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
            `split_digits`, the first number of a `range`, `bound` and `multi`; None otherwise.
        span: Start and end of the number that was taken, in the reply as it was generated, thoughts and all counted in;
            a fraction is left out. None where there is no value. Not shown by `repr`.
    """

    value: int | None
    status: ValuedStatus | UnvaluedStatus
    lenient: int | None
    span: Span | None = field(default=None, repr=False)


_MOST_DIGITS = 4  # of a value: 9999
_LEAST_LISTED = 3  # numbers that count up: "1, 2" may be anything
_TAKEN = ("n", "m", "boxed")  # groups of a pattern that hold the number
_LEAST_POINTS = 5  # the same, of a list of points: three may be three kinds of dots


def parse_count(reply: str, *, mode: Mode = "first") -> ParsedCount:
    r"""Read the count that a reply gives.

    The rules are those of section 3 of the specification, in its order; `RULES` and `FINAL_RULES` list them. In mode
    `reversed` the digits of each whole number are turned round, as text, before they are read: `21` is 12, and `01` is
    10; digits apart are read as well: `2, 1` and `Units: 2, tens: 1` are 12.

    Args:
        reply: The generated text; any length, any characters.
        mode: `first` for direct answers, `final` for step-by-step ones, `reversed` for the units digit first.

    Raises:
        ValueError: If the mode is another one.

    >>> parse_count("10 black dots and 2 gray dots, 12 in total")
    ParsedCount(value=12, status='ok', lenient=12)
    >>> parse_count("<think>11? 13?</think>12").span
    (22, 24)
    >>> parse_count("12 or 13")
    ParsedCount(value=None, status='range', lenient=12)
    >>> parse_count("3 here and 4 there", mode="final")
    ParsedCount(value=4, status='fallback_last', lenient=4)
    >>> parse_count("01", mode="reversed")
    ParsedCount(value=10, status='ok', lenient=10)
    """
    if mode not in get_args(Mode):
        raise ValueError(f"parse_count: unknown mode {mode!r}: use {', '.join(map(repr, get_args(Mode)))}")
    reading = read(reply)
    if not reading.text:
        return ParsedCount(None, "empty", None)
    parsed = _parse(reading.text, mode)
    return parsed if parsed.span is None else replace(parsed, span=reading.span(*parsed.span))


def normalise(reply: str) -> str:
    """A reply in lower case, without thoughts, tags, sizes and markup, trimmed (section 3)."""
    return read(reply).text


def _parse(text: str, mode: Mode) -> ParsedCount:
    """What a normalised text says; the span is in this text."""
    skeleton, numbers = take_out_numbers(text)
    if digits := _digit_by_digit(skeleton, numbers, mode):
        return digits
    if mode == "reversed":
        numbers = {place: _turned(number) for place, number in numbers.items()}
    asked = phrases.ASKED.search(skeleton)
    reply = _without_other_numbers(_Reply(skeleton[: asked.start()] if asked else skeleton, numbers))
    if not reply.places:
        return ParsedCount(None, "refusal" if phrases.REFUSED.search(skeleton) else "none", None)
    rules = FINAL_RULES if mode == "final" else RULES
    status: ValuedStatus = "ok"
    taken, matched = _taken(reply, rules)
    if mode == "final" and not matched:
        taken, status = _last(reply), "fallback_last"
    if hedged := _hedged(reply, reply.places[0] if taken is None else taken):
        return hedged
    if taken is None or any(_within(pattern, reply.all, taken) for pattern in phrases.UNSAID):
        return ParsedCount(None, "multi", _judged(reply.numbers[reply.places[0]]).lenient)
    return _judged(reply.numbers[taken], status)


@dataclass(frozen=True)
class _Reply:
    """A skeleton, and the numbers at its signs."""

    all: str
    """With number words too."""
    numbers: Mapping[int, Number]

    @cached_property
    def skeleton(self) -> str:
        """With numbers in words only where there are none in digits."""
        return self.all.replace(WORDS, NONE if DIGITS in self.all else DIGITS)

    @cached_property
    def places(self) -> list[int]:
        """The places of its numbers, in order."""
        return [match.start() for match in re.finditer(DIGITS, self.skeleton)]

    def value(self, place: int) -> tuple[bool, str, str]:
        """What is written there, as something to compare."""
        return self.numbers[place].canonical

    def equal(self, places: Sequence[int]) -> bool:
        """Whether the numbers at these places are one."""
        return len({self.value(place) for place in places}) <= 1

    def joined(self, place: int) -> bool:
        """Whether another number is joined to one, before or behind it."""
        number = bisect_right(self.places, place) - 1
        before, behind = self.places[max(number - 1, 0) : number], self.places[number + 1 : number + 2]
        return any(self._joint(other, place) for other in before) or any(self._joint(place, other) for other in behind)

    def joined_behind(self, place: int) -> bool:
        """Whether another number is joined to one, behind it."""
        number = bisect_right(self.places, place)
        return any(self._joint(place, other) for other in self.places[number : number + 1])

    def _joint(self, place: int, other: int) -> bool:
        between = self.all[place + 1 : other]
        if between.startswith("}") or phrases.SENTENCE_END.search(between) or self.equal([place, other]):
            return False
        return not between.strip() or phrases.JOINT.search(between) is not None

    def behind(self, place: int) -> "_Reply":
        """What comes after a place."""
        return _Reply(NONE * place + self.all[place:], self.numbers)

    def before(self, place: int) -> "_Reply":
        """What comes before a place."""
        return _Reply(self.all[:place], self.numbers)


def _without_other_numbers(reply: _Reply) -> _Reply:
    """Labels and what else is no number of the count are no numbers any more."""
    signs = (DIGITS, WORDS)
    skeleton = phrases.LABEL.sub(_silenced, reply.all)
    if not any(sign in skeleton for sign in signs):
        skeleton = reply.all
    for pattern in phrases.NO_COUNTS.values():
        skeleton = pattern.sub(_silenced, skeleton)
    return _Reply(skeleton, reply.numbers)


def _silenced(match: re.Match[str]) -> str:
    return match[0].replace(DIGITS, NONE).replace(WORDS, NONE)


# The rules: each returns the place of the number that it takes, and None where it does not match. ------------------


def _answered(reply: _Reply) -> int | None:
    """The last number in a box or after "answer", in digits or a word."""
    return _last_match(phrases.ANSWERED, reply)


def _counted(reply: _Reply) -> int | None:
    """The count by its name, in digits or a word; the total, where there are several."""
    found = [match for match in phrases.COUNTED.finditer(reply.all) if not reply.joined_behind(match.start("n"))]
    for some in (found, [match for match in found if match["total"]]):
        places = [match.start("n") for match in some]
        if places and reply.equal(places):
            return places[-1]
    return None


def _all_equal(reply: _Reply) -> int | None:
    """The number, where there is but one."""
    return reply.places[0] if reply.equal(reply.places) else None


def _counting_up(reply: _Reply) -> int | None:
    """The last of 1, 2, ..., N, and perhaps N again."""
    places = reply.places
    if len(places) > _LEAST_LISTED and reply.equal(places[-2:]):
        places = places[:-1]
    if len(places) < _LEAST_LISTED or any(
        reply.value(place) != (False, str(number), "") for number, place in enumerate(places, start=1)
    ):
        return None
    between = [reply.skeleton[start + 1 : end] for start, end in pairwise(places)]
    listed = all(map(phrases.LISTED.fullmatch, between))
    points = len(places) >= _LEAST_POINTS and all(map(phrases.POINTS.fullmatch, between))
    return reply.places[-1] if listed or points else None


def _first_line(reply: _Reply) -> int | None:
    """A number alone on the first line."""
    match = phrases.FIRST_LINE.match(reply.skeleton)
    return match.start("n") if match else None


def _concluded(reply: _Reply) -> int | None:
    """The last conclusion."""
    return _last_match(phrases.CONCLUDED, reply)


def _with_brackets(reply: _Reply) -> int | None:
    """The number that the reply begins with, where all others stand in brackets after it."""
    match = phrases.LEADING.match(reply.skeleton)
    outside = phrases.BRACKETS.sub("", reply.skeleton)
    return match.start("n") if match and outside.count(DIGITS) == 1 and len(reply.places) > 1 else None


def _dots(reply: _Reply) -> int | None:
    """The one number of dots, to which no other number is joined."""
    named = [match.start("n") for match in phrases.ANY_DOTS.finditer(reply.skeleton)]
    places = [match.start("n") for match in phrases.DOTS.finditer(reply.skeleton)]
    if not places or not reply.equal(named) or any(map(reply.joined, places)):
        return None
    return places[0]


Rule = Callable[[_Reply], int | None]

RULES: tuple[Rule, ...] = (
    _answered,
    _counted,
    _all_equal,
    _counting_up,
    _first_line,
    _concluded,
    _with_brackets,
    _dots,
)
"""Of direct answers, in order. A correction comes before all of them, and a later statement must not disagree."""

FINAL_RULES: tuple[Rule, ...] = (_answered, _counted, _first_line, _concluded, _with_brackets, _dots)
"""Of replies that reason first; where none matches, the last number is taken."""

_STATEMENTS: tuple[Rule, ...] = (_answered, _counted, _concluded)
"""Rules whose number stands for the whole reply, wherever it is."""


def _taken(reply: _Reply, rules: Sequence[Rule]) -> tuple[int | None, bool]:
    """The number that the first matching rule takes, None where a statement disagrees; and whether a rule matches."""
    correction = _correction(reply)
    if correction is not None:
        corrected, matched = _taken(reply.behind(correction), rules)
        return (None, True) if corrected and _contradicted(reply, correction, corrected) else (corrected, matched)
    for rule in rules:
        taken = rule(reply)
        if taken is not None:
            stated = [place for other in _STATEMENTS if (place := other(reply)) is not None and place > taken]
            # After a reasoning, an answer by this name is the last word.
            if not (rule is _answered and rules is FINAL_RULES) and (first := _first_line(reply)) is not None:
                stated.append(first)
            return (taken if reply.equal([taken, *stated]) else None), True
    return None, False


def _correction(reply: _Reply) -> int | None:
    """Where the last correction ends that stands between two numbers."""
    if not reply.places:
        return None
    ends = [match.end() for match in phrases.CORRECTED.finditer(reply.all)]
    between = [end for end in ends if reply.places[0] < end <= reply.places[-1]]
    return between[-1] if between else None


def _contradicted(reply: _Reply, correction: int, corrected: int) -> bool:
    """Whether the answer of the reply is another number than the one that was corrected."""
    head = reply.before(correction)
    answer = _answered(head)
    answer = _first_line(head) if answer is None else answer
    if answer is None:
        return False
    last = reply.places[bisect_right(reply.places, correction) - 1]
    return not reply.equal([answer, last]) and not reply.equal([answer, corrected])


def _last(reply: _Reply) -> int | None:
    """The last number, unless another is the number of dots."""
    named = [match.start("n") for match in phrases.ANY_DOTS.finditer(reply.skeleton)]
    last = reply.places[-1]
    return last if reply.equal([last, *named]) else None


def _last_match(pattern: re.Pattern[str], reply: _Reply) -> int | None:
    """The number of the last match, to which no other is joined behind it."""
    last = None
    for match in pattern.finditer(reply.all if pattern is phrases.ANSWERED else reply.skeleton):
        last = match
    if last is None:
        return None
    (place,) = (last.start(name) for name, sign in last.groupdict().items() if sign and name in _TAKEN)
    return None if reply.joined_behind(place) else place


# What is said of a number. ----------------------------------------------------------------------------------------


def _within(pattern: re.Pattern[str], skeleton: str, place: int) -> re.Match[str] | None:
    """The match that a place is part of."""
    return next((match for match in pattern.finditer(skeleton) if match.start() <= place < match.end()), None)


def _hedged(reply: _Reply, place: int) -> ParsedCount | None:
    """The range or bound that the number at a place is part of."""
    hedges: tuple[tuple[re.Pattern[str], UnvaluedStatus], ...] = ((phrases.RANGE, "range"), (phrases.BOUND, "bound"))
    for pattern, status in hedges:
        if match := _within(pattern, reply.all, place):
            first = next(at for at in range(*match.span()) if at in reply.numbers)
            return ParsedCount(None, status, _judged(reply.numbers[first]).lenient)
    return None


def _judged(number: Number, status: ValuedStatus = "ok") -> ParsedCount:
    negative, whole, fraction = number.canonical
    if negative:
        return ParsedCount(None, "negative", None)
    if fraction:
        return ParsedCount(None, "non_integer", None)
    # Looked at as text: int() refuses thousands of digits.
    if len(whole) > _MOST_DIGITS:
        return ParsedCount(None, "out_of_range", None)
    return ParsedCount(int(whole), status, int(whole), (number.start, number.end))


# Digits apart. ----------------------------------------------------------------------------------------------------


def _digit_by_digit(skeleton: str, numbers: Mapping[int, Number], mode: Mode) -> ParsedCount | None:
    """What a reply that writes one digit at a time gives: the count in mode `reversed`, none in the others."""
    single = all(len(number.digits) == 1 for number in numbers.values())
    if mode == "reversed":
        listed = single and phrases.DIGITS_LISTED.fullmatch(skeleton)
        places = list(numbers) if listed else _named(skeleton, numbers)
        if not places:
            return None
        if not listed and not _spelled_alone(skeleton, numbers, places):
            return ParsedCount(None, "multi", _judged(numbers[places[0]]).lenient)
        value = int("".join(numbers[place].digits for place in reversed(places)))
        first, last = min(places), max(places)
        return ParsedCount(value, "ok", value, (numbers[first].start, numbers[last].end))
    if single and phrases.DIGITS_APART.fullmatch(skeleton):
        together = "".join(number.digits for number in numbers.values())
        return ParsedCount(None, "split_digits", _judged(Number(0, 0, together)).lenient)
    return None


def _named(skeleton: str, numbers: Mapping[int, Number]) -> list[int]:
    """The places of units and tens by their names, in this order; none where they are not both there as digits."""
    match = phrases.DIGITS_NAMED.search(skeleton)
    if match is None:
        return []
    names = ("units", "tens") if match["units"] else ("last_units", "first_tens")
    places = [match.start(name) for name in names]
    return places if all(len(numbers[place].digits) == 1 for place in places) else []


def _spelled_alone(skeleton: str, numbers: Mapping[int, Number], places: Sequence[int]) -> bool:
    """Whether all other numbers in digits are what the digits at these places spell."""
    spelled = "".join(numbers[place].digits for place in places)
    others = [place for place in numbers if place not in places and skeleton[place] == DIGITS]
    return all(numbers[place].digits == spelled for place in others)


def _turned(number: Number) -> Number:
    """A number whose digits are written from the units on. As text, since "01" is 10 then."""
    written = number.digits.isdecimal() and number.end - number.start == len(number.digits)
    return replace(number, digits=number.digits[::-1]) if written else number
