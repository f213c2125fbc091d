"""What the model does without an intervention that depends on it."""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from halo_probe.capture.interventions import Intervention, resolve
from halo_probe.capture.recorder import prepare_target, recorded
from halo_probe.errors import CaptureError, InvalidAttentionError
from halo_probe.lmms.passes.passes import AnswerRequests, greedy_pass


def resolve_for(
    intervention: Intervention, answer: AnswerRequests, request: Any, *, model: PreTrainedModel
) -> tuple[Intervention, dict[str, Any]]:
    """Answer a document once without an intervention, greedily, and make of it what it is for this document.

    Digit 1 is the first step that writes a digit; the first step of all where none does.

    Args:
        intervention: One that needs a plain pass.
        answer: How the base model answers.
        request: lmms-eval's request.
        model: What the base model runs.

    Returns:
        The intervention, and for the sample, ready for JSON: `confidence`, the probability of the first token, and what
        was chosen, `strength` or the number of `cells`.

    Raises:
        CaptureError: If the pass failed, or the last layer does not see the image at digit 1.
    """
    with recorded(prepare_target(model, layers="last")) as generations:
        output = greedy_pass(model, answer, request, most=1 if intervention.name == "adapt" else None)
    (generation,) = generations
    first = torch.softmax(output.logits[0][0].double(), dim=-1)[int(generation.token_ids[0])]
    digits = np.flatnonzero(np.isin(generation.token_ids, list(intervention.digit_token_ids)))
    step = int(digits[0]) if digits.size else 0
    try:
        chosen = resolve(intervention, confidence=float(first), attention=generation.eq1[step, -1], seed=request.doc_id)
    except InvalidAttentionError as error:
        raise CaptureError(f"{intervention.name}: the last layer does not see the image at step {step}.") from error
    shown = {"strength": chosen.strength} if chosen.cells is None else {"cells": len(chosen.cells)}
    return chosen, {"confidence": float(first), **shown}
