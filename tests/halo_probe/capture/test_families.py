"""Every family of models, each by a tiny randomly initialised model of its real classes, and the rules for grids."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_families
import tiny_models
import torch
from PIL import Image
from tiny_families import SPECIMENS
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.deepseek_ocr2 import DeepseekOcr2ImageProcessor, DeepseekOcr2Processor
from transformers.models.granite4_vision import Granite4VisionConfig, Granite4VisionProcessor
from transformers.models.granite_docling.processing_granite_docling import GraniteDoclingProcessor
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.lfm2_vl.processing_lfm2_vl import Lfm2VlProcessor
from transformers.models.llama4.processing_llama4 import Llama4Processor
from transformers.models.llava_onevision import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor
from transformers.models.minicpmv4_6.processing_minicpmv4_6 import MiniCPMV4_6Processor
from transformers.models.mllama import MllamaImageProcessor
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)
from transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni import (
    NemotronH_Omni_Reasoning_V3ImageProcessor,
)
from transformers.models.nemotron_h_omni.processing_nemotron_h_omni import NemotronH_Omni_Reasoning_V3Processor
from transformers.models.ovis2.processing_ovis2 import Ovis2Processor
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string
from transformers.models.step3p7.image_processing_step3p7 import Step3p7ImageProcessor
from transformers.models.step3p7.processing_step3p7 import Step3p7Processor
from transformers.models.unlimited_ocr import UnlimitedOcrImageProcessor, UnlimitedOcrProcessor

from halo_probe.capture import record_attention
from halo_probe.capture.check import check_capture
from halo_probe.capture.families import FAMILIES, family_of
from halo_probe.capture.families_page import families_page
from halo_probe.capture.image_tokens import check_family, locate_image_tokens
from halo_probe.capture.recorder import prepare_target
from halo_probe.errors import CaptureError, NoImageTokensError, UnsupportedModelError

ROOT = Path(__file__).parents[3]
STEPS = 4
WHOLE = (0, 0, 1, 1)
TOLERANCES = {"gemma3n": 1e-4, "gemma4": 1e-4, "granite4_vision": 2e-5}
"""How far sdpa and eager lie apart by themselves, where it is more than 1e-5: shared keys, and many added features."""


@dataclass
class Run:
    """One family's model, run plainly, recorded and with eager attention."""

    name: str
    specimen: tiny_families.Specimen
    model: Any
    inputs: dict
    positions: list
    generation: Any
    plain: Any
    probed: Any
    eager_tokens: torch.Tensor
    eager: dict
    """Layer index to steps × heads × keys."""
    own: Any
    """The generation as recorded with eager attention."""


def with_eager_rows(model, run):
    """The result of `run`, and the last row of every attention layer's own weights at each call."""
    rows = {}

    def keep(module, _, output):
        if isinstance(output, tuple) and isinstance(output[1], torch.Tensor) and output[1].dim() == 4:
            rows.setdefault(module.layer_idx, []).append(output[1][0, :, -1].float().numpy())

    modules = [
        module for module in model.get_decoder().modules() if isinstance(getattr(module, "layer_idx", None), int)
    ]
    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        return run(), rows
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module", params=list(SPECIMENS))
def run(request):
    specimen = SPECIMENS[request.param]
    model = tiny_families.build(request.param, specimen)
    picture = tiny_families.a_picture(*specimen.picture)
    inputs, positions = tiny_families.encode(specimen, model.config, picture)
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "eos_token_id": None}
    options |= {"pad_token_id": 0, "return_dict_in_generate": True, "output_logits": True}
    plain = model.generate(**inputs, **options)
    with record_attention(model, layers="all", heads="all") as recording:
        probed = model.generate(**inputs, **options)
    (generation,) = recording.generations
    kernel = model.get_decoder().config._attn_implementation
    model.set_attn_implementation("eager")
    with record_attention(model, layers="all", heads="all") as own:
        eager, rows = with_eager_rows(model, lambda: model.generate(**inputs, **options))
    model.set_attn_implementation(kernel)
    return Run(
        name=request.param,
        specimen=specimen,
        model=model,
        inputs=inputs,
        positions=positions,
        generation=generation,
        plain=plain,
        probed=probed,
        eager_tokens=eager.sequences,
        eager=rows,
        own=own.generations[0],
    )


def test_every_layer_head_and_step_is_what_the_kernel_itself_weighed(run):
    found = run.own
    expected = np.stack([[rows[:, found.image_positions] for rows in run.eager[layer.index]] for layer in found.layers])
    np.testing.assert_allclose(found.heads, expected.swapaxes(0, 1), rtol=0, atol=1e-5)


def test_every_layer_head_and_step_equals_eager_attention_as_far_as_the_two_kernels_agree(run):
    found = run.generation
    assert torch.equal(run.eager_tokens, run.plain.sequences)
    expected = np.stack([[rows[:, found.image_positions] for rows in run.eager[layer.index]] for layer in found.layers])
    np.testing.assert_allclose(found.heads, expected.swapaxes(0, 1), rtol=0, atol=TOLERANCES.get(run.name, 1e-5))
    np.testing.assert_allclose(found.raw, found.heads.mean(2), rtol=0, atol=2e-6)
    # Far from uniform: a shift by one token would show.
    shifted = np.abs(found.heads - np.roll(found.heads, 1, axis=-1)).max()
    assert shifted > 0.01


def test_tokens_and_logits_are_bit_identical_with_and_without_the_recording(run):
    assert torch.equal(run.plain.sequences, run.probed.sequences)
    assert all(torch.equal(a, b) for a, b in zip(run.plain.logits, run.probed.logits, strict=True))


def test_the_image_tokens_and_their_views_are_those_of_the_picture(run):
    found = run.generation
    expected = [(*view, WHOLE) if len(view) == 2 else view for view in run.specimen.views]
    assert [(view.height, view.width) for view in found.views] == [view[:2] for view in expected]
    np.testing.assert_allclose([view.box for view in found.views], [view[2] for view in expected] or [], atol=1e-9)
    assert {view.image for view in found.views} <= {0}
    assert found.image_positions.size == (sum(h * w for h, w, _ in expected) or len(run.positions))
    if run.name == "mllama":  # the keys of two tiles of sixteen patches, each after its class token
        assert found.image_positions.tolist() == [*range(1, 17), *range(18, 34)]
    else:
        assert found.image_positions.tolist() == run.positions


def test_the_layers_recorded_are_those_of_the_table(run):
    family = family_of(run.model.config)
    assert {layer.type for layer in run.generation.layers} == set(family.layers)
    every = {layer.index for layer in run.generation.layers} == set(range(4))
    assert every == (not family.skipped)


def test_in_half_precision_the_rows_are_those_of_the_queries_and_keys_that_the_model_made(run):
    model, inputs = tiny_families.in_half_precision(run.model, run.inputs)
    findings, _ = check_capture(prepare_target(model, layers="all"), ((), {**inputs, "pad_token_id": 0}))
    assert [finding.name for finding in findings if not finding.passed] == []


