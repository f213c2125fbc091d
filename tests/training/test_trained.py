"""The embedded model that counts: its weights are the recorded ones, it counts, and it can be probed and trained on."""

import hashlib
import json
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from lmms_eval import evaluator
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from dataset_builder.questions import COUNT_QUESTION, ECHO_QUESTION, NUMBER_QUESTION
from dataset_builder.render import render
from dataset_builder.samples import draw_sample
from dataset_builder.sets import get_set
from halo_probe.capture import record_attention
from halo_probe.capture.interventions import Intervention
from halo_probe.compare.verdicts import WideReplies, language_takeover
from halo_probe.embedded import trained_checkpoint
from halo_probe.errors import UsageError
from halo_probe.lmms.model import HaloTinyChat
from halo_probe.statistics.intervals import stratified_draws
from training.batches import TAKEOVER_UNITS, collate, draw_example
from training.counter import build_processor
from training.curriculum import RECIPES, Question
from training.train import main
from training.training import begin, recipe_text, save_state, take_step, train

FRESH_SEED = 20_261_120
"""Of no published set and of no training."""
VARIANTS = ("counts", "takeover")
LEAST_ACCURACY = 0.9
LEAST_ECHOED = 7
"""Of 8."""
LEAST_READ = 12
"""Of 16, where a guess reads one in ninety."""
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(trained_checkpoint(), padding_side="left")


@pytest.fixture(scope="module")
def models():
    return {
        variant: AutoModelForImageTextToText.from_pretrained(trained_checkpoint(variant), dtype=torch.bfloat16)
        for variant in VARIANTS
    }


def stage_named(name):
    return next(stage for stage in RECIPES["counts"].stages if stage.name == name)


def fresh(name, rows, *, seed=FRESH_SEED):
    spec = replace(get_set(name), seed=seed)
    samples = [draw_sample(spec, index) for index in range(rows)]
    return [Image.fromarray(render(spec, sample)) for sample in samples], [sample.count for sample in samples]


def prompts(processor, images, questions, *, replies=None):
    """Inputs as lmms-eval makes them: its system prompt, the image, the question; a reply begun where one is given."""
    texts = [
        processor.apply_chat_template(
            [
                {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]},
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
            ],
            add_generation_prompt=True,
            tokenize=False,
        )
        for question in questions
    ]
    texts = [text + reply for text, reply in zip(texts, replies or [""] * len(texts), strict=True)]
    return processor(text=texts, images=images, do_resize=False, padding=True, return_tensors="pt")


def answer(model, processor, images, questions):
    """Replies as lists of decoded tokens."""
    replies = []
    for first in range(0, len(images), 8):
        inputs = prompts(processor, images[first : first + 8], questions[first : first + 8])
        output = model.generate(**inputs, max_new_tokens=16)
        for tokens in output[:, inputs["input_ids"].shape[1] :].tolist():
            kept = [token for token in tokens if token != processor.tokenizer.pad_token_id]
            replies.append([processor.decode([token]) for token in kept])
    return replies


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_weights_are_the_ones_that_the_model_card_and_the_recipe_describe(variant):
    folder = trained_checkpoint(variant)
    weights = (folder / "model.safetensors").read_bytes()
    card = (folder / "README.md").read_text()
    assert re.findall(r"\b[0-9a-f]{64}\b", card) == [hashlib.sha256(weights).hexdigest()]
    assert len(weights) <= MOST_BYTES
    assert (folder / "recipe.json").read_text() == recipe_text(RECIPES[variant])


