"""Visual sinks: which image tokens carry massive activations, read off the hidden states of the prompt.

Source: Kang et al., arXiv 2503.03321; the measurement specification, section 7. `halo_probe.metrics.visual_sinks` has
the same score for stored hidden states.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from halo_probe.capture.session import Session
from halo_probe.errors import CaptureError, UnsupportedModelError
from halo_probe.metrics.visual_sinks import SINK_SCORE

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_FIRST_LAYER = 2
"""Massive activations are not there yet after layers 0 and 1."""


def sink_layers(model: "PreTrainedModel") -> list["nn.Module"]:
    """The decoder layers whose output is looked at: from layer 2 on.

    Raises:
        UnsupportedModelError: If the language model has none.
    """
    layers = list(getattr(model.get_decoder(), "layers", ()))[_FIRST_LAYER:]
    if not layers:
        raise UnsupportedModelError(
            f"{type(model).__name__}: no decoder layers from layer {_FIRST_LAYER} on are found, and visual sinks are "
            "looked for there. Record it without sinks."
        )
    return layers


class VisualSinks:
    """Collects the largest sink score φ of each image token of one `generate` call, on the device.

    Args:
        layers: The decoder layers to look at.
        session: Where the call stands.
    """

    def __init__(self, layers: Sequence["nn.Module"], session: Session) -> None:
        self._layers = layers
        self._session = session
        self._scores: dict[torch.device, torch.Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at what the layers put out."""
        with ExitStack() as stack:
            for layer in self._layers:
                stack.callback(layer.register_forward_hook(self._look).remove)
            yield

    def found(self) -> list[torch.Tensor]:
        """Whether each image token has φ > 20 after some layer of a device, B × M on each device.

        Raises:
            CaptureError: If the hidden states were not those of a plain decoder.
        """
        if not self._scores:
            raise CaptureError("No hidden states of image tokens were seen: record this model without sinks.")
        return [scores > SINK_SCORE for scores in self._scores.values()]

    def _look(self, _: "nn.Module", __: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        session = self._session
        if session.foreign or not session.here:
            return
        if hidden.dim() != 3 or session.begun >= session.prompt:  # noqa: PLR2004 - B × Q × D; the prompt is over
            return
        device, width = hidden.device, hidden.shape[-1]
        norm = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
        largest = torch.maximum(hidden.amax(dim=-1), -hidden.amin(dim=-1)).float()
        score = largest * width**0.5 / norm
        columns = session.places(dropped=session.seen - hidden.shape[1], device=device)[:, 1:]
        here = (columns >= 0) & (columns < hidden.shape[1])
        columns = columns.clamp(0, hidden.shape[1] - 1)
        scores = score.gather(1, columns).where(here, 0.0)
        known = self._scores.get(device)
        self._scores[device] = scores if known is None else torch.maximum(known, scores)