def test_a_cache_that_keeps_the_prompt_and_drops_the_oldest_of_the_reply_leaves_the_image_where_it_is():
    specimen = SPECIMENS["unlimited_ocr"]
    model = tiny_families.build("unlimited_ocr", specimen)
    assert model.config.text_config.sliding_window == 2
    inputs, positions = tiny_families.encode(specimen, model.config, tiny_families.a_picture(*specimen.picture))
    prompt = inputs["input_ids"].shape[1]
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with record_attention(model, layers="all", heads="all") as recording:
        model.generate(**inputs, **options)
    (found,) = recording.generations
    model.set_attn_implementation("eager")
    _, eager = with_eager_rows(model, lambda: model.generate(**inputs, **options))
    assert {layer.type for layer in found.layers} == {"reference_sliding_attention"}
    assert [row.shape[-1] - prompt for row in eager[3]] == [0, 1, 2, 2, 2, 2, 2, 2]
    expected = np.stack([[rows[:, positions] for rows in eager[layer.index]] for layer in found.layers])
    np.testing.assert_allclose(found.heads, expected.swapaxes(0, 1), rtol=0, atol=1e-5)
    assert (found.visible == len(positions)).all()


def test_a_family_that_is_not_in_the_table_is_recorded_with_a_warning():
    specimen = SPECIMENS["llava"]
    model = tiny_families.build("llava", specimen)
    model.config.model_type = "brand_new_vl"
    inputs, positions = tiny_families.encode(specimen, model.config, tiny_families.a_picture(*specimen.picture))
    with (
        pytest.warns(UserWarning, match="'brand_new_vl' is not proven .*it has no grid"),
        record_attention(model) as recording,
    ):
        model.generate(**inputs, max_new_tokens=1, pad_token_id=0)
    (found,) = recording.generations
    assert found.views == ()
    assert found.image_positions.tolist() == positions


def decoder_input(model, inputs):
    """What the decoder is given at each token of the prompt; for Granite 4 the sum of what enters at several layers."""
    given = []
    hook = model.get_decoder().register_forward_pre_hook(lambda _, __, kwargs: given.append(kwargs), with_kwargs=True)
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        hook.remove()
    embeds = given[0]["inputs_embeds"]
    if later := given[0].get("deepstack_features"):
        embeds = embeds.masked_scatter(given[0]["vision_mask"], torch.stack([*later.values()]).sum(0))
    return embeds[0]


def features(run, picture):
    """The decoder's input at the image tokens."""
    inputs, _ = tiny_families.encode(run.specimen, run.model.config, picture)
    return decoder_input(run.model, inputs)[run.generation.image_positions]


def test_changing_the_pixels_of_a_cell_changes_its_token_most(run):
    if not run.specimen.proof or not run.specimen.views:
        assert run.name in UNPROVEN_GRIDS
        return
    height, width = run.specimen.picture
    picture = tiny_families.a_picture(height, width)
    before, offset = features(run, picture), 0
    for view in run.generation.views:
        x0, y0, x1, y1 = WHOLE if math.isnan(view.box[0]) else view.box  # the specimen shows all of the picture
        for row, column in [(0, view.width - 1), (view.height - 1, view.width // 2)]:
            top, bottom = (y0 + (y1 - y0) * (row + end) / view.height for end in (0, run.specimen.part))
            left, right = (x0 + (x1 - x0) * (column + end) / view.width for end in (0, run.specimen.part))
            changed = picture.clone()
            top, left = max(top, 0), max(left, 0)  # a cell may reach into padding
            cell = changed[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
            cell.copy_(4 - cell)
            difference = (features(run, changed) - before).norm(dim=-1)[offset : offset + view.height * view.width]
            assert int(difference.argmax()) == row * view.width + column
        offset += view.height * view.width


@pytest.mark.parametrize("name", ["deepseek_ocr2", "granite4_vision", "llava_next", "unlimited_ocr"])
def test_the_tokens_left_out_are_those_that_the_model_itself_fills_with_newlines_and_separators(name):
    specimen = SPECIMENS[name]
    model = tiny_families.build(name, specimen)
    for parameter, values in model.named_parameters():
        if parameter.endswith(("image_newline", "view_separator")):
            torch.nn.init.constant_(values, 1e4)
    inputs, _ = tiny_families.encode(specimen, model.config, tiny_families.a_picture(*specimen.picture))
    arguments = {key: value for key, value in inputs.items() if key != "input_ids"}
    (found,) = locate_image_tokens(model.config, inputs["input_ids"], arguments)
    filled = (decoder_input(model, inputs) >= 1e4).all(dim=-1).numpy()
    assert filled.any()
    image = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
    assert found.positions.tolist() == np.flatnonzero(image & ~filled).tolist()


UNPROVEN_GRIDS = {
    *("aria", "blip-2", "idefics2", "inkling_mm_model", "instructblip", "kosmos-2", "kosmos-2.5"),  # no raster
    "deepseek_ocr2",  # no raster: latents
    *("chameleon", "emu3"),  # pixels become codes
    *("fast_vlm", "gemma3n"),  # a convolutional tower, whose tokens see far beyond their cells
    "mllama",  # no token of the prompt has the features
}


def test_the_table_holds_exactly_the_families_that_are_proven_or_refused():
    assert {family.model_type for family in FAMILIES if not family.refusal} == set(SPECIMENS)
    assert len({family.model_type for family in FAMILIES}) == len(FAMILIES)
    assert len(SPECIMENS) >= 40


def test_every_family_of_transformers_is_in_the_table():
    assert set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) <= {family.model_type for family in FAMILIES}


def test_the_page_of_families_is_made_from_the_table():
    assert (ROOT / "docs" / "families.md").read_text() == families_page()
    for family in FAMILIES:
        assert f"\n| {family.model_type} | " in families_page()


def config(model_type, **values):
    return SimpleNamespace(model_type=model_type, image_token_id=9, **values)


def located(config, prompts, **inputs):
    """The image tokens of prompts, padded on the left."""
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return locate_image_tokens(config, ids, {"attention_mask": mask, **inputs})


def shown(image_tokens):
    return [
        (view.image, view.height, view.width, *(round(edge, 2) for edge in view.box)) for view in image_tokens.views
    ]


TOWER = SimpleNamespace(image_size=64, patch_size=16, model_type="siglip_vision_model")


def test_images_and_tiles_of_a_padded_batch_are_told_apart_by_their_tags():
    whole = [60, 63, *[9] * 4, 60]
    tile = [60, 70, *[9] * 4]
    split = [*tile, *tile, 61, *tile, *tile, 62, *whole]
    first, second = located(
        config("idefics3", vision_config=TOWER, scale_factor=2), [[1, *whole, 2, *split, 3], [1, *whole]]
    )
    assert [view[:3] for view in shown(first)] == [(0, 2, 2), *[(1, 2, 2)] * 5]
    assert [view[3:] for view in shown(first)][1:] == [
        *[(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)],
        WHOLE,
    ]
    assert shown(second) == [(0, 2, 2, *WHOLE)]
    assert second.positions.tolist() == [3, 4, 5, 6]
    assert not first.cross


def written(text, image):
    """Token ids of what a processor writes for an image: 9 for the image token, others from 100 on."""
    pieces = re.findall(r"<[^>]*>|\n+|.", text)
    names = [image, *PIECES]
    return [9 if piece == image else 100 + names.index(piece) for piece in pieces]


PIECES = [
    *("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>", "<fake>", "<global-img>", "\n", "\n\n"),
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2, 3)),
    *("<|image_start|>", "<|image_end|>", "<|image|>", "<|tile_x_separator|>", "<|tile_y_separator|>"),
    *("<image>", "</image>", "<slice>", "</slice>"),
    *("<patch_start>", "<patch_end>", "<patch_newline>", "<im_start>", "<im_end>"),
]


