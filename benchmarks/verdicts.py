"""How often each rule says what of planted truths: models and maps that are made up, so that the truth is known.

python benchmarks/verdicts.py [--seeds 5] [--null-seeds 300]

A planted model is written as run folders and judged as `halo-probe compare` judges any run; a planted map is drawn on
the dots of four sets and scored with its null. "Supported" of what is false is the worst fault; the last line counts
it. Null models meet every demand of a rule but one, on the bound of which they lie: 5 % of them may be supported.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

# The planted truths are those of the tests, which assert a part of the table. The root goes first: tests/ has a folder
# halo_probe too.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

import planted_truths as planted  # noqa: E402

CONCLUSIONS = ("supported", "refuted", "not decided", "error")
GRIDS = (16, 32)
_NULL_IMAGES = 60


def main() -> None:
    """Print a line for each planted kind and rule, then what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="of each planted kind (%(default)s)")
    parser.add_argument("--null-seeds", type=int, default=300, help="of each null kind (%(default)s)")
    arguments = parser.parse_args()
    print(f"{'rule':<28}{'planted':<52}{'truth':<9}" + "".join(f"{name:>13}" for name in CONCLUSIONS))
    false, null = [], []
    for name, one in planted.MODELS.items():
        conclusions = [_conclude(one, seed) for seed in range(arguments.seeds)]
        for rule in (planted.TAKEOVER, planted.MAGNITUDE):
            truth = "true" if rule in one.true else "unclear" if rule in one.unclear else "false"
            found = _show(rule, name, truth, (each[rule] for each in conclusions))
            false.append(found["supported"] if truth == "false" else 0)
    for name, one in planted.NULL_MODELS.items():
        rule = planted.TAKEOVER if name.startswith("takeover") else planted.MAGNITUDE
        conclusions = [_conclude(one, seed) for seed in range(arguments.null_seeds)]
        null.append(_show(rule, name, "null", (each[rule] for each in conclusions))["supported"])
    for side in GRIDS:
        for name, draw in planted.MAPS.items():
            truth = "true" if name in planted.TRUE_MAPS else "mistaken" if name in planted.MISTAKEN_MAPS else "false"
            noises = np.resize([0.5, 1.0], arguments.seeds)
            conclusions = (
                planted.conclude_halo(draw, np.random.default_rng(seed), side=side, noise=noise)
                for seed, noise in enumerate(noises)
            )
            found = _show("Halo", f"{name}, {side} x {side}", truth, conclusions)
            false.append(found["supported"] if truth == "false" else 0)
    for name in ("uniform", "frame", "registers"):
        conclusions = (
            planted.conclude_halo(planted.MAPS[name], np.random.default_rng(seed), side=16, number=_NULL_IMAGES)
            for seed in range(arguments.null_seeds)
        )
        null.append(_show("Halo", f"{name}, {_NULL_IMAGES} images", "null", conclusions)["supported"])
    print(f"\nsupported of what is false: {sum(false)}; of null kinds at most {max(null)} of {arguments.null_seeds}")


def _conclude(one: planted.Kind, seed: int) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, str] = planted.conclude(Path(folder), one, np.random.default_rng(seed))
        return found


def _show(rule: str, name: str, truth: str, conclusions: Iterable[str]) -> Counter[str]:
    found = Counter(conclusions)
    shown = "".join(f"{found[each]:>13}" for each in CONCLUSIONS)
    print(f"{rule:<28}{name:<52}{truth:<9}{shown}", flush=True)
    return found


if __name__ == "__main__":
    main()
