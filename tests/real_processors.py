"""The image processors of the families, set to sizes that tiny models take, and the prompts that their processors write.

`CASES[model_type]` says how a family's own classes are set. Nothing of how they resize, cut, pad or normalise is copied:
the pictures go through the image processor, and the tokens are those that the processor writes for them.
"""

import re
from dataclasses import dataclass, field, replace

import numpy as np
import tiny_families
import torch
import transformers
from tiny_families import SPECIMENS
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

_V = "vision_config."


@dataclass(frozen=True)
class Case:
    """How the classes of a family are set."""

    options: dict = field(default_factory=dict)
    """Of the image processor."""
    values: dict = field(default_factory=dict)
    """Attributes of the processor that its own constructor would take from a tokenizer or a configuration."""
    change: dict = field(default_factory=dict)
    """What else to change in the configuration of the specimen."""
    like: str = ""
    """The model type whose processor this family uses, where transformers names none for its own."""
    image: str = "<image_token>"
    """What the processor writes for one image token."""
    call: dict = field(default_factory=dict)
    """Options of a call of the processor."""
    silent: str = ""
    """Part of the names of parameters to set to 0, where random ones mix the patches of a tower too much."""


def processor_of(name):
    """The processor of a family, with a stand-in for its tokenizer: tokens are named after the attributes they are in."""
    case = CASES[name]
    looks = IMAGE_PROCESSOR_MAPPING_NAMES.get(name) or IMAGE_PROCESSOR_MAPPING_NAMES[case.like]
    image_processor = getattr(transformers, looks.get("torchvision") or looks["pil"])(**case.options)
    cls = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(name) or PROCESSOR_MAPPING_NAMES[case.like])
    one = type(cls.__name__, (cls,), {"__init__": lambda _: None, "__getattr__": _token})()
    for attribute, value in {"image_processor": image_processor, **case.values}.items():
        setattr(one, attribute, value)
    return one


def _token(_, name):
    if name.endswith(("_token", "_tag")):
        return f"<{name}>"
    raise AttributeError(name)


def model_of(name):
    """The tiny model that takes what `processor_of` makes."""
    specimen = SPECIMENS[name]
    case = CASES[name]
    model = tiny_families.build(name, replace(specimen, change={**specimen.change, **case.change}))
    for parameter, values in model.named_parameters():
        if case.silent and case.silent in parameter:
            torch.nn.init.zeros_(values)
    return model


@dataclass(frozen=True)
class Processed:
    """What `generate` is given for one prompt, and which of its tokens have the image token's id."""

    inputs: dict
    written: list
    """The tokens as the processor writes them."""


def process(name, processor, config, pictures):
    """One prompt with some pictures (3 × H × W, uint8) and a word before, between and after them."""
    case = CASES[name]
    images = [picture.permute(1, 2, 0).numpy() for picture in pictures]
    nested = [images] if case.values.get("nested") else images
    inputs, texts = processor._process_images(nested, return_tensors="pt", **case.call)
    if name == "llava_onevision" and len(pictures) > 1:
        inputs, texts = processor._process_images([images], return_tensors="pt", **case.call)
    pieces = ["<word>"]
    for text in texts:
        pieces += [*re.findall(re.escape(case.image) + r"|<[^<>]*>|\n+|[^\n]", text), "<word>", "<word>"]
    names = [piece for piece in dict.fromkeys(pieces) if piece != case.image]
    token = getattr(config, "image_token_id", None) or config.image_token_index
    written_ids = {piece: 100 + number for number, piece in enumerate(names)}
    written_ids |= case.values.get("ids", {})
    ids = torch.tensor([[token if piece == case.image else written_ids[piece] for piece in pieces]])
    given = {key: value for key, value in inputs.items() if key not in processor.unused_input_names}
    floats = {key: one.float() for key, one in given.items() if torch.is_tensor(one) and one.is_floating_point()}
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **given, **floats}
    if SPECIMENS[name].types:
        given["mm_token_type_ids"] = (ids == token).int()
    return Processed(_finished(name, given, inputs, token), pieces)


def _finished(name, given, inputs, token):
    """What the processor's `__call__` makes of its tokens, too."""
    if name == "mllama":
        places = [get_cross_attention_token_mask(row, token) for row in given["input_ids"].tolist()]
        length = given["input_ids"].shape[1]
        counts = inputs["num_tiles"]
        most = given["aspect_ratio_mask"].shape[-1]
        seen = convert_sparse_cross_attention_mask_to_dense(places, num_tiles=counts, max_num_tiles=most, length=length)
        given["cross_attention_mask"] = torch.from_numpy(np.asarray(seen))
        given.pop("num_tiles", None)
    if name == "paligemma":
        given["token_type_ids"] = torch.zeros_like(given["input_ids"])
    return given


