"""What `--model_args` of `--model halo` say: the probe's own arguments, and those of the base model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from lmms_eval.utils import handle_arg_string

from halo_probe.capture.interventions import Intervention, parse_intervention
from halo_probe.capture.layers import LayerChoice
from halo_probe.capture.recorder import Heads
from halo_probe.errors import UsageError

Batching = Literal["single", "batch"]
_PART = re.compile(r"""(?:"[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,])+""")


@dataclass(frozen=True)
class Arguments:
    """The arguments of one probed run."""

    base: str | None
    """Name of the lmms-eval model to probe; None where the checkpoint says it."""
    layers: LayerChoice
    """The recorded layers."""
    heads: Heads
    """Whether the maps of every head are kept beside their mean."""
    sinks: bool
    """Whether visual sinks are looked for."""
    check: bool
    """Whether the capture is proven on the first document."""
    maps: str | None
    """Folder for the maps instead of `OUTPUT/halo`."""
    resume: bool
    """Whether documents that the folder already holds are answered from it."""
    batching: Batching
    """`single` answers one document at a time; `batch` as many as `--batch_size` says."""
    max_gb: float
    """Cap on the size of the maps, in units of 10^9 bytes."""
    intervention: Intervention | None
    """What is done to the attention while the model answers."""
    reliance: bool
    """Whether the digits' distributions are taken without the image too."""
    model: Mapping[str, Any]
    """The base model's own arguments."""


def given_arguments(model_args: str | Mapping[str, Any]) -> dict[str, Any]:
    """Read `--model_args` as lmms-eval does, but for commas in paths, quotes, and the mapping of a `--config` file.

    Args:
        model_args: `name=value,…`; a comma ends a value unless it stands in brackets or quotes, or no `name=`
            follows it.

    Raises:
        UsageError: If it does not begin with a name.

    >>> given_arguments("pretrained=/data/a,b/model,layers=[0,5],temperature=.5")
    {'pretrained': '/data/a,b/model', 'layers': '[0,5]', 'temperature': 0.5}
    >>> given_arguments("pretrained='/data/a,b=c/model'")
    {'pretrained': '/data/a,b=c/model'}
    """
    if isinstance(model_args, Mapping):
        return dict(model_args)
    written: dict[str, str] = {}
    name = ""
    for part in _PART.findall(model_args.strip()):
        begins, equals, value = part.partition("=")
        if equals and begins.strip().isidentifier():
            name = begins.strip()
            written[name] = value
        elif name:
            written[name] += f",{part}"
        elif part.strip():
            raise UsageError(f"--model_args {model_args}: {part!r} is no name=value; write pretrained=PATH,layers=all.")
    return {name: _read(value.strip()) for name, value in written.items()}


def _read(value: str) -> Any:
    for quote in ("'", '"'):
        if len(value) > 1 and value.startswith(quote) and value.endswith(quote):
            return value[1:-1]
    return handle_arg_string(value)


def batch_size(given: Any) -> int:
    """How many documents `--batch_size` asks for.

    Raises:
        UsageError: If it is no number: no model of lmms-eval finds one out by itself.
    """
    try:
        size = int(given)
    except (TypeError, ValueError):
        size = 0
    if size < 1:
        raise UsageError(f"--batch_size {given}: use a number from 1 on, such as --batch_size 1.")
    return size


def parse_arguments(model_args: str | Mapping[str, Any]) -> Arguments:
    """Read `--model_args`.

    Raises:
        UsageError: If one of our arguments has a value that it cannot have.
    """
    given = given_arguments(model_args)
    base, maps = given.pop("base", None), given.pop("maps", None)
    arguments = Arguments(
        base=None if base is None else str(base),
        layers=_layers(given.pop("layers", "last")),
        heads=cast("Heads", _choice("heads", given.pop("heads", "mean"), get_args(Heads))),
        sinks=_flag("sinks", given.pop("sinks", False)),
        check=_flag("check", given.pop("check", True)),
        maps=None if maps is None else str(maps),
        resume=_flag("resume", given.pop("resume", True)),
        batching=cast("Batching", _choice("batching", given.pop("batching", "single"), get_args(Batching))),
        max_gb=_positive("max_gb", given.pop("max_gb", 20)),
        intervention=_intervention(given.pop("intervention", None), given.pop("intervention_layers", None)),
        reliance=_flag("reliance", given.pop("reliance", False)),
        model=given,
    )
    _check_passes(arguments)
    return arguments


def _intervention(given: Any, layers: Any) -> Intervention | None:
    if given is not None:
        return parse_intervention(str(given), layers="all" if layers is None else str(layers).strip())
    if layers is not None:
        raise UsageError(f"intervention_layers={layers}: says where, and nothing says what; add intervention=boost:2.")
    return None


def _check_passes(arguments: Arguments) -> None:
    """Passes beside the answer are over one document, and reliance is that of the model as it is."""
    did = arguments.intervention
    if arguments.reliance and did:
        raise UsageError(f"reliance=true is measured without an intervention; leave intervention={did.name} out.")
    if arguments.batching == "batch" and (arguments.reliance or (did and did.needs_plain_pass)):
        asked = f"intervention={did.name}" if did else "reliance=true"
        raise UsageError(f"{asked} runs each document several times, one at a time; leave batching=batch out.")


def _layers(given: Any) -> LayerChoice:
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


def _choice(name: str, given: Any, choices: tuple[str, ...]) -> str:
    if given not in choices:
        raise UsageError(f"{name}={given}: use {' or '.join(f'{name}={choice}' for choice in choices)}.")
    return str(given)


def _flag(name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise UsageError(f"{name}={given}: use {name}=true or {name}=false.")
    return given


def _positive(name: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise UsageError(f"{name}={given}: use a number above 0, such as {name}=50.")
    return float(given)
