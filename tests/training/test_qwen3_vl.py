"""The embedded checkpoint and the tiny Gemma3: real classes, real folders, two-digit answers."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from halo_probe.errors import UsageError
from tests import tiny_models
from training import qwen3_vl

QUESTION = "How many dots are there in the image? Answer directly. Answer: "


def dots(count, *, width=256, height=256):
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for index in range(count):
        x, y = 20 + 37 * index % (width - 40), 20 + 61 * index % (height - 40)
        draw.ellipse((x - 10, y - 10, x + 10, y + 10), fill="black")
    return image


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module", params=["qwen3_vl", "gemma3"])
def checkpoint(request):
    return request.getfixturevalue(f"{request.param}_checkpoint")


def test_the_auto_classes_load_the_real_classes_from_the_folder(qwen3_vl_checkpoint, gemma3_checkpoint):
    for folder, model_class, processor_class in (
        (qwen3_vl_checkpoint, Qwen3VLForConditionalGeneration, Qwen3VLProcessor),
        (gemma3_checkpoint, Gemma3ForConditionalGeneration, Gemma3Processor),
    ):
        assert type(AutoModelForImageTextToText.from_pretrained(folder)) is model_class
        assert type(AutoProcessor.from_pretrained(folder)) is processor_class


def test_the_embedded_model_has_about_a_million_parameters(qwen3_vl_model):
    assert 500_000 < sum(parameter.numel() for parameter in qwen3_vl_model.parameters()) < 1_200_000


def test_a_1024_pixel_image_is_1024_image_tokens(qwen3_vl_checkpoint):
    processor = AutoProcessor.from_pretrained(qwen3_vl_checkpoint)
    inputs = tiny_models.make_inputs(processor, [dots(3, width=1024, height=1024)], [QUESTION])
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 1024
    assert inputs["image_grid_thw"].tolist() == [[1, 64, 64]]


def test_a_gemma3_image_is_256_image_tokens_whatever_its_size(gemma3_model, gemma3_processor):
    inputs = tiny_models.make_inputs(gemma3_processor, [dots(3), dots(3, width=512)], [QUESTION, QUESTION])
    assert (inputs["input_ids"] == gemma3_model.config.image_token_id).sum(dim=1).tolist() == [256, 256]


def test_the_chat_template_renders_a_turn_as_qwen3_vl_does(qwen3_vl_processor):
    conversation = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "image", "url": "dots.png"}, {"type": "text", "text": QUESTION}]},
    ]
    assert qwen3_vl_processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "How many dots are there in the image? Answer directly. Answer: <|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_every_digit_is_one_token_and_any_text_survives_the_tokenizer(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer.encode("0123456789", add_special_tokens=False)
    assert [tokenizer.decode([token]) for token in ids] == list("0123456789")
    for text in (*qwen3_vl.CORPUS, "1024 dots: 12 ± 3 · Zählung 数 🙂"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_greedy_answers_of_the_checkpoint_are_two_digits_and_the_end(checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    inputs = tiny_models.make_inputs(processor, [dots(3), dots(12, width=320)], [QUESTION, "Count. Answer: "])
    tokens = model.generate(
        **inputs, max_new_tokens=16, do_sample=False, eos_token_id=processor.tokenizer.eos_token_id
    )[:, inputs["input_ids"].shape[1] :]
    assert tokens.shape == (2, 3)
    assert tokens[:, 2].tolist() == [processor.tokenizer.eos_token_id] * 2
    assert all(answer.isdigit() for answer in processor.batch_decode(tokens[:, :2]))


def test_the_answer_and_the_attention_depend_on_the_image(checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, attn_implementation="eager")
    processor = AutoProcessor.from_pretrained(checkpoint)
    images = [dots(count) for count in range(4, 16)]
    inputs = tiny_models.make_inputs(processor, images, [QUESTION] * len(images))
    prompt = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, max_new_tokens=16, return_dict_in_generate=True, output_attentions=True)
    assert len(set(processor.batch_decode(output.sequences[:, prompt:]))) > 1
    image = inputs["input_ids"][0] == model.config.image_token_id
    rows = output.attentions[0][-1][:, :, -1][:, :, image]
    maps = (rows / rows.sum(dim=-1, keepdim=True)).mean(dim=1)
    normalised_entropy = -(maps * maps.log()).sum(dim=-1) / torch.log(image.sum())
    assert (normalised_entropy < 0.97).all()
    assert (maps[0] - maps[1:]).abs().sum(dim=-1).min() > 0.01


def test_the_batch_is_left_padded_and_its_rows_keep_their_own_grids(qwen3_vl_processor):
    images = [dots(3, width=320, height=256), dots(3, width=512, height=512)]
    inputs = tiny_models.make_inputs(qwen3_vl_processor, images, [QUESTION, "Count. Answer: "])
    assert inputs["image_grid_thw"].tolist() == [[1, 16, 20], [1, 32, 32]]
    assert inputs["attention_mask"][:, 0].tolist() == [0, 1]
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]


def test_gemma3_alternates_its_layers_and_ends_on_the_chosen_type():
    for last in ("sliding_attention", "full_attention"):
        model, _ = tiny_models.gemma3(layers=3, last_layer=last, attn_implementation="eager")
        kinds = model.config.text_config.layer_types
        assert kinds[0] == kinds[2] == last != kinds[1]


def test_another_seed_gives_other_weights_and_leaves_the_random_state_of_torch_alone(qwen3_vl_processor):
    state = torch.random.get_rng_state()
    first, again, other = (
        qwen3_vl.build_model(qwen3_vl_processor.tokenizer, seed=seed).lm_head.weight for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_processes_build_the_same_cached_bytes_at_the_same_time(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-c", "from training import qwen3_vl as q; print(q.cached_checkpoint())"]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    (folder,) = {Path(stdout.strip()) for stdout, _ in outputs}
    assert list((tmp_path / "halo-probe" / "models").iterdir()) == [folder]
    assert digests(folder) == digests(qwen3_vl.write_checkpoint(tmp_path / "here"))


def test_the_loser_of_a_race_takes_the_folder_of_the_winner(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write = qwen3_vl.write_checkpoint

    def and_meanwhile_another_process_finishes(folder):
        write(tmp_path / "halo-probe" / "models" / folder.name)
        return write(folder)

    monkeypatch.setattr(qwen3_vl, "write_checkpoint", and_meanwhile_another_process_finishes)
    folder = qwen3_vl.cached_checkpoint()
    assert list(folder.parent.iterdir()) == [folder]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen3_vl"


def test_a_checkpoint_in_the_cache_is_not_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = qwen3_vl.cached_checkpoint()
    before = folder.stat().st_mtime_ns
    assert qwen3_vl.cached_checkpoint() == folder
    assert folder.stat().st_mtime_ns == before


def test_a_cache_that_cannot_be_written_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    with pytest.raises(UsageError, match="XDG_CACHE_HOME") as caught:
        qwen3_vl.cached_checkpoint()
    assert "\n" not in str(caught.value)


def test_a_disk_without_room_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    unlimited, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UsageError, match="free space") as caught:
            qwen3_vl.cached_checkpoint()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, hard))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "halo-probe" / "models").iterdir()) == []
