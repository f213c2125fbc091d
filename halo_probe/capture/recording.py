"""What a recording holds: one `Generation` for each row of each `generate` call."""

from dataclasses import dataclass, field

import numpy as np

from halo_probe.archive.generation import Generation
from halo_probe.errors import CaptureError


@dataclass
class Recording:
    """The generations recorded inside one `record_attention` context, in order."""

    generations: list[Generation] = field(default_factory=list)

    @property
    def maps(self) -> np.ndarray:
        """T × L × M, float32: `A_eq1` of the only generation.

        Raises:
            CaptureError: If there is not exactly one; use `generations` then.
        """
        if len(self.generations) != 1:
            raise CaptureError(
                f"`maps` is for one generation and {len(self.generations)} were recorded: use `generations`."
            )
        return self.generations[0].eq1
