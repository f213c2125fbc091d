"""A reply made ready to be read: normalised, each character with its place in what the model generated.

Source: the measurement specification, section 3.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmms_eval_tasks.thoughts import Span, outside_thoughts

# Characters read at either end of a reply that is longer than both: no task generates as many.
_END = 1 << 14
_BLANKS = " \n\t"
_MOST_FOLDED = 4  # characters that one becomes: longer ones are words, without digits

_THOUSANDS_SPACE = re.compile(r"[\u00a0\u2007\u2009\u202f](?<=\d.)(?=\d{3}(?!\d))")
# Between digits, before the decoration goes: 1024*1024, 1024 by 1024, 3 x 4.
_TIMES = re.compile(r"(?<=\d)(\s?)(?:[x✕✖]|\*(?!\*)|by\b)(\s?)(?=\d)")
_SIDE = r"(?<![\d.,])\d++"
_LARGE_SIDE = r"(?<![\d.,])0*+(?:[1-9]\d{2,}|6[4-9]|[7-9]\d)(?!\d)"
_SIZE = re.compile(
    rf"{_LARGE_SIDE}(?:\s?×\s?{_LARGE_SIDE}){{1,3}}+(?:\s?×\s?\d++)?+|{_SIDE}(?:\s?×\s?\d++){{1,3}}+(?=[\s-]?(?:px|pixels?|grid|image))"
)
_BOX = re.compile(r"<answer>|<\|begin_of_box\|>")
_TAG = re.compile(r"</?[a-z][^<>\n]{0,400}>|<\|[^<>|\n]{0,60}\|>")
_HEADING = re.compile(r"(?m)^[ \t]*+#++[ \t]*+")
_DECORATION = frozenset("*_$`")


@dataclass(frozen=True, slots=True)
class Reading:
    """A reply in lower case, without what is no part of an answer."""

    text: str
    """The normalised reply."""
    places: list[int]
    """Where in the reply each of its characters comes from."""

    def span(self, start: int, end: int) -> Span:
        """The part of the reply that a part of the text, not empty, comes from."""
        return self.places[start], self.places[end - 1] + 1


def read(reply: str) -> Reading:
    """Normalise a reply: characters, case, thoughts, tags, sizes, headings and markup, in this order (section 3).

    Of a reply of more than 32 768 characters, thoughts left out, the first and the last 16 384 are read.
    """
    spans = _shortened(reply, outside_thoughts(reply))
    chars: list[str] = []
    places: list[int] = []
    for start, end in spans:
        part = _THOUSANDS_SPACE.sub(",", reply[start:end])
        if part.isascii():
            chars.append(part)
            places.extend(range(start, end))
            continue
        folded = {char: _fold(char) for char in set(part)}
        for place, char in enumerate(part, start):
            chars.append(folded[char])
            places.extend([place] * len(folded[char]))
    text = "".join(chars)
    reading = Reading(text.lower() if text.isascii() else "".join(map(_lower, text)), places)
    for pattern, replace in _REPLACED:
        reading = _replaced(reading, pattern, replace)
    return _trimmed(_undecorated(reading))


def _shortened(reply: str, spans: list[Span]) -> list[Span]:
    """The two ends of what is spoken, where it is too long; words that are cut are left out."""
    length = sum(end - start for start, end in spans)
    if length <= 2 * _END:
        return spans
    head, tail = _first(spans, _END), _last(spans, _END)
    (head_start, head_end), (tail_start, tail_end) = head[-1], tail[0]
    last_blank = max(reply.rfind(blank, head_start, head_end) for blank in _BLANKS)
    first_blank = min(
        (at for blank in _BLANKS if (at := reply.find(blank, tail_start, tail_end)) >= 0), default=tail_start
    )
    head[-1] = (head_start, last_blank if last_blank >= 0 else head_end)
    tail[0] = (first_blank, tail_end)
    return head + tail


def _first(spans: Sequence[Span], length: int) -> list[Span]:
    kept = []
    for start, end in spans:
        kept.append((start, min(end, start + length)))
        length -= end - start
        if length <= 0:
            break
    return kept


def _last(spans: Sequence[Span], length: int) -> list[Span]:
    mirrored = _first([(-end, -start) for start, end in reversed(spans)], length)
    return [(-end, -start) for start, end in reversed(mirrored)]


def _fold(char: str) -> str:
    """NFKC and digits to ASCII, one character at a time: NFKC of a whole string can take quadratic time.

    A raised or lowered digit is a number of its own (a footnote, a power), and a fraction is no whole number.
    """
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    folded = unicodedata.normalize("NFKC", char)
    if len(folded) > _MOST_FOLDED:
        return " "
    if "\u2044" in folded:
        return ".5"
    raised = unicodedata.decomposition(char).startswith(("<super>", "<sub>")) and folded.isdecimal()
    return f" {folded}" if raised else folded


def _lower(char: str) -> str:
    lower = char.lower()
    return lower if len(lower) == 1 else char


def _replaced(reading: Reading, pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str]) -> Reading:
    """Every match replaced; what comes in its place comes from where it began."""
    if not pattern.search(reading.text):
        return reading
    chars: list[str] = []
    places: list[int] = []
    done = 0
    for match in pattern.finditer(reading.text):
        start, end = match.span()
        new = replace(match)
        chars += [reading.text[done:start], new]
        places += reading.places[done:start]
        places += reading.places[start : start + 1] * len(new)
        done = end
    return Reading("".join([*chars, reading.text[done:]]), [*places, *reading.places[done:]])


_REPLACED: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_BOX, lambda _: r"\boxed{"),
    (_TAG, lambda _: " "),
    (_TIMES, lambda match: f"{match[1]}×{match[2]}"),
    (_SIZE, lambda _: " "),
    (_HEADING, lambda _: " "),
)


def _undecorated(reading: Reading) -> Reading:
    if _DECORATION.isdisjoint(reading.text):
        return reading
    kept = [place for place, char in enumerate(reading.text) if char not in _DECORATION]
    return Reading("".join([reading.text[place] for place in kept]), [reading.places[place] for place in kept])


def _trimmed(reading: Reading) -> Reading:
    text = reading.text.rstrip()
    start = len(text) - len(text.lstrip())
    return Reading(text[start:], reading.places[start : len(text)])
