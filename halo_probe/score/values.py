"""The numbers of one document: per generated token, and their summary for the results table.

Keys: those of the headline layer, the last one recorded, have the name of their metric; with `_rn` they are of the
renormalised head mean; with `_mid`, means over the middle layers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from halo_probe.archive.answers import Column, TokenValues
from halo_probe.archive.generation import Generation
from halo_probe.metrics.dots import Dots, layout_of
from halo_probe.metrics.pairs import score_pairs
from halo_probe.metrics.sparsity import entropy, gini, sparsity_g16
from halo_probe.metrics.views import find_whole_view
from lmms_eval_tasks.digits import DigitSteps

TOKEN_KEYS = ("sparsity", "entropy", "visual_mass", "sparsity_rn", "entropy_rn", "sparsity_g16")
"""Measured of every generated token, at the headline layer; `sparsity_g16` where the image tokens form a grid."""
MID_KEYS = ("sparsity_mid", "entropy_mid", "visual_mass_mid")
"""Where all middle layers are recorded."""
SPATIAL_KEYS = (
    *("halo_index", "ring_contrast", "ring_contrast_ns", "auroc_dot", "coverage", "dot_mass"),
    *("hull_contrast", "hull_contrast_ns", "hull_dot_contrast", "sink_share", "frame_enrichment"),
)
"""Where the dots of the documents are known, at the headline layer."""
LARGE_KEYS = ("penetration",)
"""As `SPATIAL_KEYS`, of dots that may cover several tokens."""

Numbers = dict[str, float | None]
# What the digits are compared by; decays of the sparsity are negative.
_CHANGES = {"sparsity": "sparsity_decay", "entropy": "entropy_rise"}
_CHANGES |= {f"{key}_mid": f"{name}_mid" for key, name in _CHANGES.items()}


def middle_layers(count: int) -> range:
    """The middle layers of a language model of so many: floor(.4 L) to ceil(.65 L), the latter left out (spec §1).

    >>> middle_layers(36)
    range(14, 24)
    """
    return range(2 * count // 5, -(-13 * count // 20))


def token_values(
    generation: Generation,
    pieces: Sequence[str],
    *,
    middle: Sequence[int] = (),
    dots: Dots | None = None,
    spatial: Sequence[str] = (),
) -> TokenValues:
    """Score each step of a generation (spec §1, §2 and §6).

    Args:
        generation: The recorded maps.
        pieces: The text of each generated token.
        middle: The middle layers, all recorded; none for no `MID_KEYS`.
        dots: Those of the document; None where it has none, and no value of a spatial key.
        spatial: The spatial keys of the task.
    """
    complete = generation.visible == generation.image_positions.size
    mass = generation.visual_mass
    columns = {
        **_concentration(generation.eq1[:, -1:], complete[:, -1:], ""),
        "visual_mass": _where(complete[:, -1], mass[:, -1]),
        **_concentration(generation.rn[:, -1:], complete[:, -1:], "_rn"),
    }
    if places := [place for place, layer in enumerate(generation.layers) if layer.index in middle]:
        columns |= _concentration(generation.eq1[:, places], complete[:, places], "_mid")
        columns["visual_mass_mid"] = _where(complete[:, places].all(axis=1), mass[:, places].mean(axis=1))
    columns |= _whole_view_columns(generation, dots, spatial)
    layer = generation.layers[-1]
    return TokenValues(
        tokens=tuple(pieces),
        layer=layer.index,
        layer_type=layer.type,
        columns=columns,
        content=generation.content_steps,
    )


def summary_key(key: str) -> str:
    """The name of a mean over the generated tokens."""
    return f"vision_{key}".replace("visual_", "")


def summarize(values: Sequence[TokenValues]) -> Numbers:
    """Average each key over the generated tokens of a document's generations, by `summary_key`.

    None where no generated token has a value.
    """
    summary: Numbers = {}
    for key in values[0].columns:
        present = [
            value
            for one in values
            for value in one.columns[key][one.content.start : one.content.stop]
            if value is not None
        ]
        summary[summary_key(key)] = float(np.mean(present)) if present else None
    return summary


def digit_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """The names of what `digit_values` says of these keys: none of those with `_rn` or `_g16`."""
    at_digits = [key for key in keys if not key.endswith(("_rn", "_g16"))]
    changes = [_CHANGES[key] for key in at_digits if key in _CHANGES]
    return (*(f"{key}_d{digit}" for key in at_digits for digit in (1, 2)), *changes)


def digit_values(values: TokenValues, digits: DigitSteps) -> Numbers:
    """Values at the digits' steps: `digit_keys` of what was measured.

    The second digit has a value only where it is a token of its own (status `split`). `sparsity_decay` and
    `entropy_rise` are second minus first (spec §10), so sparsity decays where `sparsity_decay` is negative.
    """
    result: Numbers = {}
    for key, column in values.columns.items():
        first, second = (_at_digit(column, digits, digit) for digit in (1, 2))
        result |= {f"{key}_d1": first, f"{key}_d2": second}
        if key in _CHANGES:
            result[_CHANGES[key]] = None if first is None or second is None else second - first
    return {key: result[key] for key in digit_keys(tuple(values.columns))}


def _at_digit(column: Column, digits: DigitSteps, digit: int) -> float | None:
    if digits.steps is None or digit > len(digits.steps) or (digit > 1 and digits.status != "split"):
        return None
    return column[digits.steps[digit - 1]]


def _concentration(maps: NDArray[np.float32], complete: NDArray[np.bool_], suffix: str) -> dict[str, Column]:
    """Sparsity and entropy of maps (steps, layers, M), averaged over the layers where all of these are defined."""
    defined = np.all(complete & np.isfinite(maps).all(axis=-1) & (maps > 0).any(axis=-1), axis=1)
    columns = {}
    for name, metric in (("sparsity", gini), ("entropy", entropy)):
        means = np.zeros(len(maps))
        if defined.any():
            means[defined] = np.asarray(metric(maps[defined])).mean(axis=-1)
        columns[f"{name}{suffix}"] = _where(defined, means)
    return columns


def _whole_view_columns(generation: Generation, dots: Dots | None, keys: Sequence[str]) -> dict[str, Column]:
    """`sparsity_g16` and the spatial keys: of the view of the whole image, at the headline layer."""
    maps = generation.eq1[:, -1]
    found = {key: np.full(len(maps), np.nan) for key in ("sparsity_g16", *keys)}
    view, _ = find_whole_view(generation.views, tokens=maps.shape[1])
    if view:
        seen = maps[:, view.tokens]
        complete = generation.visible[:, -1] == maps.shape[1]
        defined = complete & np.isfinite(seen).all(axis=1) & (seen > 0).any(axis=1)
        if defined.any():
            found["sparsity_g16"][defined] = sparsity_g16(seen[defined], height=view.grid[0], width=view.grid[1])
        if defined.any() and dots and keys and view.box:
            layout = layout_of(dots, view.grid, view.box)
            for key, scores in score_pairs(seen[defined], [layout], keys=keys).items():
                found[key][defined] = scores[:, 0]
    return {key: _where(~np.isnan(values), values) for key, values in found.items()}


def _where(defined: NDArray[np.bool_], values: NDArray[np.floating]) -> Column:
    """The values at the steps that have one, None at the others."""
    return tuple(value if here else None for here, value in zip(defined.tolist(), values.tolist(), strict=True))
