"""Proof, on one input, that what is recorded of a model is what the model does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from halo_probe.archive.generation import Generation, Layer
from halo_probe.capture.decoding import GREEDY
from halo_probe.capture.dispatch import AttentionCall, listen
from halo_probe.capture.interventions import Intervention
from halo_probe.capture.pass_inputs import positions_given, without_cache
from halo_probe.capture.recorder import Target, recorded
from halo_probe.capture.rows import full_precision
from halo_probe.errors import CaptureError, first_line
from halo_probe.replacing import replaced

if TYPE_CHECKING:
    from torch import nn

_STEPS = 3
_SUM_TOLERANCE = 1e-3
_KERNEL_TOLERANCES = {True: (1e-3, 1e-3), False: (0.5, 0.2)}
"""How far the model's own kernel and eager may lie apart, in float32 and in half precision: hidden states drift apart
from layer to layer there. The first number is a share of the attention to the image, the second of its mass."""
_TOLERANCES = (1e-3, 1e-3)
"""How far what is recorded beside the eager kernel may lie from that kernel, of the same queries and keys."""

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The arguments of a `generate` call."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    """What should hold."""
    passed: bool | None
    """None where it could not be tried."""
    detail: str
    remedy: str
    """What to do if it failed."""


def check_capture(target: Target, call: Call) -> tuple[list[Finding], Generation]:
    """Generate up to three tokens for an input: plain, recorded, with the eager kernel and without the image.

    Args:
        target: What is recorded.
        call: How the model is given the input; decoding options are replaced by greedy ones.

    Returns:
        The findings, and the recording that most are about.

    Raises:
        NoImageTokensError: If the input has no image.
        CaptureError: If it cannot be recorded at all.
    """
    plain = _generate(target, call)
    generation, beside = _recorded(target, call)
    return [
        _same_tokens(plain, beside),
        _tried("rows sum to one", partial(_sums, generation)),
        _grid(generation),
        _tried("rows equal eager attention", partial(_equals_eager, target, call, generation, plain)),
        _tried("the model uses what is recorded", partial(_matters, target, call, generation, plain)),
    ], generation


def record_once(target: Target, call: Call) -> Generation:
    """Record one token for an input; arguments and errors are those of `check_capture`."""
    return _recorded(target, call, tokens=1)[0]


def require_sound(findings: Sequence[Finding]) -> None:
    """Refuse a model of which a check failed.

    Raises:
        CaptureError: Naming the failed checks, and what to do.
    """
    if failed := [one for one in findings if one.passed is False]:
        listed = " ".join(f"It does not hold that {one.name}: {one.detail}. {one.remedy}." for one in failed)
        raise CaptureError(
            f"what would be recorded of this model is not what it does. {listed} Or go on at your own risk with "
            "check=false."
        )


@contextmanager
def before_first_call(target: Target, act: Callable[[Call], None]) -> Iterator[None]:
    """Do something with the arguments of the first `generate` call of a model that is being recorded.

    Args:
        target: The recorded model.
        act: It finds the model as if nobody recorded it.
    """
    recording = target.model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        own = vars(target.model)
        del own["generate"]
        try:
            act((args, kwargs))
        finally:
            own["generate"] = recording
        return recording(*args, **kwargs)

    with replaced(target.model, "generate", generate):
        yield


def _generate(target: Target, call: Call, *, tokens: int = _STEPS) -> Any:
    args, kwargs = call
    options = {**GREEDY, "max_new_tokens": tokens, "return_dict_in_generate": True, "output_logits": True}
    return target.model.generate(*args, **{**without_cache(kwargs), **options})


def _recorded(target: Target, call: Call, *, tokens: int = _STEPS) -> tuple[Generation, Any]:
    """The first sequence that is recorded, and what `generate` returns."""
    with recorded(target) as generations:
        output = _generate(target, call, tokens=tokens)
    return generations[0], output


def _tried(name: str, check: Callable[[str], Finding]) -> Finding:
    """A check that an input may not allow, or that needs more than the run itself does: memory, or another kernel."""
    try:
        return check(name)
    except (CaptureError, RuntimeError, ValueError, LookupError, ImportError) as error:
        return Finding(name, None, f"could not be tried ({first_line(error)})", "")


def _same_tokens(plain: Any, recorded: Any) -> Finding:
    same = torch.equal(plain.sequences, recorded.sequences) and all(map(torch.equal, plain.logits, recorded.logits))
    return Finding(
        "recording changes nothing",
        same,
        f"{len(plain.logits)} tokens and their logits are{'' if same else ' not'} the same without the recording",
        "Evaluate this model without the probe and report it",
    )


def _seeing(generation: Generation) -> list[int]:
    """The recorded layers whose window reaches back to the image from the end of the prompt."""
    seeing: list[int] = np.flatnonzero(generation.visible[0]).tolist()
    if not seeing:
        raise CaptureError("the sliding windows of the recorded layers end after the image in this prompt")
    return seeing


def _sums(generation: Generation, name: str) -> Finding:
    _seeing(generation)
    seen = generation.visible > 0
    off = np.abs(np.where(seen, generation.eq1.sum(axis=-1), 1) - 1).max()
    mass_off = np.abs(generation.raw.sum(axis=-1) - generation.visual_mass).max()
    mass = generation.visual_mass
    within = mass.min() >= 0 and mass.max() <= 1 + _SUM_TOLERANCE
    return Finding(
        name,
        bool(within and max(off, mass_off) <= _SUM_TOLERANCE),
        f"off by at most {max(off, mass_off):.1e}; {mass.min():.3f} to {mass.max():.3f} of it is on the image",
        "Load the model in bfloat16 or float32",
    )


def _grid(generation: Generation) -> Finding:
    tokens, cells = generation.image_tokens, sum(height * width for height, width in generation.grids)
    shown = ", ".join(f"{height}x{width}" for height, width in generation.grids[:4])
    more = f" and {len(generation.grids) - 4} more" if len(generation.grids) > 4 else ""  # noqa: PLR2004 - as above
    raster = f"{shown}{more}" if generation.grids else "no raster, so there are no spatial metrics"
    return Finding(
        "image tokens fit their grid",
        tokens > 0 and (cells == tokens or not generation.grids),
        f"{tokens} image tokens: {raster}",
        "Give images of another size, or report the family",
    )


def _equals_eager(target: Target, call: Call, generation: Generation, plain: Any, name: str) -> Finding:
    """The attention of the first step as eager attention has it, beside what is recorded then, and was before."""
    seeing = _seeing(generation)
    prompt = plain.sequences.shape[1] - len(plain.logits)
    decoder: Any = target.model.get_decoder()
    decoder.set_attn_implementation("eager")
    try:
        beside = record_once(target, call)
        with _keeping_weights(target, prompt=prompt) as weights:
            _generate(target, call, tokens=1)
    finally:
        decoder.set_attn_implementation(target.kernel)
    own, off = (
        np.max([_distance(weights, one, index, prompt=prompt) for index in seeing], axis=0)
        for one in (beside, generation)
    )
    most = [_TOLERANCES, _KERNEL_TOLERANCES[target.model.dtype == torch.float32]]
    return Finding(
        name,
        bool(np.all(np.array([own, off]) <= most)),
        f"{own[0]:.1e} of the attention to the image lies elsewhere, {off[0]:.1e} with the kernel {target.kernel}; "
        f"its mass differs by {own[1]:.1e} and {off[1]:.1e}",
        "Load the model with attn_implementation=eager and compare",
    )


@contextmanager
def _keeping_weights(target: Target, *, prompt: int) -> Iterator[dict[Layer, torch.Tensor]]:
    """Keep the last row of each layer's attention weights, heads × keys, in the pass that ends the prompt.

    A prompt of so many positions may be given in several passes, and passes that are not of it may follow, such as
    those of classifier-free guidance.
    """
    weights: dict[Layer, torch.Tensor] = {}
    passes: list[int] = []  # how many positions each of the decoder's was given

    def note_pass(module: "nn.Module", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        passes.append(positions_given(module, args, kwargs))

    def keep(layer: Layer, module: "nn.Module", call: AttentionCall, output: Any) -> Any:
        if sum(passes[:-1]) < prompt:
            weights[layer] = _last_row(module, call)
        return output

    hook = target.model.get_decoder().register_forward_pre_hook(note_pass, with_kwargs=True)
    try:
        with listen({module: partial(keep, layer, module) for layer, module in target.modules.items()}):
            yield weights
    finally:
        hook.remove()


def _last_row(module: "nn.Module", call: AttentionCall) -> torch.Tensor:
    """The last row of the first prompt's attention weights, as the kernel has them in float32."""
    with full_precision(call.query):
        exact = call.kernel(
            module, call.query.float(), call.key.float(), call.value.float(), call.mask, **call.arguments
        )[1]
    if exact is None:
        raise CaptureError("the eager kernel returns no weights")
    row: torch.Tensor = exact[0, :, -1].cpu()
    return row