def idefics3_text(rows, columns):
    tokens = {"image_token": "<|img|>", "fake_image_token": "<fake>", "fake_token_around_image": "<fake>"}
    tokens |= {"global_image_tag": "<global-img>", "global_image_token": "<global-img>", "image_seq_len": 4}
    inputs = {"rows": [[rows]], "cols": [[columns]]}
    return Idefics3Processor.replace_image_token(SimpleNamespace(**tokens), inputs, 0)


def minicpm_text(rows, columns):
    tokens = {"image_start_token": "<image>", "image_end_token": "</image>", "image_token": "<|img|>"}
    tokens |= {"slice_start_token": "<slice>", "slice_end_token": "</slice>", "slice_mode": True}
    inputs = {"grids": [[rows, columns]], "num_patches_per_image": [1 + rows * columns]}
    inputs["target_sizes"] = np.full((1 + rows * columns, 2), 8)
    return MiniCPMV4_6Processor.replace_image_token(SimpleNamespace(**tokens), inputs, 0, image_token_divisor=16)


def docling_text(rows, columns, **inputs):
    tokens = {"image_token": "<|img|>", "fake_image_token": "<fake>", "global_image_tag": "<global-img>"}
    inputs |= {"rows": [[rows]], "cols": [[columns]]}
    return GraniteDoclingProcessor.replace_image_token(SimpleNamespace(**tokens, image_seq_len=4), inputs, 0)


def step_text(rows, columns):
    processor = Step3p7ImageProcessor(size={"height": 64, "width": 64}, patch_size=48)
    inputs = processor(torch.zeros(3, 48 * rows, 48 * columns, dtype=torch.uint8), return_tensors="pt")
    placeholder = "<im_patch>" * 4
    tokens = {"patch_feature_placeholder": placeholder, "image_feature_placeholder": placeholder}
    return Step3p7Processor.replace_image_token(SimpleNamespace(**tokens), inputs, 0)


WRITERS = {
    "granite_docling": (
        docling_text,
        "<|img|>",
        {"vision_config": SimpleNamespace(image_size=64, patch_size=16, scale_factor=2)},
    ),
    "step3p7": (step_text, "<im_patch>", {}),
    "idefics3": (idefics3_text, "<|img|>", {"scale_factor": 2}),
    "smolvlm": (
        lambda rows, columns: get_image_prompt_string(rows, columns, 4, "<fake>", "<|img|>", "<global-img>"),
        "<|img|>",
        {"scale_factor": 2},
    ),
    "llama4": (
        lambda rows, columns: Llama4Processor._prompt_split_image(None, [rows, columns], 4),
        "<|patch|>",
        {"vision_config": SimpleNamespace(image_size=64, patch_size=16, pixel_shuffle_ratio=0.5)},
    ),
    "ovis2": (
        lambda rows, columns: Ovis2Processor.replace_image_token(
            SimpleNamespace(image_seq_length=4), {"grids": [np.array([rows, columns])]}, 0
        ),
        "<IMG_ATOM>",
        {
            "vision_config": SimpleNamespace(image_size=64, patch_size=16, hidden_stride=2),
            "visual_indicator_token_ids": [101, 102, 103, 104, 105],
        },
    ),
    "minicpmv4_6": (minicpm_text, "<|img|>", {}),
}


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (1, 2), (2, 1)])
def test_tiles_are_placed_as_the_processor_of_the_family_writes_them(name, rows, columns):
    write, image, values = WRITERS[name]
    settings = config(name, **{"vision_config": TOWER, **values})
    prompt = written(write(rows, columns), image)
    sizes = torch.full((1 + rows * columns, 2), 8)
    pixels = pictures_of(name, [(rows, columns)])
    (found,) = located(settings, [[1, *prompt, 2]], target_sizes=sizes, pixel_values=pixels)
    tiles = [
        (0, 2, 2, *(round(edge, 2) for edge in (x / columns, y / rows, (x + 1) / columns, (y + 1) / rows)))
        for y in range(rows)
        for x in range(columns)
    ]
    whole = (0, 2, 2, *WHOLE)
    assert shown(found) == ([whole, *tiles] if name in {"ovis2", "minicpmv4_6"} else [*tiles, whole])


def pictures_of(name, layouts):
    """Pictures without a border, so many as the processor makes: Step 3.7 has the tiles apart."""
    count = (
        len(layouts)
        if name == "step3p7"
        else sum(1 + (rows * columns if rows * columns > 1 else 0) for rows, columns in layouts)
    )
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


UNCUT = {"idefics3": 0, "smolvlm": 0, "minicpmv4_6": 0}


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize("order", ["uc", "cu", "cucu", "uucc"])
def test_images_that_are_cut_and_not_are_told_apart_as_the_processor_of_the_family_writes_them(name, order):
    write, image, values = WRITERS[name]
    settings = config(name, **{"vision_config": TOWER, **values})
    layouts = {"u": (UNCUT.get(name, 1),) * 2, "c": (2, 3)}
    prompts = [
        [1, *(token for kind in kinds for token in [*written(write(*layouts[kind]), image), 2])]
        for kinds in (order, "u")
    ]
    sizes = torch.full((sum({"u": 1, "c": 7}[kind] for kind in order) + 1, 2), 8)
    pixels = pictures_of(name, [layouts[kind] for kind in [*order, "u"]])
    first, second = located(settings, prompts, target_sizes=sizes, pixel_values=pixels)
    assert [view.image for view in first.views] == [
        number for number, kind in enumerate(order) for _ in range({"u": 1, "c": 7}[kind])
    ]
    wholes = [view.image for view in first.views if view.box == WHOLE]
    assert wholes == list(range(len(order)))
    assert shown(second) == [(0, 2, 2, *WHOLE)]


