"""Interventions in a running model, against an eager model whose attention is edited in plain sight."""

from dataclasses import dataclass

import numpy as np
import pytest
import tiny_models
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image, ImageDraw
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.qwen3_vl import modeling_qwen3_vl

from halo_probe.capture import record_attention
from halo_probe.capture.interventions import Intervention
from halo_probe.errors import CaptureError, UsageError

STEPS = 5
MODELING = {"qwen3_vl": modeling_qwen3_vl, "gemma3": modeling_gemma3}
BUILDERS = {"qwen3_vl": tiny_models.qwen3_vl, "gemma3": tiny_models.gemma3}
OPTIONS = {
    "max_new_tokens": STEPS,
    "min_new_tokens": STEPS,
    "do_sample": False,
    "sequence_bias": None,
    "return_dict_in_generate": True,
    "output_logits": True,
}


@pytest.fixture(scope="module", params=list(BUILDERS))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model_and_inputs(family):
    model, processor = BUILDERS[family]()
    images = []
    for number, size in enumerate([(96, 64), (128, 160), (64, 96)]):
        image = Image.new("RGB", size, (255, 255, 255))
        ImageDraw.Draw(image).ellipse((8, 8, 40 + 8 * number, 50), fill=(0, 90 * number, 20))
        images.append(image)
    return model, tiny_models.make_inputs(processor, images, ["How many?", "How many dots are there?", "Dots? " * 4])


@pytest.fixture(scope="module")
def plain(model_and_inputs):
    model, inputs = model_and_inputs
    return model.generate(**inputs, **OPTIONS)


class EagerWithEdits:
    """Eager attention over whole matrices; the last row's image logits change where `wanted` says so."""

    def __init__(self, edit, wanted, image):
        self.edit, self.wanted, self.image = edit, wanted, image
        self.step = -1
        self.shares = {}

    def __call__(self, module, query, key, value, attention_mask, scaling=None, **kwargs):
        if not hasattr(module, "layer_idx"):
            raise AssertionError("only the language model is eager here")
        if module.layer_idx == 0:
            self.step += 1
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        logits = torch.einsum("bhqd,bhkd->bhqk", query, key) * scaling
        if attention_mask is not None:
            logits = logits + attention_mask[..., : key.shape[2]]
        for row in range(len(logits)):
            if self.wanted(self.step, module.layer_idx, row):
                columns = self.image[row]
                logits[row, :, -1, columns] = self.edit(logits[row, :, -1, columns])
        weights = logits.softmax(-1)
        self.shares[self.step, module.layer_idx] = [
            weights[row, :, -1, columns].mean(0) for row, columns in enumerate(self.image)
        ]
        return torch.einsum("bhqk,bhkd->bqhd", weights, value), weights


EDITS = {
    "boost": (Intervention, {"name": "boost", "strength": 3.0}, lambda z: z + np.log(3.0)),
    "scale": (Intervention, {"name": "scale", "strength": 0.25}, lambda z: 0.25 * z),
    "knockout": (Intervention, {"name": "knockout"}, lambda z: z - torch.inf),
}
FIRST, SECOND = 1, 2
"""The steps at which the first row writes what the tests take for digits."""


def digits(plain, inputs):
    """A token that the first row writes at step 1, and what the others happen to do about it."""
    tokens = plain.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    digit = next(token for token in tokens[0][1:] if token != tokens[0][0])
    first = [reply.index(digit) if digit in reply else STEPS for reply in tokens]
    return digit, first


