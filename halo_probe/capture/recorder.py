"""Recording the attention to the image tokens during a model's own `generate`."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import GenerationConfig

from halo_probe.capture.dispatch import listen
from halo_probe.capture.image_tokens import ImageTokens, check_family, locate_image_tokens
from halo_probe.capture.layers import Layer, LayerChoice, attention_modules, choose_layers
from halo_probe.capture.recording import Generation, Recording
from halo_probe.capture.rows import image_attention, last_row_logits
from halo_probe.errors import CaptureError, UnsupportedModelError, UsageError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Heads = Literal["mean", "all"]
_KERNELS = ("sdpa", "eager")
_MODES = ("greedy_search", "sample")


@dataclass(frozen=True)
class Target:
    """A model that can be recorded: what was checked and chosen before anything ran."""

    model: "PreTrainedModel"
    modules: Mapping[Layer, "nn.Module"]
    kernel: str
    """Name of the attention implementation that the language model runs."""
    layer_count: int
    """Number of attention layers in the language model, recorded or not."""
    last_layer: int
    """Index of the last of them."""
    keep_heads: bool

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The recorded layers, in order."""
        return tuple(self.modules)


def prepare_target(model: "PreTrainedModel", *, layers: LayerChoice = "last", heads: Heads = "mean") -> Target:
    """Check that a model can be recorded and choose its layers.

    Raises:
        UnsupportedModelError: If its family, its kernel or its layers cannot be recorded.
        UsageError: If `layers` or `heads` is not a valid choice.
    """
    if heads not in ("mean", "all"):
        raise UsageError(f"heads={heads!r}: use 'mean' or 'all'.")
    check_family(model.config)
    modules = attention_modules(model)
    chosen = choose_layers(tuple(modules), layers)
    first: Any = modules[chosen[0]]
    kernel: str = first.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    if kernel not in _KERNELS:
        raise UnsupportedModelError(
            f"attention kernel {kernel!r} cannot be recorded; load the model with attn_implementation=sdpa or eager."
        )
    return Target(
        model=model,
        modules={layer: modules[layer] for layer in chosen},
        kernel=kernel,
        layer_count=len(modules),
        last_layer=max(layer.index for layer in modules),
        keep_heads=heads == "all",
    )


@contextmanager
def record_attention(
    model: "PreTrainedModel", *, layers: LayerChoice = "last", heads: Heads = "mean"
) -> Iterator[Recording]:
    """Record the attention to the image tokens in every `model.generate` call inside the context.

    The model runs its own kernel on its own inputs; tokens and logits are bit-identical with and without the recording.
    When the context ends, by an exception too, nothing stays on the model. See spec §1.

    Args:
        model: An image-text-to-text model of transformers.
        layers: `"last"` (the last language-model layer, as in the halo paper), `"all"` or a list of indices.
        heads: `"mean"` keeps head means; `"all"` also keeps `Generation.heads`.

    Yields:
        The recording; its generations are there once each `generate` call has returned.

    Raises:
        UnsupportedModelError: If the model cannot be recorded.
        UsageError: If `layers` or `heads` is not a valid choice.
        NoImageTokensError: From `generate`, before anything is generated, if a prompt has no image token.
        CaptureError: From `generate`, if its options are not supported or its attention was not seen.
    """
    recording = Recording()
    with recording_generate(
        prepare_target(model, layers=layers, heads=heads), deliver=recording.generations.extend, on_error=_raise
    ):
        yield recording


@contextmanager
def recording_generate(
    target: Target, *, deliver: Callable[[list[Generation]], None], on_error: Callable[[CaptureError], None]
) -> Iterator[None]:
    """Record every `generate` call of the target inside the context.

    Args:
        target: What to record.
        deliver: Called with the generations of each call that was recorded.
        on_error: Called with the error of each call that was not: before the model runs where that is known by then.
            If it returns, the model generates as if nobody listened.
    """
    own = vars(target.model)
    if "generate" in own:
        raise CaptureError("This model's `generate` is already replaced: end the other recording, or undo it, first.")
    own["generate"] = partial(_recorded_generate, target, target.model.generate, deliver, on_error)
    try:
        yield
    finally:
        del own["generate"]


def _raise(error: CaptureError) -> None:
    raise error


