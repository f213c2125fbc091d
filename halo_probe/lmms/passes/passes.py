"""Further passes over a document: the base model answers it again, in its own way, and something about it is different.

The base model's wrapper builds the prompt each time and calls `generate`, so this works with every wrapper. A pass is
greedy and leaves the random numbers of torch alone: an answer is the same whatever passes are made beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedModel

from halo_probe.capture.decoding import GREEDY
from halo_probe.capture.pass_inputs import without_cache
from halo_probe.errors import CaptureError
from halo_probe.replacing import replaced

AnswerRequests = Callable[[list[Any]], list[Any]]
"""A base model's own `generate_until`."""


def greedy_pass(model: PreTrainedModel, answer: AnswerRequests, request: Any, *, most: int | None = None) -> Any:
    """Answer a request greedily.

    Args:
        model: What the base model runs.
        answer: How the base model answers.
        request: lmms-eval's request.
        most: At most this many tokens; as many as the task allows by default.

    Returns:
        What `generate` gave, with `sequences` and the raw `logits` of each step.

    Raises:
        CaptureError: If the base model did not call `generate` once.
    """
    return _pass(model, answer, request, {} if most is None else {"max_new_tokens": most})


def forced_pass(model: PreTrainedModel, answer: AnswerRequests, request: Any, tokens: Sequence[int]) -> torch.Tensor:
    """Answer a request with tokens that are given.

    Args:
        model: What the base model runs.
        answer: How the base model answers.
        request: lmms-eval's request.
        tokens: T, the tokens of the reply.

    Returns:
        T × V, float32, on the CPU: the raw logits of each token, those before it being forced.

    Raises:
        CaptureError: If the base model did not call `generate` once.
    """
    options = {"max_new_tokens": len(tokens), "logits_processor": [_Forced(tokens)]}
    output = _pass(model, answer, request, options)
    return torch.cat(output.logits).float().cpu()


def _pass(model: PreTrainedModel, answer: AnswerRequests, request: Any, options: dict[str, Any]) -> Any:
    with _generating(model, {**GREEDY, **options}) as outputs:
        answer([request])
    if len(outputs) != 1 or len(outputs[0].sequences) != 1:
        raise CaptureError(
            f"The base model called generate() {len(outputs)} times for one document: passes beside its answer need "
            "one call with one prompt; leave interventions that need one, and reliance, out."
        )
    return outputs[0]


@contextmanager
def _generating(model: PreTrainedModel, options: dict[str, Any]) -> Iterator[list[Any]]:
    """Put these options in the place of those of every `generate` call, and keep what it returns."""
    outputs, generate = list[Any](), model.generate

    def generate_so(*args: Any, **kwargs: Any) -> Any:
        asked = {**options, "return_dict_in_generate": True, "output_logits": True}
        output = generate(*args, **{**without_cache(kwargs), **asked})
        outputs.append(output)
        return output if kwargs.get("return_dict_in_generate") else output.sequences

    with replaced(model, "generate", generate_so):
        yield outputs


class _Forced(LogitsProcessor):
    """Leaves one token at each step, whatever the model and other processors make of it."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._prompt: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._prompt is None:
            self._prompt = input_ids.shape[1]
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._tokens[input_ids.shape[1] - self._prompt]] = 0
        return forced
