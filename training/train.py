"""The training of the embedded model that counts: ``python -m training.train --out DIR``.

It leaves in the folder ``checkpoint``, ready for `from_pretrained`, and ``curve.jsonl``, the learning curve. While it
runs, ``state.pt`` is there too: the same command goes on from it after an interruption, to the same weights.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from halo_probe.embedded.trained import Variant, trained_checkpoint
from halo_probe.errors import UsageError
from training.curriculum import RECIPES
from training.training import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code is 0 when done, 1 on failure, 2 on bad usage."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train the embedded model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; name it again to go on")
    parser.add_argument("--variant", choices=get_args(Variant), default="counts", help="which model (default: counts)")
    parser.add_argument("--start", type=Path, help="weights that takeover starts from (default: those of the package)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="as torch names it")
    given = parser.parse_args(arguments)
    start = given.start or (trained_checkpoint() if given.variant == "takeover" else None)
    torch.set_num_threads(1)  # in each thread of ours
    try:
        checkpoint = train(RECIPES[given.variant], given.out, start=start, device=given.device)
    except UsageError as error:
        parser.error(str(error))
    sys.stdout.write(f"{checkpoint}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
