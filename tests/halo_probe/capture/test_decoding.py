"""Every way to decode that can be followed, against one eager pass over the finished sequence."""

import inspect
import threading
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import pytest
import tiny_models
import torch
from accelerate import cpu_offload, disk_offload
from PIL import Image, ImageDraw
from transformers import CompileConfig, DynamicCache, LogitsProcessor, StaticCache, StoppingCriteria

from halo_probe.capture import collection, record_attention
from halo_probe.errors import CaptureError

STEPS = 6
BUILDERS = {"qwen3_vl": tiny_models.qwen3_vl, "gemma3": tiny_models.gemma3}
TEXTS = ["How many dots?", "How many dots are there in the image? Answer directly. Answer: "]
FIXED = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "sequence_bias": None}


@pytest.fixture(scope="module", params=list(BUILDERS))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model_and_processor(family):
    return BUILDERS[family]()


@pytest.fixture(scope="module")
def model(model_and_processor):
    return model_and_processor[0]


@pytest.fixture(scope="module")
def eager(family):
    return BUILDERS[family](attn_implementation="eager")[0]


@pytest.fixture(scope="module")
def prompts(model_and_processor):
    """Model inputs of each prompt alone, and of both in a batch."""
    images = []
    for number, size in enumerate([(96, 64), (128, 160)]):
        image = Image.new("RGB", size, (255, 255, 255))
        ImageDraw.Draw(image).ellipse((8, 8, 40 + 8 * number, 50), fill=(0, 90 * number, 20))
        images.append(image)
    processor = model_and_processor[1]
    alone = [tiny_models.make_inputs(processor, [image], [text]) for image, text in zip(images, TEXTS, strict=True)]
    return alone, tiny_models.make_inputs(processor, images, TEXTS)


def check_against_one_eager_pass(eager, alone, generations, copies=1, atol=1e-5):
    """Each generation's rows are those of its prompt and tokens, read in one pass without a cache."""
    assert len(generations) == copies * len(alone)
    for number, generation in enumerate(generations):
        inputs = dict(alone[number // copies])
        reply = torch.from_numpy(generation.token_ids)[None]
        prompt = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], reply], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in inputs:
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, reply.shape[1]))
        with torch.no_grad():
            attentions = eager(**inputs, output_attentions=True).attentions
        whole = torch.stack([layer[0] for layer in attentions])[:, :, prompt - 1 : -1]  # layers, heads, steps, keys
        raw = whole[..., generation.image_positions].mean(1).transpose(0, 1)
        np.testing.assert_allclose(generation.raw, raw.numpy(), atol=atol)
        np.testing.assert_allclose(generation.first_mass, whole[..., 0].mean(1).T.numpy(), atol=atol)
        assert np.ptp(generation.eq1, axis=-1).max() * raw.shape[-1] > 2  # far from uniform: a shift would show


@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({}, 1),
        ({"do_sample": True, "temperature": 2.0, "num_return_sequences": 2}, 2),
        ({"num_beams": 3, "num_return_sequences": 2}, 2),
        ({"num_beams": 2, "do_sample": True, "temperature": 2.0}, 1),
        ({"cache_implementation": "static"}, 1),
    ],
    ids=["greedy", "samples", "beams", "sampled beams", "static"],
)
def test_every_row_belongs_to_the_token_that_it_predicted(options, copies, model, eager, prompts):
    alone, batch = prompts
    outputs = []
    for record in (nullcontext(), record_attention(model, layers="all", heads="all")):
        torch.manual_seed(3)
        with record as recording:
            outputs.append(model.generate(**batch, **{**FIXED, **options}))
    output = outputs[1]
    assert torch.equal(*outputs)
    check_against_one_eager_pass(eager, alone, recording.generations, copies)
    tokens = output[:, batch["input_ids"].shape[1] :]
    assert [one.token_ids.tolist() for one in recording.generations] == tokens.tolist()
    if options.get("num_return_sequences"):
        assert tokens[0].tolist() != tokens[1].tolist()


PAD = 5


class WritesPad(LogitsProcessor):
    """A model whose third and later tokens are its pad token."""

    def __init__(self, prompt):
        self.prompt = prompt

    def __call__(self, input_ids, scores):
        if input_ids.shape[1] - self.prompt < 2:
            return scores
        return torch.full_like(scores, -1e9).index_fill(1, torch.tensor(PAD), 0)


