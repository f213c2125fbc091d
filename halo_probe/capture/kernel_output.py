"""That a kernel does what is recorded of it: a row of attention times the values is what the kernel returned.

A kernel is known by its name, and one of that name may do something else: other logits, dropout, another mask. So the
last query of the first pass of every `generate` call is computed a second time, and compared.
"""

from collections.abc import Sequence
from typing import Any

import torch

from halo_probe.archive.generation import Layer
from halo_probe.capture.dispatch import AttentionCall
from halo_probe.capture.rows import full_precision, learned_sinks
from halo_probe.errors import CaptureError

_TF32 = 2.0**-10
"""The relative distance of two neighbours in the format that devices may multiply float32 in."""
_FLOAT32 = 2.0**-19
"""That of float32, times sixteen: sums over thousands of numbers are rounded as often."""


class KernelOutputs:
    """How far the kernel's outputs lie from those of the rows in one `generate` call, as a share of what is allowed.

    Args:
        kernel: Name of the attention implementation.
    """

    def __init__(self, *, kernel: str) -> None:
        self._kernel = kernel
        self._layers: list[Layer] = []
        self._excesses: list[torch.Tensor] = []

    def seen(self, layer: Layer) -> bool:
        """Whether this layer was compared."""
        return layer in self._layers

    def compare(self, layer: Layer, call: AttentionCall, output: Any, logits: torch.Tensor) -> None:
        """Compare the last query of an attention call, without waiting for the device.

        Args:
            layer: The layer that was called.
            call: What the attention function was given.
            output: What it returned.
            logits: B × H × K, float32, of its last query.

        Raises:
            CaptureError: If the output has not the shape that attention functions return.
        """
        attention = attention_of(layer, call, output)[:, -1].float()
        row = weighted_values(logits, call)
        hidden = torch.isneginf(logits).all(dim=-1)  # where every key is, nothing is said of the output
        excess = _excess(attention - row, logits, call, unit=_unit(call.query, output[0]))
        self._layers.append(layer)
        self._excesses.append(excess.masked_fill(hidden, 0).amax())

    def excesses(self) -> list[torch.Tensor]:
        """One number for each layer, on its device: for `require_equal`, once they are on the host."""
        return self._excesses

    def require_equal(self, excesses: Sequence[torch.Tensor]) -> None:
        """Refuse a kernel whose outputs are not those of the rows.

        Raises:
            CaptureError: Naming the first layer.
        """
        told = torch.stack(tuple(excesses)).tolist() if excesses else []
        for layer, excess in zip(self._layers, told, strict=True):
            if not excess <= 1:
                raise CaptureError(
                    f"Layer {layer.index}: the kernel {self._kernel!r} does not return the attention that its "
                    f"arguments say ({excess:.3g} times as far from it as rounding explains), so what would be "
                    "recorded is not what the model does. Call model.eval() if it is in training mode, undo what "
                    "replaces the kernel, or load the model with attn_implementation=eager."
                )


def attention_of(layer: Layer, call: AttentionCall, output: Any) -> torch.Tensor:
    """The attention in what an attention function returned, B × Q × H × E.

    Raises:
        CaptureError: If it has another shape.
    """
    attention = output[0] if isinstance(output, tuple) else output
    batch, heads, queries, _ = call.query.shape
    shape = (batch, queries, heads, call.value.shape[-1])
    if not isinstance(attention, torch.Tensor) or attention.shape != shape:
        found = tuple(attention.shape) if isinstance(attention, torch.Tensor) else type(attention).__name__
        raise CaptureError(
            f"Layer {layer.index}: attention of shape {found} where batch × queries × heads × width was expected, "
            f"{shape}: load the model with attn_implementation=sdpa or eager."
        )
    return attention


def weighted_values(logits: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    """The attention output of one row of logits.

    Args:
        logits: B × H × K, float32.
        call: For the values, B × G × K × E, and the learned sinks.

    Returns:
        B × H × E, float32; zero where every key is hidden.
    """
    return _product(_weights(logits, call)[:, :, None], call.value.float())[:, :, 0]


def _weights(logits: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    """The softmax over the keys and the learned sinks, B × H × K; zero where every key is hidden."""
    sinks = learned_sinks(call.arguments, rows=1)
    if sinks is None:
        return torch.softmax(logits, dim=-1).nan_to_num(0.0)  # an edit may hide every key of a cross-attention layer
    drains = sinks[:, :, 0].float().expand(*logits.shape[:2], -1)
    return torch.softmax(torch.cat([logits, drains], dim=-1), dim=-1)[..., :-1].nan_to_num(0.0)


def _product(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Rows of weights, B × H × R × K, times the values of their groups of heads: B × H × R × E."""
    batch, heads, rows, keys = weights.shape
    with full_precision(value):
        grouped: torch.Tensor = weights.reshape(batch, value.shape[1], -1, keys) @ value
    return grouped.reshape(batch, heads, rows, -1)


def _excess(difference: torch.Tensor, logits: torch.Tensor, call: AttentionCall, *, unit: float) -> torch.Tensor:
    """The length of the difference over what rounding explains, B × H.

    Where a kernel rounds its logits z, its weights p and the output, p is off by p · unit · (1 + |z|) at most, and the
    output by what that does to the values. The families of docs/families.md need less than a quarter of it.
    """
    weights = _weights(logits, call)
    uncertain = weights * logits.abs().nan_to_num(posinf=0.0)
    plain, moved = _product(torch.stack([weights, uncertain], dim=2), call.value.float().abs()).unbind(dim=2)
    allowed = unit * (plain * (1 + uncertain.sum(dim=-1, keepdim=True)) + moved)
    smallest = torch.finfo(torch.float32).tiny
    excess: torch.Tensor = difference.norm(dim=-1) / allowed.norm(dim=-1).clamp(min=smallest)
    return excess


def _unit(query: torch.Tensor, attention: torch.Tensor) -> float:
    """The relative distance of two neighbouring numbers in the format that the kernel worked in."""
    coarsest = max(float(torch.finfo(one.dtype).eps) for one in (query, attention))
    rounds = query.device.type != "cpu" and torch.get_float32_matmul_precision() != "highest"
    return max(coarsest, _FLOAT32, _TF32 if rounds else 0.0)
