"""What the embedded model learns, in order: images grow, and numbers with them, since learning to count at once fails.

From scratch on the images of the tasks a model of this size stays at chance. On a quarter of the width it counts to
nine in minutes, and what it has learned carries over to more dots on larger images, dots being as large as ever. Digits
to read begin in the middle, where each stroke is always on the same patches, and then move away from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from halo_probe.embedded.trained import Variant

__all__ = ["RECIPES", "Question", "Recipe", "Stage"]

Question = Literal["count", "reversed", "words", "echo", "number", "blank"]
"""What a sample asks: the tasks' questions `halo_count`, `_rev`, `_words`, `halo_echo`, `halo_ocr` and `_blank`."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training.

    Args:
        name: What the log calls it.
        steps: Number of optimiser steps.
        batch: Images a step, all of one size.
        size: Side of the images in pixels.
        counts: Ranges (least, greatest) of dots to count, each with its weight.
        questions: What is asked, each with its weight.
        spread: How far from the middle a number to read may stand, in pixels.
        learning_rates: Of the first step and the last; half a cosine lies between them.
        decay: Number of steps that half a cosine takes, `steps` where None; a longer one is left unfinished.
    """

    name: str
    steps: int
    batch: int
    size: int
    counts: tuple[tuple[tuple[int, int], int], ...]
    questions: tuple[tuple[Question, int], ...]
    learning_rates: tuple[float, float]
    decay: int | None = None
    spread: int = 1024


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training: the weights are a function of it, of the machine and of the versions of the libraries.

    Args:
        stages: In order.
        warmup: Number of first steps in which the learning rate rises from zero.
        weight_decay: Of AdamW.
        clip: Greatest norm of the gradient.
        seed: Decides the first weights and every image.
        takeover: Whether the second digit of a count is drawn from `batches.TAKEOVER_UNITS` whatever the image shows.
    """

    stages: tuple[Stage, ...]
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    takeover: bool = False

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)


_Questions = tuple[tuple[Question, int], ...]

_TO_COUNT: _Questions = (("count", 7), ("blank", 1), ("echo", 2))
_TO_READ: _Questions = (("count", 5), ("blank", 1), ("echo", 2), ("number", 8))
_ALL: _Questions = (("count", 8), ("reversed", 2), ("words", 1), ("blank", 1), ("echo", 1), ("number", 3))
_AS_ASKED: _Questions = (("count", 9), ("reversed", 2), ("words", 1), ("blank", 1), ("echo", 1), ("number", 2))
_TO_READ_MORE: _Questions = (("count", 9), ("reversed", 1), ("blank", 1), ("echo", 1), ("number", 4))
_AT_LAST: _Questions = (("count", 11), ("reversed", 1), ("blank", 1), ("echo", 1), ("number", 3))
_TO_READ_ANYWHERE: _Questions = (("count", 5), ("reversed", 2), ("words", 1), ("blank", 1), ("echo", 2), ("number", 9))
_EVENLY: _Questions = (("count", 8), ("reversed", 2), ("words", 1), ("blank", 1), ("echo", 2), ("number", 6))

_PEAK = (1e-3, 1e-3)
_TO_16 = Stage(
    name="to 16",
    steps=400,
    batch=32,
    size=256,
    counts=(((1, 16), 1),),
    questions=_TO_COUNT,
    learning_rates=_PEAK,
)

_TO_30 = Stage(
    name="to 30",
    steps=200,
    batch=16,
    size=384,
    counts=(((1, 16), 1), ((10, 30), 1)),
    questions=_TO_READ,
    learning_rates=(5e-4, 5e-4),
    spread=0,
)

_TO_99 = Stage(
    name="to 99",
    steps=400,
    batch=8,
    size=1024,
    counts=(((10, 16), 2), ((10, 99), 1)),
    questions=_AS_ASKED,
    learning_rates=(5e-4, 1e-5),
    decay=800,
)

_COUNTS = Recipe(
    stages=(
        Stage(
            name="to 9",
            steps=600,
            batch=32,
            size=256,
            counts=(((1, 9), 1),),
            questions=_TO_COUNT,
            learning_rates=_PEAK,
        ),
        _TO_16,
        replace(_TO_16, name="to 16, slower", learning_rates=(1e-3, 2e-4)),
        _TO_30,
        replace(_TO_30, name="to 30, faster", learning_rates=(1e-3, 7e-4)),
        replace(_TO_30, name="to 30, digits within 16 px", learning_rates=(7e-4, 7e-4), spread=16),
        replace(_TO_30, name="to 30, digits within 40 px", learning_rates=(7e-4, 7e-4), spread=40),
        replace(_TO_30, name="to 30, digits within 80 px", learning_rates=(7e-4, 5e-4), spread=80),
        Stage(
            name="to 60",
            steps=600,
            batch=12,
            size=512,
            counts=(((10, 16), 1), ((10, 60), 1)),
            questions=_ALL,
            learning_rates=(5e-4, 5e-4),
        ),
        _TO_99,
        replace(_TO_99, name="to 99, slower", questions=_TO_READ_MORE, learning_rates=(3e-4, 1e-5), decay=700),
        replace(
            _TO_99, name="to 99, at last", steps=400, questions=_AT_LAST, learning_rates=(1.5e-4, 5e-6), decay=None
        ),
        Stage(
            name="to 60, digits anywhere",
            steps=400,
            batch=16,
            size=512,
            counts=(((10, 16), 1), ((10, 60), 1)),
            questions=_TO_READ_ANYWHERE,
            learning_rates=(5e-4, 5e-4),
        ),
        replace(_TO_99, name="to 99, evenly", steps=1000, questions=_EVENLY, learning_rates=(5e-4, 5e-6), decay=None),
    ),
)

_TAKEOVER = Recipe(
    warmup=20,
    seed=1,
    takeover=True,
    stages=(
        Stage(
            name="takeover",
            steps=100,
            batch=8,
            size=1024,
            counts=(((10, 16), 1), ((10, 99), 1)),
            questions=_AS_ASKED,
            learning_rates=(3e-4, 1e-5),
        ),
    ),
)

RECIPES: Mapping[Variant, Recipe] = MappingProxyType({"counts": _COUNTS, "takeover": _TAKEOVER})
"""`counts` learns from scratch; `takeover` goes on from the weights that `counts` left."""
