"""The check at load and `halo-probe doctor`: a sound capture passes, and each way to be wrong fails."""

import dataclasses
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from halo_probe.archive.generation import View
from halo_probe.archive.size import require_room
from halo_probe.capture import check, recorder
from halo_probe.capture.check import check_capture, require_sound
from halo_probe.capture.recorder import prepare_target
from halo_probe.cli import main
from halo_probe.errors import CaptureError, NoImageTokensError, UsageError

NAMES = [
    "recording changes nothing",
    "rows sum to one",
    "image tokens fit their grid",
    "rows equal eager attention",
    "the model uses what is recorded",
]


def call_of(processor, *, side=128, seed=3, others=()):
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))
    texts = ["How many dots are there in the image?", *others]
    inputs = tiny_models.make_inputs(processor, [picture] * len(texts), texts)
    return (), {**inputs, "max_new_tokens": 8, "num_beams": 2}


@pytest.fixture
def call(qwen3_vl_processor):
    return call_of(qwen3_vl_processor)


def results_of(findings):
    return {one.name: one.passed for one in findings}


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_a_sound_capture_passes_every_check_and_leaves_the_model_as_it_was(family, request):
    model, processor = (request.getfixturevalue(f"{family}_{part}") for part in ("model", "processor"))
    target = prepare_target(model, layers="all")
    findings, generation = check_capture(target, call_of(processor))
    assert results_of(findings) == dict.fromkeys(NAMES, True)
    assert len(generation.token_ids) == 3
    require_sound(findings)
    assert "generate" not in vars(model)
    assert model.get_decoder().config._attn_implementation == target.kernel == "sdpa"
    assert not any(module._forward_hooks for module in target.modules.values())


MODES = [
    {"cache_implementation": "static"},
    {"prefill_chunk_size": 40},
    {"cache_implementation": "static", "prefill_chunk_size": 40},
    {"guidance_scale": 1.5},
]
"""Options that give a cache room behind the prompt, cut the prompt into passes, or add passes that are not of it."""


@pytest.mark.parametrize(
    ("family", "mode"),
    # guidance gives Qwen3-VL inputs that it cannot run
    [("gemma3", mode) for mode in MODES] + [("qwen3_vl", mode) for mode in MODES if "guidance_scale" not in mode],
)
@pytest.mark.parametrize("others", [(), ("What is the number of dots? Answer with two digits.",)], ids=["one", "two"])
def test_a_sound_capture_passes_whatever_the_cache_and_the_passes_of_the_prompt_are(family, mode, others):
    """Beside a longer prompt the first one is padded; the window of Gemma3 reaches back to half of the image."""
    model, processor = tiny_models.gemma3(sliding_window=160) if family == "gemma3" else tiny_models.qwen3_vl()
    model.generation_config.update(**mode)
    call = call_of(processor, others=others)
    findings, generation = check_capture(prepare_target(model, layers="all"), call)
    assert (generation.prompt_length < call[1]["input_ids"].shape[1]) == bool(others)
    assert results_of(findings) == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize("mode", MODES[:2], ids="+".join)
def test_a_wrong_row_fails_whatever_the_cache_and_the_passes_of_the_prompt_are(mode, call, monkeypatch):
    model, _ = tiny_models.qwen3_vl()
    model.generation_config.update(**mode)
    changed(monkeypatch, raw=lambda one: 0.98 * one.raw + 0.02 * one.raw[..., ::-1])
    findings, _ = check_capture(prepare_target(model), call)
    assert [name for name, passed in results_of(findings).items() if not passed] == ["rows equal eager attention"]


def test_an_eager_kernel_that_fails_is_a_check_that_could_not_be_tried(call):
    model, _ = tiny_models.qwen3_vl()
    target = prepare_target(model)

    def fail(module, *_):
        if module.config._attn_implementation == "eager":
            raise KeyError("no mask for eager")

    model.get_decoder().register_forward_pre_hook(fail)
    findings, _ = check_capture(target, call)
    assert results_of(findings) == {**dict.fromkeys(NAMES, True), "rows equal eager attention": None}
    assert "could not be tried ('no mask for eager')" in findings[3].detail