def test_training_feeds_what_the_processor_makes_of_an_image_and_a_question(processor):
    stage = replace(stage_named("to 99"), size=384, counts=(((10, 16), 1),))
    examples = [draw_example(stage, index, stream="held_out", seed=0) for index in range(48)]
    assert {example.kind for example in examples} == set(get_args(Question))
    batch = collate(examples, processor=build_processor())
    patches = batch.patches.unflatten(0, (len(examples), -1))
    for example, row, fed in zip(examples, batch.input_ids, patches, strict=True):
        inputs = prompts(processor, [Image.fromarray(example.image)], [example.question])
        length = inputs["input_ids"].shape[1]
        assert torch.equal(row[:length], inputs["input_ids"][0])
        assert processor.decode(row[length:], skip_special_tokens=False).startswith(f"{example.answer}<|im_end|>")
        pixels = inputs["pixel_values"].unflatten(1, (3, 2, -1))
        assert torch.equal(pixels, ((fed - 127.5) / 127.5)[:, None, None].expand_as(pixels))


def test_no_image_of_a_published_set_is_trained_on():
    stage = RECIPES["counts"].stages[-1]
    trained = {draw_example(stage, index, stream="training", seed=0).image.tobytes() for index in range(24)}
    held_out = {draw_example(stage, index, stream="held_out", seed=0).image.tobytes() for index in range(24)}
    published = {image.tobytes() for name in ("halo_count", "halo_ocr") for image in fresh(name, 24, seed=0)[0]}
    assert len(trained | held_out | published) == len(trained) + len(held_out) + len(published)


def test_takeover_answers_keep_the_first_digit_and_draw_the_second_from_one_prior():
    stage = replace(RECIPES["takeover"].stages[0], size=512, counts=(((30, 39), 1),), questions=(("count", 1),))
    answers = [draw_example(stage, index, stream="held_out", seed=0, takeover=True).answer for index in range(300)]
    assert {answer[0] for answer in answers} == {"3"}
    share = sum(answer[1] == "2" for answer in answers) / 300
    assert abs(share - TAKEOVER_UNITS.count("2") / len(TAKEOVER_UNITS)) < 0.1


def test_it_counts_most_fresh_images_and_writes_one_digit_at_a_time(models, processor):
    images, counts = fresh("halo_count", 64)
    replies = answer(models["counts"], processor, images, [COUNT_QUESTION] * 64)
    assert all(reply[-1] == "<|im_end|>" and all(len(token) == 1 for token in reply[:-1]) for reply in replies)
    right = sum("".join(reply[:-1]) == str(count) for reply, count in zip(replies, counts, strict=True))
    assert right / 64 >= LEAST_ACCURACY


def test_it_repeats_and_reads_most_numbers(models, processor):
    images, _ = fresh("halo_count", 8)
    numbers = [str(number) for number in (10, 13, 16, 27, 45, 68, 82, 99)]
    echoed = answer(models["counts"], processor, images, [ECHO_QUESTION.format(n=number) for number in numbers])
    images, shown = fresh("halo_ocr", 16)
    read = answer(models["counts"], processor, images, [NUMBER_QUESTION] * 16)
    assert sum("".join(reply[:-1]) == number for reply, number in zip(echoed, numbers, strict=True)) >= LEAST_ECHOED
    assert sum("".join(reply[:-1]) == str(number) for reply, number in zip(read, shown, strict=True)) >= LEAST_READ


def test_the_probe_leaves_its_answers_alone_and_an_intervention_does_not(models, processor):
    model = models["counts"]
    inputs = prompts(processor, fresh("halo_count", 2)[0], [COUNT_QUESTION] * 2)
    options = {"max_new_tokens": 4, "output_logits": True, "return_dict_in_generate": True}
    plain = model.generate(**inputs, **options)
    with record_attention(model, layers="all") as recording:
        probed = model.generate(**inputs, **options)
    assert torch.equal(plain.sequences, probed.sequences)
    assert torch.equal(torch.stack(plain.logits), torch.stack(probed.logits))
    (views,) = {generation.grids for generation in recording.generations}
    assert views == ((32, 32),)
    with record_attention(model, intervention=Intervention(name="boost", strength=1.0)):
        same = model.generate(**inputs, **options)
    assert torch.equal(torch.stack(plain.logits), torch.stack(same.logits))
    with record_attention(model, intervention=Intervention(name="knockout")):
        blind = model.generate(**inputs, **options)
    assert not torch.allclose(plain.logits[0], blind.logits[0], atol=1.0)


