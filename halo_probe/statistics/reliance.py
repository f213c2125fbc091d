"""Visual reliance of one document: what taking the image away does to the distribution of each of its digits.

Source: the measurement specification, section 9.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from halo_probe.statistics.information import js_divergence, log_gain

ALPHABET = (*"0123456789", "END", "OTHER")
"""What a digit's distribution is over."""
OTHER = ALPHABET.index("OTHER")
MOSTLY = 0.5
"""More than this on OTHER is counted: what the digits get is then a small rest."""
RELIANCE_KEYS = tuple(f"{name}_{digit}" for name in ("vr", "vrd", "dlogp") for digit in (1, 2))
"""Of the first and second digit. `vr` and `vrd`: the Jensen-Shannon divergence in bits, 0..1, of its distribution with
the image from that with a blank image, or with the image keys knocked out at its step. `dlogp`: by how much the image
raises the log-probability of the true digit over a blank one, in nats."""


def reliance_values(recorded: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of a document: `RELIANCE_KEYS`, None where undefined.

    Args:
        recorded: What the sample shows under `token_counts.halo`. `true_digits` are the digits of the count in the
            order in which they are asked for; for each of them `digit_probabilities` is what `ALPHABET` gets with the
            image, `digit_probabilities_blank` with a blank one, `digit_probabilities_knockout` with the image keys
            knocked out. None of them is there where they were not measured.
    """
    values: dict[str, float | None] = dict.fromkeys(RELIANCE_KEYS)
    if "digit_probabilities" not in recorded:
        return values
    for place, digit in enumerate(recorded["true_digits"][:2]):
        image, blank, knockout = (
            recorded[f"digit_probabilities{change}"][place] for change in ("", "_blank", "_knockout")
        )
        found = {
            "vr": js_divergence(image, blank),
            "vrd": js_divergence(image, knockout),
            "dlogp": log_gain([image], [blank], [int(digit)])[0],
        }
        # A probability too small for a float64 leaves no log-probability.
        values |= {f"{name}_{place + 1}": float(value) for name, value in found.items() if np.isfinite(value)}
    return values


def mostly_other(recorded: Mapping[str, Any]) -> tuple[int, ...]:
    """The digits, from 1, at which a document has more than half of its probability on OTHER, with the image.

    The model would say something else than a digit there, so that what the digits get is a small rest.

    >>> mostly_other({"digit_probabilities": [[0.0] * 11 + [1.0], [0.1] * 10 + [0.0, 0.0]]})
    (1,)
    """
    rows = recorded.get("digit_probabilities") or []
    return tuple(place for place, row in enumerate(rows, start=1) if row[OTHER] > MOSTLY)