class Stops(StoppingCriteria):
    """Ends the first row after its second token."""

    def __init__(self, prompt):
        self.prompt = prompt

    def __call__(self, input_ids, scores, **kwargs):
        done = torch.zeros(len(input_ids), dtype=torch.bool)
        done[0] = input_ids.shape[1] - self.prompt >= 2
        return done


def test_padding_is_cut_where_another_stop_can_have_left_it_and_a_pad_token_that_was_written_is_kept(model, prompts):
    alone, batch = prompts
    options = {"max_new_tokens": 4, "do_sample": False, "sequence_bias": None, "pad_token_id": PAD, "eos_token_id": 1}
    for inputs, stops, lengths in [(alone[0], False, [4]), (batch, False, [4, 4]), (batch, True, [2, 4])]:
        prompt = inputs["input_ids"].shape[1]
        given = {"stopping_criteria": [Stops(prompt)]} if stops else {"logits_processor": [WritesPad(prompt)]}
        with record_attention(model) as recording:
            output = model.generate(**inputs, **options, **given)
        for row, length, generation in zip(output[:, prompt:], lengths, recording.generations, strict=True):
            assert generation.token_ids.tolist() == row.tolist()[:length]
            assert row[2:].tolist() == [PAD, PAD] or length == 4
            assert not generation.ended
            assert len(generation.eq1) == length


def test_assisted_decoding_records_the_tokens_that_were_kept(model, eager, family, prompts):
    """The decoder sees guesses, several at a time, and those that it rejects again as other tokens."""
    alone, _ = prompts
    helpers = [{"assistant_model": BUILDERS[family](seed=2 if family == "gemma3" else 0, layers=2)[0]}]
    if family == "gemma3":  # in Qwen's prompt it guesses image tokens, which transformers then looks for pixels of
        helpers.append({"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1})
    plain = model.generate(**alone[1], **FIXED)
    for options in helpers:
        with record_attention(model, layers="all") as recording, lengths_of_passes(model) as lengths:
            output = model.generate(**alone[1], **FIXED, **options)
        assert output.tolist() == plain.tolist()
        assert sum(lengths) > alone[1]["input_ids"].shape[1] + STEPS  # some guesses were rejected
        check_against_one_eager_pass(eager, alone[1:], recording.generations)


@contextmanager
def lengths_of_passes(model):
    """How many tokens the decoder is given in each pass."""
    lengths = []
    note = partial(lambda _module, _args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]))
    hook = model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    yield lengths
    hook.remove()


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_prompt_that_is_read_in_pieces_is_recorded_from_its_end(cache, model, eager, family, prompts):
    alone, _ = prompts
    inputs = dict(alone[0])
    prompt = inputs["input_ids"].shape[1]
    if family == "qwen3_vl":
        options = {"prefill_chunk_size": 32, "cache_implementation": cache}
    else:  # transformers does not cut its prompts: a cache that already holds most of one
        start = {name: value[:, :-5] if value.shape[1:] == (prompt,) else value for name, value in inputs.items()}
        text = model.config.get_text_config()
        filled = DynamicCache(config=text) if cache == "dynamic" else StaticCache(text, max_cache_len=prompt + STEPS)
        # transformers 5.24 renamed the parameter
        name = "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
        with torch.no_grad():
            model(**start, **{name: filled})
        del inputs["pixel_values"]
        options = {name: filled}
    with record_attention(model, layers="all") as recording, lengths_of_passes(model) as lengths:
        model.generate(**inputs, **FIXED, **options)
    assert lengths[0] < prompt
    check_against_one_eager_pass(eager, alone[:1], recording.generations)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_window_that_fills_up_within_the_reply_changes_nothing(cache):
    """Until then queries wait for each other, and the keys that they need are about to be dropped."""
    _, processor = tiny_models.gemma3(layers=1)
    inputs = tiny_models.make_inputs(processor, [Image.effect_noise((64, 64), 90).convert("RGB")], [TEXTS[0]])
    window = inputs["input_ids"].shape[1] + 2
    model, _ = tiny_models.gemma3(sliding_window=window)
    eager, _ = tiny_models.gemma3(sliding_window=window, attn_implementation="eager")
    with record_attention(model, layers="all") as recording:
        model.generate(**inputs, **FIXED, cache_implementation=cache)
    check_against_one_eager_pass(eager, [inputs], recording.generations)
    assert (recording.generations[0].first_mass[-1] == 0).any()  # the first token is out of some layers' reach


