"""What a reply to a question for a number scores: the count, the number to repeat, the one written in the image.

Conventions: a document is a row of a set: `id`, `count`, ...; its image is not needed. The results are the reply,
alone. A metric is None for a document where it is undefined, never NaN. The table holds the metrics that the file of
the task lists; the samples hold them all.

Source: the measurement specification, sections 3, 4 and 11.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval_tasks.parsing import ParsedCount, parse_count

Document = Mapping[str, Any]


def process_results(doc: Document, results: Sequence[str]) -> dict[str, Any]:
    """Score a direct reply.

    Returns:
        The metrics of the document: `accuracy`, `answered` and `off_by_one` (0.0 or 1.0), `mbe` (predicted - true, in
        dots) and `mae` (its absolute value), both None where the reply gives no count. Beside them, for the sample log:
        `id`, `count` (true), `predicted` (None where the reply gives none) and `status`, as in `parsing`.
    """
    return scores_of(doc, parse_count(results[0], mode="first"))


def process_final(doc: Document, results: Sequence[str]) -> dict[str, Any]:
    """Score a reply that reasons before it answers, as `process_results` does: its final answer counts."""
    return scores_of(doc, parse_count(results[0], mode="final"))


def process_reversed(doc: Document, results: Sequence[str]) -> dict[str, Any]:
    """Score a reply with the units digit first, as `process_results` does: `21` is 12, and `01` is 10.

    `predicted` is the count that is meant, not the number as it is written.
    """
    return scores_of(doc, parse_count(results[0], mode="reversed"))


def process_words(doc: Document, results: Sequence[str]) -> dict[str, Any]:
    """Score a reply in words, as `process_results` does, with `in_words`: 1.0 for a count without a digit, else 0.0."""
    parsed = parse_count(results[0])
    spelled = parsed.span is not None and not any(char.isdecimal() for char in results[0][slice(*parsed.span)])
    return {**scores_of(doc, parsed), "in_words": float(spelled)}


def scores_of(doc: Document, parsed: ParsedCount) -> dict[str, Any]:
    """What a document scores by the count that was read from its reply: see `process_results`."""
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
