"""The numbers of one document: per generated token, and their summary for the results table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from halo_probe.capture import Generation
from halo_probe.metrics.sparsity import entropy, gini
from lmms_eval_tasks.digits import DigitSteps

TOKEN_KEYS = ("sparsity", "entropy", "visual_mass", "sparsity_rn", "entropy_rn")
SUMMARY_KEYS = ("vision_sparsity", "vision_entropy", "vision_mass", "vision_sparsity_rn", "vision_entropy_rn")
"""Means over the generated tokens, the end-of-sequence token left out: one for each of `TOKEN_KEYS`."""
DIGIT_KEYS = (
    *(f"{key}_d{digit}" for key in ("sparsity", "entropy", "visual_mass") for digit in (1, 2)),
    "sparsity_decay",
    "entropy_rise",
)
"""Values at the step of the first and second digit, and second minus first."""


@dataclass(frozen=True)
class TokenValues:
    """What one generation shows at the headline layer, the last one recorded: one value per generated token.

    A value is None where it is undefined: the layer's window has left image tokens behind, or no attention reaches one.
    """

    tokens: tuple[str, ...]
    layer: int
    layer_type: str
    columns: Mapping[str, tuple[float | None, ...]]
    """`TOKEN_KEYS`, each with one value per token."""
    content: range
    """The steps of the reply itself, without the end-of-sequence token."""


def token_values(generation: Generation, pieces: Sequence[str]) -> TokenValues:
    """Score each step of a generation at its last recorded layer (spec §1 and §2)."""
    complete = generation.visible[:, -1] == generation.image_positions.size
    maps = {"": generation.eq1[:, -1], "_rn": generation.rn[:, -1]}
    defined = {
        suffix: complete & np.isfinite(rows).all(axis=1) & (rows.sum(axis=1) > 0) for suffix, rows in maps.items()
    }
    columns = {
        f"{name}{suffix}": _where(defined[suffix], metric, rows)
        for suffix, rows in maps.items()
        for name, metric in (("sparsity", gini), ("entropy", entropy))
    }
    columns["visual_mass"] = _where(complete, np.asarray, generation.visual_mass[:, -1])
    layer = generation.layers[-1]
    return TokenValues(
        tokens=tuple(pieces),
        layer=layer.index,
        layer_type=layer.type,
        columns={key: columns[key] for key in TOKEN_KEYS},
        content=generation.content_steps,
    )


def summarize(values: Sequence[TokenValues]) -> dict[str, float | None]:
    """Average over the generated tokens of a document's generations: `SUMMARY_KEYS`.

    None where no generated token has a value.
    """
    summary: dict[str, float | None] = {}
    for key, name in zip(TOKEN_KEYS, SUMMARY_KEYS, strict=True):
        present = [
            value
            for one in values
            for value in one.columns[key][one.content.start : one.content.stop]
            if value is not None
        ]
        summary[name] = float(np.mean(present)) if present else None
    return summary


def digit_values(values: TokenValues, digits: DigitSteps) -> dict[str, float | None]:
    """Values at the digits' steps: `DIGIT_KEYS`.

    The second digit has a value only where it is a token of its own (status `split`). `sparsity_decay` and
    `entropy_rise` are second minus first (spec §10), so sparsity decays where `sparsity_decay` is negative.
    """
    result: dict[str, float | None] = {}
    for key in ("sparsity", "entropy", "visual_mass"):
        for digit in (1, 2):
            result[f"{key}_d{digit}"] = _at_digit(values.columns[key], digits, digit)
    result["sparsity_decay"] = _difference(result["sparsity_d1"], result["sparsity_d2"])
    result["entropy_rise"] = _difference(result["entropy_d1"], result["entropy_d2"])
    return result


def _at_digit(column: Sequence[float | None], digits: DigitSteps, digit: int) -> float | None:
    if digits.steps is None or digit > len(digits.steps) or (digit > 1 and digits.status != "split"):
        return None
    return column[digits.steps[digit - 1]]


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def _where(defined: np.ndarray, metric: Any, rows: np.ndarray) -> tuple[float | None, ...]:
    scores = iter(np.atleast_1d(metric(rows[defined])).tolist() if defined.any() else [])
    return tuple(next(scores) if here else None for here in defined.tolist())