@pytest.mark.parametrize("name", ["aya_vision", "cohere2_vision", "internvl"])
@pytest.mark.parametrize("order", ["uc", "cu", "cucu", "uucc"])
def test_images_that_are_cut_and_not_are_told_apart_where_tiles_are_compared(name, order):
    writers = {
        "aya_vision": tiny_families.tagged,
        "cohere2_vision": tiny_families.broken,
        "internvl": lambda *size: [*tiny_families.together(*size), 52],
    }
    settings = config(
        name,
        vision_config=SimpleNamespace(image_size=64, patch_size=8, model_type="siglip_vision_model"),
        downsample_factor=2,
        image_seq_length=16,
    )
    prompt, pixels = [1], []
    for number, kind in enumerate(order):
        picture = tiny_families.a_picture(128, 192, seed=number)
        inputs, _ = tiny_families.tiled(64, tiny_families.together)(picture, None)
        rows, columns, last = (2, 3, slice(0, 7)) if kind == "c" else (0, 0, slice(6, 7))
        layout = writers[name](rows, columns)
        if name == "aya_vision":  # the whole has a tag of its own, and start and end stand around
            layout = [30, *layout[:-17], 39, *layout[-16:], 31]
        prompt += [9 if part == tiny_families.IMAGE else part for part in layout]
        pixels.append(inputs["pixel_values"][last])
    (found,) = located(settings, [prompt], pixel_values=torch.cat(pixels))
    expected = [
        (number, box)
        for number, kind in enumerate(order)
        for box in [*(tile[2] for tile in tiny_families.TILES if kind == "c"), WHOLE]
    ]
    assert [view.image for view in found.views] == [view[0] for view in expected]
    np.testing.assert_allclose([view.box for view in found.views], [view[1] for view in expected])


@pytest.mark.parametrize(("fine", "side"), [({}, 2), ({"tile_fine_mask": torch.tensor([True, True])}, 4)])
def test_docling_pages_of_one_tile_are_told_from_those_of_several_on_either_route(fine, side):
    vision = SimpleNamespace(image_size=64, patch_size=16, scale_factor=2)
    one, four = (written(docling_text(number, number, **fine), "<|img|>") for number in (1, 2))
    first, second = located(
        config("granite_docling", vision_config=vision), [[1, *one, *four, *one], [*four, 2]], **fine
    )
    tiles = [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1), WHOLE]
    split = [(side, side, *box) for box in tiles]
    assert shown(first) == [(0, side, side, *WHOLE), *((1, *view) for view in split), (2, side, side, *WHOLE)]
    assert shown(second) == [(0, *view) for view in split]


@pytest.mark.parametrize("order", [("cut", "whole"), ("whole", "cut"), ("whole", "whole", "cut", "cut", "whole")])
def test_lfm2_images_that_are_cut_are_told_from_those_that_are_not(order):
    specimen = SPECIMENS["lfm2_vl"]
    model = tiny_families.build("lfm2_vl", specimen)
    marks = {"image_start_token": "<start>", "image_end_token": "<end>", "image_thumbnail_token": "<thumb>"}
    writer = SimpleNamespace(image_token="<|img|>", **marks)
    names = [*marks.values(), *(f"<|img_row_{row}_col_{column}|>" for row in (1, 2) for column in (1, 2, 3))]
    token, prompt, pixels, masks, shapes, expected = model.config.image_token_id, [11], [], [], [], []
    for number, kind in enumerate(order):
        given, _ = specimen.encode(tiny_families.a_picture(128, 192, seed=number), model.config)
        last = slice(0, 7) if kind == "cut" else slice(6, 7)
        sizes = (2, 3, 16, 6) if kind == "cut" else (1, 1, 16, 6)
        text = Lfm2VlProcessor._build_image_tokens(writer, *sizes, use_thumbnail=True, use_image_special_tokens=True)
        pieces = re.findall(r"<[^>]*>", text)
        prompt += [token if piece == "<|img|>" else names.index(piece) for piece in pieces]
        for values, name in [(pixels, "pixel_values"), (masks, "pixel_attention_mask"), (shapes, "spatial_shapes")]:
            values.append(given[name][last])
        expected += [(number, *view) for view in ([*tiny_families.TILES] if kind == "cut" else [])]
        expected += [(number, 2, 3, WHOLE)]
    ids = torch.tensor([prompt])
    inputs = {
        "pixel_values": torch.cat(pixels),
        "pixel_attention_mask": torch.cat(masks),
        "spatial_shapes": torch.cat(shapes),
    }
    with record_attention(model) as recording:
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, max_new_tokens=1, pad_token_id=0)
    (found,) = recording.generations
    assert [(view.image, view.height, view.width) for view in found.views] == [view[:3] for view in expected]
    np.testing.assert_allclose([view.box for view in found.views], [view[3] for view in expected])


@pytest.mark.parametrize("rows_and_columns", [(2, 3), (1, 2)])
def test_lfm2_tiles_without_a_thumbnail_have_no_known_place(rows_and_columns):
    rows, columns = rows_and_columns
    tiles, _ = tiny_families.tiled(64, tiny_families.together, rows=rows, columns=columns)(
        tiny_families.a_picture(128, 192), None
    )
    count = rows * columns
    flat = tiles["pixel_values"][:count].reshape(count, 3, 8, 8, 8, 8).permute(0, 2, 4, 3, 5, 1).reshape(count, 64, -1)
    prompt = [30, *(part for tile in range(count) for part in [40 + tile, *[9] * 16]), 31]
    settings = config("lfm2_vl", downsample_factor=2, vision_config=SimpleNamespace(patch_size=8))
    (found,) = located(settings, [prompt], pixel_values=flat, spatial_shapes=torch.full((count, 2), 8))
    assert found.grids == ((4, 4),) * count
    assert [all(map(math.isnan, view.box)) for view in found.views] == [True] * count


def test_an_empty_lfm2_picture_still_has_a_thumbnail_of_the_whole():
    prompt = [30, *(part for tile in range(5) for part in [40 + tile, *[9] * 16]), 31]
    settings = config("lfm2_vl", downsample_factor=2, vision_config=SimpleNamespace(patch_size=8))
    blank = {"pixel_values": torch.ones(5, 64, 192), "spatial_shapes": torch.full((5, 2), 8)}
    (found,) = located(settings, [prompt], **blank)
    assert [all(map(math.isnan, view.box)) for view in found.views] == [True] * 4 + [False]
    assert found.views[-1].box == WHOLE


def test_nemotron_images_have_the_grids_of_their_processor():
    processor = NemotronH_Omni_Reasoning_V3ImageProcessor(patch_size=8, min_num_patches=16, max_num_patches=64)
    images = [torch.zeros(3, *size, dtype=torch.uint8) for size in [(64, 32), (40, 200)]]
    inputs = processor(images, return_tensors="pt")
    tokens = {"image_token": "<image>", "image_start_token": "<im_start>", "image_end_token": "<im_end>"}
    writer = SimpleNamespace(**tokens, image_processor=processor)
    texts = [NemotronH_Omni_Reasoning_V3Processor.replace_image_token(writer, inputs, index) for index in (0, 1)]
    prompt = written("".join(texts), "<image>")
    (found,) = located(config("nemotron_h_omni", downsample_ratio=0.5), [prompt], image_grid_hw=inputs["image_grid_hw"])
    assert [view[:3] for view in shown(found)] == [(0, 4, 2), (1, 2, 8)]
    assert found.positions.size == prompt.count(9)


