"""Recording the attention of a vision-language model to its image tokens."""

from halo_probe.archive.generation import Generation, Layer
from halo_probe.capture.recorder import record_attention
from halo_probe.capture.recording import Recording

__all__ = ["Generation", "Layer", "Recording", "record_attention"]
