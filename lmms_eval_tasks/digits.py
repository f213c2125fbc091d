"""Which generated token carries which digit of the count.

Conventions: a step is the 0-based number of a generated token; a piece is the decoded text of one such token. Digit 1
is the digit that is written first: the leading one of the count, or the units where they are asked for first.

Source: the measurement specification, section 5.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from lmms_eval_tasks.parsing import Mode
from lmms_eval_tasks.thoughts import Span

_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class DigitSteps:
    """The steps of the digits of a count.

    Attributes:
        steps: The step of each digit, in the order in which they are written; None where the digits are not found.
        status: `split` when every digit has a token of its own, `merged` when a token carries several, `single` for a
            count of one digit, `not_found` when the digits that were read are not those of the value, or there are
            none. Only `split` has a second-digit value; the share of the others is shown.
    """

    steps: tuple[int, ...] | None
    status: Literal["split", "merged", "single", "not_found"]


def digit_mode(metadata: Any) -> Mode | None:
    """How the replies of a task are parsed and their digits found, by its `halo_digits`; None where they are no digits.

    Args:
        metadata: That of the task's configuration.

    >>> digit_mode({"version": 1, "halo_digits": True})
    'first'
    """
    given: Mode | bool | None = metadata.get("halo_digits") if isinstance(metadata, Mapping) else None
    return "first" if given is True else given or None


def decode_pieces(token_ids: Sequence[int], *, decode: Callable[[Sequence[int]], str]) -> tuple[str, ...]:
    r"""The text that each token adds to the reply; together they are the reply.

    A byte-level token may end amid a character. Then its piece is empty, and the character is in the piece of the token
    that completes it: of a digit, the one that says which digit.

    Args:
        token_ids: The generated tokens.
        decode: Text of some tokens, with the replacement character for one that is not complete.

    >>> decode_pieces(b"\xef\xbc\x91 dot", decode=lambda ids: bytes(ids).decode(errors="replace"))
    ('', '', '１', ' ', 'd', 'o', 't')
    """
    pieces: list[str] = []
    # Text depends on what stands before it, so each piece is decoded with the one before.
    known, start = 0, 0
    for end in range(1, len(token_ids) + 1):
        text = decode(token_ids[known:end])
        if text.endswith(_INCOMPLETE) and end < len(token_ids):
            pieces.append("")
            continue
        pieces.append(text[len(decode(token_ids[known:start])) :])
        known, start = start, end
    return tuple(pieces)


def digit_steps(pieces: Sequence[str], value: int | None, span: Span | None, *, mode: Mode = "first") -> DigitSteps:
    """Find the token of each digit of the parsed count, where the parser read it and nowhere else.

    Leading zeros are no digits of the value.

    Args:
        pieces: The decoded text of each generated token, in order; of any length, empty ones too.
        value: The parsed count, 0 or more; None where the reply has none.
        span: Where the parser read it, in the pieces joined.
        mode: How it was parsed; with `reversed` the number is read from its last digit to its first.

    Returns:
        The steps; `not_found` where the digits in the span are not those of the value, as of a number in words.

    >>> digit_steps(["There", " are", " ", "1", "2", " dots"], 12, (10, 12))
    DigitSteps(steps=(3, 4), status='split')
    >>> digit_steps(["10", "5"], 105, (0, 3))
    DigitSteps(steps=(0, 0, 1), status='merged')
    >>> digit_steps(["0", "1"], 10, (0, 2), mode="reversed")
    DigitSteps(steps=(0, 1), status='split')
    """
    if value is None or span is None:
        return DigitSteps(None, "not_found")
    digits = str(value)
    text = "".join(pieces)
    ends = list(accumulate(map(len, pieces)))
    positions = [position for position in range(*span) if text[position : position + 1].isdecimal()]
    if mode == "reversed":
        positions.reverse()
    number = "".join(str(unicodedata.decimal(text[position])) for position in positions)
    if (number.lstrip("0") or "0") != digits:
        return DigitSteps(None, "not_found")
    steps = tuple(bisect_right(ends, position) for position in sorted(positions[-len(digits) :]))
    if len(steps) == 1:
        return DigitSteps(steps, "single")
    return DigitSteps(steps, "split" if len(set(steps)) == len(steps) else "merged")
