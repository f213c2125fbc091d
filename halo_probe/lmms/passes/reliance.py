"""Visual reliance: what the image does to the distribution of each digit, the true digits before it given.

Nothing is selected on the outcome: the true digits are forced as the beginning of the reply, right after the prompt,
also where the model would have begun with words. Where the prompt opens a thought, the thought is closed first, in the
way of the chat template: a digit within a thought says nothing of the answer. Distributions are softmaxes in float64 of
the raw logits, before `generate` processes them.

Source: the measurement specification, section 9.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageStat
from transformers import PreTrainedModel

from halo_probe.capture.interventions import Intervention, digit_tokens
from halo_probe.capture.recorder import prepare_target, recorded
from halo_probe.errors import CaptureError
from halo_probe.lmms.passes.passes import AnswerRequests, forced_pass
from halo_probe.lmms.requests import with_images
from halo_probe.statistics.reliance import ALPHABET


@dataclass(frozen=True)
class DigitVocabulary:
    """A tokenizer's tokens as `ALPHABET`."""

    tokenizer: Any
    digits: Mapping[int, str]
    """From `digit_tokens`."""
    ends: frozenset[int]
    """The end-of-sequence tokens."""

    def spell(self, digits: str) -> tuple[int, ...] | None:
        """One token for each digit, as the tokenizer writes the number; None where it merges digits."""
        tokens = [
            token
            for token in self.tokenizer.encode(digits, add_special_tokens=False)
            if self.tokenizer.decode([token]).strip()  # some vocabularies begin with a token that is only space
        ]
        return tuple(tokens) if [self.digits.get(token) for token in tokens] == list(digits) else None

    def probabilities(self, logits: torch.Tensor) -> list[float]:
        """What each of `ALPHABET` gets.

        Args:
            logits: V, raw, on the CPU.
        """
        probabilities = torch.softmax(logits.double(), dim=-1)
        places = torch.full(logits.shape, ALPHABET.index("OTHER"))
        for token, text in self.digits.items():
            if len(text) == 1:
                places[token] = int(text)
        places[list(self.ends)] = ALPHABET.index("END")
        shares: list[float] = probabilities.new_zeros(len(ALPHABET)).index_add(0, places, probabilities).tolist()
        return shares


def digit_vocabulary(tokenizer: Any, model: Any) -> DigitVocabulary:
    """Read a tokenizer, and the end-of-sequence tokens of a model's generation configuration."""
    ends = np.atleast_1d([] if model.generation_config.eos_token_id is None else model.generation_config.eos_token_id)
    known = {int(token) for token in ends} | {tokenizer.eos_token_id}
    return DigitVocabulary(tokenizer=tokenizer, digits=digit_tokens(tokenizer), ends=frozenset(known - {None}))


def record_reliance(  # noqa: PLR0913 - all that a document's measurement depends on
    answer: AnswerRequests,
    request: Any,
    *,
    model: PreTrainedModel,
    vocabulary: DigitVocabulary,
    digits: str,
    closing: str | None = "",
) -> dict[str, Any]:
    """Measure a document, by two passes and one for each digit.

    Args:
        answer: How the base model answers.
        request: lmms-eval's request.
        model: What the base model runs.
        vocabulary: Its tokens.
        digits: The true count, in the order in which it is asked for.
        closing: What closes the thought that the prompt has opened; empty where it has opened none, None where the chat
            template does not say how.

    Returns:
        For the sample, ready for JSON: `reliance` is `measured`, or why nothing is: `merged` where a token carries
        several digits, `open_thought` where a thought cannot be closed; `true_digits` are the digits, `thought_closed`
        is what closed the thought of the prompt, if it has one. For each of them, in `digit_probabilities` what each of
        `ALPHABET` gets with the image, in `digit_probabilities_blank` with a blank one, in
        `digit_probabilities_knockout` with the image keys knocked out in all layers at that step alone.

    Raises:
        CaptureError: If a pass failed, or an image of the document is none that can be made blank.
    """
    tokens = vocabulary.spell(digits)
    if tokens is None:
        return {"reliance": "merged", "true_digits": digits}
    if closing is None:
        return {"reliance": "open_thought", "true_digits": digits}
    closed = vocabulary.tokenizer.encode(closing, add_special_tokens=False) if closing else []
    first = len(closed)
    forced = [*closed, *tokens]
    target = prepare_target(model, layers="last")
    knocked = []
    for step in range(first, len(forced)):
        knockout = Intervention(name="knockout", steps=step)
        with recorded(target, intervention=knockout):
            knocked.append(forced_pass(model, answer, request, forced[: step + 1])[step])
    rows: dict[str, Iterable[torch.Tensor]] = {
        "digit_probabilities": forced_pass(model, answer, request, forced)[first:],
        "digit_probabilities_blank": forced_pass(model, answer, with_images(request, _checked_blank), forced)[first:],
        "digit_probabilities_knockout": knocked,
    }
    measured = {name: [vocabulary.probabilities(row) for row in logits] for name, logits in rows.items()}
    said = {"thought_closed": closing} if closing else {}
    return {"reliance": "measured", "true_digits": digits, **said, **measured}


def blank_image(image: Image.Image) -> Image.Image:
    """An image of the same size in one colour: the median of each channel, which is the background of dots.

    Args:
        image: With channels of 8 bits, or a palette.
    """
    if image.mode == "P":
        image = image.convert("RGB")  # its numbers are places in a palette, of which there is no median
    return Image.new(image.mode, image.size, tuple(ImageStat.Stat(image).median))


def _checked_blank(image: Any) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise CaptureError(f"The document has a {type(image).__name__} as an image: reliance needs a PIL image.")
    if image.mode.startswith(("I", "F")):
        raise CaptureError(f"The document has an image of mode {image.mode}: reliance needs channels of 8 bits.")
    return blank_image(image)
