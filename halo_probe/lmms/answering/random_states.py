"""Where the generators of random numbers stand: what a run that goes on needs to draw as an unbroken one would."""

import random
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

States = Mapping[str, Any]
"""States by the name of the generator, ready for JSON: `python`, `numpy`, torch's `cpu` and each accelerator."""


def random_states() -> dict[str, Any]:
    """The state of every generator of this process."""
    # Base models and tasks draw from numpy's global generator, if from any of numpy.
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    version, numbers, gauss = random.getstate()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "cpu": _text(torch.get_rng_state()),
        **{name: _text(state) for name, state in _on_accelerators().items()},
    }


def moved_states(before: States, after: States) -> dict[str, Any]:
    """Those of the generators that something was drawn from between two times."""
    return {name: state for name, state in after.items() if state != before.get(name)}


def restore_states(states: States) -> None:
    """Let these generators go on from where they stood; others stay where they are."""
    for name, state in states.items():
        if name == "python":
            version, numbers, gauss = state
            random.setstate((version, tuple(numbers), gauss))
        elif name == "numpy":
            np.random.set_state(state)  # noqa: NPY002 - as above
        elif name == "cpu":
            torch.set_rng_state(_tensor(state))
        else:
            module: Any = torch.get_device_module(name)
            module.set_rng_state(_tensor(state), *([name] if ":" in name else []))


@contextmanager
def drawing_nothing() -> Iterator[None]:
    """Leave the generators as if nothing had been drawn in the context."""
    before = random_states()
    try:
        yield
    finally:
        restore_states(moved_states(random_states(), before))


def _on_accelerators() -> dict[str, torch.Tensor]:
    """`cuda:0` and so on; a kind with one generator alone, such as `mps`, has no number."""
    if not torch.accelerator.is_available():
        return {}
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    module: Any = torch.get_device_module(kind)
    if not hasattr(module, "get_rng_state_all"):
        return {kind.type: module.get_rng_state()}
    return {f"{kind.type}:{index}": state for index, state in enumerate(module.get_rng_state_all())}


def _text(state: torch.Tensor) -> str:
    return b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(b64decode(text)), dtype=torch.uint8)
