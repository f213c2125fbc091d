"""The spatial scores of a run: their columns, what they are of, and their only reader."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from halo_probe.archive.reading import FIRST_CALL
from halo_probe.archive.results import MAPS
from halo_probe.archive.writing import stored_parts
from halo_probe.errors import UsageError, first_line
from halo_probe.metrics.consistency import CONSISTENCY_KEYS
from halo_probe.metrics.keys import MAP_KEYS

SCORES = "scores.parquet"
"""The spatial scores of a run, in its folder: a row per task, doc_id, step and layer."""
STATE_KEY = b"halo_scores"
"""The schema metadata key of `state_of`, as JSON."""
SCORES_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("repeat", pa.int32()),
        ("call", pa.int32()),
        ("step", pa.int32()),
        ("layer", pa.int32()),
        ("layer_type", pa.string()),
        ("end", pa.bool_()),  # the end-of-sequence token, which means over tokens leave out
        ("image_tokens", pa.int32()),  # M
        ("visual_mass", pa.float32()),
        ("first_mass", pa.float32()),  # on the first token of the prompt
        *((key, pa.float64()) for key in (*MAP_KEYS, *CONSISTENCY_KEYS)),
        ("reason", pa.string()),  # why a group of keys is null
    ]
)


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


def read_scores(folder: Path, signature: Mapping[str, Any], *, columns: Sequence[str] | None = None) -> pa.Table | None:
    """The scores of the first answer and its first call of every document; None where a run is not scored.

    Args:
        folder: That of the run.
        signature: That of the run.
        columns: Which columns; None for all of `SCORES_SCHEMA`.

    Raises:
        UsageError: If they cannot be read, or are of other maps than the run has now.
    """
    path = folder / SCORES
    if not path.exists():
        return None
    again = f"score the run again: halo-probe score {folder}"
    try:
        schema = pq.read_schema(path)
        if missing := [name for name in SCORES_SCHEMA.names if name not in schema.names]:
            raise UsageError(f"{path}: has no column {missing[0]}: it is of another version; {again}")
        wanted = list(SCORES_SCHEMA.names if columns is None else columns)
        table = pq.read_table(path, columns=wanted, filters=FIRST_CALL, page_checksum_verification=True)
        state = json.loads((schema.metadata or {}).get(STATE_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: cannot be read ({first_line(error)}); {again}") from None
    if _is_stale(state, folder, signature):
        raise UsageError(f"{path}: is of other maps than the run has now; {again} --null")
    return table


def _is_stale(state: Mapping[str, Any], folder: Path, signature: Mapping[str, Any]) -> bool:
    """Whether scores are of other maps than those in the folder, or, where these were removed, of another run."""
    now = state_of(signature, stored_parts(folder / MAPS))
    return state.get("signature") != now["signature"] or bool(now["parts"] and state.get("parts") != now["parts"])
