"""Interventions on real models against eager attention with the edits written out, on probabilities and in float64."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.qwen3_vl import modeling_qwen3_vl

from halo_probe.capture import record_attention
from halo_probe.capture.interventions import Intervention, digit_tokens
from halo_probe.errors import UsageError
from tests import tiny_models

FAMILIES = {
    "qwen3_vl": (tiny_models.qwen3_vl, modeling_qwen3_vl),
    "gemma3": (tiny_models.gemma3, modeling_gemma3),
}
TEXTS = ["How many dots?", "How many dots are there in the image? Answer directly. Answer: ", "Count."]
STEPS = 3
LAYERS = {"qwen3_vl": {"all": range(4), "mid": [1, 2]}, "gemma3": {"all": range(6), "mid": [2, 3]}}
CASES = [
    {"name": "scale", "strength": 0.5, "layers": "mid"},
    {"name": "temperature", "strength": 2.0, "steps": "all"},
    {"name": "boost", "strength": 4.0, "steps": "d2"},
    {"name": "knockout", "cells": (0, 2, 3), "steps": "all"},
]
AT = {"d2": [1], "all": range(STEPS)}
"""Steps of a reply of two digits and the end."""


def pictures():
    images = []
    for number, size in enumerate([(96, 64), (128, 160), (64, 64)]):
        image = Image.new("RGB", size, (255, 255, 255))
        draw = ImageDraw.Draw(image)
        for dot in range(3 + number):
            x, y = 9 + 17 * dot % (size[0] - 10), 11 + 23 * dot % (size[1] - 10)
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(10 * dot, 20, 60 * number))
        images.append(image)
    return images


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def models(family):
    build = FAMILIES[family][0]
    model, processor = build()
    return model, build(attn_implementation="eager")[0], processor


@pytest.fixture(scope="module")
def batch(models):
    inputs = tiny_models.make_inputs(models[2], pictures(), TEXTS)
    assert inputs["attention_mask"].sum(1).unique().numel() > 1
    return inputs


def generate(model, inputs):
    output = model.generate(**inputs, max_new_tokens=STEPS, return_dict_in_generate=True, output_logits=True)
    return output.sequences, torch.stack(output.logits)


def edited(z, columns, case):
    """Probabilities of one row of one head, float64."""
    p = np.exp(z - z.max())
    p /= p.sum()
    if case["name"] == "boost":
        p[columns] *= case["strength"]
    elif case["name"] == "knockout":
        p[columns[list(case.get("cells", range(columns.size)))]] = 0
    elif case["name"] == "temperature":
        sharp = p[columns] ** case["strength"]
        p[columns] = p[columns].sum() * sharp / sharp.sum()
    else:
        weights = np.exp(z)
        weights[columns] = np.exp(case["strength"] * z[columns])
        p = weights
    return p / p.sum()


def explicit(case, layers, columns, prompt):
    """An eager attention function in which the operation is written out."""

    def attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        groups = query.shape[1] // key.shape[1]
        key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
        z = query @ key.transpose(2, 3) * (scaling or module.head_dim**-0.5)
        if attention_mask is not None:
            z = z + attention_mask[..., : key.shape[2]]
        p = torch.softmax(z, dim=-1)
        step = key.shape[2] - prompt
        if getattr(module, "layer_idx", None) in layers and step in AT[case.get("steps", "all")]:
            for row, places in enumerate(columns):
                for head in range(p.shape[1]):
                    changed = edited(z[row, head, -1].double().numpy(), places, case)
                    p[row, head, -1] = torch.from_numpy(changed).float()
        return (p @ value).transpose(1, 2).contiguous(), p

    return attend


def describe(case):
    return " ".join(map(str, case.values()))


@pytest.mark.parametrize("case", CASES, ids=describe)
def test_it_does_what_eager_attention_with_the_edit_written_out_does(case, family, models, batch, monkeypatch):
    sdpa, eager, processor = models
    layers = LAYERS[family][case.get("layers", "all")]
    is_image = (batch["input_ids"] == sdpa.config.image_token_id).numpy()
    written_out = explicit(case, layers, [np.flatnonzero(row) for row in is_image], is_image.shape[1])
    with monkeypatch.context() as patch:
        patch.setattr(FAMILIES[family][1], "eager_attention_forward", written_out)
        sequences, expected = generate(eager, batch)
    assert (expected - generate(eager, batch)[1]).abs().max() > 1e-3 * expected.abs().max()
    intervention = Intervention(**case, digit_token_ids=frozenset(digit_tokens(processor.tokenizer)))
    # The kernels themselves differ by up to 4e-6 of the largest logit.
    for model, tolerance in ((eager, 3e-6), (sdpa, 7e-6)):
        with record_attention(model, intervention=intervention):
            found_sequences, found = generate(model, batch)
        assert torch.equal(found_sequences, sequences)
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


IDENTITIES = [
    {"name": "scale", "strength": 1},
    {"name": "temperature", "strength": 1},
    {"name": "boost", "strength": 1},
    {"name": "knockout", "cells": ()},
]


@pytest.mark.parametrize("case", IDENTITIES, ids=describe)
def test_an_edit_that_changes_nothing_leaves_every_bit(case, models, batch):
    plain_sequences, plain = generate(models[0], batch)
    with record_attention(models[0], layers="all", intervention=Intervention(**case)):
        sequences, logits = generate(models[0], batch)
    assert torch.equal(sequences, plain_sequences)
    assert torch.equal(logits, plain)


def test_the_recording_shows_what_the_intervention_made_of_the_attention(family, models, batch):
    """In the first layer, whose input no intervention has changed; the map of a boosted head stays as it was."""

    def heads(**case):
        change = Intervention(**case) if case else None
        with record_attention(models[0], layers=[0], heads="all", intervention=change) as recording:
            generate(models[0], batch)
        return [generation.heads[0, 0] for generation in recording.generations]

    hidden = heads(name="knockout")
    for plain, boosted, knocked in zip(heads(), heads(name="boost", strength=3.0), hidden, strict=True):
        mass, raised = plain.sum(1), boosted.sum(1)
        np.testing.assert_allclose(raised, 3 * mass / (1 + 2 * mass), atol=1e-6)
        np.testing.assert_allclose(boosted / raised[:, None], plain / mass[:, None], rtol=1e-5, atol=1e-6)
        assert not knocked.any()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"name": "adapt"}, "adapt: depends on"),
        ({"name": "top30"}, "top30: depends on"),
        ({"name": "boost", "strength": 2, "steps": "d2"}, "needs to know the digits"),
        ({"name": "knockout", "layers": (9,)}, "no such attention layer; use all, mid, last or indices from 0 to"),
    ],
    ids=str,
)
def test_what_cannot_be_applied_is_refused_before_anything_runs(case, message, models):
    with pytest.raises(UsageError, match=message), record_attention(models[0], intervention=Intervention(**case)):
        pytest.fail("it began")
    assert "generate" not in vars(models[0])