def _recorded_generate(  # noqa: PLR0913, PLR0917 - what is bound here, then generate's own positional arguments
    target: Target,
    generate: Callable[..., Any],
    deliver: Callable[[list[Generation]], None],
    on_error: Callable[[CaptureError], None],
    inputs: torch.Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    run = partial(generate, inputs, generation_config, *args, **kwargs)
    try:
        input_ids = _prompt_ids(inputs, kwargs)
        images = locate_image_tokens(target.model.config, input_ids, kwargs)
        config = _effective_config(target.model, generation_config, kwargs)
        _check_decoding(target.model, config, kwargs)
    except CaptureError as error:
        on_error(error)
        return run()
    rows = _Rows(target, images, input_ids, kwargs.get("attention_mask"))
    with rows.listening():
        output = run()
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    try:
        generations = rows.generations(sequences[:, input_ids.shape[1] :], config)
    except CaptureError as error:
        on_error(error)
    else:
        deliver(generations)
    return output


def _prompt_ids(inputs: torch.Tensor | None, kwargs: Mapping[str, Any]) -> torch.Tensor:
    input_ids = kwargs.get("input_ids") if inputs is None else inputs
    if input_ids is None or input_ids.is_floating_point():
        raise CaptureError("generate() was called without `input_ids`: the image tokens are found in them.")
    return input_ids


def _effective_config(
    model: "PreTrainedModel", given: GenerationConfig | None, kwargs: Mapping[str, Any]
) -> GenerationConfig:
    """Merge the options as `generate` does: arguments, then the given configuration, then the model's own."""
    config = copy.deepcopy(given or GenerationConfig())
    config.update(**model.generation_config.to_dict(), defaults_only=True, allow_custom_entries=True)
    config.update(**copy.copy(kwargs))
    return config


def _check_decoding(model: "PreTrainedModel", config: GenerationConfig, kwargs: Mapping[str, Any]) -> None:
    mode = config.get_generation_mode(kwargs.get("assistant_model"))
    if mode not in _MODES or (config.num_return_sequences or 1) > 1:
        raise CaptureError(
            f"Recording {str(getattr(mode, 'value', mode)).replace('_', ' ')} with "
            f"{config.num_return_sequences or 1} returned sequence(s) is not supported: use greedy search or sampling "
            "with num_beams=1 and num_return_sequences=1."
        )
    static = config.cache_implementation not in (None, "dynamic", "dynamic_full", "hybrid", "offloaded")
    compiles = config.compile_config is not None or (static and model.device.type != "cpu")
    if compiles and not config.disable_compile:
        raise CaptureError("A compiled decode step cannot be recorded: pass disable_compile=True to generate().")


class _Rows:
    """The attention rows of one `generate` call, collected on the device and moved once at its end."""

    def __init__(
        self,
        target: Target,
        images: list[ImageTokens],
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> None:
        self._target = target
        self._images = images
        self._prompt = input_ids.shape[1]
        lengths = [self._prompt] * len(images) if attention_mask is None else attention_mask.sum(dim=1).tolist()
        self._lengths = [int(length) for length in lengths]
        self._width = max(image.positions.size for image in images)
        columns = np.full((len(images), self._width), -1)
        for row, (image, length) in enumerate(zip(images, self._lengths, strict=True)):
            columns[row, : image.positions.size] = image.positions + (self._prompt - length)
        self._columns = {torch.device("cpu"): torch.from_numpy(columns)}
        self._seen = 0
        """Positions that the decoder has been given, the current call's included."""
        self._steps: dict[int, dict[Layer, torch.Tensor]] = defaultdict(dict)
        self._failure: CaptureError | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the decoder and to its recorded layers."""
        decoder = self._target.model.get_decoder()
        hook = decoder.register_forward_pre_hook(self._count_positions, with_kwargs=True)
        listeners = {module: partial(self._record, layer) for layer, module in self._target.modules.items()}
        try:
            with listen(listeners):
                yield
        finally:
            hook.remove()

    def _count_positions(self, _: "nn.Module", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = kwargs.get("inputs_embeds")
        if given is None:
            given = kwargs["input_ids"] if kwargs.get("input_ids") is not None else args[0]
        cache = kwargs.get("past_key_values")
        if cache is None:
            self._seen = given.shape[1]
            return
        if not self._steps and self._seen == 0:
            # A cache that the caller filled: read once, as the length may be a tensor on the device.
            self._seen = int(cache.get_seq_length())
        self._seen += given.shape[1]

    def _record(
        self,
        layer: Layer,
        _: "nn.Module",
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor | None,
        arguments: Mapping[str, Any],
    ) -> None:
        step = self._seen - self._prompt
        if step < 0 or self._failure:  # a chunk of the prompt that is not its last, or nothing left to save
            return
        try:
            self._steps[step][layer] = self._row(query, key, mask, arguments)
        except CaptureError as error:  # not raised in the middle of the model's own run
            self._failure = error
        except RuntimeError as error:  # such as a full device: the model may still have room for itself
            self._failure = CaptureError(f"The row of layer {layer.index} at step {step} failed: {error}")

    def _row(
        self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, arguments: Mapping[str, Any]
    ) -> torch.Tensor:
        """The numbers of one layer and step, B × (2 M + 2) or more: eq1, raw, visual mass, visible, heads."""
        logits = last_row_logits(query, key, mask, arguments)
        dropped = max(self._seen - key.shape[2], 0)  # a sliding cache has let go of the oldest keys
        logits[..., self._seen - dropped :] = -torch.inf  # a static cache has room for keys to come
        columns = self._columns.get(logits.device)
        if columns is None:
            columns = self._columns[logits.device] = self._columns[torch.device("cpu")].to(logits.device)
        seen = image_attention(logits, columns - dropped if dropped else columns)
        numbers = torch.cat([seen.eq1, seen.raw, seen.visual_mass[:, None], seen.visible[:, None]], dim=1)
        if self._target.keep_heads:
            numbers = torch.cat([numbers, seen.heads.flatten(1)], dim=1)
        return numbers

    def generations(self, tokens: torch.Tensor, config: GenerationConfig) -> list[Generation]:
        """Cut the recorded rows by document and step.

        Args:
            tokens: B × T, the generated tokens.
            config: Effective generation options, for the end-of-sequence and padding tokens.

        Raises:
            CaptureError: If a step or a layer was not seen.
        """
        if self._failure:
            raise self._failure
        count = tokens.shape[1]
        for step in range(count):
            if missing := [layer.index for layer in self._target.layers if layer not in self._steps[step]]:
                raise CaptureError(
                    f"No attention was seen at step {step} of {count} in layer {missing[0]}: the model did not call "
                    "transformers' attention functions there, so nothing can be recorded."
                )
        numbers = self._to_host(count)
        replies = _cut_replies(tokens.cpu().numpy(), config)
        return [self._generation(row, numbers[:, :, row], *reply) for row, reply in enumerate(replies)]

    def _to_host(self, count: int) -> np.ndarray:
        """Steps × layers × rows × numbers, with one transfer per device."""
        layers = self._target.layers
        by_device: dict[torch.device, list[int]] = defaultdict(list)
        for index, layer in enumerate(layers):
            by_device[self._steps[0][layer].device].append(index)
        width = self._steps[0][layers[0]].shape[1]
        numbers = np.empty((count, len(layers), len(self._images), width), dtype=np.float32)
        for indices in by_device.values():
            stacked = torch.stack([self._steps[step][layers[index]] for step in range(count) for index in indices])
            numbers[:, indices] = stacked.cpu().numpy().reshape(count, len(indices), *stacked.shape[1:])
        return numbers

    def _generation(self, row: int, numbers: np.ndarray, token_ids: np.ndarray, ended: bool) -> Generation:  # noqa: FBT001
        image = self._images[row]
        tokens, width = image.positions.size, self._width
        kept = numbers[: len(token_ids)]
        heads = kept[..., 2 * width + 2 :].reshape(*kept.shape[:2], -1, width)
        return Generation(
            token_ids=token_ids,
            ended=ended,
            prompt_length=self._lengths[row],
            image_positions=image.positions,
            grids=image.grids,
            layers=self._target.layers,
            eq1=kept[..., :tokens].copy(),
            raw=kept[..., width : width + tokens].copy(),
            visual_mass=kept[..., 2 * width].copy(),
            visible=kept[..., 2 * width + 1].astype(np.int32),
            heads=heads[..., :tokens].copy() if self._target.keep_heads else None,
        )


def _cut_replies(tokens: np.ndarray, config: GenerationConfig) -> list[tuple[np.ndarray, bool]]:
    """Cut each row after its first end-of-sequence token, or before the padding that follows another stop."""
    ends = np.atleast_1d([] if config.eos_token_id is None else config.eos_token_id)
    replies = []
    for row in tokens:
        stops = np.flatnonzero(np.isin(row, ends))
        if stops.size:
            replies.append((row[: stops[0] + 1], True))
            continue
        content = np.flatnonzero(row != config.pad_token_id) if config.pad_token_id is not None else np.arange(row.size)
        replies.append((row[: content[-1] + 1 if content.size else 0], False))
    return replies
