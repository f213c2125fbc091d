"""What lmms-eval gets of a recorded reply: its text, and its values per token in the token counts."""

from dataclasses import dataclass
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from halo_probe.archive.answers import Answer

_COUNTS = ("input_tokens", "output_tokens", "reasoning_tokens")


def result_of(answer: Answer) -> GenerationResult:
    """The answer as lmms-eval takes it from a model."""
    if answer.recorded:
        return GenerationResult(
            text=answer.text, token_counts=_RecordedTokenCounts(**answer.counts or {}, answer=answer)
        )
    return GenerationResult(text=answer.text, token_counts=TokenCounts(**answer.counts) if answer.counts else None)


def token_counts(counts: TokenCounts | None) -> dict[str, int | None] | None:
    """The numbers that a base model counted, if it did."""
    return {name: getattr(counts, name) for name in _COUNTS} if counts else None


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
