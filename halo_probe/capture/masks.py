"""Reading what the last query positions may attend to, whichever kernel the mask was made for."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from halo_probe.archive.generation import Layer
from halo_probe.capture.dispatch import AttentionCall
from halo_probe.capture.session import Session
from halo_probe.errors import CaptureError

_PACKED = ("cu_seq_lens_q", "cu_seqlens_q", "cache")
"""Arguments of attention functions that come with packed rows or a paged cache."""
_KNOWN = {
    *("scaling", "softcap", "position_bias", "s_aux", "sinks", "sliding_window"),  # change the row, and are read
    # Do not change it: dropout shows in what the kernel returns, and the last queries are behind every key.
    *("dropout", "is_causal"),
}
"""Arguments that attention functions of transformers declare. One that they do not declare does nothing, but for:"""
_SELECTED = ("block_indices", "indices")
"""Keys that the layer selects by itself; for `sdpa` and `eager` they are in the mask already."""
_MASKED = ("sdpa", "eager")


def is_flash(kernel: str) -> bool:
    """Whether a kernel takes two-dimensional masks or none, and windows as an argument."""
    return "flash" in kernel.lower()


class RowMasks:
    """The masks of the current forward pass, as numbers to add to the logits of its last query positions.

    Layers of one kind share a mask; it is read for the first of them and kept for the others.

    Args:
        session: Where the `generate` call stands.
        kernel: Name of the attention implementation.
    """

    def __init__(self, session: Session, *, kernel: str) -> None:
        self._session = session
        self._flash = is_flash(kernel)
        self._masked = kernel in _MASKED
        self._known: list[tuple[Any, tuple[Any, ...], torch.Tensor | None]] = []
        self._pass = -1

    def bias(self, call: AttentionCall, *, layer: Layer, rows: int) -> torch.Tensor | None:
        """What is added to the logits of the last `rows` queries: 0 or -inf, or numbers where the mask holds them.

        Args:
            call: What the attention function was given.
            layer: The layer that was called.
            rows: R, the number of query positions, counted from the end.

        Returns:
            Broadcastable to B × H × R × K, float32; None where every key is attended to.

        Raises:
            CaptureError: If the rows of the batch are packed into one, or if the attention function was given something
                that the probe cannot read.
        """
        self._refuse_unread(call)
        if self._pass != self._session.seen:
            self._known, self._pass = [], self._session.seen
        window = call.arguments.get("sliding_window") if self._flash else None
        key = (rows, call.key.shape[2], call.query.shape[2], call.key.device, window, layer.crosses)
        for mask, known, bias in self._known:
            if mask is call.mask and known == key:
                return bias
        allowed = None if layer.crosses else self._within_reach(call, rows, window)
        bias = _read_mask(call, rows)
        if allowed is not None:
            bias = _hidden(allowed) if bias is None else bias + _hidden(allowed)
        self._known.append((call.mask, key, bias))
        return bias

    def _refuse_unread(self, call: AttentionCall) -> None:
        for name in _unread(call.kernel, masked=self._masked):
            if call.arguments.get(name) is None:
                continue
            if name in _PACKED:
                raise CaptureError(
                    f"The attention function was given {name!r}: rows packed into one, or a paged cache, cannot be "
                    "recorded; generate with a padded batch and an ordinary cache."
                )
            raise CaptureError(
                f"The attention function was given {name!r}, which changes the attention in a way that the probe "
                "does not read: load the model with attn_implementation=sdpa or eager, or do not record it."
            )

    def _within_reach(self, call: AttentionCall, rows: int, window: int | None) -> torch.Tensor | None:
        """1 × 1 × R × K, bool: keys that are neither ahead of the query nor behind its window; None where all are."""
        seen, keys = self._session.seen, call.key.shape[2]
        dropped = max(seen - keys, 0)  # whichever they were: none of the newest, which alone can be ahead
        if rows == 1 and dropped + keys == seen and (window is None or keys <= window):
            return None
        device = call.key.device
        query = torch.arange(seen - rows, seen, device=device)[:, None]
        key = torch.arange(dropped, dropped + keys, device=device)
        allowed = key <= query  # a static cache has room for keys to come
        return (allowed if window is None else allowed & (key > query - window))[None, None]


@lru_cache(maxsize=64)
def _unread(kernel: Callable[..., Any], *, masked: bool) -> tuple[str, ...]:
    """The arguments that an attention function declares, that would change the row and that are not read."""
    unknown = set(inspect.signature(kernel).parameters).difference(_KNOWN, _PACKED, _SELECTED)
    return (*_PACKED, *(() if masked else _SELECTED), *sorted(unknown))


def _read_mask(call: AttentionCall, rows: int) -> torch.Tensor | None:
    mask, keys = call.mask, call.key.shape[2]
    if mask is None:
        return None
    if hasattr(mask, "mask_mod"):
        return _hidden(_block_mask_rows(call, rows))
    if mask.dim() == 2:  # noqa: PLR2004 - flash attention: keys that are no padding
        padding = mask.bool()
        room = keys - padding.shape[1]  # of a static cache
        return _hidden(torch.nn.functional.pad(padding, (0, room))[:, None, None, :])
    row_mask = mask[:, :, -rows:, :keys]
    if row_mask.dtype == torch.bool:
        return _hidden(row_mask)
    # Eager masks add the lowest number of their dtype instead of -inf, on which a softmax over masked keys alone
    # would come out uniform.
    numbers: torch.Tensor = row_mask.float().masked_fill(row_mask <= torch.finfo(row_mask.dtype).min / 2, -torch.inf)
    return numbers


def _block_mask_rows(call: AttentionCall, rows: int) -> torch.Tensor:
    """Flex attention's mask is a function of indices: evaluate it where it is needed."""
    device, queries = call.key.device, call.query.shape[2]
    batch = torch.arange(call.query.shape[0], device=device)[:, None, None]
    query = torch.arange(queries - rows, queries, device=device)[None, :, None]
    key = torch.arange(call.key.shape[2], device=device)
    allowed: torch.Tensor = call.mask.mask_mod(batch, torch.zeros_like(batch), query, key)
    return allowed.expand(len(batch), rows, len(key))[:, None]


def _hidden(allowed: torch.Tensor) -> torch.Tensor:
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, -torch.inf)
