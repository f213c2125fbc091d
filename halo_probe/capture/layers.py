"""The decoder layers whose attention can be recorded, and the choice among them."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from halo_probe.archive.generation import Layer
from halo_probe.errors import UnsupportedModelError, UsageError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

LayerChoice = Literal["last", "all"] | Sequence[int]


def attention_modules(model: "PreTrainedModel") -> dict[Layer, "nn.Module"]:
    """Find the attention modules of the language model, in layer order.

    A module counts when it lies under `model.get_decoder()`, knows its `layer_idx` and calls transformers' attention
    functions (so vision towers, linear-attention and convolution layers do not). Where the model attends to the image
    in cross-attention layers, only these are there.

    Raises:
        UnsupportedModelError: If there is none.
    """
    decoder = model.get_decoder()
    found = {
        Layer(module.layer_idx, _layer_type(decoder.config, module)): module
        for module in decoder.modules()
        if isinstance(getattr(module, "layer_idx", None), int) and _calls_attention_functions(module)
    }
    if any(layer.crosses for layer in found):
        found = {layer: module for layer, module in found.items() if layer.crosses}
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__}: no decoder layer calls transformers' attention functions, so its attention "
            "cannot be recorded. Use a model class of transformers >= 5."
        )
    return dict(sorted(found.items(), key=lambda item: item[0].index))


def choose_layers(available: Sequence[Layer], choice: LayerChoice) -> tuple[Layer, ...]:
    """Pick layers by `"last"`, `"all"` or a list of indices (negative ones count from the end).

    Raises:
        UsageError: If the choice is neither, is empty or names a layer that the model does not have.

    >>> choose_layers([Layer(0, "full_attention"), Layer(1, "full_attention")], [-1])
    (Layer(index=1, type='full_attention'),)
    """
    by_index = {layer.index: layer for layer in available}
    if choice == "all":
        return tuple(available)
    if choice == "last":
        return (available[-1],)
    count = available[-1].index + 1
    rule = f"use 'last', 'all' or a list of indices out of {_ranges(sorted(by_index))}, such as [0, {count - 1}]"
    given: object = choice
    if isinstance(given, str) or not choice or not all(type(index) is int for index in choice):
        raise UsageError(f"layers={choice!r}: {rule}.")
    wanted = {index + count if index < 0 else index: index for index in choice}
    if unknown := [given for index, given in wanted.items() if index not in by_index]:
        raise UsageError(f"layers={list(choice)}: the model has no attention layer {unknown[0]}; {rule}.")
    return tuple(by_index[index] for index in sorted(wanted))


def _layer_type(config: Any, module: "nn.Module") -> str:
    index: Any = module.layer_idx
    if index in (getattr(config, "cross_attention_layers", None) or ()):
        return "cross_attention"
    if layer_types := getattr(config, "layer_types", None):
        return str(layer_types[index])
    # Configurations without layer types have one window, or none, for every layer.
    return "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"


def _ranges(indices: Sequence[int]) -> str:
    if len(indices) == indices[-1] - indices[0] + 1:
        return f"{indices[0]} to {indices[-1]}"
    return ", ".join(map(str, indices))


def _calls_attention_functions(module: "nn.Module") -> bool:
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names
