"""Recording the attention to the image tokens during a model's own `generate`."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from halo_probe.archive.generation import Generation, Given, Layer
from halo_probe.capture.collection import Rows
from halo_probe.capture.decoding import Decoding, given_config
from halo_probe.capture.dispatch import AttentionCall, listen
from halo_probe.capture.families import family_of
from halo_probe.capture.fingerprint import Fingerprints, tensors_in
from halo_probe.capture.image_tokens import check_family, locate_image_tokens
from halo_probe.capture.kernel_output import KernelOutputs
from halo_probe.capture.layers import LayerChoice, attention_modules, choose_layers
from halo_probe.capture.masks import RowMasks, is_flash
from halo_probe.capture.override import EditedLogits, Override
from halo_probe.capture.pass_inputs import newer_than_proven
from halo_probe.capture.recording import Recording
from halo_probe.capture.rows import row_logits
from halo_probe.capture.session import Session
from halo_probe.capture.sinks import VisualSinks, sink_layers
from halo_probe.capture.transfers import to_host
from halo_probe.errors import CaptureError, HaloError, UnsupportedModelError, UsageError, first_line
from halo_probe.replacing import replaced

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from halo_probe.capture.interventions import Intervention

Heads = Literal["mean", "all"]
_KERNELS = ("sdpa", "eager", "flex_attention")


@dataclass(frozen=True)
class Target:
    """A model that can be recorded: what was checked and chosen before anything ran."""

    model: "PreTrainedModel"
    modules: Mapping[Layer, "nn.Module"]
    """The attention module of each recorded layer, in order."""
    attention: Mapping[Layer, "nn.Module"]
    """That of every layer of the language model that has one."""
    kernel: str
    """Name of the attention implementation that the language model runs."""
    keep_heads: bool
    sink_layers: Sequence["nn.Module"] = ()
    """The decoder layers in whose hidden states visual sinks are looked for; empty where they are not asked for."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The recorded layers, in order."""
        return tuple(self.modules)

    @property
    def layer_count(self) -> int:
        """Number of attention layers in the language model, recorded or not."""
        return len(self.attention)

    @property
    def last_layer(self) -> int:
        """Index of the last of them."""
        return max(layer.index for layer in self.attention)


def prepare_target(
    model: "PreTrainedModel", *, layers: LayerChoice = "last", heads: Heads = "mean", sinks: bool = False
) -> Target:
    """Check that a model can be recorded and choose its layers. The arguments are those of `record_attention`.

    Warns where no row of the table of families is about the model.

    Raises:
        UnsupportedModelError: If its family, its kernel or its layers cannot be recorded.
        UsageError: If `layers` or `heads` is not a valid choice.
    """
    if heads not in ("mean", "all"):
        raise UsageError(f"heads={heads!r}: use 'mean' or 'all'.")
    check_family(model.config)
    if not model.can_generate():
        raise UnsupportedModelError(
            f"{type(model).__name__} has no head to generate with: load the checkpoint with "
            "AutoModelForImageTextToText, or with another model of lmms-eval."
        )
    if not (family := family_of(model.config)).known:
        warnings.warn(
            f"model type {family.model_type!r} is not proven (docs/families.md): by the general rule, {family.note}",
            stacklevel=3,
        )
    modules = attention_modules(model)
    chosen = choose_layers(tuple(modules), layers)
    first: Any = modules[chosen[0]]
    kernel: str = first.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    if kernel.startswith("paged|") or not (kernel in _KERNELS or is_flash(kernel)):
        raise UnsupportedModelError(
            f"attention kernel {kernel!r} cannot be recorded; load the model with attn_implementation=sdpa, eager, "
            "flash_attention_2 or flex_attention."
        )
    return Target(
        model=model,
        modules={layer: modules[layer] for layer in chosen},
        attention=modules,
        kernel=kernel,
        keep_heads=heads == "all",
        sink_layers=sink_layers(model) if sinks else (),
    )


