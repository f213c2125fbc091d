"""Listening to the attention functions of transformers while a model runs.

Model code asks `ALL_ATTENTION_FUNCTIONS.get_interface(name, default)` for its kernel at every call. While a listener is
attached, that one method hands out the same kernel followed by a look at the arguments. The name, the masks made for it
and the kernel itself stay what they were, so the model computes bit for bit what it would have computed, unless a
listener hands back another output.

(The mapping itself is no place to listen: the eager kernel is not in it, it is the caller's `default`.)
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from halo_probe.errors import CaptureError
from halo_probe.replacing import replace_for_good

if TYPE_CHECKING:
    import torch
    from torch import nn


class AttentionCall(NamedTuple):
    """What an attention function was given. B rows of the batch, H query heads, G key heads, Q queries, K keys."""

    query: "torch.Tensor"
    """B × H × Q × D."""
    key: "torch.Tensor"
    """B × G × K × D, each key head serving H / G query heads in order."""
    value: "torch.Tensor"
    """B × G × K × E."""
    mask: Any
    """None, or what the kernel takes: a tensor or a `BlockMask`."""
    arguments: Mapping[str, Any]
    """The other arguments: scaling, soft-cap and the like."""
    kernel: Callable[..., Any]
    """The attention function itself: called with the module, what stands above in that order, and the arguments."""


Listener = Callable[[AttentionCall, Any], Any]
"""Called after the kernel ran, with its arguments and its output; returns the output to use, most often the same."""

_LISTENER = "_halo_listener"  # an attribute of the module itself: found in one dictionary look-up, gone with the module
_SEAM = "get_interface"
_lock = threading.Lock()  # several threads may attach to several models; the seam is one for the process


@contextmanager
def listen(listeners: Mapping["nn.Module", Listener]) -> Iterator[None]:
    """Call each module's listener at every attention call of that module, until the context ends.

    Raises:
        CaptureError: If a module already has a listener: one recording at a time per model.
    """
    with _lock:
        if any(_LISTENER in vars(module) for module in listeners):
            raise CaptureError("This model is already being recorded: end the other recording first.")
        for module, listener in listeners.items():
            vars(module)[_LISTENER] = listener
        _count_users(+1)
    try:
        yield
    finally:
        with _lock:
            for module in listeners:
                del vars(module)[_LISTENER]
            _count_users(-1)


def _count_users(change: int) -> None:
    """Install the seam with its first user and remove it with the last. Called with the lock held."""
    installed = vars(ALL_ATTENTION_FUNCTIONS).get(_SEAM)
    users = (installed.users if installed else 0) + change
    if users == 0:
        delattr(ALL_ATTENTION_FUNCTIONS, _SEAM)
        return
    if installed is None:
        installed = _listening(ALL_ATTENTION_FUNCTIONS.get_interface)
        replace_for_good(ALL_ATTENTION_FUNCTIONS, "get_interface", installed)
    installed.users = users


def _listening(get_interface: Callable[..., Callable[..., Any]]) -> Any:
    def get_listening_interface(attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        return partial(_attend, get_interface(attn_implementation, default))

    return get_listening_interface


def _attend(  # noqa: PLR0913, PLR0917 - the kernel, then the signature of attention functions
    kernel: Callable[..., Any],
    module: "nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None" = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    output = kernel(module, query, key, value, attention_mask, *args, **kwargs)
    listener = vars(module).get(_LISTENER)
    if listener is None:
        return output
    return listener(AttentionCall(query, key, value, attention_mask, kwargs, kernel), output)
