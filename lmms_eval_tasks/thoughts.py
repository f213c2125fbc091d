"""Where in a reply a model thinks, and where it speaks.

Conventions: a thought stands between two marks, the model's own. One that the prompt has opened begins with the reply;
one without an end takes all that follows. Case counts, as it does in tokenizers.

Source: the measurement specification, section 3.
"""

from collections.abc import Iterable, Sequence

Marks = tuple[str, str]
"""What opens a thought, and what closes it."""
Span = tuple[int, int]
"""Start and end of a part of a text, the end left out."""


def in_each_case(opening: str, closing: str) -> tuple[Marks, ...]:
    """Two marks as they are given, in capitals, and with a capital in front."""
    return tuple((write(opening), write(closing)) for write in (str, str.upper, str.title))


THOUGHTS: tuple[Marks, ...] = (
    *in_each_case("<think>", "</think>"),
    *in_each_case("<thinking>", "</thinking>"),
    *in_each_case("<thought>", "</thought>"),
    *in_each_case("<reasoning>", "</reasoning>"),
    *in_each_case("<analysis>", "</analysis>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
    ("assistantanalysis", "assistantfinal"),  # what is left of these without their special tokens
)
"""Marks that are known without a model's tokenizer."""


def outside_thoughts(text: str, marks: Iterable[Marks] = THOUGHTS, *, opened: bool = False) -> list[Span]:
    """The parts of a reply that are spoken, in order. The time is linear in the length of the text.

    A closing mark that nothing in the text has opened closes a thought of the prompt: all before it was thought.

    Args:
        text: The reply.
        marks: Of thoughts.
        opened: Whether the prompt has opened a thought.

    >>> outside_thoughts("<think>11? 13?</think>12")
    [(22, 24)]
    >>> outside_thoughts("11? 13?</think>12<think>but")
    [(15, 17)]
    >>> outside_thoughts("I see 11 or", opened=True)
    []
    """
    present = [(opening, closing) for opening, closing in dict.fromkeys(marks) if opening in text or closing in text]
    begins = {pair: text.find(pair[0]) for pair in present}
    spoken: list[Span] = []
    place, thinking = 0, opened
    while True:
        for known, begin in begins.items():
            if 0 <= begin < place:
                begins[known] = text.find(known[0], place)
        pair = min((pair for pair in present if begins[pair] >= 0), key=begins.__getitem__, default=None)
        start = len(text) if pair is None else begins[pair]
        ends = [end + len(closing) for _, closing in present if (end := text.rfind(closing, place, start)) >= 0]
        if ends:
            spoken, place, thinking = [], max(ends), False
        if thinking and pair is None:
            return []
        if start > place and not thinking:
            spoken.append((place, start))
        if pair is None:
            return spoken
        end = text.find(pair[1], start + len(pair[0]))
        if end < 0:
            return spoken
        place, thinking = end + len(pair[1]), False


def joined(text: str, spans: Sequence[Span]) -> str:
    """The parts of a text, one after the other."""
    return "".join(text[start:end] for start, end in spans)