@pytest.mark.parametrize(
    ("name", "steps", "layers"),
    [
        ("boost", "all", "all"),
        ("knockout", "prefill_last", "mid"),
        ("scale", "d1", "last"),
        ("boost", "d2", "all"),
        ("knockout", 2, (0,)),
    ],
)
def test_an_intervention_equals_an_edit_in_an_eager_model(name, steps, layers, family, model_and_inputs, plain):
    model, inputs = model_and_inputs
    kind, parameters, edit = EDITS[name]
    digit, _ = digits(plain, inputs)
    given = kind(**parameters, steps=steps, layers=layers, digit_token_ids=frozenset({digit}))
    with record_attention(model, layers="all", intervention=given) as recording:
        changed = model.generate(**inputs, **OPTIONS)

    tokens = changed.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    first = [reply.index(digit) if digit in reply else STEPS for reply in tokens]
    count = model.config.get_text_config().num_hidden_layers
    within = {"all": range(count), "last": [count - 1], "mid": range(int(0.4 * count), -int(-0.65 * count // 1))}
    chosen = set(within[layers] if isinstance(layers, str) else layers)

    def wanted(step, layer, row):
        at = {"all": True, "prefill_last": step == 0, "d1": step <= first[row], "d2": step == first[row] + 1}
        return layer in chosen and (at[steps] if isinstance(steps, str) else step == steps)

    eager_model, _ = BUILDERS[family](attn_implementation={"text_config": "eager", "vision_config": "sdpa"})
    columns = [np.flatnonzero(row == model.config.image_token_id) for row in inputs["input_ids"].numpy()]
    reference = EagerWithEdits(edit, wanted, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODELING[family], "eager_attention_forward", reference)
        expected = eager_model.generate(**inputs, **OPTIONS)
    assert changed.sequences.tolist() == expected.sequences.tolist()
    for found, wished in zip(changed.logits, expected.logits, strict=True):
        torch.testing.assert_close(found, wished, atol=3e-6 * max(1, float(wished.abs().max())), rtol=0)
    for row, generation in enumerate(recording.generations):
        assert (generation.visible == generation.image_positions.size).all()  # what an edit hides is within reach
        for (step, layer), shares in reference.shares.items():
            np.testing.assert_allclose(generation.raw[step, layer], shares[row], atol=3e-6)
    moved = [not torch.equal(a, b) for a, b in zip(changed.logits, plain.logits, strict=True)]
    assert any(moved)  # the edit was made at all


def test_rows_and_steps_that_are_not_intervened_on_stay_bit_for_bit(model_and_inputs, plain):
    model, inputs = model_and_inputs
    given = Intervention(name="knockout", steps=SECOND)
    with record_attention(model, intervention=given):
        changed = model.generate(**inputs, **OPTIONS)
    equal = [torch.equal(a, b) for a, b in zip(changed.logits, plain.logits, strict=True)]
    assert equal[:SECOND] == [True] * SECOND
    assert not equal[SECOND]

    digit, first = digits(plain, inputs)
    given = Intervention(name="knockout", steps="d2", digit_token_ids=frozenset({digit}))
    with record_attention(model, intervention=given):
        changed = model.generate(**inputs, **OPTIONS)
    for row, step in enumerate(first):
        before = [torch.equal(a[row], b[row]) for a, b in zip(changed.logits, plain.logits, strict=True)][: step + 1]
        assert all(before)


@pytest.mark.parametrize("given", [{"name": "boost", "strength": 1.0}, {"name": "knockout", "cells": ()}], ids=str)
def test_an_identity_leaves_every_logit_bit_for_bit(given, model_and_inputs, plain):
    model, inputs = model_and_inputs
    with record_attention(model, intervention=Intervention(**given)) as recording:
        changed = model.generate(**inputs, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(changed.logits, plain.logits, strict=True))
    assert len(recording.generations) == len(changed.sequences)


def test_an_intervention_that_cannot_be_applied_is_refused_at_the_door(model_and_inputs):
    model, inputs = model_and_inputs
    refusals = {
        "no such attention layer": Intervention(name="knockout", layers=(99,)),
        "depends on what the model does without it": Intervention(name="top30"),
    }
    for message, given in refusals.items():
        with pytest.raises(UsageError, match=message), record_attention(model, intervention=given):
            pass
    for options in ({"num_beams": 2}, {"use_cache": False}):
        refusal = pytest.raises(CaptureError, match="num_beams=1 and use_cache=True")
        with refusal, record_attention(model, intervention=Intervention(name="knockout")):
            model.generate(**inputs, **{**OPTIONS, **options})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_the_second_digit_is_found_in_a_model_with_adapters(model_and_inputs):
    model, inputs = model_and_inputs
    tokens = model.generate(**{**inputs, **OPTIONS, "max_new_tokens": 1, "min_new_tokens": 1}).sequences[:, -1]
    change = Intervention(name="knockout", steps="d2", digit_token_ids=frozenset(tokens.tolist()))
    with record_attention(model, intervention=change) as own:
        model.generate(**inputs, **OPTIONS)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))  # an adapter adds 0 to begin with
    try:
        with record_attention(adapted, intervention=change) as recording:
            adapted.generate(**inputs, **OPTIONS)
    finally:
        adapted.unload()
    for generation, expected in zip(recording.generations, own.generations, strict=True):
        np.testing.assert_array_equal(generation.raw, expected.raw)
        assert (generation.visual_mass[:2, 0] == 0).tolist() == [False, True]


@dataclass(frozen=True)
class Failing:
    steps: str = "all"
    digit_token_ids: frozenset[int] = frozenset()
    is_identity: bool = False

    def require_resolved(self):
        pass

    def layer_indices(self, available):
        return frozenset(available)

    def edit(self, logits, columns, rows):
        raise RuntimeError("out of memory")


def test_an_intervention_that_fails_ends_the_call_and_leaves_nothing_behind(model_and_inputs):
    model, inputs = model_and_inputs
    with pytest.raises(RuntimeError, match="out of memory"), record_attention(model, intervention=Failing()):
        model.generate(**inputs, **OPTIONS)
    assert "generate" not in vars(model)
    with record_attention(model) as recording:
        model.generate(**inputs, **OPTIONS)
    assert recording.generations
