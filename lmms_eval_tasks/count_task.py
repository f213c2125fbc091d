"""The counting task: what it asks, and what a reply scores.

Conventions: a document is a row of a counting set: `id`, `image`, `count`, ... A metric is None for a document where it
is undefined, never NaN.

Source: the measurement specification, sections 4 and 11.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_builder.questions import COUNT_QUESTION
from lmms_eval_tasks.parsing import parse_count

if TYPE_CHECKING:
    from PIL.Image import Image

Document = Mapping[str, Any]


def doc_to_visual(doc: Document) -> list["Image"]:
    """The image of a document, in RGB, which every vision tower takes."""
    return [doc["image"].convert("RGB")]


def doc_to_text(_doc: Document) -> str:
    """The question, byte for byte with its trailing space: the task's own, whatever the data says."""
    return COUNT_QUESTION


def doc_to_messages(doc: Document) -> list[dict[str, Any]]:
    """The prompt for chat models: the image first, then the question."""
    images = [{"type": "image", "url": image} for image in doc_to_visual(doc)]
    return [{"role": "user", "content": [*images, {"type": "text", "text": doc_to_text(doc)}]}]


def doc_to_target(doc: Document) -> str:
    """The true count in digits."""
    return str(doc["count"])


def process_results(doc: Document, results: Sequence[str]) -> dict[str, Any]:
    """Score the reply to one document.

    Args:
        doc: The document; its image is not needed.
        results: The reply, alone.

    Returns:
        The metrics of the document: `accuracy`, `answered` and `off_by_one` (0.0 or 1.0), `mbe` (predicted - true, in
        dots) and `mae` (its absolute value), both None where the reply gives no count. Beside them, for the sample log:
        `id`, `count` (true), `predicted` (None where the reply gives none) and `status`, as in `parsing`.
    """
    parsed = parse_count(results[0])
    error = None if parsed.value is None else parsed.value - doc["count"]
    return {
        "accuracy": float(error == 0),
        "answered": float(error is not None),
        "mbe": error,
        "mae": None if error is None else abs(error),
        "off_by_one": float(error is not None and abs(error) <= 1),
        "id": doc["id"],
        "count": doc["count"],
        "predicted": parsed.value,
        "status": parsed.status,
    }
