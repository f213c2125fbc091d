"""Changing the attention that the last position of a model pays to the image: at chosen steps, in chosen layers."""

from halo_probe.capture.interventions.digit_tokens import digit_tokens
from halo_probe.capture.interventions.intervention import Intervention, resolve
from halo_probe.capture.interventions.notation import parse_intervention

__all__ = ["Intervention", "digit_tokens", "parse_intervention", "resolve"]
