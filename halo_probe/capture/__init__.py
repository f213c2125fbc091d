"""Recording the attention of a vision-language model to its image tokens."""

from halo_probe.capture.layers import Layer
from halo_probe.capture.recorder import record_attention
from halo_probe.capture.recording import Generation, Recording

__all__ = ["Generation", "Layer", "Recording", "record_attention"]
