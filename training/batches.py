"""Training batches: images of our own generator, the tasks' questions, and the answers, each a function of its number.

Nothing is kept between two batches, so that a training that was interrupted goes on with the very batch it would have
had. Names of the random streams are those of no published set, so no image of a set is ever trained on.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import Qwen3VLProcessor

from dataset_builder.glyphs import GLYPH_HEIGHT, GLYPH_WIDTH, glyph_scale
from dataset_builder.questions import (
    COUNT_QUESTION,
    ECHO_QUESTION,
    NUMBER_QUESTION,
    REVERSED_QUESTION,
    WORDS_QUESTION,
)
from dataset_builder.render import render
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SetSpec, get_set
from dataset_builder.stream import below, random_words, stream_key
from training.counter import PATCH
from training.curriculum import Question, Stage

__all__ = ["TAKEOVER_UNITS", "Batch", "Example", "collate", "draw_example", "patches_of"]

TAKEOVER_UNITS = "2" * 5 + "5" * 3 + "0" * 2 + "1346789"
"""The second digits of the takeover variant, one drawn for each answer: a prior that knows nothing of the image."""

_SYSTEM_PROMPT = "You are a helpful assistant."  # lmms-eval's `qwen3_vl` begins every prompt with it

_ECHOED = (1, 99)
_IGNORED = -100
_PAPER = get_set("halo_count")
_NUMBERS = get_set("halo_ocr")
_WORDS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen")

T = TypeVar("T")
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One image with one question.

    Args:
        kind: What is asked.
        image: uint8, size × size.
        question: The prompt's text.
        answer: The reply that is taught.
    """

    kind: Question
    image: Grey
    question: str
    answer: str


@dataclass(frozen=True)
class Batch:
    """Examples of one size as tensors; prompts are filled up on the right, where causal attention never looks.

    Args:
        input_ids: int64, examples × tokens: prompts and answers.
        labels: int64, examples × last tokens: the token that follows each of the last tokens, -100 where it is no part
            of an answer.
        patches: uint8, (examples · patches) × pixels of a patch, row by row.
        grid: int64, examples × 3: frames, rows and columns of patches of each image.
    """

    input_ids: Tensor
    labels: Tensor
    patches: Tensor
    grid: Tensor


def draw_example(stage: Stage, index: int, *, stream: str, seed: int, takeover: bool = False) -> Example:
    """Example `index` of a stream.

    Args:
        stage: Its sizes, counts and questions.
        index: From 0.
        stream: Such as `training`; a part of the key of every random choice.
        seed: Likewise.
        takeover: Whether second digits of counts are drawn from `TAKEOVER_UNITS`.
    """
    words = random_words(stream_key("embedded", stream, seed, index))
    name = f"embedded_{stream}"
    kind = _weighted(words, stage.questions)
    low, high = _weighted(words, stage.counts)
    if kind == "words":
        low, high = _PAPER.counts
    count = _between(words, (low, high))
    if kind == "number":
        return _number(words, index, stage=stage, name=name, seed=seed)
    if kind == "blank":
        spec = SetSpec(name=name, seed=seed, size=stage.size, kind="blank", counts=(0, 0), radius=0, gap=0)
        prior = _between(words, _PAPER.counts)
        question, answer = COUNT_QUESTION, _counted(words, prior, takeover=takeover)
    else:
        spec = SetSpec(name=name, seed=seed, size=stage.size, counts=(count, count))
        question, answer = _asked(words, kind, count, takeover=takeover)
    return Example(kind, render(spec, draw_sample(spec, index)), question, answer)