@contextmanager
def record_attention(
    model: "PreTrainedModel",
    *,
    layers: LayerChoice = "last",
    heads: Heads = "mean",
    sinks: bool = False,
    intervention: "Intervention | None" = None,
) -> Iterator[Recording]:
    """Record the attention to the image tokens in every `model.generate` call inside the context.

    The model runs its own kernel on its own inputs; tokens and logits are bit-identical with and without the recording.
    When the context ends, by an exception too, nothing stays on the model. See spec §1.

    Args:
        model: An image-text-to-text model of transformers.
        layers: `"last"` (the last language-model layer, as in the halo paper), `"all"` or a list of indices.
        heads: `"mean"` keeps head means; `"all"` also keeps `Generation.heads`.
        sinks: Whether to look for visual sinks among the image tokens: `Generation.sink_tokens`.
        intervention: What to do to the attention on the way, in layers that need not be recorded; those that are show
            what it made of them. The kernel runs as ever, and the row of the current step alone is computed again.

    Yields:
        The recording; its generations are there once each `generate` call has returned.

    Raises:
        UnsupportedModelError: If the model cannot be recorded.
        UsageError: If `layers`, `heads` or the intervention does not fit the model.
        NoImageTokensError: From `generate`, before anything is generated, if a prompt has no image token.
        CaptureError: From `generate`, if its options are not supported, if its attention was not seen, or if the kernel
            does not return what its arguments say; at the end of the context, if no call of `generate` was recorded.
    """
    recording = Recording()
    errors: list[CaptureError] = []

    def raise_and_note(error: CaptureError) -> None:
        errors.append(error)
        raise error

    with recording_generate(
        prepare_target(model, layers=layers, heads=heads, sinks=sinks),
        deliver=recording.generations.extend,
        on_error=raise_and_note,
        intervention=intervention,
    ):
        yield recording
    if not recording.generations and not errors:
        raise CaptureError(
            "Nothing was recorded: `generate` of this model was not called inside the context. Call it there, on the "
            "model that was given, as `model.generate(...)`: a method that was looked up before the context began, or "
            "one called on the class, goes past the recording."
        )


@contextmanager
def recording_generate(
    target: Target,
    *,
    deliver: Callable[[list[Generation]], None],
    on_error: Callable[[CaptureError], None],
    intervention: "Intervention | None" = None,
) -> Iterator[None]:
    """Record every `generate` call of the target inside the context.

    Args:
        target: What to record.
        deliver: Called with the generations of each call that was recorded: one for each returned sequence.
        on_error: Called with the error of each call that was not: before the model runs where that is known by then.
            If it returns, the model generates as if nobody listened.
        intervention: What to do to the attention on the way. Where it fails the call itself raises: its reply would
            not be what it claims to be.

    Raises:
        UsageError: If the intervention does not fit the model.
        CaptureError: If the model's `generate` is already replaced.
    """
    if "generate" in vars(target.model):
        raise CaptureError("This model's `generate` is already replaced: end the other recording, or undo it, first.")
    change = None
    if intervention is not None and not intervention.is_identity:
        intervention.require_resolved()
        indices = intervention.layer_indices(layer.index for layer in target.attention)
        change = _Change(intervention, tuple(layer for layer in target.attention if layer.index in indices))
    busy: set[int] = set()
    generate = partial(_recorded_generate, target, change, target.model.generate, deliver, on_error, busy)
    with replaced(target.model, "generate", generate):
        yield


@contextmanager
def recorded(target: Target, *, intervention: "Intervention | None" = None) -> Iterator[list[Generation]]:
    """Record every `generate` call of the target inside the context; a call that cannot be recorded raises.

    Args:
        target: What to record.
        intervention: What to do to the attention on the way.

    Yields:
        What was recorded, once each call has returned.
    """
    generations: list[Generation] = []
    with recording_generate(target, deliver=generations.extend, on_error=_raise, intervention=intervention):
        yield generations


def _raise(error: CaptureError) -> None:
    raise error


@dataclass(frozen=True)
class _Change:
    """An intervention and the layers of the model that it acts in."""

    intervention: "Intervention"
    layers: tuple[Layer, ...]


def _recorded_generate(  # noqa: PLR0913, PLR0917 - before the arguments of `generate`
    target: Target,
    change: _Change | None,
    generate: Callable[..., Any],
    deliver: Callable[[list[Generation]], None],
    on_error: Callable[[CaptureError], None],
    busy: set[int],
    *args: Any,
    **kwargs: Any,
) -> Any:
    run = partial(generate, *args, **kwargs)  # exactly what was given: not every model's second argument is the same
    thread = threading.get_ident()
    if thread in busy:  # a call on the way of another, such as a logits processor makes
        return run()
    with ExitStack() as stack:
        try:
            call = _call(target, change, args, kwargs)
            stack.enter_context(call.listening())
        except CaptureError as error:
            on_error(error)
            return run()
        busy.add(thread)
        stack.callback(busy.discard, thread)
        output = run(return_dict_in_generate=True) if call.decoding.needs_dict else run()
    try:
        generations = call.generations(output)
    except CaptureError as error:
        on_error(error)
    else:
        deliver(generations)
    return output.sequences if call.decoding.needs_dict and not call.decoding.returns_dict else output


