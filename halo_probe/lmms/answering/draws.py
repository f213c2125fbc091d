"""The random numbers of a run that may be ended and go on: every answer draws what it would have drawn in one run."""

from collections.abc import Iterable
from typing import Any

from halo_probe.archive.answers import Answer
from halo_probe.errors import UsageError
from halo_probe.lmms.answering.random_states import States, moved_states, random_states, restore_states
from halo_probe.lmms.probed import ProbedRun


class Draws:
    """Lets each answer draw after the one before it, whether that is stored or not.

    Args:
        run: Of what the order of random numbers depends on, its model's device and its number of processes.
    """

    def __init__(self, run: ProbedRun) -> None:
        assert run.target is not None
        kind, drawing = run.target.model.device.type, ", ".join(random_states())
        self._by = f"{run.lm.world_size} process(es), a model on {kind} and generators of {drawing}"
        self._stored: dict[str, Any] = {}

    def pass_over(self, answer: Answer) -> None:
        """Note where a stored answer left the generators."""
        self._stored |= answer.drawn.get("states", {})

    def go_on(self) -> None:
        """Let random numbers go on from where the answers that were passed over left them."""
        restore_states(self._stored)
        self._stored = {}

    def since(self, before: States) -> dict[str, Any]:
        """What an answer says of the random numbers that were drawn for it; nothing where none were."""
        moved = moved_states(before, random_states())
        return {"by": self._by, "states": moved} if moved else {}

    def require_same(self, answers: Iterable[Answer]) -> None:
        """Refuse to go on with a run that sampled, where the next random numbers would be others than its own.

        Raises:
            UsageError: If it had other processes or devices.
        """
        stored = {answer.drawn["by"] for answer in answers if answer.drawn} - {self._by}
        if stored:
            raise UsageError(
                f"replies of this run were sampled by {min(stored)}, and it would go on with {self._by}, which draw "
                "others: give the same processes and devices, or choose another --output_path."
            )
