"""Where a reply that a task scores stands in the tokens that were generated, and what of it is no thought.

What a task gets is not the text of the tokens: base models leave special tokens out (among them, in some vocabularies,
the marks of a thought) and cut at stops, and lmms-eval takes thoughts out by their tags. So a reply is laid on the
tokens' text, with which it agrees but for blanks and for what was left out.

Source: the measurement specification, sections 3 and 5.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from lmms_eval_tasks.thoughts import Marks, Span, outside_thoughts


@dataclass(frozen=True)
class Heard:
    """A reply without its thoughts."""

    text: str
    places: tuple[int, ...] | None
    """Where each of its characters stands in the tokens' text; None where it is not found there."""
    thought: bool
    """Whether the tokens hold a thought."""

    def span(self, span: Span | None) -> Span | None:
        """A part of the text as a part of the tokens' text."""
        if span is None or self.places is None:
            return None
        return self.places[span[0]], self.places[span[1] - 1] + 1


def hear(reply: str, pieces: Sequence[str], *, marks: Sequence[Marks], opened: str, special: Collection[str]) -> Heard:
    """Lay a reply on its tokens, and leave out what is thought there.

    Args:
        reply: What the task scores.
        pieces: The text of each generated token.
        marks: Of the model's thoughts.
        opened: With what the prompt has opened a thought; empty where it has not.
        special: The tokens that base models leave out.

    >>> marks = ("[THINK]", "[/THINK]")
    >>> hear("11? 12", ["[THINK]", "11?", "[/THINK]", " 12"], marks=[marks], opened="", special=marks)
    Heard(text='12', places=(19, 20), thought=True)
    """
    text = "".join(pieces)
    spoken = outside_thoughts(text, marks, opened=bool(opened))
    heard = [place for start, end in spoken for place in range(start, end)]
    thought = len(heard) < len(text)
    ends = [0, *accumulate(map(len, pieces))]
    spans = zip(pairwise(ends), pieces, strict=True)
    left_out = {place for span, piece in spans if piece in special for place in range(*span)}
    whole = range(len(text))
    candidates: list[Sequence[int]] = [heard, whole, *(range(start, len(text)) for start, _ in spoken if start)]
    bare = reply.lstrip().removeprefix(opened.strip()) if opened else reply
    for candidate in candidates:
        for places in ([place for place in candidate if place not in left_out], candidate):
            if (found := _laid(bare, text, places)) is not None:
                kept = set(heard)
                pairs = [(char, place) for char, place in zip(bare, found, strict=True) if place in kept or not thought]
                return Heard("".join(char for char, _ in pairs), tuple(place for _, place in pairs), thought)
    return Heard(reply, None, thought)


def _laid(reply: str, text: str, places: Sequence[int]) -> list[int] | None:
    """The place of each character of a reply, blanks where the character before them is; None where it is not there."""
    written = [place for place in places if not text[place].isspace()]
    said = "".join(char for char in reply if not char.isspace())
    if "".join([text[place] for place in written[: len(said)]]) != said:
        return None
    following = iter(written)
    found: list[int] = []
    for char in reply:
        found.append((found[-1] if found else (written[0] if written else 0)) if char.isspace() else next(following))
    return found
