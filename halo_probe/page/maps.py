"""The stored maps of a run, document by document, in the form in which the page loads them.

A map is a byte for each image token, on a logarithmic scale of its own: code 0 is a weight below `FLOOR` times the mean
weight, codes 1 to 255 run in equal ratios from there to the largest weight of the map, its peak. A weight is then
within 3 % of what was stored as long as the peak is below 10 000 times the mean.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from halo_probe.archive.generation import View
from halo_probe.archive.reading import FIRST_CALL, Maps, StoredCall

FLOOR = 0.01
"""The smallest weight that is told apart, in multiples of the mean weight of the map."""

_RATIOS = 254  # between codes 1 and 255


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentMaps:
    """The maps of the first answer to a document: S steps, L layers, M image tokens."""

    task: str
    doc_id: int
    places: tuple[tuple[int, int], ...]
    """Step and layer of each map, (S L)."""
    payload: dict[str, Any]
    """What the page loads, ready for JSON: the lists `mass` and `peaks` are as long as `places`, null where undefined;
    `codes` is base64 of S L M bytes."""


def read_maps(maps: Maps, *, layers: Sequence[int]) -> Iterator[DocumentMaps]:
    """Read the maps of the first answer and its first call of every document, in the order in which they are stored.

    Args:
        maps: Those of a run.
        layers: The layers to read.

    Raises:
        DamagedPartError: If a part is not what was written.
    """
    for part in maps.parts:
        for stored in part.calls(FIRST_CALL & pc.field("layer").isin(list(layers))):
            yield _document(stored, calls=len(part.answers[stored.key].values))


def quantize(maps: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Give every weight of every map a byte.

    Args:
        maps: Weights, (n, M), any positive scale.

    Returns:
        Codes, (n, M), and the peak of each map in multiples of its mean weight, (n,): NaN, with codes of 0, for a map
        that is not finite or all zero.
    """
    weights = np.asarray(maps, dtype=np.float32)
    mean = weights.mean(axis=1, keepdims=True)
    defined = np.isfinite(mean) & (mean > 0)
    weights = np.divide(weights, mean, out=np.zeros_like(weights), where=defined)
    peaks = weights.max(axis=1, keepdims=True)
    ratios = np.log(np.maximum(weights, FLOOR) / FLOOR) / np.log(np.maximum(peaks, 1) / FLOOR)
    codes = np.where(weights < FLOOR, 0, 1 + np.rint(_RATIOS * ratios)).astype(np.uint8)
    return codes, np.where(defined, peaks, np.nan)[:, 0]


def rounded(values: ArrayLike) -> list[float | None]:
    """Four significant digits, None for NaN: what a page needs of a number."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64)]


def _document(stored: StoredCall, *, calls: int) -> DocumentMaps:
    generation, (task, document, _) = stored.generation, stored.key
    layers = [layer.index for layer in generation.layers]
    steps, end = range(len(generation.token_ids)), generation.content_steps.stop
    codes, peaks = quantize(generation.eq1.reshape(-1, generation.image_tokens))
    return DocumentMaps(
        task=task,
        doc_id=document,
        places=tuple((step, layer) for step in steps for layer in layers),
        payload={
            "calls": calls,
            "views": [_view(view) for view in generation.views],
            "tokens": generation.image_tokens,
            "steps": [[text, step >= end] for step, text in zip(steps, stored.pieces, strict=True)],
            "layers": [[layer.index, layer.type] for layer in generation.layers],
            "mass": rounded(generation.visual_mass.ravel()),
            "peaks": rounded(peaks),
            "codes": b64encode(codes.tobytes()).decode("ascii"),
        },
    )


def _view(view: View) -> dict[str, Any]:
    """A grid with the image, from 0, and the part of the image that it covers; null where that is not known."""
    return {
        "image": view.image,
        "height": view.height,
        "width": view.width,
        "box": [round(edge, 6) for edge in view.box] if np.isfinite(view.box).all() else None,
    }
