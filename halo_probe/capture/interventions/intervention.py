"""What to do to the attention that is paid to the image, at which steps and in which layers.

Source: the measurement specification, section 8.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike

from halo_probe.capture.interventions import edits
from halo_probe.errors import UsageError
from halo_probe.metrics.structure import bottom30, random30, top30
from halo_probe.score.values import middle_layers

Name = Literal["scale", "adapt", "temperature", "boost", "knockout", "top30", "random30", "bottom30"]
Steps = Literal["prefill_last", "d1", "d2", "all"]
Layers = Literal["all", "mid", "last"]

_STRENGTHS = {"scale": edits.scale, "temperature": edits.temperature, "boost": edits.boost}
_MASKS = ("top30", "random30", "bottom30")
_ADAPTED = {"strength": 0.5, "confident_strength": 1.5, "threshold": 0.4}


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One operation on the logits of the image keys for the last position of the prompt or reply.

    `adapt`, `top30`, `random30` and `bottom30` depend on what the model does without them: `resolve` makes a `scale` or
    a `knockout` of them after a plain pass.

    Raises:
        UsageError: If the parameters do not fit the operation, or steps or layers are none of those below.
    """

    name: Name
    strength: float | None = None
    """α of `scale` and `temperature`, 0 or more; λ of `boost`, above 0; of `adapt` α where the model is unsure."""
    confident_strength: float | None = None
    """`adapt` alone: α where the first token's probability is at least the threshold. Default 1.5, the other .5."""
    threshold: float | None = None
    """`adapt` alone: β, .4 by default."""
    cells: tuple[int, ...] | None = None
    """`knockout` alone: places among the image tokens, from 0; all of them by default."""
    steps: Steps | int = "all"
    """`prefill_last` is the step that predicts the first token. `d1` is every step up to the one that writes the first
    digit, `d2` the one after it: of a reply that begins with its answer. A number is that generation step, from 0."""
    layers: Layers | tuple[int, ...] = "all"
    """`mid` is from floor(.4 L) to ceil(.65 L), exclusive; indices are those of the language model's layers, negative
    ones from the end."""
    digit_token_ids: frozenset[int] = frozenset()
    """The tokens that are digits, from `digit_tokens`: needed for the steps `d1` and `d2`."""

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise UsageError(f"intervention {self.name!r}: use one of {', '.join(get_args(Name))}.")
        if self.name == "adapt":
            for field, default in _ADAPTED.items():
                if getattr(self, field) is None:
                    object.__setattr__(self, field, default)
        self._check_parameters()
        if self.steps not in get_args(Steps) and not (type(self.steps) is int and self.steps >= 0):
            raise UsageError(f"steps={self.steps!r}: use {', '.join(get_args(Steps))} or a generation step from 0.")
        if isinstance(self.layers, str) and self.layers not in get_args(Layers):
            raise UsageError(f"layers={self.layers!r}: use {', '.join(get_args(Layers))} or a tuple of indices.")

    def _check_parameters(self) -> None:
        takes = {
            "strength": self.name == "adapt" or self.name in _STRENGTHS,
            "confident_strength": self.name == "adapt",
            "threshold": self.name == "adapt",
        }
        for field, taken in takes.items():
            value = getattr(self, field)
            if taken and value is None:
                raise UsageError(f"{self.name}: needs a {field}, such as {self.name}:2.")
            if value is not None and not taken:
                raise UsageError(f"{self.name}: takes no {field}; leave it out.")
            if value is not None and not (0 <= value < float("inf")):
                raise UsageError(f"{self.name}: {field} {value} is not a number from 0 up.")
        if self.name == "boost" and self.strength == 0:
            raise UsageError("boost: strength 0 would take the image away; use knockout for that.")
        if self.cells is not None and (self.name != "knockout" or any(cell < 0 for cell in self.cells)):
            raise UsageError(f"{self.name}: cells are for knockout alone, places among the image tokens from 0.")

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing: strength 1, or no cell to knock out."""
        strengths = {self.strength, self.confident_strength} - {None}
        return strengths == {1} or self.cells == ()

    @property
    def needs_plain_pass(self) -> bool:
        """Whether `resolve` has to come first."""
        return self.name == "adapt" or self.name in _MASKS

    @property
    def counts_digits(self) -> bool:
        """Whether it has to know the digits of the reply, which it counts from the first token on."""
        return self.steps in ("d1", "d2") or self.name in _MASKS

    def require_resolved(self) -> None:
        """Refuse what cannot be applied as it is.

        Raises:
            UsageError: If it needs a plain pass first, or the digit tokens and has none.
        """
        if self.needs_plain_pass:
            raise UsageError(
                f"{self.name}: depends on what the model does without it; generate once without it, and give what "
                "`halo_probe.capture.interventions.resolve` makes of that."
            )
        if self.steps in ("d1", "d2") and not self.digit_token_ids:
            raise UsageError(
                f"steps={self.steps}: needs to know the digits; give "
                "digit_token_ids=frozenset(halo_probe.capture.interventions.digit_tokens(tokenizer))."
            )

    def layer_indices(self, available: Iterable[int]) -> frozenset[int]:
        """The layers that it acts in.

        Args:
            available: Indices of the layers that have attention.

        Raises:
            UsageError: If `layers` names one that is not there, or there is none.
        """
        present = sorted(available)
        count = present[-1] + 1
        named = {
            "all": present,
            "mid": [index for index in present if index in middle_layers(count)],
            "last": present[-1:],
        }
        wanted = named[self.layers] if isinstance(self.layers, str) else [i + count * (i < 0) for i in self.layers]
        if not wanted or not set(wanted) <= set(present):
            raise UsageError(
                f"intervention layers {self.layers!r}: the model has no such attention layer; use all, mid, last or "
                f"indices from {present[0]} to {present[-1]}."
            )
        return frozenset(wanted)

    def describe(self) -> dict[str, Any]:
        """JSON-ready: all that the numbers of a run depend on."""
        names = ("name", "strength", "confident_strength", "threshold", "cells", "steps", "layers")
        values = {name: getattr(self, name) for name in names}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    def edit(self, logits: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Apply the operation to the logits of the last query position.

        Args:
            logits: B × H × K, float32; -inf where the query may not attend.
            columns: B × M, int64: the keys of the image tokens, negative where a row lacks one.
            rows: B, bool: the rows of the batch that are at a step of the intervention.

        Returns:
            B × H × K, float32; the input where `rows` is false and for all keys but those of the image.

        Raises:
            UsageError: If it has to be resolved first, or names a cell beyond the M image tokens.
        """
        self.require_resolved()
        if self.cells and max(self.cells) >= columns.shape[1]:
            raise UsageError(f"knockout: cell {max(self.cells)} is beyond the {columns.shape[1]} image tokens.")
        heads, keys = logits.shape[1:]
        # Absent image tokens are gathered from, and scattered to, one key too many.
        padded = torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)
        places = columns.where(columns >= 0, keys)[:, None, :].expand(-1, heads, -1)
        image = padded.gather(2, places)
        operation = _STRENGTHS.get(self.name)
        if operation is None:
            edited = edits.knockout(image, cells=self.cells)
        else:
            assert self.strength is not None
            edited = operation(image, strength=self.strength)
        return torch.where(rows[:, None, None], padded.scatter(2, places, edited)[..., :keys], logits)


def resolve(intervention: Intervention, *, confidence: float, attention: ArrayLike, seed: int) -> Intervention:
    """Make of an intervention what it is for one document, given what the model did without it.

    Args:
        intervention: Any; one that does not depend on a plain pass comes back as it is.
        confidence: The probability of the first generated token, before any processing of the logits.
        attention: M, the last layer's `A_eq1` at the step of the first digit.
        seed: A number of the document, for `random30`.

    Returns:
        A `scale` for `adapt`, a `knockout` for `top30`, `random30` and `bottom30`, at the same steps and layers.

    Raises:
        InvalidAttentionError: If the map is none.
    """
    if intervention.name == "adapt":
        assert intervention.threshold is not None
        sure = confidence >= intervention.threshold
        strength = intervention.confident_strength if sure else intervention.strength
        return replace(intervention, name="scale", strength=strength, confident_strength=None, threshold=None)
    if intervention.name == "top30":
        cells = top30(attention)
    elif intervention.name == "bottom30":
        cells = bottom30(attention)
    elif intervention.name == "random30":
        cells = random30(np.size(attention), seed=seed)
    else:
        return intervention
    return replace(intervention, name="knockout", cells=tuple(cells.tolist()))