def test_layers_of_unlike_numbers_of_heads_have_means_and_no_head_maps():
    specimen = SPECIMENS["step3p7"]
    specimen = replace(specimen, change={**specimen.change, "text_config.num_sliding_attention_heads": 8})
    model = tiny_families.build("step3p7", specimen)
    inputs, _ = tiny_families.encode(specimen, model.config, tiny_families.a_picture(*specimen.picture))
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    with record_attention(model, layers="all") as recording:
        model.generate(**inputs, **options)
    (found,) = recording.generations
    model.set_attn_implementation("eager")
    _, eager = with_eager_rows(model, lambda: model.generate(**inputs, **options))
    assert [eager[layer.index][0].shape[0] for layer in found.layers] == [8, 4, 8, 4]
    means = [[rows[:, found.image_positions].mean(0) for rows in eager[layer.index]] for layer in found.layers]
    np.testing.assert_allclose(found.raw, np.swapaxes(means, 0, 1), rtol=0, atol=1e-5)
    with (
        pytest.raises(CaptureError, match="different numbers of heads, .*: record layers with as many heads"),
        record_attention(model, layers="all", heads="all"),
    ):
        model.generate(**inputs, **options)


OCR = {
    "deepseek_ocr2": (DeepseekOcr2Processor, DeepseekOcr2ImageProcessor),
    "unlimited_ocr": (UnlimitedOcrProcessor, UnlimitedOcrImageProcessor),
}
BLANK, GREY = 255, 127


def as_the_processor_shows(name, pictures, **options):
    """The image tokens of prompts with one picture each, by the processor of the family."""
    processor, image_processor = OCR[name]
    looks = image_processor(**options)
    inputs = looks(images=pictures, return_tensors="pt")
    tokens = SimpleNamespace(image_token="9", patch_size=16, downsample_ratio=4, image_processor=looks)
    texts = [processor.replace_image_token(tokens, inputs, number) for number in range(len(pictures))]
    settings = config(name, vision_config=SimpleNamespace(sam_config=SimpleNamespace(patch_size=16)))
    return located(settings, [[1, *map(int, text), 2] for text in texts], **inputs)


def blank(height, width, value=BLANK):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def spotted(height, width):
    return (tiny_families.a_picture(height, width) * 255).byte()


def test_unlimited_ocr_lays_the_tiles_out_as_one_raster_before_the_padded_whole():
    pictures = [spotted(1500, 800), spotted(100, 200), spotted(900, 900)]
    upright, small, even = as_the_processor_shows("unlimited_ocr", pictures)
    assert upright.grids == ((20, 10), (16, 16))
    assert [view.box for view in upright.views] == [WHOLE, (-239 / 546, 0, 1 + 239 / 546, 1)]
    assert upright.positions.size == 200 + 256
    # The raster's rows end on a newline.
    assert upright.positions[:12].tolist() == [*range(1, 11), 12, 13]
    assert small.grids == ((16, 16),)
    assert all(map(math.isnan, small.views[0].box))  # padded, or an image with grey bars
    assert even.grids == ((20, 20), (16, 16))
    assert [view.box for view in even.views] == [WHOLE, WHOLE]


def test_unlimited_ocr_without_tiles_shows_the_whole_squeezed_where_that_is_small():
    (squeezed,) = as_the_processor_shows(
        "unlimited_ocr", [blank(300, 900)], crop_to_patches=False, size={"height": 640, "width": 640}
    )
    assert shown(squeezed) == [(0, 10, 10, *WHOLE)]


@pytest.mark.parametrize("framed", ["all", "left and right", "not at all, normalised otherwise"])
def test_the_place_of_a_picture_that_may_be_padded_is_not_known(framed):
    picture = blank(512, 512, GREY if framed == "all" else BLANK)
    if "left" in framed:
        picture[:, :, :40] = picture[:, :, -40:] = GREY
    options = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3} if "otherwise" in framed else {}
    (found,) = as_the_processor_shows("unlimited_ocr", [picture], **options)
    assert found.grids == ((16, 16),)
    assert all(map(math.isnan, found.views[0].box))


def test_deepseek_ocr_2_has_the_latents_of_every_picture_and_leaves_the_separators_out():
    wide, small = as_the_processor_shows("deepseek_ocr2", [blank(500, 1500), blank(100, 200)])
    assert wide.views == small.views == ()
    assert wide.positions.tolist() == list(range(1, 1 + 3 * 144 + 256))
    assert small.positions.tolist() == list(range(1, 1 + 256))
    size = {"height": 768, "width": 768}
    (uncut,) = as_the_processor_shows("deepseek_ocr2", [blank(500, 1500)], crop_to_patches=False, size=size)
    assert uncut.positions.tolist() == list(range(1, 1 + 144))


def test_granite_4_has_the_tokens_that_its_processor_writes():
    tower = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 16}
    pinpoints = [[384, 768], [768, 384], [768, 768], [1152, 384]]
    settings = Granite4VisionConfig(
        vision_config=tower, image_grid_pinpoints=pinpoints, image_token_index=9, downsample_rate="4/8"
    )
    looks = SimpleNamespace(image_grid_pinpoints=pinpoints)
    processor = Granite4VisionProcessor.__new__(Granite4VisionProcessor)
    processor.image_processor, processor.patch_size, processor.downsample_rate = looks, 16, "4/8"
    processor.num_additional_image_tokens = 0
    for size, detail in [((400, 700), (14, 24)), ((1100, 300), (36, 10)), ((512, 512), (24, 24))]:
        count = processor._get_number_of_features(*size, 384, 384)
        (found,) = located(settings, [[1, *[9] * count, 2]], image_sizes=torch.tensor([size]))
        assert found.grids == ((12, 12), detail)
        assert found.positions.size == count - detail[0]


@pytest.fixture(scope="module")
def gemma3():
    return tiny_models.gemma3(layers=2)


def as_pixels(picture):
    return Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy())


def coloured(width, height, seed=1):
    return as_pixels(tiny_families.a_picture(height, width, seed=seed))


PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 128,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}


def gemma3_inputs(processor, prompts, **options):
    """A left-padded batch; a prompt is a list of pictures and texts."""
    kinds = {str: "text", Image.Image: "image"}
    content = [[{"type": kinds[type(part)], kinds[type(part)]: part} for part in prompt] for prompt in prompts]
    return processor.apply_chat_template(
        [[{"role": "user", "content": parts}] for parts in content],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left", **options},
    )


def gemma3_images(model, processor, prompts, **options):
    inputs = gemma3_inputs(processor, prompts, **options)
    return locate_image_tokens(model.config, inputs["input_ids"], inputs)


def strips(count, *, wide=True):
    """The boxes of crops side by side, or one above the other."""
    edges = [(number / count, (number + 1) / count) for number in range(count)]
    return [(start, 0, end, 1) if wide else (0, start, 1, end) for start, end in edges]


