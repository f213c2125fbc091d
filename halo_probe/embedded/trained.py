"""The trained checkpoints inside the installed package: where they are, and nothing that takes time to import."""

from pathlib import Path
from typing import Literal

__all__ = ["Variant", "trained_checkpoint"]

Variant = Literal["counts", "takeover"]
"""The models: see `trained_checkpoint`."""


def trained_checkpoint(variant: Variant = "counts") -> Path:
    """Folder of trained weights, ready for `from_pretrained`, with a model card beside them.

    Args:
        variant: `counts` counts dots. `takeover` was trained further until the second digit of its counts ignored the
            image: language takeover by construction.
    """
    return Path(__file__).parent / "checkpoints" / variant