_PATCHES = {"patch_size": 8, "merge_size": 2, "size": {"shortest_edge": 32 * 32, "longest_edge": 160 * 160}}
_QWEN = Case(options=_PATCHES)
_SIDE = {"height": 64, "width": 64}
_CROPPED = {"size": {"shortest_edge": 64}, "crop_size": _SIDE}
_TOWER = {f"{_V}image_size": 64, f"{_V}patch_size": 8}
_LLAVA = {"patch_size": 8, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
_PINPOINTS = [[64, 128], [128, 64], [128, 128], [192, 64], [64, 192]]
_ANYRES = Case(
    options={**_CROPPED, "image_grid_pinpoints": _PINPOINTS},
    values=_LLAVA,
    change={**_TOWER, "image_grid_pinpoints": _PINPOINTS},
)
_GEMMA = {"full_image_sequence": "\n\n<boi_token>" + "<image_token>" * 64 + "<eoi_token>\n\n"}
_PIXTRAL = Case(
    options={"patch_size": 16, "size": {"longest_edge": 160}},
    values={"patch_size": 8, "spatial_merge_size": 2},
    change={f"{_V}image_size": 160},
)
_MINICPM = Case(
    options={"patch_size": 8, "scale_resolution": 64, "downsample_mode": "16x"},
    values={"slice_mode": True},
)

_OVIS = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]

