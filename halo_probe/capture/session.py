"""Which step, and which image columns: where a running `generate` call stands in the prompts that it was given."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, StaticCache

from halo_probe.archive.generation import Layer
from halo_probe.capture.image_tokens import ImageTokens
from halo_probe.capture.pass_inputs import cache_of, positions_given, tokens_given
from halo_probe.capture.transfers import to_device
from halo_probe.errors import CaptureError

if TYPE_CHECKING:
    from torch import nn


_DROP_OLDEST = ("sliding_attention", "chunked_attention", "hybrid_sliding")
"""Types of layers whose cache drops the oldest keys."""
_KEEP_PROMPT = ("reference_sliding_attention",)
"""Types of layers whose cache keeps the prompt and drops the oldest keys of the reply."""


class Session:
    """One `generate` call: the positions that its forward passes cover, and the keys of the image tokens.

    Step t is the query position whose output predicts generated token t (spec §1): position P - 1 + t of the padded
    prompt of P tokens.

    Args:
        images: The image tokens of each prompt.
        lengths: The number of tokens of each prompt, padding left out.
        prompt: P, the padded length.
        copies: How many rows the model runs for each prompt: beams, or returned sequences.
    """

    def __init__(self, images: Sequence[ImageTokens], *, lengths: Sequence[int], prompt: int, copies: int = 1) -> None:
        self.images = images
        self.lengths = lengths
        self.prompt = prompt
        self.copies = copies
        self.steps = range(0)
        """The steps of the current forward pass, in the order of its last query positions; most often one."""
        self.begun = 0
        """Positions that the decoder had been given before the current pass."""
        self.seen = 0
        """Positions that the decoder has been given, the current pass included."""
        self.entered = 0
        """Positions that it had been given by the end of the pass that predicts the first token."""
        self.foreign = False
        """Whether the current pass is none of the call's own, but of another with the same model on the way, such as a
        logits processor makes."""
        self.mixed = False
        """Whether foreign passes cannot be told from the call's own."""
        self.appends = False
        """Whether the current cache keeps the keys of full attention as they were, so that later keys serve as well."""
        self.replaces = False
        """Whether it hands out new tensors of keys instead of writing to the old ones, in sliding layers too."""
        self.last_tokens: torch.Tensor | None = None
        """B: the last token of each row in the current pass."""
        self.width = max(image.positions.size for image in images)
        """M, the largest number of image tokens of a prompt."""
        self._places = {torch.device("cpu"): self._place()}
        self._thread = threading.get_ident()
        self._cache: Any = None

    @contextmanager
    def following(self, model: PreTrainedModel) -> Iterator[None]:
        """Keep up with the forward passes of the model."""
        # What is around the model, such as adapters, may be passed by once `generate` runs.
        called = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), model)
        hooks = [
            called.register_forward_pre_hook(self._note_tokens, with_kwargs=True),
            model.get_decoder().register_forward_pre_hook(self._note_positions, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def here(self) -> bool:
        """Whether this is the thread of the call."""
        return threading.get_ident() == self._thread

    def dropped(self, layer: Layer, *, keys: int) -> int:
        """How many of the oldest keys a sliding cache that now holds so many has let go of.

        Raises:
            CaptureError: If keys are missing from a layer that is not known to drop the oldest.
        """
        missing = 0 if layer.crosses else max(self.seen - keys, 0)
        if not missing or layer.type in _DROP_OLDEST:
            return missing
        if layer.type in _KEEP_PROMPT and keys >= self.prompt:
            return 0
        raise CaptureError(
            f"Layer {layer.index} ({layer.type}) holds {keys} keys for {self.seen} positions, and which it dropped is "
            "not known: record other layers, or generate with fewer tokens than its window has."
        )

    def places(self, *, dropped: int, device: torch.device) -> torch.Tensor:
        """Where the first token of the prompt and then its image tokens are among the keys of a layer.

        Args:
            dropped: How many of the oldest keys are no longer there.
            device: Where the keys are.

        Returns:
            B × (1 + M), int64; negative where a row has fewer than M, the cache has dropped the key, or, for the first
            token, the keys are the image's own.
        """
        places = self._places.get(device)
        if places is None:
            places = self._places[device] = to_device(self._places[torch.device("cpu")], device)
        return places - dropped if dropped else places

    def _place(self) -> torch.Tensor:
        places = np.full((len(self.images), 1 + self.width), -1, dtype=np.int64)
        for row, (image, length) in enumerate(zip(self.images, self.lengths, strict=True)):
            padding = self.prompt - length
            if not image.cross:
                places[row, 0] = padding
            places[row, 1 : 1 + image.positions.size] = image.positions + (0 if image.cross else padding)
        return torch.from_numpy(places).repeat_interleave(self.copies, dim=0)

    def _note_tokens(self, module: "nn.Module", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self.here:
            return
        given = tokens_given(module, args, kwargs)
        self.last_tokens = None if given is None else given[:, -1]

    def _note_positions(self, module: "nn.Module", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self.here:
            return
        cache = cache_of(args, kwargs)
        if not self.seen:
            self._cache = cache
        self.foreign = cache is not self._cache
        if self.foreign:
            self.steps = range(0)
            return
        before, self.begun = self.seen, self._cached(cache)
        self.seen = self.begun + positions_given(module, args, kwargs)
        # Without a cache every pass begins at the prompt, and only its last position is new.
        first = self.seen - 1 if cache is None else self.begun
        self.mixed |= cache is None and before > 0 and first != before
        self.steps = range(max(first - self.prompt + 1, 0), self.seen - self.prompt + 1)
        stays = not getattr(cache, "offloading", False)
        if self.steps and not self.entered:
            self.entered = self.seen
        self.replaces = stays and type(cache) is DynamicCache
        self.appends = stays and type(cache) in (DynamicCache, StaticCache)

    def _cached(self, cache: Any) -> int:
        """Positions in the cache: rejected guesses of assisted decoding are taken out of it again."""
        if cache is None:
            return 0
        if self.seen and _counts_on_device(cache):
            return self.seen  # to read it would wait for the device; such a cache only grows
        return int(cache.get_seq_length())


def _counts_on_device(cache: Any) -> bool:
    return isinstance(cache.get_seq_length(), torch.Tensor)
