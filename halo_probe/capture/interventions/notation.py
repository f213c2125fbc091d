"""An intervention as one word of the command line: NAME[:NUMBERS][@STEPS]."""

from typing import Any, get_args

from halo_probe.capture.interventions.intervention import Intervention, Layers
from halo_probe.errors import UsageError

_RULE = "write NAME[:NUMBER][@STEPS], such as boost:2@d2, knockout@prefill_last or adapt:0.5:1.5:0.4"
_PARAMETERS = ("strength", "confident_strength", "threshold")


def parse_intervention(text: str, *, layers: str = "all") -> Intervention:
    """Read an intervention.

    Args:
        text: `scale:α`, `temperature:α`, `boost:λ`, `knockout`, `top30`, `random30`, `bottom30` or `adapt[:α1:α2:β]`,
            each with or without `@STEPS`: `prefill_last`, `d1`, `d2` or `all` (the default).
        layers: `all`, `mid`, `last` or a list such as `[0,5,-1]`.

    Raises:
        UsageError: If one of them is something else.

    >>> parse_intervention("boost:2@d2").describe()
    {'name': 'boost', 'strength': 2.0, 'steps': 'd2', 'layers': 'all'}
    """
    operation, at, steps = text.partition("@")
    name, *numbers = operation.split(":")
    if len(numbers) > len(_PARAMETERS):
        raise UsageError(f"intervention={text}: {len(numbers)} numbers are too many; {_RULE}.")
    chosen: Any = {
        "name": name,
        **dict(zip(_PARAMETERS, [_number(number, text) for number in numbers], strict=False)),
        "steps": steps if at else "all",
        "layers": _layers(layers),
    }
    try:
        return Intervention(**chosen)
    except UsageError as error:
        raise UsageError(f"intervention={text}: {error}") from None


def _number(number: str, text: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise UsageError(f"intervention={text}: {number!r} is no number; {_RULE}.") from None


def _layers(text: str) -> str | tuple[int, ...]:
    if text in get_args(Layers):
        return text
    try:
        return tuple(int(part) for part in text.removeprefix("[").removesuffix("]").split(","))
    except ValueError:
        raise UsageError(
            f"intervention_layers={text}: use all, mid, last or a list such as intervention_layers=[0,5,11]."
        ) from None