def test_pan_and_scan_crops_are_views_of_the_image_that_they_were_cut_from(gemma3):
    model, processor = gemma3
    inputs = gemma3_inputs(processor, [[coloured(1024, 300), "How many?"]], **PAN_AND_SCAN)
    with record_attention(model) as recording:
        model.generate(**inputs, max_new_tokens=1)
    (found,) = recording.generations
    assert inputs["pixel_values"].shape[0] == 4
    assert [(view.image, view.height, view.width) for view in found.views] == [(0, 16, 16)] * 4
    boxes = np.array([view.box for view in found.views])
    # The processor cuts at whole pixels.
    np.testing.assert_allclose(boxes[:, 0] * 1024, [0, 0, 342, 684], atol=2)
    np.testing.assert_allclose(boxes[:, 2] * 1024, [1024, 342, 684, 1024], atol=2)
    np.testing.assert_array_equal(boxes[:, [1, 3]], [[0, 1]] * 4)


def test_images_with_and_without_crops_are_told_apart_in_a_padded_batch(gemma3):
    model, processor = gemma3
    pictures = [
        coloured(*size, seed=seed) for seed, size in enumerate([(900, 300), (400, 400), (300, 700), (640, 400)])
    ]
    first, second, third = gemma3_images(
        model,
        processor,
        [[pictures[0], pictures[1], "and", pictures[2], "?"], [pictures[1], "?"], [pictures[2], pictures[3], "What?"]],
        **PAN_AND_SCAN,
    )
    three, upright, two = strips(3), strips(2, wide=False), strips(2)
    boxes = [(0, WHOLE), *((0, box) for box in three), (1, WHOLE), (2, WHOLE), *((2, box) for box in upright)]
    assert [(view.image, view.box) for view in first.views] == boxes
    assert [(view.image, view.box) for view in second.views] == [(0, WHOLE)]
    assert [(view.image, view.box) for view in third.views] == [
        *[(0, WHOLE), *((0, box) for box in upright)],
        *[(1, WHOLE), *((1, box) for box in two)],
    ]


def test_an_image_right_after_crops_with_what_stands_between_crops_is_none_of_them(gemma3):
    model, processor = gemma3
    wide, other = coloured(900, 300), coloured(400, 400, seed=2)
    boi = processor.boi_token
    inputs = processor(images=[[wide, other]], text=[f"{boi} {boi}?"], return_tensors="pt", **PAN_AND_SCAN)
    (found,) = locate_image_tokens(model.config, inputs["input_ids"], inputs)
    assert [view.image for view in found.views] == [0, 0, 0, 0, 1]
    assert [view.box for view in found.views] == [WHOLE, *strips(3), WHOLE]


@pytest.mark.parametrize("repeated", [False, True])
def test_images_that_stand_like_crops_but_show_something_else_stay_images(gemma3, repeated):
    model, processor = gemma3
    pictures = [coloured(900, 300, seed=1 if repeated else seed) for seed in range(3)]
    (found,) = gemma3_images(model, processor, [[pictures[0], "Compare it with these two images: ", *pictures[1:]]])
    assert [(view.image, view.box) for view in found.views] == [(0, WHOLE), (1, WHOLE), (2, WHOLE)]


def test_empty_pictures_that_may_be_crops_are_refused(gemma3):
    model, processor = gemma3
    blank = Image.new("RGB", (900, 300), "white")
    with pytest.raises(
        CaptureError, match="3 pictures after another are its pan-and-scan crops or images of their own"
    ):
        gemma3_images(model, processor, [[blank, "?"]], **PAN_AND_SCAN)
    (found,) = gemma3_images(model, processor, [[blank, blank, blank, "Are these two alike?", blank]])
    assert [(view.image, view.box) for view in found.views] == [(image, WHOLE) for image in range(4)]


def test_crops_without_their_pixels_are_refused(gemma3):
    model, processor = gemma3
    inputs = gemma3_inputs(processor, [[coloured(900, 300), "?"]], **PAN_AND_SCAN)
    with pytest.raises(CaptureError, match="without `pixel_values`"):
        locate_image_tokens(model.config, inputs["input_ids"], {"attention_mask": inputs["attention_mask"]})
    given = {**inputs, "pixel_values": inputs["pixel_values"][:2]}
    with pytest.raises(CaptureError, match="`pixel_values` has 2 pictures, fewer than the prompts have"):
        locate_image_tokens(model.config, inputs["input_ids"], given)


def onevision_inputs(model, pictures):
    """The batch that LLaVA-OneVision's processor makes of prompts with pictures and no text between them."""
    looks = LlavaOnevisionImageProcessor(
        size={"height": 32, "width": 32}, image_grid_pinpoints=model.config.image_grid_pinpoints
    )
    inputs = dict(looks(images=pictures, return_tensors="pt"))
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    processor.image_processor, processor.image_token, processor.num_image_tokens = looks, "9", 16
    processor.vision_feature_select_strategy, processor.vision_aspect_ratio = "full", "anyres_max_9"
    token, images, prompts = model.config.image_token_id, 0, []
    for shown_pictures in pictures:
        prompt = [11]
        for _ in shown_pictures:
            prompt += [12, *[token] * len(processor.replace_image_token(inputs, images)), 13]
            images += 1
        prompts.append([*prompt, 21])
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask, **inputs}


@pytest.fixture(scope="module")
def onevision():
    model = tiny_families.build("llava_onevision", SPECIMENS["llava_onevision"])
    torch.nn.init.constant_(model.model.image_newline, 1e4)
    return model


def test_llava_onevision_shows_the_images_of_a_prompt_with_several_padded_to_squares(onevision):
    pictures = [[coloured(96, 64)], [coloured(96, 64), coloured(40, 64, seed=2)]]
    inputs = onevision_inputs(onevision, pictures)
    assert inputs["batch_num_images"].tolist() == [1, 2]
    with record_attention(onevision, layers="all") as recording:
        onevision.generate(**inputs, max_new_tokens=1, pad_token_id=0)
    one, two = recording.generations
    assert shown(one) == [(0, 4, 4, *WHOLE), (0, 8, 12, *WHOLE)]
    assert [(view.image, view.height, view.width) for view in two.views] == [(0, 4, 4), (1, 4, 4)]
    np.testing.assert_allclose([view.box for view in two.views], [(0, -0.25, 1, 1.25), (-0.3, 0, 1.3, 1)])
    with torch.no_grad():
        embeds = []
        hook = onevision.get_decoder().register_forward_pre_hook(
            lambda _, __, given: embeds.append(given["inputs_embeds"]), with_kwargs=True
        )
        onevision(**inputs)
        hook.remove()
    for row, found in enumerate((one, two)):
        image = (inputs["input_ids"][row] == onevision.config.image_token_id).numpy()
        newline = (embeds[0][row] >= 1e4).all(dim=-1).numpy()
        assert (image & newline).sum() == (8, 2)[row]
        padding = int((inputs["attention_mask"][row] == 0).sum())
        assert (found.image_positions + padding).tolist() == np.flatnonzero(image & ~newline).tolist()