def test_blocks_of_steps_equal_steps_scored_one_by_one(model, prompts, monkeypatch):
    _, batch = prompts
    recordings = []
    for budget in (0, 10_000, 2**22):
        monkeypatch.setattr(collection, "_BLOCK_LOGITS", budget)
        with record_attention(model, layers="all", heads="all") as recording:
            model.generate(**batch, **FIXED)
        recordings.append(recording.generations)
    for others in recordings[1:]:
        for one, other in zip(recordings[0], others, strict=True):
            for name in ("eq1", "raw", "visual_mass", "first_mass", "heads", "visible"):
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-6)


def test_steps_that_wait_are_scored_before_they_are_many(model, prompts, monkeypatch):
    _, batch = prompts
    sizes = []
    row_logits = collection.row_logits

    def spy(query, *given):
        logits = row_logits(query, *given)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(collection, "row_logits", spy)
    monkeypatch.setattr(collection, "_BLOCK_LOGITS", 30_000)
    with record_attention(model, layers="all"):
        model.generate(**batch, **{**FIXED, "max_new_tokens": 12, "min_new_tokens": 12})
    assert max(sizes) <= 30_000


def test_the_host_waits_as_often_for_many_steps_and_layers_as_for_few(model, prompts, monkeypatch):
    """One transfer per call and device: nothing is read back step by step or layer by layer."""
    _, batch = prompts
    reads = []
    for name in ("cpu", "item", "tolist", "numpy", "__bool__", "__int__", "__float__"):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *args, original=original, **kwargs):
            reads.append(1)
            return original(tensor, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def spent(steps, layers):
        options = {**FIXED, "max_new_tokens": steps, "min_new_tokens": steps}
        reads.clear()
        model.generate(**batch, **options)
        plain = len(reads)
        reads.clear()
        with record_attention(model, layers=layers):
            model.generate(**batch, **options)
        return len(reads) - plain

    assert spent(3, "last") == spent(9, "all") > 0


def test_two_threads_on_two_models_do_not_disturb_each_other(family, prompts, model):
    alone, _ = prompts
    others = [model, BUILDERS[family](seed=5)[0]]
    barrier = threading.Barrier(2)
    found = [[], []]

    def run(number):
        for _ in range(3):
            barrier.wait()
            with record_attention(others[number], layers="all") as recording:
                others[number].generate(**alone[number], **FIXED)
            found[number] += recording.generations

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, generations in enumerate(found):
        with record_attention(others[number], layers="all") as recording:
            others[number].generate(**alone[number], **FIXED)
        assert len(generations) == 3
        for generation in generations:
            np.testing.assert_array_equal(generation.eq1, recording.maps)


@pytest.mark.parametrize("how", ["module", "forward", "layer", "static"])
def test_a_compiled_generate_is_refused_in_one_line(how):
    model, processor = tiny_models.qwen3_vl(layers=2)
    inputs = tiny_models.make_inputs(processor, [Image.new("RGB", (64, 64))], ["Dots?"])
    options = dict(FIXED)
    if how == "module":
        model.compile()
    elif how == "forward":
        model.forward = torch.compile(model.forward)
    elif how == "layer":
        decoder = model.get_decoder()
        decoder.layers[0] = torch.compile(decoder.layers[0])
    else:
        options |= {"cache_implementation": "static", "compile_config": CompileConfig()}
    with pytest.raises(CaptureError, match=r"^A compiled [^\n]*$"), record_attention(model):
        model.generate(**inputs, **options)


def test_an_offloaded_model_records_what_it_records_in_memory(family, model, prompts, tmp_path):
    alone, _ = prompts
    with record_attention(model, layers="all") as expected:
        model.generate(**alone[0], **FIXED)
    for offload in (cpu_offload, partial(disk_offload, offload_dir=str(tmp_path / "weights"))):
        moved = BUILDERS[family]()[0]
        offload(moved, execution_device=torch.device("cpu"))
        with record_attention(moved, layers="all") as found:
            moved.generate(**alone[0], **FIXED)
        np.testing.assert_array_equal(found.maps, expected.maps)
