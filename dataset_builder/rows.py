"""The rows of a set: their columns, their declared features, and the hash that names their content."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dataset_builder.geometry import hull_indices, nearest_distances, patch_offsets
from dataset_builder.png import encode_png
from dataset_builder.render import render
from dataset_builder.samples import Sample
from dataset_builder.sets import SetSpec, parameters_text

Row = dict[str, Any]
Features = dict[str, Any]

PATCHES = (14, 16, 28, 32)
"""The patch sides, in pixels, of the vision towers that the study looks at."""

IMAGE = "image"


def row_id(name: str, index: int) -> str:
    """The id of a row, unique in its set.

    >>> row_id("halo_count", 42)
    'halo_count-00042'
    """
    return f"{name}-{index:05d}"


def make_row(spec: SetSpec, sample: Sample) -> Row:
    """Render a sample and describe it: every column, the image as `{"bytes": PNG, "path": None}`."""
    pixels = render(spec, sample)
    png = encode_png(pixels)
    return {
        "id": row_id(spec.name, sample.index),
        "index": sample.index,
        IMAGE: {"bytes": png, "path": None},
        "question": spec.question,
        "answer": sample.answer,
        "count": sample.count,
        "width": spec.size,
        "height": spec.size,
        "radius": spec.radius,
        "centers": [list(center) for center in sample.centers],
        "intensities": list(sample.intensities),
        "background": sample.background,
        "noise": sample.noise,
        "layout_id": row_id(spec.layout_of or spec.name, sample.index),
        "parameters": parameters_text(spec),
        "hull": hull_indices(sample.centers),
        "nearest_distance": nearest_distances(sample.centers),
        **{f"offsets_{patch}": patch_offsets(sample.centers, patch) for patch in PATCHES},
        "pixel_sha256": hashlib.sha256(pixels.data).hexdigest(),
        "png_sha256": hashlib.sha256(png).hexdigest(),
    }


def sample_of(row: Mapping[str, Any]) -> Sample:
    """The published geometry of a row."""
    return Sample(
        index=row["index"],
        count=row["count"],
        answer=row["answer"],
        centers=tuple((x, y) for x, y in row["centers"]),
        intensities=tuple(row["intensities"]),
        background=row["background"],
        noise=row["noise"],
    )


def canonical_line(row: Mapping[str, Any]) -> bytes:
    """A row without its image, whose hash it holds, as one line of JSON: sorted keys, no blanks, then a newline."""
    described = {name: value for name, value in row.items() if name != IMAGE}
    return json.dumps(described, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def features_of(spec: SetSpec) -> Features:
    """The declared features, in the form in which `datasets` stores them.

    Lists are written as `Sequence`, which every version from 2.19 on reads; `List` is refused before 4.0.
    """
    text, integer, floating = _value("string"), _value("int32"), _value("float64")
    return {
        "id": text,
        "index": _value("int64"),
        IMAGE: {"mode": "RGB" if spec.kind == "relation" else "L", "_type": "Image"},
        "question": text,
        "answer": text,
        "count": integer,
        "width": integer,
        "height": integer,
        "radius": integer,
        "centers": _sequence(_sequence(integer)),
        "intensities": _sequence(integer),
        "background": integer,
        "noise": _value("bool"),
        "layout_id": text,
        "parameters": text,
        "hull": _sequence(integer),
        "nearest_distance": _sequence(floating),
        **{f"offsets_{patch}": _sequence(_sequence(integer)) for patch in PATCHES},
        "pixel_sha256": text,
        "png_sha256": text,
    }


def _value(dtype: str) -> Features:
    return {"dtype": dtype, "_type": "Value"}


def _sequence(feature: Features) -> Features:
    return {"feature": feature, "_type": "Sequence"}
