"""Passes of the recorded model that are not the reply's own: a logits processor's, an assistant's, another thread's."""

import copy
import threading

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image, ImageDraw
from transformers import LogitsProcessor

from halo_probe.capture import record_attention
from halo_probe.capture.interventions import Intervention
from halo_probe.errors import CaptureError

FIXED = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "sequence_bias": None}


@pytest.fixture(scope="module", params=["qwen3_vl", "gemma3"])
def given(request):
    """A model, a prompt with a picture, and the same prompt with a blank one."""
    model, processor = getattr(tiny_models, request.param)()
    picture, blank = Image.new("RGB", (96, 64), (255, 255, 255)), Image.new("RGB", (96, 64), (128, 128, 128))
    ImageDraw.Draw(picture).ellipse((8, 8, 48, 50), fill=(0, 0, 20))
    return model, *(tiny_models.make_inputs(processor, [image], ["How many dots?"]) for image in (picture, blank))


class Beside(LogitsProcessor):
    """Does something at every step, and leaves the scores as they are."""

    def __init__(self, act):
        self.act, self.results = act, []

    def __call__(self, _, scores):
        self.results.append(self.act())
        return scores


def recorded(model, inputs, *, sinks=True, intervention=None, **options):
    with record_attention(model, layers="all", sinks=sinks, intervention=intervention) as recording:
        tokens = model.generate(**inputs, **FIXED, **options)
    (generation,) = recording.generations
    return generation, tokens


def assert_same(one, other):
    for name in ("token_ids", "eq1", "raw", "visual_mass", "first_mass", "visible", "sink_tokens"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("cached", [False, True])
def test_what_a_logits_processor_shows_the_model_is_not_recorded(cached, given):
    model, inputs, blank = given
    beside = Beside(lambda: model(**blank, use_cache=cached).logits)
    expected, tokens = recorded(model, inputs)
    found, same = recorded(model, inputs, logits_processor=[beside])
    assert len(beside.results) == 5
    assert torch.equal(same, tokens)
    assert_same(found, expected)


def test_guidance_by_a_negative_prompt_is_not_recorded():
    model, processor = tiny_models.gemma3()
    inputs = tiny_models.make_inputs(processor, [Image.new("RGB", (64, 64), (9, 99, 200))], ["How many dots?"])
    negative = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.image_token_id, 5)
    guidance = {"negative_prompt_ids": negative, "negative_prompt_attention_mask": torch.ones_like(negative)}
    expected, tokens = recorded(model, inputs)
    found, same = recorded(model, inputs, guidance_scale=1.0001, **guidance)
    assert torch.equal(same, tokens)
    np.testing.assert_array_equal(found.raw, expected.raw)


def test_an_intervention_leaves_the_pass_of_a_logits_processor_as_it_is(given):
    model, inputs, _ = given
    plain = model(**inputs, use_cache=False).logits
    beside = Beside(lambda: model(**inputs, use_cache=False).logits)
    knockout = Intervention(name="knockout", steps="all", layers="all")
    expected, _ = recorded(model, inputs, intervention=knockout)
    found, _ = recorded(model, inputs, intervention=knockout, logits_processor=[beside])
    assert all(torch.equal(logits, plain) for logits in beside.results)
    assert_same(found, expected)
    assert found.visual_mass.max() == 0


def test_without_a_cache_passes_that_cannot_be_told_apart_are_refused(given):
    model, inputs, blank = given
    beside = Beside(lambda: model(**blank, use_cache=False).logits)
    with pytest.raises(CaptureError, match="cannot be told apart: generate with use_cache=True"):
        recorded(model, inputs, logits_processor=[beside], use_cache=False)


def test_a_generate_call_within_another_runs_as_if_nobody_listened(given):
    model, inputs, blank = given
    beside = Beside(lambda: model.generate(**blank, **FIXED))
    expected, _ = recorded(model, inputs)
    found, _ = recorded(model, inputs, logits_processor=[beside])
    plain = model.generate(**blank, **FIXED)
    assert all(torch.equal(tokens, plain) for tokens in beside.results)
    assert_same(found, expected)


def test_an_assistant_that_shares_the_layers_is_refused(given):
    model, inputs, _ = given
    with pytest.raises(CaptureError, match="load it a second time"):
        recorded(model, inputs, assistant_model=copy.copy(model))


def test_another_thread_on_the_same_model_is_not_recorded_as_this_one(given):
    model, inputs, blank = given
    errors = []

    def elsewhere():
        model(**blank, use_cache=False)
        try:
            model.generate(**blank, **FIXED)
        except CaptureError as error:
            errors.append(str(error))

    def run():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    expected, tokens = recorded(model, inputs)
    found, same = recorded(model, inputs, logits_processor=[Beside(run)])
    assert torch.equal(same, tokens)
    assert_same(found, expected)
    assert len(errors) == 5
    assert "already being recorded" in errors[0]


def test_what_cannot_be_read_is_a_capture_error_before_the_model_runs(given):
    model, inputs, _ = given
    half = {**inputs, "attention_mask": inputs["attention_mask"].bfloat16()}
    assert_same(recorded(model, half)[0], recorded(model, inputs)[0])
    with pytest.raises(CaptureError, match=r"given cannot be read \(AttributeError: "):
        recorded(model, {**inputs, "input_ids": [[1, 2, 3]]})