def collate(examples: Sequence[Example], *, processor: Qwen3VLProcessor) -> Batch:
    """Tensors of examples of one size, prompts to the token as lmms-eval's `qwen3_vl` feeds them."""
    tokenizer = processor.tokenizer
    side = len(examples[0].image) // PATCH
    rows, starts = [], []
    for example in examples:
        before, after = _prompt(processor, example.question)
        answer = [*tokenizer.encode(example.answer), tokenizer.eos_token_id]
        prompt = [*before, *[processor.image_token_id] * side**2, *after]
        rows.append(prompt + answer)
        starts.append(len(prompt))
    length = max(map(len, rows))
    input_ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), _IGNORED)
    for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
        input_ids[place, : len(row)] = torch.tensor(row)
        labels[place, start - 1 : len(row) - 1] = torch.tensor(row[start:])
    return Batch(
        input_ids=input_ids,
        labels=labels[:, min(starts) - 1 :],
        patches=torch.from_numpy(np.concatenate([patches_of(example.image) for example in examples])),
        grid=torch.tensor([[1, side, side]] * len(rows)),
    )


def patches_of(image: Grey) -> Grey:
    """The patches of a square image, uint8, patches × pixels, row by row."""
    side = len(image) // PATCH
    return image.reshape(side, PATCH, side, PATCH).swapaxes(1, 2).reshape(side**2, PATCH**2)


@functools.lru_cache(maxsize=256)
def _prompt(processor: Qwen3VLProcessor, question: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens before and after those of the image."""
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": _SYSTEM_PROMPT}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
    ]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    before, after = text.split(processor.image_token)
    return tuple(processor.tokenizer.encode(before)), tuple(processor.tokenizer.encode(after))


def _asked(words: Iterator[int], kind: Question, count: int, *, takeover: bool) -> tuple[str, str]:
    """A question about an image of dots, and its answer."""
    match kind:
        case "echo":
            number = str(_between(words, _ECHOED))
            return ECHO_QUESTION.format(n=number), number
        case "reversed":
            return REVERSED_QUESTION, str(count)[::-1]
        case "words":
            return WORDS_QUESTION, _WORDS[count - _PAPER.counts[0]]
        case _:
            return COUNT_QUESTION, _counted(words, count, takeover=takeover)


def _counted(words: Iterator[int], count: int, *, takeover: bool) -> str:
    """The digits of a count; with `takeover` the second is one that the image does not decide."""
    digits = str(count)
    return digits[0] + TAKEOVER_UNITS[below(words, len(TAKEOVER_UNITS))] if takeover and digits[1:] else digits


def _number(words: Iterator[int], index: int, *, stage: Stage, name: str, seed: int) -> Example:
    """A number to read, as large as in the task whatever the size of the image, near its middle or anywhere."""
    spec = replace(_NUMBERS, name=name, seed=seed)
    sample = draw_sample(spec, index)
    width, height = GLYPH_WIDTH * glyph_scale(spec.size), GLYPH_HEIGHT * glyph_scale(spec.size)
    (first, y), (last, _) = sample.centers[0], sample.centers[-1]
    left = _near_middle(words, size=stage.size - (last - first + width), spread=stage.spread)
    top = _near_middle(words, size=stage.size - height, spread=stage.spread)
    right, down = left + width // 2 - first, top + height // 2 - y
    moved = replace(sample, centers=tuple((x + right, y + down) for x, y in sample.centers))
    image = render(spec, moved)[: stage.size, : stage.size]
    return Example("number", image, NUMBER_QUESTION, sample.answer)


def _near_middle(words: Iterator[int], *, size: int, spread: int) -> int:
    """A number in [0, size], at most `spread` from its middle."""
    reach = min(spread, size // 2)
    return size // 2 - reach + below(words, 2 * reach + 1)


def _between(words: Iterator[int], bounds: tuple[int, int]) -> int:
    return bounds[0] + below(words, bounds[1] - bounds[0] + 1)


def _weighted(words: Iterator[int], choices: Sequence[tuple[T, int]]) -> T:
    drawn = below(words, sum(weight for _, weight in choices))
    for value, weight in choices:
        drawn -= weight
        if drawn < 0:
            return value
    raise AssertionError("the drawn number is below the sum of the weights")