def test_a_layer_without_weights_is_no_evidence(qwen3_vl_model, call):
    generation = check.record_once(prepare_target(qwen3_vl_model), call)
    with pytest.raises(CaptureError, match="the eager kernel was not called in layer 3"):
        check._distance({}, generation, 0, prompt=generation.prompt_length)


def changed(monkeypatch, **change):
    """What a capture that is wrong in one way would hand over."""
    recorded = recorder.recording_generate

    def recording_generate(target, *, deliver, **kwargs):
        def deliver_changed(generations):
            deliver([dataclasses.replace(one, **{k: v(one) for k, v in change.items()}) for one in generations])

        return recorded(target, deliver=deliver_changed, **kwargs)

    monkeypatch.setattr(recorder, "recording_generate", recording_generate)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"eq1": lambda one: one.eq1 * 1.01}, ["rows sum to one"]),
        ({"views": lambda _: (View(0, 3, 3, (0, 0, 1, 1)),)}, ["image tokens fit their grid"]),
        ({"raw": lambda one: one.raw[..., ::-1]}, ["rows equal eager attention"]),
        (
            {"given": lambda one: dataclasses.replace(one.given, image_positions=one.image_positions + 1)},
            ["rows equal eager attention"],
        ),
        (
            {"raw": lambda one: one.raw * 0.9, "visual_mass": lambda one: one.visual_mass * 0.9},
            ["rows equal eager attention"],
        ),
    ],
    ids=["sums", "grid", "order", "span", "mass"],
)
def test_a_capture_that_is_wrong_fails_the_check_that_is_about_it(change, failed, qwen3_vl_model, call, monkeypatch):
    changed(monkeypatch, **change)
    findings, _ = check_capture(prepare_target(qwen3_vl_model), call)
    assert [name for name, passed in results_of(findings).items() if not passed] == failed
    with pytest.raises(CaptureError, match=rf"does not hold that {failed[0]}: .*check=false"):
        require_sound(findings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_hides_no_wrong_row(dtype, qwen3_vl_checkpoint, call, monkeypatch):
    """The row is held against float32 attention of the very queries and keys that the model made."""
    model = AutoModelForImageTextToText.from_pretrained(qwen3_vl_checkpoint, dtype=dtype).eval()
    target = prepare_target(model, layers="all")
    findings, _ = check_capture(target, call)
    assert results_of(findings) == dict.fromkeys(NAMES, True)
    changed(monkeypatch, raw=lambda one: 0.98 * one.raw + 0.02 * one.raw[..., ::-1])
    findings, _ = check_capture(target, call)
    assert [name for name, passed in results_of(findings).items() if not passed] == ["rows equal eager attention"]


def test_a_model_that_ignores_the_recorded_attention_fails(qwen3_vl_checkpoint, call):
    model = AutoModelForImageTextToText.from_pretrained(qwen3_vl_checkpoint).eval()
    target = prepare_target(model)
    (attention,) = target.modules.values()
    attention.o_proj.weight.data.zero_()
    findings, _ = check_capture(target, call)
    assert [name for name, passed in results_of(findings).items() if not passed] == ["the model uses what is recorded"]


def test_layers_whose_window_ends_after_the_image_are_not_taken_for_wrong():
    model, processor = tiny_models.gemma3(sliding_window=8)
    call = call_of(processor)
    findings, generation = check_capture(prepare_target(model, layers="all"), call)
    assert set(generation.visible[0]) == {0, 256}
    assert results_of(findings) == dict.fromkeys(NAMES, True)
    findings, _ = check_capture(prepare_target(model), call)
    unseen = ["rows sum to one", "rows equal eager attention", "the model uses what is recorded"]
    assert results_of(findings) == {**dict.fromkeys(NAMES, True), **dict.fromkeys(unseen)}
    assert "sliding windows of the recorded layers end after the image" in findings[1].detail
    require_sound(findings)


@pytest.mark.parametrize(
    ("max_gb", "words"), [(1e9, "GB are free.*or make room"), (1.0, "more than max_gb=1:.*or give a larger max_gb")]
)
def test_maps_that_could_outgrow_the_disk_or_the_cap_are_refused_unless_one_layer_is_recorded(max_gb, words, tmp_path):
    require_room(1e17, folder=tmp_path, max_gb=max_gb, bounded=True)
    require_room(1e3, folder=tmp_path, max_gb=max_gb, bounded=False)
    with pytest.raises(UsageError, match=rf"the maps could take 1e\+08 GB, .*{words}"):
        require_room(1e17, folder=tmp_path, max_gb=max_gb, bounded=False)


def test_an_input_without_an_image_is_no_input_to_check(qwen3_vl_model, qwen3_vl_processor):
    text = qwen3_vl_processor(text=["How many?"], return_tensors="pt")
    with pytest.raises(NoImageTokensError):
        check_capture(prepare_target(qwen3_vl_model), ((), dict(text)))


def test_the_doctor_reports_family_checks_and_costs(qwen3_vl_checkpoint, capsys):
    assert main(["doctor", str(qwen3_vl_checkpoint)]) == 0
    report = capsys.readouterr().out
    assert "family: qwen3_vl\n" in report
    assert "layers: 4 of full_attention; kernel sdpa; float32" in report
    assert [line.partition(":")[0] for line in report.splitlines() if line.startswith("[")] == [
        f"[ok] {name}" for name in NAMES
    ]
    assert "1024 image tokens: 32x32" in report
    # 256 replies of 16 tokens, 1024 image tokens, two maps of float32 and 100 bytes beside them
    assert f"at most {256 * 16 * (2 * 4 * 1024 + 100) / 1e9:.2g} GB" in report


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone"], ["gone: cannot be loaded", "config.json"]),
        (["--image", "gone.png"], ["--image gone.png", "cannot be read"]),
    ],
    ids=["model", "image"],
)
def test_the_doctor_says_what_it_cannot_read(arguments, words, qwen3_vl_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = arguments if len(arguments) == 1 else [str(qwen3_vl_checkpoint), *arguments]
    assert main(["doctor", *given]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in line for word in words)


def save_a_bomb(file):
    """A PNG that says that it has 20000 by 20000 pixels: Pillow refuses it before it looks for them."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"")]
    framed = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (save_a_bomb, ["is too large to be read (Image size (400000000 pixels) exceeds limit", "Give a smaller one."]),
        (
            lambda file: Image.new("RGB", (1, 1000)).save(file),
            ["makes no input of its 1x1000 pixels (absolute aspect ratio", "Give another with --image FILE"],
        ),
    ],
    ids=["bomb", "thin"],
)
def test_the_doctor_says_in_one_line_why_an_image_of_an_unusual_size_cannot_be_used(
    save, words, qwen3_vl_checkpoint, tmp_path, capsys
):
    save(tmp_path / "image.png")
    assert main(["doctor", str(qwen3_vl_checkpoint), "--image", str(tmp_path / "image.png")]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("halo-probe: ")]
    assert all(word in line for word in [f"--image {tmp_path / 'image.png'}: ", *words])


def cut_the_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def lose_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.language_model.layers.0.self_attn.q_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def ask_for_more_heads(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_attention_heads"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def break_the_template(folder):
    (folder / "chat_template.jinja").write_text("{% for %}")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_the_weights, ["its weights cannot be loaded (", "Download the checkpoint again"]),
        (lose_a_weight, ["1 of its weights are in no file, such as model.language_model.layers.0.self_attn.q_proj"]),
        (ask_for_more_heads, ["its weights cannot be loaded (", "of the same model as config.json"]),
        (break_the_template, ["no prompt can be made with its chat template (Expected", "chat_template.jinja"]),
    ],
)
def test_the_doctor_says_in_one_line_what_a_damaged_checkpoint_lacks(
    damage, words, qwen3_vl_checkpoint, tmp_path, capsys
):
    folder = shutil.copytree(qwen3_vl_checkpoint, tmp_path / "checkpoint")
    damage(folder)
    assert main(["doctor", str(folder)]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("halo-probe: ")]
    assert all(word in line for word in [str(folder), *words])


def test_the_doctor_ends_with_exit_code_1_where_a_check_fails(qwen3_vl_checkpoint, monkeypatch, capsys):
    changed(monkeypatch, eq1=lambda one: one.eq1 * 2)
    assert main(["doctor", str(qwen3_vl_checkpoint)]) == 1
    captured = capsys.readouterr()
    assert "[FAILED] rows sum to one: off by" in captured.out
    assert "Load the model in bfloat16" in captured.out
    assert "it does not hold that rows sum to one" in captured.err