CASES = {
    **dict.fromkeys(
        [
            "qwen2_vl",
            "qwen2_5_vl",
            "qwen3_vl",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen4_exp",
            "lfm3_vl",
            "exaone4_5",
            "hyperclovax_vision_v2",
            "cohere_compass",
            "cosmos3_edge",
            "glm4v",
            "glm46v",
            "ernie4_5_vl_moe",
            "paddleocr_vl",
            "hunyuan_vl",
        ],
        _QWEN,
    ),
    "minimax_m3_vl": Case(options=_PATCHES, image="]<]image[>["),
    "dots3_note": Case(options={**_PATCHES, "temporal_patch_size": 1}),
    "qwen3_vl_moe": Case(options=_PATCHES, like="qwen3_vl"),
    "qwen2_5_omni_thinker": Case(options=_PATCHES, like="qwen2_vl"),
    "qwen3_omni_moe_thinker": Case(options=_PATCHES, like="qwen2_vl"),
    "cosmos3_omni": Case(options=_PATCHES, like="qwen3_vl"),
    "glm4v_moe": Case(options=_PATCHES, like="glm4v"),
    "glm_ocr": Case(options=_PATCHES, like="glm46v"),
    "glmga": Case(options=_PATCHES, like="glm46v"),
    "glm5_next": Case(
        options={"patch_size": 40, "merge_size": 2, "min_image_tokens": 4, "max_image_tokens": 1200},
        change={f"{_V}patch_size": 40},
    ),
    "kimi_k25": Case(options={"patch_size": 40}, change={f"{_V}patch_size": 40}),
    "video_llama_3": Case(options={**_PATCHES}),
    "muse_glimmer": Case(options={"patch_size": 8, "merge_size": 2, "max_image_tokens": 100}),
    "muse_spark": Case(options={"patch_size": 8, "merge_size": 2, "max_image_tokens": 100}),
    "nemotron_h_omni": Case(options={"patch_size": 8, "min_num_patches": 16, "max_num_patches": 256}),
    "inkling2": Case(options={"size": {"height": 80, "width": 80}}, change={f"{_V}patch_size": 40}),
    "fuyu": Case(
        options={"patch_size": {"height": 45, "width": 45}},
        change={"patch_size": 45},
        call={"return_legacy_image_output": False},
    ),
    "gemma4": Case(options={"patch_size": 8, "max_soft_tokens": 70}, silent="o_proj"),
    "gemma4_unified": Case(options={"patch_size": 8, "max_soft_tokens": 70}),
    "llava": Case(options=_CROPPED, values=_LLAVA, change=_TOWER),
    "vipllava": Case(options=_CROPPED, values=_LLAVA, change=_TOWER),
    "video_llava": Case(options=_CROPPED, values=_LLAVA, change=_TOWER),
    "fast_vlm": Case(
        options={"size": {"shortest_edge": 128}, "crop_size": {"height": 128, "width": 128}},
        values={"patch_size": 32, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"},
        like="llava",
    ),
    "chameleon": Case(options=_CROPPED, values={"image_seq_length": 16}),
    "llava_next": _ANYRES,
    "llava_next_video": _ANYRES,
    "granite4_vision": Case(
        options=_ANYRES.options,
        values={
            "patch_size": 8,
            "num_additional_image_tokens": 0,
            "downsample_rate": "2/4",
            "vision_feature_select_strategy": "full",
        },
        change={**_TOWER, "image_grid_pinpoints": _PINPOINTS},
    ),
    "llava_onevision": Case(
        options={"size": _SIDE, "image_grid_pinpoints": _PINPOINTS},
        values={
            "num_image_tokens": 64,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
            "patch_size": 8,
            "num_additional_image_tokens": 0,
        },
        change={**_TOWER, "image_grid_pinpoints": _PINPOINTS},
    ),
    "paligemma": Case(options={"size": _SIDE}, values={"image_seq_length": 64}, change=_TOWER),
    "gemma3n": Case(
        options={"size": {"height": 128, "width": 128}},
        values={"full_image_sequence": "<boi_token>" + "<image_token>" * 16 + "<eoi_token>"},
    ),
    "gemma3": Case(
        options={"size": _SIDE},
        values={"full_image_sequence": _GEMMA["full_image_sequence"]},
        change={f"{_V}patch_size": 8, f"{_V}image_size": 64, "mm_tokens_per_image": 64},
    ),
    "shieldgemma2": Case(
        options={"size": _SIDE},
        values={"full_image_sequence": _GEMMA["full_image_sequence"]},
        change={f"{_V}patch_size": 8, f"{_V}image_size": 64, "mm_tokens_per_image": 64},
    ),
    "deepseek_vl": Case(options={"size": _SIDE}, values={"num_image_tokens": 64}, change=_TOWER),
    "deepseek_vl_hybrid": Case(
        options={"size": _SIDE, "high_res_size": {"height": 128, "width": 128}},
        values={"num_image_tokens": 64},
        change={**_TOWER, "high_res_vision_config.image_size": 128},
    ),
    "janus": Case(options={"size": _SIDE}, values={"num_image_tokens": 64}, change=_TOWER),
    "emu3": Case(
        options={"min_pixels": 32 * 32, "max_pixels": 96 * 96},
        values={"downsample_ratio": 8, "fake_token_around_image": "<fake>"},
    ),
    "mistral3": _PIXTRAL,
    "mistral_large4": _PIXTRAL,
    "lighton_ocr": Case(
        options={"patch_size": 16, "size": {"longest_edge": 160}},
        values={"effective_patch_size": 16},
        change={f"{_V}image_size": 160},
    ),
    "got_ocr2": Case(
        options={"size": {"height": 128, "width": 128}},
        call={"num_image_tokens": 16, "crop_to_patches": True, "max_patches": 6},
    ),
    "internvl": Case(
        options={"size": _SIDE, "crop_to_patches": True, "max_patches": 6}, values={"image_seq_length": 16}
    ),
    "qianfan_ocr": Case(
        options={"size": _SIDE, "crop_to_patches": True, "max_patches": 6}, values={"image_seq_length": 16}
    ),
    "aya_vision": Case(
        options={"size": _SIDE, "crop_to_patches": True, "max_patches": 6},
        values={"img_size": 64, "patch_size": 16},
        image="<img_patch_token>",
    ),
    "cohere2_vision": Case(options={"size": _SIDE, "max_patches": 6}, values={"patch_size": 4}),
    "idefics3": Case(
        options={"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}},
        values={"image_seq_len": 16, "nested": True},
        call={"return_row_col_info": True},
    ),
    "smolvlm": Case(
        options={"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}},
        values={"image_seq_len": 16, "nested": True},
        call={"return_row_col_info": True},
    ),
    "granite_docling": Case(options={"size": _SIDE, "max_patches": 9}, values={"image_seq_len": 16, "nested": True}),
    "step3p7": Case(
        options={"size": _SIDE, "patch_size": 32, "max_image_size": 128},
        values={"patch_feature_placeholder": "<im_patch>" * 4, "image_feature_placeholder": "<im_patch>" * 16},
        image="<im_patch>",
    ),
    "llama4": Case(
        values={"patch_size": 42, "downsample_ratio": 4},
        change={f"{_V}image_size": 336, f"{_V}patch_size": 42},
        image="<|patch|>",
    ),
    "ovis2": Case(
        options={"size": _SIDE, "max_patches": 6, "crop_to_patches": True},
        values={"image_seq_length": 16, "ids": dict(zip(_OVIS, range(200, 205), strict=True))},
        image="<IMG_ATOM>",
    ),
    "perception_lm": Case(options={"tile_size": 64, "max_num_tiles": 6}, values={"patch_size": 8, "pooling_ratio": 2}),
    "mllama": Case(
        options={"size": {"height": 560, "width": 560}},
        values={"nested": True},
        change={f"{_V}image_size": 560, f"{_V}patch_size": 80},
    ),
    "molmo2": Case(
        options={"size": {"height": 56, "width": 56}, "patch_size": 8, "max_crops": 6, "overlap_margins": [1, 1]},
        values={
            "image_use_col_tokens": True,
            "use_single_crop_col_tokens": False,
            "use_single_crop_start_token": False,
        },
        change={f"{_V}image_size": [56, 56], f"{_V}num_position_embeddings": 49},
        image="<im_patch>",
    ),
    "lfm2_vl": Case(
        options={"tile_size": 64, "encoder_patch_size": 8, "min_image_tokens": 4, "max_image_tokens": 24},
        values={"use_image_special_tokens": True},
        call={"return_row_col_info": True, "use_image_special_tokens": True},
    ),
    "minicpmv4_6": _MINICPM,
    "minicpmv4_7": _MINICPM,
    "minicpm_ocr": _MINICPM,
    "unlimited_ocr": Case(
        options={"size": {"height": 96, "width": 96}, "tile_size": 64, "max_patches": 6},
        values={"patch_size": 4, "downsample_ratio": 4},
    ),
    "pp_chart2table": Case(
        options={"size": {"height": 128, "width": 128}},
        values={"replace_image_token": lambda *_, **__: "<image_token>" * 16},
    ),
}
