"""The run that a probed model is created for, until lmms-eval starts it."""

from dataclasses import dataclass

from lmms_eval.api.model import lmms

from halo_probe.capture.recorder import Target
from halo_probe.lmms.arguments import Arguments


@dataclass
class ProbedRun:
    """A base model that is about to be evaluated, and what to record of it."""

    lm: lmms
    base: str
    target: Target | None
    """The recorded model; let go when lmms-eval cleans up, before it scores."""
    arguments: Arguments