def _distance(
    weights: Mapping[Layer, torch.Tensor], generation: Generation, index: int, *, prompt: int
) -> tuple[float, float]:
    """How far the recorded map of the first step lies from the weights of its layer.

    Args:
        weights: The last row of the prompt of each layer, heads × keys.
        generation: What was recorded of the first prompt.
        index: Which of its layers.
        prompt: The length of the prompt, padding included.

    Returns:
        Half the sum of differences between the two maps, each of sum 1, and the difference between their sums.

    Raises:
        CaptureError: If the layer has no weights.
    """
    layer = generation.layers[index]
    if layer not in weights:
        raise CaptureError(f"the eager kernel was not called in layer {layer.index}")
    row = weights[layer].mean(dim=0).numpy()
    places = generation.image_positions
    if not layer.crosses:
        # Padding stands before the prompt. A static cache has room behind it; a sliding one may lack its first keys.
        places = places + (prompt - generation.prompt_length) - max(prompt - row.size, 0)
    eager = np.where(places >= 0, row[np.maximum(places, 0)], 0)
    recorded = generation.raw[0, index]
    mass, recorded_mass = eager.sum(), recorded.sum()
    return float(np.abs(eager / mass - recorded / recorded_mass).sum() / 2), float(abs(mass - recorded_mass))


def _matters(target: Target, call: Call, generation: Generation, plain: Any, name: str) -> Finding:
    _seeing(generation)
    layers = tuple(layer.index for layer in target.layers)
    with recorded(target, intervention=Intervention(name="knockout", steps="prefill_last", layers=layers)):
        without = _generate(target, call, tokens=1)
    moved = float((without.logits[0] - plain.logits[0]).abs().max())
    return Finding(
        name,
        moved > 0,
        f"without the recorded attention to the image the logits move by up to {moved:.2g}",
        "Record other layers",
    )
