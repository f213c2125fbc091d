"""What a forward pass of the language model is given: the one place that knows by which names models take it.

A cache is known by its type, whatever its parameter is called: transformers renamed `past_key_values` to `cache`. The
tokens and their embeddings are read by the names of the module's own signature.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import transformers
from packaging.version import Version
from transformers import Cache

from halo_probe.errors import CaptureError
from halo_probe.proven import proven_release

if TYPE_CHECKING:
    from torch import nn

_TOKENS = "input_ids"
_EMBEDDINGS = "inputs_embeds"


def cache_of(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Cache | None:
    """The cache that a pass is given; None where it is given none."""
    return next((value for value in (*kwargs.values(), *args) if isinstance(value, Cache)), None)


def without_cache(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` without a cache: one that is shared would hold what an earlier call left in it."""
    return {name: value for name, value in kwargs.items() if not isinstance(value, Cache)}


def tokens_given(module: "nn.Module", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The tokens of a pass, B × Q; None where it is given their embeddings alone."""
    tokens = _named(module, args, kwargs).get(_TOKENS)
    return tokens if isinstance(tokens, torch.Tensor) else None


def positions_given(module: "nn.Module", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """How many positions a pass is given, Q.

    Raises:
        CaptureError: If the module takes neither tokens nor embeddings by a name that is known.
    """
    given = _named(module, args, kwargs)
    for name in (_EMBEDDINGS, _TOKENS):
        if isinstance(given.get(name), torch.Tensor):
            return int(given[name].shape[1])
    raise CaptureError(
        f"{type(module).__name__} was given {', '.join(given) or 'nothing'}, and neither {_TOKENS} nor {_EMBEDDINGS}: "
        f"where the model stands in its reply is not known. {newer_than_proven()}"
    )


def newer_than_proven() -> str:
    """What to say of a refusal that another version of transformers may be the reason for."""
    installed, proven = transformers.__version__, proven_release("transformers")
    if Version(installed).release[:2] <= Version(proven).release:
        return f"transformers {installed} is not newer than what this was proven with ({proven}): report the family."
    return (
        f"transformers {installed} is newer than what this was proven with ({proven}): install transformers {proven}, "
        "or a newer halo-probe."
    )


def _named(module: "nn.Module", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments by their names."""
    return {**dict(zip(_parameters(type(module).forward), args, strict=False)), **kwargs}


@lru_cache(maxsize=64)
def _parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters behind `self`."""
    return tuple(inspect.signature(forward).parameters)[1:]
