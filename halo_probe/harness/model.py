"""`--model halo`: any lmms-eval model with its attention recorded.

The instance that lmms-eval gets is the base model's own, so prompts, decoding and answers are the base model's. Two
classes, because lmms-eval checks `is_simple` on the class that it looked up.
"""

from typing import Any

from lmms_eval import models
from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string
from transformers import PreTrainedModel

from halo_probe.capture.layers import LayerChoice
from halo_probe.capture.recorder import prepare_target
from halo_probe.errors import UnsupportedModelError, UsageError
from halo_probe.harness.boundary import ending_loudly
from halo_probe.harness.run import ProbedRun, attach


class _Halo(lmms):
    """Creates the base model and attaches a run to it; never instantiated itself."""

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> lmms:
        """Create the base model from `base=NAME[,layers=…][,maps=DIR],…`, with its `generate` recorded.

        Args:
            arg_string: Our arguments and those of the base model, as in `--model_args`.
            additional_config: lmms-eval's batch size and device.
        """
        with ending_loudly():
            return _create(arg_string, additional_config, force_simple=cls.is_simple)

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


def _create(arg_string: str, additional_config: dict[str, Any] | None, *, force_simple: bool) -> lmms:
    arguments = simple_parse_args_string(arg_string)
    base, maps = arguments.pop("base", None), arguments.pop("maps", None)
    layers = _layer_choice(arguments.pop("layers", "last"))
    known = [name for name in models.list_available_models(include_aliases=True) if not name.startswith("halo")]
    if base not in known:
        given = "base= is missing" if base is None else f"base={base!r} is not a model of lmms-eval"
        raise UsageError(
            f"{given}: name the lmms-eval model to probe, such as "
            "--model_args base=qwen3_vl,pretrained=PATH (`lmms-eval models` lists them)."
        )
    settings = {name: value for name, value in (additional_config or {}).items() if value is not None}
    lm = _load(models.get_model(base, force_simple), base, {**arguments, **settings})
    target = prepare_target(_network(lm, base), layers=layers)
    attach(ProbedRun(lm=lm, base=base, target=target, arguments=arguments, maps=maps), name="halo")
    return lm


def _load(model_class: type[lmms], base: str, arguments: dict[str, Any]) -> lmms:
    try:
        return model_class(**arguments)
    except OSError as error:  # transformers and the Hub report a checkpoint that is not there as one
        checkpoint = arguments.get("pretrained", "the default checkpoint")
        first_line = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"pretrained={checkpoint!s}: the checkpoint cannot be loaded ({first_line}). "
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


def _layer_choice(given: Any) -> LayerChoice:
    """`last`, `all`, one index or `[0,5,11]`: lmms-eval hands over the text or, for a plain number, the number."""
    text = str(given).strip()
    if text == "last":
        return "last"
    if text == "all":
        return "all"
    try:
        numbers = [float(part) for part in text.strip("[]").split(",")]
    except ValueError:
        numbers = [0.5]
    if not all(number.is_integer() for number in numbers):
        raise UsageError(f"layers={text}: use layers=last, layers=all or a list such as layers=[0,5,11].")
    return [int(number) for number in numbers]
