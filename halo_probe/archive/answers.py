"""One recorded reply, and the form in which it is stored beside its maps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Key = tuple[str, int, int]
"""Task, document and repeat: every one of them has one answer."""

Column = tuple[float | None, ...]
"""A value for each generated token; None where it is undefined."""


@dataclass(frozen=True)
class TokenValues:
    """What one generation shows at the headline layer, the last one recorded: one value per generated token.

    A value is None where it is undefined: the layer's window has left image tokens behind, or no attention reaches one.
    """

    tokens: tuple[str, ...]
    layer: int
    layer_type: str
    columns: Mapping[str, Column]
    """Values by key, each with one per token."""
    content: range
    """The steps of the reply itself, without the end-of-sequence token."""


@dataclass
class Answer:
    """A reply and its values per token."""

    text: Any
    """What the base model answered: a text, or one for each round."""
    counts: Mapping[str, int | None] | None
    """lmms-eval's token counts; None where the base model counts none."""
    values: tuple[TokenValues, ...]
    """One for each `generate` call; none for a document without an image."""
    halo: dict[str, Any] = field(default_factory=dict)
    """What else the samples show of it under `token_counts.halo`, ready for JSON."""
    drawn: dict[str, Any] = field(default_factory=dict)
    """Of a reply that random numbers were drawn for: `by` what, and where the generators stand after it (`states`)."""

    @property
    def recorded(self) -> bool:
        """Whether there is attention: a document without an image has an answer, but none."""
        return bool(self.values)


def write_answers(answers: Mapping[Key, Answer]) -> str:
    """Answers as JSON."""
    return json.dumps([[*key, {**vars(answer), "values": _plain(answer.values)}] for key, answer in answers.items()])


def read_answers(stored: str | bytes) -> dict[Key, Answer]:
    """The inverse of `write_answers`."""
    return {
        (task, doc_id, repeat): Answer(**{**fields, "values": tuple(_values(one) for one in fields["values"])})
        for task, doc_id, repeat, fields in json.loads(stored)
    }


def _plain(values: Sequence[TokenValues]) -> list[dict[str, Any]]:
    return [{**asdict(one), "content": [one.content.start, one.content.stop]} for one in values]


def _values(stored: Mapping[str, Any]) -> TokenValues:
    columns = {name: tuple(column) for name, column in stored["columns"].items()}
    content = range(*stored["content"])
    return TokenValues(**{**stored, "tokens": tuple(stored["tokens"]), "columns": columns, "content": content})