def _call(target: Target, change: _Change | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> "_Call":
    try:
        return _Call(target, change, args, kwargs)
    except HaloError:
        raise
    except Exception as error:  # whatever it was, the model itself may know what to do with these arguments
        raise CaptureError(
            f"What generate() was given cannot be read ({type(error).__name__}: {first_line(error)})."
        ) from error


class _Call:
    """One `generate` call that is recorded.

    Raises:
        CaptureError: If its prompt or its options cannot be recorded.
    """

    def __init__(
        self,
        target: Target,
        change: _Change | None,
        positional: Sequence[Any],
        arguments: Mapping[str, Any],
    ) -> None:
        given = _on_host({**arguments, "input_ids": _prompt_ids(positional, arguments)})
        input_ids: torch.Tensor = given["input_ids"]
        self.decoding = Decoding(target.model, given_config(positional, arguments), arguments)
        mask = self.decoding.attention_mask(input_ids, given.get("attention_mask"))
        images = locate_image_tokens(target.model.config, input_ids, {**given, "attention_mask": mask})
        if change and not (self.decoding.keeps_rows and self.decoding.keeps_cache):
            raise CaptureError(
                "An intervention needs greedy search or sampling with a cache: set num_beams=1 and use_cache=True, and "
                "give no assistant."
            )
        self._prompts = input_ids
        # Of several prompts that come together it is not known which rows of pixels are whose.
        alone = len(images) == 1
        self._pictures = Fingerprints(_pictures(arguments, prompt=input_ids.shape[1]) if alone else ())
        self._target = target
        self._session = Session(
            images,
            lengths=[input_ids.shape[1]] * len(images) if mask is None else [int(n) for n in mask.sum(dim=1).tolist()],
            prompt=input_ids.shape[1],
            copies=self.decoding.copies,
        )
        self._masks = RowMasks(self._session, kernel=target.kernel)
        self._outputs = KernelOutputs(kernel=target.kernel)
        self._rows = Rows(
            self._session,
            self._masks,
            layers=target.layers,
            keep_heads=target.keep_heads,
            wait=self.decoding.keeps_keys,
        )
        self._sinks = VisualSinks(target.sink_layers, self._session) if target.sink_layers else None
        self._override = Override(change.intervention, self._session, self._masks) if change else None
        self._changed = change.layers if change else ()
        self._failure: CaptureError | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Follow the model, and listen to its recorded layers and those intervened on."""
        layers = {*self._target.layers, *self._changed}
        listeners = {self._target.attention[layer]: partial(self._attend, layer) for layer in layers}
        with ExitStack() as stack:
            stack.enter_context(self._session.following(self._target.model))
            stack.enter_context(listen(listeners))
            if self._sinks:
                stack.enter_context(self._sinks.watching())
            yield

    def _attend(self, layer: Layer, call: AttentionCall, output: Any) -> Any:
        if not self._session.steps or not self._session.here:  # a chunk of the prompt that is not its last, or foreign
            return output
        if not self._outputs.seen(layer) and not self._failure:
            self._trying(layer, self._compare, layer, call, output)
        edited = None
        if self._override and layer in self._changed:
            self._require_prompt()
            edited, output = self._override.apply(layer, call, output)
        if layer in self._target.modules and not self._failure:
            self._trying(layer, self._record, layer, call, edited)
        return output

    def _compare(self, layer: Layer, call: AttentionCall, output: Any) -> None:
        """Compare what the kernel returned with the row that its arguments say."""
        bias = self._masks.bias(call, layer=layer, rows=1)
        logits = row_logits(call.query[:, :, -1:], call.key, bias, call.arguments)
        self._outputs.compare(layer, call, output, logits[:, :, 0])

    def _record(self, layer: Layer, call: AttentionCall, edited: EditedLogits | None) -> None:
        self._require_prompt()
        if edited is None:
            self._rows.add(layer, call)
        else:
            self._rows.add_edited(layer, call, edited)

    def _trying(self, layer: Layer, act: Callable[..., None], *given: Any) -> None:
        """Do something with a row; what goes wrong there is kept for when the model is done."""
        try:
            act(*given)
        except CaptureError as error:  # not raised in the middle of the model's own run
            self._failure = error
        except RuntimeError as error:  # such as a full device: the model may still have room for itself
            step = self._session.steps[-1]
            self._failure = CaptureError(f"The row of layer {layer.index} at step {step} failed: {error}")

    def _require_prompt(self) -> None:
        """Refuse what puts positions beside those of `input_ids`: image tokens and steps would be looked for amiss."""
        entered, prompt = self._session.entered, self._session.prompt
        if entered != prompt and not self.decoding.guesses:
            raise CaptureError(
                f"The model was given {entered} positions for the {prompt} of `input_ids`: leave out virtual tokens "
                "(prompt or prefix tuning) and `inputs_embeds` of another length."
            )

    def generations(self, output: Any) -> list[Generation]:
        """Cut what was recorded by returned sequence and step.

        Raises:
            CaptureError: If a row could not be computed, or a step or a layer was not seen.
        """
        if self._failure:
            raise self._failure
        if self._session.mixed:
            if self.decoding.keeps_cache:
                raise CaptureError(
                    "No argument of the language model's passes is a Cache of transformers, though generate() was to "
                    f"use one, so its passes cannot be told apart. {newer_than_proven()}"
                )
            raise CaptureError(
                "Something else ran the model between its steps, such as a logits processor, and without a cache its "
                "passes cannot be told apart: generate with use_cache=True."
            )
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        replies = sequences[:, self._session.prompt :]
        try:
            blocks = self._rows.finish()
            found = self._sinks.found() if self._sinks else []
            excesses = self._outputs.excesses()
            (replies, *beams), blocks, found, excesses, pictures = to_host(
                [replies, *self.decoding.beams(output)], blocks, found, excesses, self._pictures.sums
            )
        except RuntimeError as error:
            if isinstance(error, CaptureError):
                raise
            raise CaptureError(f"The rows could not be computed: {error}") from error
        self._outputs.require_equal(excesses)
        tokens = replies.numpy()
        numbers = self._rows.numbers(blocks, self.decoding.sources(beams, shape=tokens.shape))
        sinks = torch.stack(found).any(dim=0).numpy() if found else None
        seen = self._pictures.sha256(pictures) if self._pictures.sums else None
        generations = []
        for sequence, (token_ids, ended) in enumerate(self.decoding.replies(tokens)):
            prompt, steps = self.decoding.prompt_of(sequence), len(token_ids)
            image, one = self._session.images[prompt], numbers[sequence]
            count = image.positions.size
            generations.append(
                Generation(
                    token_ids=token_ids,
                    ended=ended,
                    views=image.views,
                    layers=self._target.layers,
                    eq1=one.eq1[:steps, :, :count].copy(),
                    raw=one.raw[:steps, :, :count].copy(),
                    visual_mass=one.visual_mass[:steps].copy(),
                    first_mass=one.first_mass[:steps].copy(),
                    visible=one.visible[:steps].copy(),
                    heads=None if one.heads is None else one.heads[:steps, ..., :count].copy(),
                    sink_tokens=None if sinks is None else sinks[prompt * self._session.copies, :count].copy(),
                    given=Given(
                        prompt=self._prompts[prompt, -self._session.lengths[prompt] :].numpy(),
                        image_positions=image.positions,
                        pictures=seen,
                        options=self.decoding.options,
                    ),
                )
            )
        return generations


def _on_host(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the prompt on the host: ids, masks and sizes, all but floating-point tensors."""
    whole = {
        name: value
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and not value.is_floating_point()
    }
    (moved,) = to_host(list(whole.values()))
    return {**arguments, **dict(zip(whole, moved, strict=True))}


def _pictures(arguments: Mapping[str, Any], *, prompt: int) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that `generate` is given, without those that say something of each token: pixels and sizes."""
    for name, value in arguments.items():
        for own, tensor in tensors_in(name, value):
            if tensor.shape[1:2] != (prompt,):
                yield own, tensor


def _prompt_ids(positional: Sequence[Any], arguments: Mapping[str, Any]) -> torch.Tensor:
    given = [*positional[:1], arguments.get("inputs"), arguments.get("input_ids")]
    input_ids = next((one for one in given if one is not None), None)
    if input_ids is None or input_ids.is_floating_point():
        raise CaptureError("generate() was called without `input_ids`: the image tokens are found in them.")
    tensor: torch.Tensor = input_ids
    return tensor
