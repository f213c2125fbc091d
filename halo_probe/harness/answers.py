"""One recorded reply: what lmms-eval gets of it, and the form in which it is stored beside its maps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from halo_probe.harness.values import TokenValues

Key = tuple[str, int, int]
"""Task, document and repeat: every one of them has one answer."""

_COUNTS = ("input_tokens", "output_tokens", "reasoning_tokens")


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

    def result(self) -> GenerationResult:
        """The answer as lmms-eval takes it from a model."""
        if self.recorded:
            return GenerationResult(text=self.text, token_counts=_RecordedTokenCounts(**self.counts or {}, answer=self))
        return GenerationResult(text=self.text, token_counts=TokenCounts(**self.counts) if self.counts else None)


def token_counts(counts: TokenCounts | None) -> dict[str, int | None] | None:
    """The numbers that a base model counted, if it did."""
    return {name: getattr(counts, name) for name in _COUNTS} if counts else None


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


@dataclass
class _RecordedTokenCounts(TokenCounts):
    """Token counts that carry the per-token values into lmms-eval's samples file."""

    answer: Answer | None = None

    def to_dict(self) -> dict[str, Any]:
        assert self.answer is not None
        generations = [
            {
                "layer": one.layer,
                "layer_type": one.layer_type,
                "tokens": one.tokens,
                "content": len(one.content),  # the tokens before the end-of-sequence token
                **one.columns,
            }
            for one in self.answer.values
        ]
        return {**super().to_dict(), "halo": {"generations": generations, **self.answer.halo}}
