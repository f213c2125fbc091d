"""Applying an intervention: the last query row of an attention output computed again with edited logits.

The kernel runs as ever, so other positions, other rows of the batch and other steps stay bit for bit what they were.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from halo_probe.archive.generation import Layer
from halo_probe.capture.dispatch import AttentionCall
from halo_probe.capture.kernel_output import attention_of, weighted_values
from halo_probe.capture.masks import RowMasks
from halo_probe.capture.rows import row_logits
from halo_probe.capture.session import Session
from halo_probe.capture.transfers import to_device
from halo_probe.errors import CaptureError

if TYPE_CHECKING:
    from halo_probe.capture.interventions import Intervention


@dataclass(frozen=True, eq=False)
class EditedLogits:
    """The logits of one row before and after an intervention, B × H × 1 × K, float32."""

    plain: torch.Tensor
    edited: torch.Tensor


class Override:
    """One intervention in one `generate` call.

    Args:
        intervention: What to do.
        session: Where the call stands.
        masks: Reads the masks of its attention calls.
    """

    def __init__(self, intervention: "Intervention", session: Session, masks: RowMasks) -> None:
        self._intervention = intervention
        self._session = session
        self._masks = masks
        self._step = -1
        self._rows: dict[torch.device, torch.Tensor] = {}
        """Which rows are at a step of the intervention, on each device that asked; empty where none can be."""
        self._wrote_digit: torch.Tensor | None = None
        self._digits = torch.tensor(sorted(intervention.digit_token_ids), dtype=torch.int64)

    def apply(self, layer: Layer, call: AttentionCall, output: Any) -> tuple[EditedLogits | None, Any]:
        """Override the row of the current step.

        Returns:
            The logits, and the output with the rows of the batch that are at a step of the intervention replaced; None
            and the output as it is at a step that no row intervenes on.

        Raises:
            CaptureError: If the output has not the shape that attention functions return.
        """
        rows = self._rows_now(call.query)
        if rows is None:
            return None, output
        bias = self._masks.bias(call, layer=layer, rows=1)
        logits = row_logits(call.query[:, :, -1:], call.key, bias, call.arguments)[:, :, 0]
        dropped = self._session.dropped(layer, keys=logits.shape[-1])
        places = self._session.places(dropped=dropped, device=logits.device)
        edited = self._intervention.edit(logits, places[:, 1:], rows)
        attention, row = attention_of(layer, call, output), weighted_values(edited, call)
        # In place: the kernel made this tensor for the layer alone, and a copy would be as large as the prompt.
        attention[:, -1] = torch.where(rows[:, None, None], row.to(attention.dtype), attention[:, -1])
        return EditedLogits(logits[:, :, None], edited[:, :, None]), output

    def _rows_now(self, query: torch.Tensor) -> torch.Tensor | None:
        """B, bool: which rows are at a step of the intervention; None where none can be. Never waits for the device."""
        step = self._session.steps[-1]
        if step != self._step:
            rows = self._rows_at(step, query)
            self._step, self._rows = step, {} if rows is None else {rows.device: rows}
        if self._rows and query.device not in self._rows:
            self._rows[query.device] = next(iter(self._rows.values())).to(query.device)
        return self._rows.get(query.device)

    def _rows_at(self, step: int, query: torch.Tensor) -> torch.Tensor | None:
        steps = self._intervention.steps
        if steps in ("d1", "d2"):
            return self._rows_by_digit(step, query)
        wanted = steps == "all" or step == (0 if steps == "prefill_last" else steps)
        return query.new_ones(len(query), dtype=torch.bool) if wanted else None

    def _rows_by_digit(self, step: int, query: torch.Tensor) -> torch.Tensor | None:
        """`d1` lasts until a digit is there, `d2` is the step after the first one."""
        first = self._intervention.steps == "d1"
        if step == 0 or self._wrote_digit is None:
            self._wrote_digit = query.new_zeros(len(query), dtype=torch.bool)
            self._digits = to_device(self._digits, query.device)
            return ~self._wrote_digit if first else None
        last = self._session.last_tokens
        if last is None:
            raise CaptureError("The model runs without `input_ids`, so the digits of its reply are not known.")
        before = self._wrote_digit
        # Compared one by one: `isin` would sort them, for which the host waits.
        self._wrote_digit = before | (last.to(before.device)[:, None] == self._digits).any(dim=1)
        return ~self._wrote_digit if first else self._wrote_digit & ~before
