"""The recorded rows of one `generate` call: scored on the device, in blocks of steps, and moved to the host once.

A query can be scored as soon as its keys are there, or later, as long as the cache keeps them as they were: its row of
attention is the same. So the queries of several steps wait for each other and are scored in one product, which spares
the model the many small kernels of scoring each step by itself.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from halo_probe.archive.generation import Layer
from halo_probe.capture.dispatch import AttentionCall
from halo_probe.capture.masks import RowMasks
from halo_probe.capture.override import EditedLogits
from halo_probe.capture.rows import image_attention, learned_sinks, row_logits, visible_tokens
from halo_probe.capture.session import Session
from halo_probe.capture.transfers import to_device
from halo_probe.errors import CaptureError

_BLOCK_LOGITS = 2**22
"""Logits of one block, 16 MiB of float32: it bounds the memory of scoring, and of the queries that wait for it."""
_BY_QUERY = ("position_bias", "sinks")
"""Arguments of attention functions that hold something else for every query."""
_FIELDS = 3  # visual mass, first mass, visible


@dataclass
class _Masks:
    """What waiting queries may attend to."""

    keys: list[int] = field(default_factory=list)
    """How many keys each query had."""
    biases: list[torch.Tensor | None] = field(default_factory=list)
    """What the mask of each added."""

    def equal(self, other: "_Masks") -> bool:
        return self.keys == other.keys and all(a is b for a, b in zip(self.biases, other.biases, strict=True))


@dataclass
class _Waiting:
    """Queries of one layer that are not scored yet."""

    steps: list[int] = field(default_factory=list)
    queries: list[torch.Tensor] = field(default_factory=list)
    masks: _Masks = field(default_factory=_Masks)
    key: torch.Tensor | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RowNumbers:
    """The recorded numbers of one returned sequence; T steps, L layers, M image tokens, H heads."""

    eq1: np.ndarray
    """T × L × M, float32."""
    raw: np.ndarray
    """T × L × M, float32."""
    visual_mass: np.ndarray
    """T × L, float32."""
    first_mass: np.ndarray
    """T × L, float32."""
    visible: np.ndarray
    """T × L, int32."""
    heads: np.ndarray | None
    """T × L × H × M, float32, where heads are kept."""


class Rows:
    """Collects the rows of the recorded layers.

    Args:
        session: Where the `generate` call stands.
        masks: Reads the masks of its attention calls.
        layers: The recorded layers, in order.
        keep_heads: Whether each head is kept beside their mean.
        wait: Whether queries may wait for each other; not where the rows of the batch change places.
    """

    def __init__(
        self, session: Session, masks: RowMasks, *, layers: Sequence[Layer], keep_heads: bool, wait: bool
    ) -> None:
        self._session = session
        self._masks = masks
        self._layers = layers
        self._keep_heads = keep_heads
        self._wait = wait
        self._waiting: dict[Layer, _Waiting] = defaultdict(_Waiting)
        self._scored: dict[Layer, list[torch.Tensor]] = defaultdict(list)
        self._steps: dict[Layer, list[int]] = defaultdict(list)
        """The steps of the scored rows, in their order; of a step that comes again the later row holds."""
        self._stacked: tuple[_Masks, torch.Tensor | None] | None = None
        """The masks that were stacked last: layers of one kind share them."""

    def add(self, layer: Layer, call: AttentionCall) -> None:
        """Take the queries of the current steps in.

        Raises:
            CaptureError: If they cannot be scored.
        """
        query, keys = call.query, call.key.shape[2]
        batch, heads, queries, _ = query.shape
        rows = min(len(self._session.steps), queries)
        steps = self._session.steps[-rows:]
        bias = self._masks.bias(call, layer=layer, rows=rows)
        if queries > rows:
            query = query[:, :, -rows:].clone()  # not the whole prompt
        if not self._may_wait(layer, call):
            if layer in self._waiting:  # a sliding cache has begun to drop keys: those from before are still held here
                self._score_waiting(layer)
            logits = row_logits(query, call.key, bias, call.arguments)
            self._score(layer, steps, logits, call.arguments, dropped=self._session.dropped(layer, keys=keys))
            return
        waiting = self._waiting[layer]
        waiting.steps += steps
        waiting.queries.append(query)
        waiting.masks.biases.append(bias)
        waiting.masks.keys.append(keys)
        waiting.key, waiting.arguments = call.key, call.arguments
        if (len(waiting.steps) + rows) * batch * heads * keys > _BLOCK_LOGITS:
            self._score_waiting(layer)

    def add_edited(self, layer: Layer, call: AttentionCall, logits: EditedLogits) -> None:
        """Take in the row of the current step as an intervention left it; what it hid was still within reach."""
        dropped = self._session.dropped(layer, keys=call.key.shape[2])
        steps = [self._session.steps[-1]]
        self._score(layer, steps, logits.edited, call.arguments, dropped=dropped, unedited=logits.plain)

    def finish(self) -> list[torch.Tensor]:
        """Score what waits.

        Returns:
            The scored blocks, each on the device of its layer: for `numbers`, once they are on the host.
        """
        for layer in list(self._waiting):
            self._score_waiting(layer)
        return [block for layer in self._layers for block in self._scored[layer]]

    def numbers(self, blocks: Sequence[torch.Tensor], source: np.ndarray) -> list[RowNumbers]:
        """Cut the blocks of `finish`, on the host, by returned sequence.

        Args:
            blocks: The blocks.
            source: S × T, int64: for each returned sequence and step the row of the batch that it was generated in.

        Raises:
            CaptureError: If a layer was not seen at one of the T steps, or if heads are kept of layers that have
                different numbers of them.
        """
        offsets = self._offsets(source.shape[1])
        if len({block.shape[-1] for block in blocks}) > 1:
            raise CaptureError(
                "The recorded layers have different numbers of heads, so their head maps make no array: record layers "
                "with as many heads as each other, or leave heads='all' out."
            )
        numbers = torch.cat(list(blocks), dim=1).numpy()
        start = 0
        for layer in self._layers:
            offsets[layer] += start
            start += len(self._steps[layer])
        return [self._cut(numbers, list(offsets.values()), rows) for rows in source]

    def _may_wait(self, layer: Layer, call: AttentionCall) -> bool:
        if not self._wait or len(self._session.steps) > 1:
            return False
        if any(call.arguments.get(name) is not None for name in _BY_QUERY):
            return False
        if layer.type == "full_attention":
            return self._session.appends
        nothing_dropped = call.key.shape[2] >= self._session.seen
        return self._session.replaces and nothing_dropped and not layer.crosses

    def _score_waiting(self, layer: Layer) -> None:
        waiting = self._waiting.pop(layer)
        assert waiting.key is not None
        bias = self._stacked_bias(waiting.masks, waiting.key)
        logits = row_logits(torch.cat(waiting.queries, dim=2), waiting.key, bias, waiting.arguments)
        self._score(layer, waiting.steps, logits, waiting.arguments, dropped=0)

    def _stacked_bias(self, masks: _Masks, key: torch.Tensor) -> torch.Tensor | None:
        """Broadcastable to B × H × R × K: the masks of the waiting queries, and no keys that came after them."""
        if self._stacked and self._stacked[0].equal(masks) and _fits(self._stacked[1], key):
            return self._stacked[1]
        shapes = [bias.shape for bias in masks.biases if bias is not None]
        stacked = None
        if shapes or len(masks.keys) > 1:
            keys = to_device(torch.tensor(masks.keys), key.device)
            later = torch.arange(key.shape[2], device=key.device) >= keys[:, None]
            batch, heads = (max((shape[axis] for shape in shapes), default=1) for axis in (0, 1))
            stacked = torch.zeros(batch, heads, *later.shape, device=key.device).masked_fill_(later, -torch.inf)
            for row, bias in enumerate(masks.biases):
                if bias is not None:
                    stacked[:, :, row, : bias.shape[-1]] = bias[:, :, 0]
        self._stacked = masks, stacked
        return stacked

    def _score(  # noqa: PLR0913 - the rows of one layer, and what is needed to read them
        self,
        layer: Layer,
        steps: Sequence[int],
        logits: torch.Tensor,
        arguments: Mapping[str, Any],
        *,
        dropped: int,
        unedited: torch.Tensor | None = None,
    ) -> None:
        places = self._session.places(dropped=dropped, device=logits.device)
        columns = places[:, 1:]
        sinks = learned_sinks(arguments, rows=logits.shape[2])
        seen = image_attention(logits, columns, first=places[:, 0], sink_logits=sinks)
        visible = seen.visible if unedited is None else visible_tokens(unedited, columns)
        first_mass = torch.full_like(seen.first_mass, torch.nan) if layer.crosses else seen.first_mass
        scalars = torch.stack([seen.visual_mass, first_mass, visible.float()], dim=-1)
        numbers = [scalars, seen.eq1, seen.raw]
        if self._keep_heads:
            numbers.append(seen.heads.transpose(1, 2).flatten(2))
        self._scored[layer].append(torch.cat(numbers, dim=-1))
        self._steps[layer] += steps

    def _offsets(self, count: int) -> dict[Layer, np.ndarray]:
        """Where the row of each step is among the scored rows of each layer, T, in the order of the layers."""
        offsets = {}
        for layer in self._layers:
            found = {step: offset for offset, step in enumerate(self._steps[layer])}
            if missing := [step for step in range(count) if step not in found]:
                raise CaptureError(
                    f"No attention was seen at step {missing[0]} of {count} in layer {layer.index}: the model did not "
                    "call transformers' attention functions there, so nothing can be recorded."
                )
            offsets[layer] = np.array([found[step] for step in range(count)], dtype=np.int64)
        return offsets

    def _cut(self, scored: np.ndarray, offsets: Sequence[np.ndarray], rows: np.ndarray) -> RowNumbers:
        numbers = np.stack([scored[rows, places] for places in offsets], axis=1)
        image = self._session.width
        eq1, raw, heads = np.split(numbers[..., _FIELDS:], [image, 2 * image], axis=-1)
        return RowNumbers(
            eq1=eq1,
            raw=raw,
            visual_mass=numbers[..., 0],
            first_mass=numbers[..., 1],
            visible=numbers[..., 2].astype(np.int32),
            heads=heads.reshape(*heads.shape[:2], -1, image) if self._keep_heads else None,
        )


def _fits(bias: torch.Tensor | None, key: torch.Tensor) -> bool:
    return bias is None or (bias.device == key.device and bias.shape[-1] == key.shape[2])