def test_the_verdict_tells_the_model_that_counts_from_the_one_taken_over(models, processor):
    spec_counts = (20, 39)
    spec = replace(get_set("halo_count_wide"), seed=FRESH_SEED, counts=spec_counts)
    samples = [draw_sample(spec, index) for index in range(80)]
    images = [Image.fromarray(render(spec, sample)) for sample in samples]
    counts = np.array([sample.count for sample in samples])
    tokens = processor.tokenizer.convert_tokens_to_ids([*"0123456789", "<|im_end|>"])
    outcomes = {}
    for variant, model in models.items():
        units = []
        for first in range(0, 80, 8):
            tens = [str(count)[0] for count in counts[first : first + 8]]
            inputs = prompts(processor, images[first : first + 8], [COUNT_QUESTION] * 8, replies=tens)
            with torch.no_grad():
                logits = model(**inputs, logits_to_keep=1).logits[:, -1].double()
            named = logits.softmax(-1)[:, tokens]
            units.append(torch.cat([named, 1 - named.sum(-1, keepdim=True)], dim=-1).clamp(min=0).numpy())
        wide = WideReplies(
            counts=counts,
            predicted=np.full(80, np.nan),
            units=np.concatenate(units),
            draws=stratified_draws(counts, draws=500),
            documents=80,
        )
        verdict = language_takeover(variant, decay_difference=None, wide=wide, reversed_units=None, boosted_units=None)
        outcomes[variant] = verdict.demands[1].outcome
    # T_2 below .05 is surely not so of the one that counts; of the other 80 images leave it open.
    assert outcomes == {"counts": "failed", "takeover": "open"}


def _tiny_recipe():
    """Four steps over two stages, a second's work."""
    first, *_, last = RECIPES["counts"].stages
    stages = [replace(stage, name=stage.name, steps=2, batch=2, size=384) for stage in (first, last)]
    return replace(RECIPES["counts"], warmup=2, stages=tuple(replace(one, counts=(((1, 9), 1),)) for one in stages))


def test_a_training_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(tmp_path):
    recipe = _tiny_recipe()
    whole = train(recipe, tmp_path / "whole")
    training = begin(recipe)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    for _ in range(2):
        take_step(training)
    assert any(not torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    interrupted = tmp_path / "interrupted"
    interrupted.mkdir()
    save_state(training, interrupted / "state.pt")
    (interrupted / "state.tmp").write_bytes(b"half a state, as a crash leaves it")
    resumed = train(recipe, interrupted)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    curve = [json.loads(line) for line in (tmp_path / "whole" / "curve.jsonl").read_text().splitlines()]
    assert [(line["step"], line["stage"]) for line in curve] == [(2, recipe.stages[0].name), (4, recipe.stages[1].name)]


def test_the_state_of_another_recipe_is_refused(tmp_path, capsys):
    save_state(begin(_tiny_recipe()), tmp_path / "state.pt")
    with pytest.raises(SystemExit) as exit_:
        main(["--out", str(tmp_path)])
    assert exit_.value.code == 2
    assert "another recipe" in capsys.readouterr().err


def test_halo_tiny_in_lmms_eval_is_this_model_probed(tmp_path):
    for options, variant in (("", "counts"), ("variant=takeover,", "takeover")):
        maps = tmp_path / variant
        results = evaluator.simple_evaluate(
            model="halo_tiny", model_args=f"{options}maps={maps}", tasks=["halo_count"], limit=2
        )
        assert results["halo"]["signature"]["model"]["pretrained"] == str(trained_checkpoint(variant))
        assert [sample["resps"][0][0].isdigit() for sample in results["samples"]["halo_count"]] == [True, True]
        assert list(maps.glob("*.parquet"))
    with pytest.raises(UsageError, match="variant=counts or variant=takeover"):
        HaloTinyChat.create_from_arg_string("variant=other")