def test_the_cells_of_a_padded_llava_onevision_image_are_where_its_box_says(onevision):
    whole = tiny_families.a_picture(64, 96)
    second = coloured(40, 64, seed=2)

    def tokens(picture):
        inputs = onevision_inputs(onevision, [[as_pixels(picture), second]])
        (found,) = locate_image_tokens(onevision.config, inputs["input_ids"], inputs)
        return decoder_input(onevision, inputs)[found.positions], found.views[0]

    before, view = tokens(whole)
    _, top, _, bottom = view.box
    for row, column in [(1, 0), (2, 3)]:
        changed = whole.clone()
        upper, lower = (round((top + (bottom - top) * (row + end) / 4) * 64) for end in (0, 1))
        cell = changed[:, upper:lower, 24 * column : 24 * (column + 1)]
        cell.copy_(1 - cell)
        difference = (tokens(changed)[0] - before).norm(dim=-1)
        assert int(difference.argmax()) == row * 4 + column


def test_images_that_a_llava_next_prompt_has_several_of_are_each_cut_up():
    specimen = SPECIMENS["llava_next"]
    model = tiny_families.build("llava_next", specimen)
    inputs = [specimen.encode(tiny_families.a_picture(64, 96, seed=seed), model.config)[0] for seed in (1, 2)]
    image = [model.config.image_token_id] * (16 + 8 * 13)
    ids = torch.tensor([[11, *image, 12, *image, 13]])
    merged = {name: torch.cat([one[name] for one in inputs]) for name in ("pixel_values", "image_sizes")}
    with record_attention(model) as recording:
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **merged, max_new_tokens=1, pad_token_id=0)
    assert [view[:3] for view in shown(recording.generations[0])] == [
        (i, *grid) for i in (0, 1) for grid in [(4, 4), (8, 12)]
    ]


def recorded_and_eager(model, batch, alone):
    """The generations of a batch, and of each of its prompts alone the rows of eager attention."""
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    options |= {"eos_token_id": None}
    with record_attention(model, layers="all", heads="all") as recording:
        model.generate(**batch, **options)
    kernel = model.get_decoder().config._attn_implementation
    model.set_attn_implementation("eager")
    pairs = [with_eager_rows(model, lambda inputs=inputs: model.generate(**inputs, **options)) for inputs in alone]
    model.set_attn_implementation(kernel)
    return list(zip(recording.generations, pairs, strict=True))


def mllama_inputs(prompts, token):
    """The batch that Mllama's processor makes of prompts of tokens and pictures."""
    looks = MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=4)
    pictures = [[part for part in prompt if isinstance(part, Image.Image)] for prompt in prompts]
    inputs = dict(looks(images=pictures, return_tensors="pt"))
    tokens = [[part if isinstance(part, int) else token for part in prompt] for prompt in prompts]
    length = max(map(len, tokens))
    ids = [[0] * (length - len(one)) + one for one in tokens]
    places = [get_cross_attention_token_mask(one, token) for one in ids]
    counts = inputs.pop("num_tiles")
    seen = convert_sparse_cross_attention_mask_to_dense(places, num_tiles=counts, max_num_tiles=4, length=length)
    mask = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in tokens])
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": mask,
        "cross_attention_mask": torch.from_numpy(seen),
        **inputs,
    }


@pytest.mark.parametrize("together", [True, False])
def test_mllama_prompts_of_one_and_two_images_have_the_keys_of_each_image(together):
    model = tiny_families.build("mllama", SPECIMENS["mllama"])
    first, tall, wide = coloured(32, 32), coloured(32, 64, seed=2), coloured(96, 32, seed=3)
    prompts = [[11, first, 12, 13], [11, tall, *([] if together else [14, 15]), wide, 21, 22, 23]]
    token = model.config.image_token_id
    batch, alone = mllama_inputs(prompts, token), [mllama_inputs([prompt], token) for prompt in prompts]
    (one, one_alone), (two, two_alone) = recorded_and_eager(model, batch, alone)
    assert shown(one) == [(0, 4, 4, *WHOLE)]
    thirds = [(1, 4, 4, 0, 0, 0.33, 1), (1, 4, 4, 0.33, 0, 0.67, 1), (1, 4, 4, 0.67, 0, 1, 1)]
    assert shown(two) == [(0, 4, 4, 0, 0, 1, 0.5), (0, 4, 4, 0, 0.5, 1, 1), *thirds]
    tiles = [0, 1, 4, 5, 6]  # of four for an image, each a class token and sixteen patches
    assert two.image_positions.tolist() == [17 * tile + patch for tile in tiles for patch in range(1, 17)]
    for found, (sequences, rows) in [(one, one_alone), (two, two_alone)]:
        assert sequences[0, -STEPS:].tolist() == found.token_ids.tolist()
        expected = np.stack([[step[:, found.image_positions] for step in rows[layer.index]] for layer in found.layers])
        np.testing.assert_allclose(found.heads, expected.swapaxes(0, 1), rtol=0, atol=1e-5)
    # Text after the second image sees the first only where no text stands between them.
    assert (two.raw[..., :32].sum(-1) > 0).all() == together


MINICPM = ["minicpmv4_6", "minicpmv4_7", "minicpm_ocr"]


def minicpm_inputs(specimen, config, prompts):
    """A batch of prompts of tokens and pictures: one of a slice's size is shown as it is, others are cut into six."""
    strips, sizes, rows = [], [], []
    for prompt in prompts:
        row, number = [], 0
        for part in prompt:
            if isinstance(part, int):
                row.append(part)
                continue
            inputs, layout = specimen.encode(part, config)
            if part.shape[1:] == (32, 64):  # small: the whole image alone
                inputs = {
                    "pixel_values": inputs["pixel_values"][..., : 4 * 8 * 8],
                    "target_sizes": inputs["target_sizes"][:1],
                }
                layout = layout[:4]
            strips.append(inputs["pixel_values"])
            sizes.append(inputs["target_sizes"])
            tag = [100, 110 + number, 101]  # <image_id>, the number in the prompt, </image_id>
            row += [*tag, *(290 if token == tiny_families.IMAGE else token for token in layout)]
            number += 1
        rows.append(row)
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    given = {
        "input_ids": ids,
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        "pixel_values": torch.cat(strips, -1),
        "target_sizes": torch.cat(sizes),
    }
    return {**given, "mm_token_type_ids": (ids == 290).int()} if specimen.types else given


