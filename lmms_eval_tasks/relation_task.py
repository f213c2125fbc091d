"""What a reply to the question of a spatial relation scores: one of four words is the answer.

Source: the measurement specification, section 11, and arXiv 2503.01773 for the question.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builder.sets import RELATIONS
from lmms_eval_tasks.parsing import normalise

_RELATION = re.compile(rf"\b(?:{'|'.join(RELATIONS)})\b")


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score the reply to one document.

    Args:
        doc: A row of the set, with `id` and `answer`: `left`, `right`, `above` or `below`; its image is not needed.
        results: The reply, alone.

    Returns:
        `accuracy` and `answered` (0.0 or 1.0); a reply answers when it names exactly one of the four words, however
        often. Beside them, for the sample log: `id`, `relation` (true), `predicted` (None where the reply does not
        answer) and `status`: `ok`, `empty`, `none` (no such word) or `multi` (several).

    >>> process_results({"id": "halo_relate-00000", "answer": "left"}, ["Left of the red dot."])["status"]
    'ok'
    """
    text = normalise(results[0])
    named = set(_RELATION.findall(text))
    predicted = named.pop() if len(named) == 1 else None
    if predicted:
        status = "ok"
    elif named:
        status = "multi"
    else:
        status = "none" if text else "empty"
    return {
        "accuracy": float(predicted == doc["answer"]),
        "answered": float(predicted is not None),
        "id": doc["id"],
        "relation": doc["answer"],
        "predicted": predicted,
        "status": status,
    }
