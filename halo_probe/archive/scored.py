"""What the spatial scores of a run are of: written beside them, and held against the run by whoever reads them."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

SCORES = "scores.parquet"
"""The spatial scores of a run, in its folder: a row per task, doc_id, step and layer."""
STATE_KEY = b"halo_scores"
"""The schema metadata key of `state_of`, as JSON."""


def state_of(signature: Mapping[str, Any], parts: Iterable[Path]) -> dict[str, Any]:
    """The run and the maps that scores are of: a run that goes on has further parts.

    Args:
        signature: That of the run.
        parts: Its maps.
    """
    return {
        "signature": sha256(json.dumps(signature, sort_keys=True).encode()).hexdigest(),
        "parts": {part.name: part.stat().st_size for part in parts},
    }
