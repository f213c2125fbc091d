"""The documents of a run as the page explores them: an index for each task, and a file for each document."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from halo_probe.archive.runs import Run
from halo_probe.metrics.keys import PAGE_KEYS
from halo_probe.page.maps import DocumentMaps, rounded
from halo_probe.page.pictures import Picture

_REPLY = 60  # characters of a reply in the index
_KNOWN = {"doc_id", "count", "predicted"}  # shown elsewhere
_MAP = ["step", "layer"]

Sample = Mapping[str, Any]
Scores = Mapping[tuple[str, int], pd.DataFrame]


def write_data(site: Path, name: str, content: Any) -> None:
    """Write a file that the page loads on demand: a page that opens from disk may load scripts, and nothing else.

    Args:
        site: The folder of the page.
        name: Of the file, under `data` and without its ending; made of our own names and numbers only.
        content: Anything that JSON can hold.
    """
    path = site / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON inside a string: parsed, never run, whatever the model replied.
    text = json.dumps(json.dumps(content, separators=(",", ":"), allow_nan=False))
    path.write_text(f"haloReceive({json.dumps(name)},{text});\n", encoding="ascii")


def index_documents(samples: Sequence[Sample], mapped: Sequence[bool]) -> dict[str, list[Any]]:
    """What the list of documents shows and filters by, a list for each column.

    `correct` is null for a document of no counting task, `mapped` tells whether there are maps of it.
    """
    return {
        "doc": [sample["doc_id"] for sample in samples],
        "id": [_text(sample.get("id", sample["doc_id"])) for sample in samples],
        "count": [_integer(sample.get("count")) for sample in samples],
        "predicted": [_integer(sample.get("predicted")) for sample in samples],
        "correct": [_is_correct(sample) for sample in samples],
        "reply": [_text(sample.get("filtered_resps"))[:_REPLY] for sample in samples],
        "mapped": list(mapped),
    }


def describe_document(
    sample: Sample, picture: Picture, maps: DocumentMaps | None, *, scores: pd.DataFrame | None, missing: str
) -> dict[str, Any]:
    """All that the page shows of a document.

    Args:
        sample: As lmms-eval wrote it.
        picture: Its image.
        maps: Its maps.
        scores: Its rows of the scores.
        missing: Why it has no maps, where it has none.
    """
    halo = ((sample.get("token_counts") or [None])[0] or {}).get("halo", {})
    numbers = {
        key: value
        for key, value in sample.items()
        if key not in _KNOWN and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {
        "question": _text(sample.get("input")),
        "reply": _text(sample.get("filtered_resps")),
        "target": _text(sample.get("target")),
        "status": _text(sample.get("status")),
        "metrics": list(zip(numbers, rounded(list(numbers.values())), strict=True)),
        "digit_status": halo.get("digit_status"),
        "digit_steps": halo.get("digit_steps") or [],
        "picture": picture,
        "missing": missing,
        "maps": maps and {**maps.payload, "scores": _scores_of(maps, scores)},
    }


def read_scores(run: Run) -> Scores:
    """The scores of the first answer and call of every document, those of `PAGE_KEYS`; empty if the run is not scored.

    Raises:
        UsageError: If they cannot be read, or are of other maps than the run has now.
    """
    keys = ["task", "doc_id"]
    table = run.scores([*keys, *_MAP, *PAGE_KEYS])
    return (
        {} if table is None else {document: rows.set_index(_MAP) for document, rows in table.to_pandas().groupby(keys)}
    )


def _scores_of(maps: DocumentMaps, scores: pd.DataFrame | None) -> list[list[Any]]:
    """[key, values] of each metric that has a value on any map of the document."""
    if scores is None:
        return []
    aligned = scores.reindex(pd.MultiIndex.from_tuples(maps.places))
    found = [(key, aligned[key].to_numpy()) for key in PAGE_KEYS]
    return [[key, rounded(values)] for key, values in found if np.isfinite(values).any()]


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        return _text(value[0])
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _is_correct(sample: Sample) -> bool | None:
    accuracy = sample.get("accuracy")
    return accuracy == 1 if isinstance(accuracy, int | float) else None
