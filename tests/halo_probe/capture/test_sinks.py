"""Visual sinks found while a model reads its prompt, against the score of its stored hidden states."""

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from halo_probe.capture import record_attention, recorder
from halo_probe.capture import sinks as sink_capture
from halo_probe.errors import UnsupportedModelError
from halo_probe.metrics.visual_sinks import sink_score

FIXED = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False, "sequence_bias": None}


@pytest.fixture(scope="module", params=["qwen3_vl", "gemma3"])
def model_and_inputs(request):
    model, processor = getattr(tiny_models, request.param)()
    images = [Image.effect_noise((128, 96), 90).convert("RGB"), Image.new("RGB", (64, 64))]
    return model, tiny_models.make_inputs(processor, images, ["How many dots?", "Dots? " * 5])


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}], ids=str)
def test_sink_tokens_are_those_of_the_stored_hidden_states(options, model_and_inputs, monkeypatch):
    model, inputs = model_and_inputs
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    # Entry k is what layer k - 1 puts out, up to the last, which is after the final norm.
    outputs = torch.stack(states[3:-1])
    columns = inputs["input_ids"] == model.config.image_token_id
    scores = [sink_score(outputs[:, row, columns[row]]).max(axis=0) for row in range(2)]
    threshold = float(np.quantile(np.concatenate(scores), 0.8))  # weights at random have no massive activations
    monkeypatch.setattr(sink_capture, "SINK_SCORE", threshold)
    monkeypatch.setattr(recorder, "sink_layers", lambda model: list(model.get_decoder().layers)[2:-1])
    with record_attention(model, sinks=True) as recording:
        model.generate(**inputs, **FIXED, **options)
    for generation, expected in zip(recording.generations, scores, strict=True):
        assert generation.sink_tokens.dtype == bool
        far = abs(expected - threshold) > 1e-4
        assert generation.sink_tokens[far].tolist() == (expected > threshold)[far].tolist()
    assert any(generation.sink_tokens.any() for generation in recording.generations)


def test_a_token_with_a_massive_activation_is_a_sink_and_no_other(model_and_inputs, monkeypatch):
    model, inputs = model_and_inputs
    tokens = np.flatnonzero(inputs["input_ids"][0] == model.config.image_token_id)
    position = int(tokens[7])

    def raise_one(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[1] > position:
            hidden[0, position, 5] = 1e4

    width = model.config.get_text_config().hidden_size
    monkeypatch.setattr(sink_capture, "SINK_SCORE", 0.99 * width**0.5)  # √width is the largest score; below 20 here
    hook = model.get_decoder().layers[2].register_forward_hook(raise_one)
    with record_attention(model, sinks=True) as recording:
        model.generate(**inputs, **FIXED)
    hook.remove()
    assert np.flatnonzero(recording.generations[0].sink_tokens).tolist() == [7]
    assert not recording.generations[1].sink_tokens.any()


def test_sinks_are_not_looked_for_unless_asked_for_and_a_shallow_model_has_none(model_and_inputs):
    model, inputs = model_and_inputs
    with record_attention(model) as recording:
        model.generate(**inputs, **FIXED)
    assert recording.generations[0].sink_tokens is None
    shallow, _ = tiny_models.qwen3_vl(layers=2)
    with pytest.raises(UnsupportedModelError, match="from layer 2 on"), record_attention(shallow, sinks=True):
        pass
