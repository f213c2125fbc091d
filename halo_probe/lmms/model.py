"""`--model halo`: any lmms-eval model with its attention recorded. `--model halo_tiny`: the embedded model so probed.

The instance that lmms-eval gets is the base model's own, so prompts, decoding and answers are the base model's. Two
classes, because lmms-eval checks `is_simple` on the class that it looked up.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from lmms_eval import models
from lmms_eval.api.model import lmms
from transformers import PreTrainedModel

from halo_probe.capture.recorder import prepare_target
from halo_probe.embedded.trained import Variant, trained_checkpoint
from halo_probe.errors import UnsupportedModelError, UsageError, first_line
from halo_probe.lmms.arguments import Arguments, batch_size, parse_arguments
from halo_probe.lmms.base import infer_base
from halo_probe.lmms.boundary import ending_loudly
from halo_probe.lmms.probed import ProbedRun
from halo_probe.lmms.run import attach

_TINY = "halo_tiny"
_PROBES = ("halo", _TINY)
"""Models that probe another one, and so are no base of it."""


class _Halo(lmms):
    """Creates the base model and attaches a run to it; never instantiated itself."""

    registered = "halo"

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str | Mapping[str, Any], additional_config: dict[str, Any] | None = None
    ) -> lmms:
        """Create the base model from `[base=NAME][,layers=…][,maps=DIR],…`, with its `generate` recorded.

        Args:
            arg_string: Our arguments and those of the base model, as in `--model_args` or in a `--config` file.
            additional_config: lmms-eval's batch size and device.
        """
        with ending_loudly():
            settings = {name: value for name, value in (additional_config or {}).items() if value is not None}
            if "batch_size" in settings:
                settings["batch_size"] = batch_size(settings["batch_size"])
            arguments = parse_arguments(arg_string)
            if cls.registered == _TINY:
                arguments = _tiny(arguments, device=settings.get("device", "cpu"))
            return _create(arguments, settings, name=cls.registered, force_simple=cls.is_simple)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError


class HaloSimple(_Halo):
    """`--model halo --force_simple`."""

    is_simple = True


class HaloChat(_Halo):
    """`--model halo`."""

    is_simple = False


class HaloTinySimple(HaloSimple):
    """`--model halo_tiny --force_simple`."""

    registered = _TINY


class HaloTinyChat(HaloChat):
    """`--model halo_tiny`."""

    registered = _TINY


def _tiny(arguments: Arguments, *, device: str) -> Arguments:
    """What `--model halo_tiny` stands for: the embedded model that counts, on the processor unless told otherwise."""
    given = dict(arguments.model)
    variant = given.pop("variant", "counts")
    if variant not in get_args(Variant):
        raise UsageError(f"variant={variant}: use {' or '.join(f'variant={name}' for name in get_args(Variant))}.")
    model = {"pretrained": str(trained_checkpoint(variant)), "device": device, "device_map": device}
    return replace(arguments, base=arguments.base or "qwen3_vl", model={**model, **given})


def _create(arguments: Arguments, settings: dict[str, Any], *, name: str, force_simple: bool) -> lmms:
    known = [name for name in models.list_available_models(include_aliases=True) if name not in _PROBES]
    base = arguments.base or infer_base(arguments.model, known)
    if base not in known:
        raise UsageError(
            f"base={base!r} is not a model of lmms-eval: name the one to probe, such as "
            "--model_args base=qwen3_vl,pretrained=PATH (`lmms-eval models` lists them), or leave base= out."
        )
    lm = _load(models.get_model(base, force_simple), base, {**arguments.model, **settings})
    target = prepare_target(_network(lm, base), layers=arguments.layers, heads=arguments.heads, sinks=arguments.sinks)
    attach(ProbedRun(lm=lm, base=base, target=target, arguments=arguments), name=name)
    return lm


def _load(model_class: type[lmms], base: str, arguments: dict[str, Any]) -> lmms:
    try:
        return model_class(**arguments)
    except OSError as error:  # transformers and the Hub report a checkpoint that is not there as one
        checkpoint = arguments.get("pretrained", "the default checkpoint")
        raise UsageError(
            f"pretrained={checkpoint!s}: the checkpoint cannot be loaded ({first_line(error)}). "
            "Give a folder with config.json and weights, or the name of a model on the Hub."
        ) from error
    except (AssertionError, TypeError) as error:  # what base classes raise on arguments that they do not know
        raise UsageError(f"model {base!r} refuses these --model_args, or fails on them: {error}.") from error


def _network(lm: lmms, base: str) -> PreTrainedModel:
    for name in ("model", "_model"):
        network = getattr(lm, name, None)
        if isinstance(network, PreTrainedModel):
            return network
    raise UnsupportedModelError(
        f"base={base!r} runs no transformers model in this process, so its attention cannot be recorded. "
        f"Evaluate it without the probe: --model {base}."
    )