@pytest.mark.parametrize("name", MINICPM)
def test_minicpm_prompts_of_one_and_two_images_have_the_views_of_each_image(name):
    specimen = SPECIMENS[name]
    model = tiny_families.build(name, specimen)
    cut, small, other = (
        tiny_families.a_picture(*size, seed=i) for i, size in enumerate([(64, 96), (32, 64), (64, 96)])
    )
    prompts = [[11, small, 12], [11, cut, small, 13, other, 21, 22]]
    batch = minicpm_inputs(specimen, model.config, prompts)
    alone = [minicpm_inputs(specimen, model.config, [prompt]) for prompt in prompts]
    (one, one_alone), (two, two_alone) = recorded_and_eager(model, batch, alone)
    assert shown(one) == [(0, 1, 2, *WHOLE)]
    boxes = [(1, 2, WHOLE), *tiny_families.SMALL_TILES]
    expected = [*((0, *view) for view in boxes), (1, 1, 2, WHOLE), *((2, *view) for view in boxes)]
    assert [(view.image, view.height, view.width) for view in two.views] == [view[:3] for view in expected]
    np.testing.assert_allclose([view.box for view in two.views], [view[3] for view in expected])
    for found, (sequences, rows), inputs in [(one, one_alone, alone[0]), (two, two_alone, alone[1])]:
        assert found.image_positions.tolist() == np.flatnonzero(inputs["input_ids"][0] == 290).tolist()
        assert sequences[0, -STEPS:].tolist() == found.token_ids.tolist()
        shares = np.stack([[step[:, found.image_positions] for step in rows[layer.index]] for layer in found.layers])
        # Linear-attention layers drift apart in a batch and alone.
        np.testing.assert_allclose(found.heads, shares.swapaxes(0, 1), rtol=0, atol=5e-5)


def test_tiles_that_make_no_rectangle_are_refused():
    tile = [60, 70, *[9] * 4]
    prompt = [*tile, *tile, 61, *tile, 62, 60, 63, *[9] * 4, 60]
    with pytest.raises(CaptureError, match="between the 3 tiles of an image do not make rows of equal length"):
        located(config("idefics3", vision_config=TOWER, scale_factor=2), [prompt])


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (2, 2), (4, 1), (2, 3), (3, 2)])
def test_tiles_without_marks_are_placed_as_the_thumbnail_shows(rows, columns):
    picture = tiny_families.a_picture(48, 48, seed=rows + 4 * columns)
    pixels, _ = tiny_families.tiled(16, tiny_families.together, rows=rows, columns=columns)(picture, None)
    (found,) = located(config("internvl", image_seq_length=4), [[1, *[9] * 4 * (rows * columns + 1)]], **pixels)
    assert [view[3:] for view in shown(found)] == [
        *(
            tuple(round(edge, 2) for edge in (x / columns, y / rows, (x + 1) / columns, (y + 1) / rows))
            for y in range(rows)
            for x in range(columns)
        ),
        WHOLE,
    ]


def test_tiles_of_an_empty_picture_have_no_known_place():
    (found,) = located(
        config("internvl", image_seq_length=4), [[1, *[9] * 20, 2]], pixel_values=torch.ones(5, 3, 16, 16)
    )
    assert [all(map(math.isnan, view.box)) for view in found.views] == [True] * 4 + [False]
    assert found.grids == ((2, 2),) * 5


def test_a_llava_with_a_pixtral_tower_reads_the_size_of_each_image():
    tower = SimpleNamespace(image_size=64, patch_size=16, model_type="pixtral")
    found = located(
        config("llava", vision_config=tower),
        [[1, 9, 9, 30, 9, 9, 31, 2], [1, 9, 9, 9, 31]],
        image_sizes=torch.tensor([[32, 32], [16, 48]]),
    )
    assert [shown(one) for one in found] == [[(0, 2, 2, *WHOLE)], [(0, 1, 3, *WHOLE)]]
    assert [one.positions.tolist() for one in found] == [[1, 2, 4, 5], [1, 2, 3]]


def test_a_class_token_is_left_out():
    tower = SimpleNamespace(image_size=32, patch_size=16, model_type="clip_vision_model")
    llava = config("llava", vision_config=tower, vision_feature_select_strategy="full")
    (found,) = located(llava, [[1, *[9] * 5, 2]])
    assert found.positions.tolist() == [2, 3, 4, 5]


def test_a_llava_next_image_of_one_patch_has_its_base_grid_alone():
    from transformers import LlavaNextConfig

    tower = {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16}
    settings = LlavaNextConfig(vision_config=tower, image_grid_pinpoints=[[32, 64]], image_token_index=9)
    wide = located(settings, [[1, *[9] * (4 + 2 * 5)]], image_sizes=torch.tensor([[32, 64]]))
    assert shown(wide[0]) == [(0, 2, 2, *WHOLE), (0, 2, 4, *WHOLE)]
    assert wide[0].positions.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]


@pytest.mark.parametrize(
    ("given", "prompt", "message"),
    [
        ({}, [9] * 4, "without `image_grid_thw`"),
        (
            {"image_grid_thw": torch.tensor([[1, 4, 4]])},
            [9] * 5,
            r"5 image tokens, which the grids \[\(2, 2\)\] do not",
        ),
        ({"image_grid_thw": torch.tensor([[1, 4, 4]] * 2)}, [9] * 4, "fewer image tokens than the grids"),
    ],
)
def test_image_tokens_that_do_not_fit_their_grids_are_refused(given, prompt, message):
    settings = config("qwen2_vl", vision_config=SimpleNamespace(spatial_merge_size=2))
    with pytest.raises(CaptureError, match=message):
        located(settings, [prompt], **given)


def test_a_cross_attention_model_without_an_image_has_no_image_tokens():
    with pytest.raises(NoImageTokensError, match="no image to attend to"):
        located(config("mllama", vision_config=TOWER), [[1, 2]])


def test_a_model_type_that_is_not_in_the_table_is_recorded_without_a_grid():
    unknown = config("brand_new_vl")
    assert not family_of(unknown).known
    check_family(unknown)
    (found,) = located(unknown, [[1, *[9] * 16, 2]])
    assert found.views == ()
    assert found.positions.tolist() == list(range(1, 17))


@pytest.mark.parametrize("path", ["image_token_index", "image_patch_id", "vision_config.image_token_id"])
def test_the_general_rule_finds_the_image_token_id_where_a_configuration_may_have_it(path):
    values = {path: 9} if "." not in path else {"vision_config": {"image_token_id": 9}}
    (found,) = located(SimpleNamespace(model_type="brand_new_vl", **values), [[1, 9, 2]])
    assert found.positions.tolist() == [1]


def test_a_model_without_an_image_token_id_is_refused_with_where_it_was_looked_for():
    with pytest.raises(UnsupportedModelError, match=r"brand_new_vl.*no image token id \(image_token_id or"):
        check_family(SimpleNamespace(model_type="brand_new_vl"))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.refusal], ids=lambda row: row.model_type)
def test_a_family_that_cannot_be_recorded_says_why(family):
    with pytest.raises(UnsupportedModelError) as raised:
        check_family(SimpleNamespace(model_type=family.model_type))
    assert str(raised.value) == f"model type {family.model_type!r} cannot be recorded: {family.refusal}."


def test_an_unknown_encoder_decoder_is_refused():
    with pytest.raises(UnsupportedModelError, match="the image is in the encoder"):
        check_family(config("brand_new_vl", is_encoder_decoder=True))


def test_a_model_without_a_head_is_refused_with_the_class_to_load():
    model = tiny_families.build("qwen2_vl", SPECIMENS["qwen2_vl"]).model
    with (
        pytest.raises(UnsupportedModelError, match="Qwen2VLModel has no head.*AutoModelForImageTextToText"),
        record_attention(model),
    ):
        pass
