"""A tiny randomly initialised model of every family, made by shrinking its default configuration, and one picture.

`SPECIMENS[model_type]` says what to change in the configuration and how a picture becomes the arguments of `generate`.
No code is shared with the rules under test: each encoder cuts the picture and writes the prompt as the processor of
the family does.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import pytest
import torch
import transformers
from torch.nn.functional import interpolate
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

IMAGE = "image"
"""In a layout: one image token."""
NEWLINE = "newline"
"""In a layout: a token with the image token's id that stands for no part of the image."""
BEFORE, AFTER = [11, 12, 13], [21, 22, 23, 24]

BROKEN = {("5.24.0", "llama4"): "Llama 4 of transformers 5.24.0 fails by itself on every image (image_outputs)"}
"""Families that a version of transformers cannot run."""

_SIZES = {
    64: "hidden_size d_model embed_dim hidden_dim out_hidden_size intermediate_size ffn_dim dim mlp_dim projection_dim "
    "encoder_ffn_dim decoder_ffn_dim vision_output_dim output_hidden_size text_hidden_size vision_hidden_size "
    "projector_hidden_size encoder_hidden_size index_topk projector_intermediate_size image_text_hidden_size "
    "qformer_hidden_size projector_output_dim",
    32: "moe_intermediate_size shared_expert_intermediate_size",
    16: "head_dim q_lora_rank kv_lora_rank v_head_dim qk_head_dim linear_key_head_dim linear_value_head_dim "
    "index_head_dim global_head_dim attention_head_dim",
    8: "qk_rope_head_dim qk_nope_head_dim hidden_size_per_layer_input",
    4: "num_attention_heads num_heads n_heads encoder_attention_heads decoder_attention_heads num_experts "
    "n_routed_experts num_local_experts moe_num_experts linear_num_value_heads",
    2: "num_key_value_heads num_experts_per_tok moe_k moe_topk linear_num_key_heads index_n_heads "
    "num_global_key_value_heads",
    1: "n_group topk_group",
    512: "max_position_embeddings",
    300: "vocab_size vocab_size_per_layer_input",
}
_SMALL = {name: size for size, names in _SIZES.items() for name in names.split()}
_DEPTHS = ("num_hidden_layers", "num_layers", "depth", "n_layers", "encoder_layers", "decoder_layers", "layers")
_DERIVED = ("layer_types", "mlp_layer_types", "indexer_types", "architectures", "dtype", "label2id", "id2label")
_TOWERS = ("vision", "vit", "sam", "audio", "qformer", "perceiver", "high_res", "encoder_config")


def shrink(values, path="", ids=None):
    """A configuration as a dictionary with few and small layers, a small vocabulary and token ids within it."""
    ids = {} if ids is None else ids
    small = {}
    for name, value in values.items():
        if name in _DERIVED:
            continue
        if isinstance(value, dict) and name.endswith("config"):
            small[name] = shrink(value, f"{path}{name}.", ids)
        elif name in _DEPTHS and type(value) is int:
            small[name] = 2 if any(tower in path for tower in _TOWERS) else 4
        elif name in _SMALL and type(value) is int:
            small[name] = _SMALL[name]
        elif name.endswith(("_id", "_token_index")) and type(value) is int and value >= 200:
            small[name] = ids.setdefault(value, 299 - len(ids))
        elif name == "mrope_section":
            small[name] = [2, 3, 3]
        else:
            small[name] = value
    return small


@dataclass
class Specimen:
    """How to make a tiny model of a family and show it a picture."""

    encode: Callable
    """(picture 3 × H × W, configuration) to the arguments of `generate` without ids, and the layout of the tokens."""
    views: list
    """Height and width of each view in tokens, and its box where that is not the whole image."""
    change: dict = field(default_factory=dict)
    """Dotted paths of the configuration and their values, None to leave one out."""
    picture: tuple[int, int] = (32, 32)
    """Height and width in pixels."""
    types: bool = False
    """Whether `generate` takes `mm_token_type_ids`, 1 for image tokens."""
    sharpness: float = 2.0
    """Weight of the norms of queries and keys: less where two kernels drift apart in a sharper model."""
    part: float = 1.0
    """Which part of a cell's side to change, from its upper left: less than 1 where tokens reach into the next cell."""
    proof: bool = True
    """Whether changing one cell's pixels changes that cell's token most: not where pixels become codes."""


def in_half_precision(model, inputs):
    """Copies in bfloat16, but for what the classes of the model keep in float32."""
    half = copy.deepcopy(model)
    kept = half._keep_in_fp32_modules_strict
    for name, tensor in chain(half.named_parameters(), half.named_buffers()):
        if not any(part in name for part in kept):
            tensor.data = _halved(tensor.data)
    return half, {name: _halved(value) for name, value in inputs.items()}


def _halved(value):
    if isinstance(value, list):
        return [_halved(one) for one in value]
    return value.bfloat16() if torch.is_tensor(value) and value.is_floating_point() else value


def build(model_type, specimen, seed=0):
    """The tiny model, float32, evaluation mode, attention far from uniform; skips where transformers cannot run it."""
    if reason := BROKEN.get((transformers.__version__, model_type)):
        pytest.skip(reason)
    cls = CONFIG_MAPPING[model_type]
    values = shrink(cls().to_dict())
    for path, value in specimen.change.items():
        *parents, name = path.split(".")
        place = values
        for parent in parents:
            place[parent] = dict(place.get(parent) or {})
            place = place[parent]
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    config = cls.from_dict(values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[cls](config)
        for name, parameter in model.named_parameters():
            tower = any(word in name for word in ("vision", "visual", "qformer"))
            if "q_norm" in name:
                torch.nn.init.constant_(parameter, specimen.sharpness)
            elif parameter.dim() > 1:
                # Sharp attention in the language model; little mixing of patches in the towers.
                torch.nn.init.normal_(parameter, std=0.07 if tower else 0.25 if "q_proj" in name else 0.15)
            elif not torch.isfinite(parameter).all() or not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    return model.float().eval()


def a_picture(height, width, seed=1):
    """Coarse random colours, so that no two parts are alike."""
    generator = torch.Generator().manual_seed(seed)
    return interpolate(torch.rand(1, 3, 8, 8, generator=generator), size=(height, width), mode="bilinear")[0]


def encode(specimen, config, picture):
    """The arguments of `generate` for one picture between two pieces of text, and the positions of its tokens."""
    inputs, layout = specimen.encode(picture, config)
    prompt = [*BEFORE, *layout, *AFTER]
    positions = [place for place, part in enumerate(prompt) if part == IMAGE]
    token = getattr(config, "image_token_id", None)
    if token is None:  # a mask marks the image tokens
        token = 299
        inputs["image_embeds_position_mask"] = torch.tensor([[part == IMAGE for part in prompt]]).int()
    ids = torch.tensor([[token if isinstance(part, str) else part for part in prompt]])
    if specimen.types:
        inputs["mm_token_type_ids"] = (ids == token).int()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}, positions


def _resized(picture, height, width):
    return interpolate(picture[None], size=(height, width), mode="bilinear", antialias=True)[0]


def _flat(picture, side):
    """Square patches row by row, their pixels flattened with the channel last; how many rows and columns."""
    _, height, width = picture.shape
    rows, columns = height // side, width // side
    patches = picture.reshape(3, rows, side, columns, side).permute(1, 3, 2, 4, 0)
    return patches.reshape(rows * columns, -1), rows, columns


def _cut(picture, rows, columns):
    _, height, width = picture.shape
    parts = picture.reshape(3, rows, height // rows, columns, width // columns)
    return parts.permute(1, 3, 0, 2, 4).flatten(0, 1)


def square(picture, config):
    """One picture of a fixed size, sixteen image tokens."""
    return {"pixel_values": picture[None]}, [IMAGE] * 16


def patched(*, merge=2, patch=8, frames=2, flat=True, merged=True, tokens=None, more=dict):
    """Qwen's processor: patches in the order of the merged tokens (or row by row), flattened (or not)."""

    def encode(picture, config):
        _, height, width = picture.shape
        rows, columns = height // patch, width // patch
        parts = picture.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        # rows and columns of tokens, rows and columns of patches in them, channel, pixels
        parts = parts.permute(1, 4, 2, 5, 0, 3, 6) if merged else parts.permute(1, 2, 4, 5, 0, 3, 6)
        parts = parts.reshape(rows * columns, 3, 1, patch, patch).expand(-1, -1, frames, -1, -1)
        pixels = parts.reshape(rows * columns, -1) if flat else parts[:, :, 0]
        inputs = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, rows, columns]]), **more()}
        return inputs, tokens or [IMAGE] * (rows * columns // merge**2)

    return encode


def rowed(picture, config):
    """Kosmos-2.5: flattened patches, each after its row and column, pooled into latents."""
    flat, rows, columns = _flat(picture, 16)
    places = torch.cartesian_prod(torch.arange(1, rows + 1), torch.arange(1, columns + 1))
    return {"flattened_patches": torch.cat([places.float(), flat], 1)[None]}, [IMAGE] * 8


def celled(picture, config):
    """Inkling 2: the pixels of each token, and the grid in tokens."""
    flat, rows, columns = _flat(picture, 16)
    return {
        "pixel_values": flat.view(-1, 16, 16, 3),
        "image_grid_thw": torch.tensor([[1, rows, columns]]),
    }, [IMAGE] * (rows * columns)


def unplaced(picture, config):
    """Inkling: the pixels of each token in two frames, and no grid."""
    flat, rows, columns = _flat(picture, 40)
    pixels = flat.view(-1, 1, 40, 40, 3).expand(-1, 2, -1, -1, -1)
    return {"pixel_values": pixels}, [IMAGE] * (rows * columns)


def prefixed(picture, config):
    """PaliGemma: the whole prompt is a prefix, which `token_type_ids` says."""
    inputs, layout = square(picture, config)
    count = len(BEFORE) + len(layout) + len(AFTER)
    return {**inputs, "token_type_ids": torch.zeros(1, count, dtype=torch.long)}, layout


def named(name):
    def encode(picture, config):
        return {name: picture[None]}, [IMAGE] * 16

    return encode


def twice(picture, config):
    """DeepSeek-VL hybrid: a low and a high resolution."""
    return {"pixel_values": picture[None], "high_res_pixel_values": _resized(picture, 64, 64)[None]}, [IMAGE] * 16


def anyres(picture, config):
    """LLaVA-NeXT: a square of the whole, then tiles of the picture in its best resolution; newlines end the rows."""
    _, height, width = picture.shape
    tiles = _cut(picture, height // 32, width // 32)
    pixels = torch.cat([_resized(picture, 32, 32)[None], tiles])
    tokens = [IMAGE] * 16 + ([IMAGE] * (width // 8) + [NEWLINE]) * (height // 8)
    return {"pixel_values": pixels[None], "image_sizes": torch.tensor([[height, width]])}, tokens


def letterboxed(rows, columns, layout, *, side=96):
    """DeepSeek-OCR's processor: tiles of 64 pixels, and the whole between bars of grey that make it a square."""

    def encode(picture, config):
        _, height, width = picture.shape
        whole = _resized(picture, side * height // width, side)
        bars = (side - whole.shape[1]) // 2
        inputs = {
            "pixel_values": torch.nn.functional.pad(whole, (0, 0, bars, bars), value=-1 / 255)[None],
            "pixel_values_local": _cut(_resized(picture, 64 * rows, 64 * columns), rows, columns),
            "num_local_patches": [rows * columns],
        }
        if config.model_type == "unlimited_ocr":
            inputs["patches_grid"] = [[columns, rows]]
        return inputs, layout

    return encode


def positioned(side, *, pooled):
    """Gemma 4: patches of side × side pixels row by row with their places, padded; some of them make a token."""

    def encode(picture, config):
        flat, rows, columns = _flat(picture, side)
        places = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), -1)
        patches, places = torch.cat([flat, flat[:9] * 0])[None], places.reshape(-1, 2)
        places = torch.cat([places, places[:9] * 0 - 1])[None]
        return {"pixel_values": patches, "image_position_ids": places}, [IMAGE] * (rows * columns // pooled)

    return encode


def sized(picture, config):
    """Pixtral's processor, four pixels a patch and two by two patches a token: breaks between the rows, an end."""
    _, height, width = picture.shape
    rows, columns = height // 16, width // 16
    layout = ([IMAGE] * columns + [30]) * (rows - 1) + [IMAGE] * columns + [31]
    return {"pixel_values": picture[None], "image_sizes": torch.tensor([[height, width]])}, layout


def unbroken(picture, config):
    inputs, layout = sized(picture, config)
    return inputs, [part for part in layout if part == IMAGE]


def tiled(side, layout, *, first=False, rows=2, columns=3, lift=0):
    """Tiles of side × side pixels and a small picture of the whole; `layout(rows, columns)` writes the prompt."""

    def encode(picture, config):
        tiles = _cut(_resized(picture, side * rows, side * columns), rows, columns)
        whole = _resized(picture, side, side)[None]
        pixels = torch.cat([whole, tiles] if first else [tiles, whole])
        return {"pixel_values": pixels[(None,) * lift]}, layout(rows, columns)

    return encode


def together(rows, columns):
    return [IMAGE] * 16 * (rows * columns + 1)


def tagged(rows, columns):
    """Aya: a numbered tag before each tile."""
    return [part for tile in range(rows * columns + 1) for part in [40 + tile, *[IMAGE] * 16]]


def broken(rows, columns):
    """Cohere: a line break after each tile."""
    return [50, *[part for _ in range(rows * columns + 1) for part in [*[IMAGE] * 16, 51]], 52]


def fenced(rows, columns):
    """Idefics3: a fence and a tag before each tile, a line break after each row."""
    layout = []
    for row in range(rows):
        for column in range(columns):
            layout += [60, 70 + 10 * row + column, *[IMAGE] * 16]
        layout += [61]
    return [*layout, 62, 60, 63, *[IMAGE] * 16, 60]


def rowed_tiles(picture, config):
    """Granite Docling: the tiles of a prompt's images in one row of the array, padded with an empty one."""
    inputs, layout = tiled(64, fenced, lift=1)(picture, config)
    pixels = inputs["pixel_values"]
    shown = torch.arange(8)[None] < pixels.shape[1]
    return {"pixel_values": torch.cat([pixels, pixels[:, :1] * 0], 1), "pixel_attention_mask": shown}, layout


def local_and_global(picture, config):
    """Step 3.7: tiles of half the side of the whole, a newline token after each row of tiles but the last."""
    layout = []
    for tile in range(6):
        layout += [70, *[IMAGE] * 4, 71, *([72] if tile == 2 else [])]
    return {
        "pixel_values": _resized(picture, 64, 64)[None],
        "pixel_values_local": _cut(picture, 2, 3),
        "num_local_patches": torch.tensor([6]),
    }, [*layout, 73, *[IMAGE] * 16, 74]


def packed(picture, config):
    """Nemotron 3 Omni: patches row by row with the channel first, two by two of them a token."""
    _, height, width = picture.shape
    rows, columns = height // 8, width // 8
    patches = picture.reshape(3, rows, 8, columns, 8).permute(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    inputs = {"pixel_values": patches, "image_grid_hw": torch.tensor([[rows, columns]])}
    return inputs, [31, *[IMAGE] * (rows * columns // 4), 32]


def separated(rows, columns):
    """Llama 4: a separator between the tiles of a row, another after each row."""
    layout = [80]
    for _ in range(rows):
        for column in range(columns):
            layout += [*[IMAGE] * 16, *([81] if column < columns - 1 else [])]
        layout += [82]
    return [*layout, 83, *[IMAGE] * 16, 84]


def indicated(rows, columns):
    """Ovis: the whole, then tiles with separators between columns and between rows."""
    layout = [200, *[IMAGE] * 16, 201]
    for row in range(rows):
        for column in range(columns):
            layout += [*[IMAGE] * 16, *([202] if column < columns - 1 else [])]
        layout += [203] if row < rows - 1 else []
    return [*layout, 204]


def crossing(picture, config):
    """Mllama: tiles of one picture in a padded array; one token in the prompt, the image in the cross layers' keys."""
    tiles = _cut(_resized(picture, 64, 32), 2, 1)
    pixels = torch.cat([tiles, torch.zeros(2, 3, 32, 32)])
    ratios = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
    length = len(BEFORE) + 1 + len(AFTER)
    shown = torch.tensor([1, 1, 0, 0])
    return {
        "pixel_values": pixels[None, None],
        "aspect_ratio_ids": torch.tensor([[ratios.index([2, 1]) + 1]]),
        "aspect_ratio_mask": shown[None, None],
        "cross_attention_mask": shown.expand(1, length, 1, 4),
    }, [IMAGE]


def twice_pooled(picture, config):
    """Molmo 2: the whole and one crop, two by two patches a token; a column token ends each row of the second."""
    patches = _resized(picture, 32, 32).reshape(3, 4, 8, 4, 8).permute(1, 3, 2, 4, 0).reshape(1, 16, -1)
    places = torch.arange(16).view(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)
    return {
        "pixel_values": torch.cat([patches, patches]),
        "image_token_pooling": torch.cat([places, places + 16]),
        "image_grids": torch.tensor([[2, 2, 2, 2]]),
        "image_num_crops": torch.tensor([2]),
    }, [90, IMAGE, IMAGE, IMAGE, IMAGE, 91, 90, IMAGE, IMAGE, 92, IMAGE, IMAGE, 92, 91]


def shaped(picture, config):
    """LFM2: tiles with tags, then a thumbnail of another shape; flattened and padded patches."""
    tiles, whole = _cut(_resized(picture, 128, 192), 2, 3), _resized(picture, 32, 48)
    pixels, masks, shapes = [], [], []
    for part in [*tiles, whole]:
        rows, columns = part.shape[1] // 8, part.shape[2] // 8
        flat = part.reshape(3, rows, 8, columns, 8).permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
        pixels.append(torch.cat([flat, flat.new_zeros(64 - len(flat), flat.shape[1])]))
        masks.append(torch.arange(64) < rows * columns)
        shapes.append([rows, columns])
    layout = [part for tile in range(6) for part in [40 + tile, *[IMAGE] * 16]]
    inputs = {
        "pixel_values": torch.stack(pixels),
        "pixel_attention_mask": torch.stack(masks).int(),
        "spatial_shapes": torch.tensor(shapes),
    }
    return inputs, [39, *layout, 46, *[IMAGE] * 6, 47]


def coded(picture, config):
    """Emu3: a code for every eight by eight pixels, an end of line after each row."""
    _, height, width = picture.shape
    inputs = {"pixel_values": picture[None], "image_sizes": torch.tensor([[height, width]])}
    return inputs, ([IMAGE] * (width // 8) + [NEWLINE]) * (height // 8)


def lines(picture, config):
    """Fuyu: rows of patches, a newline after each."""
    _, height, width = picture.shape
    patches = picture.reshape(3, height // 16, 16, width // 16, 16).permute(1, 3, 2, 4, 0).reshape(1, -1, 768)
    return {"pixel_values": patches}, ([IMAGE] * (width // 16) + [95]) * (height // 16)


def latent(count, name="pixel_values", lift=1, **more):
    """Pooled into a number of latents."""

    def encode(picture, config):
        return {name: picture[(None,) * lift], **more}, [IMAGE] * count

    return encode


def sliced(picture, config):
    """MiniCPM: the whole, then slices with a line break between their rows; patches in one long row."""
    tiles, whole = _cut(_resized(picture, 128, 192), 2, 3), _resized(picture, 32, 64)
    strips, sizes = [], []
    for part in [whole, *tiles]:
        rows, columns = part.shape[1] // 8, part.shape[2] // 8
        strips.append(part.reshape(3, rows, 8, columns, 8).permute(0, 2, 1, 3, 4).reshape(3, 8, -1))
        sizes.append([rows, columns])
    layout = [90, *[IMAGE] * 2, 91]
    for row in range(2):
        layout += [*([92, *[IMAGE] * 4, 93] * 3), *([94] if row == 0 else [])]
    return {"pixel_values": torch.cat(strips, -1)[None], "target_sizes": torch.tensor(sizes)}, layout


def _tiles(side):
    return [
        (side, side, (column / 3, row / 2, (column + 1) / 3, (row + 1) / 2)) for row in range(2) for column in range(3)
    ]


TILES, SMALL_TILES = _tiles(4), _tiles(2)
CUT_OUT = (4, 4, (float("nan"),) * 4)
"""The view of a square that a processor may have cut out of the image, and does not tell."""
_V = "vision_config."
_T = "text_config."
_QWEN = {f"{_V}patch_size": 8, f"{_V}spatial_merge_size": 2}
_MROPE = {f"{_T}rope_parameters.mrope_section": [2, 3, 3]}
_HALF_MROPE = {f"{_T}rope_parameters.mrope_section": [2, 1, 1]}
_SQUARE = {f"{_V}image_size": 32, f"{_V}patch_size": 8}
_LARGE = {f"{_V}image_size": 64, f"{_V}patch_size": 8}
_SAM = {f"{_V}sam_config.patch_size": 4, f"{_V}sam_config.downsample_channels": [32, 64]}
_WIDE = (64, 96)

SPECIMENS = {
    "qwen2_vl": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE}, _WIDE, types=True),
    "qwen2_5_vl": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE, f"{_V}window_size": 32}, _WIDE, types=True),
    "qwen3_vl": Specimen(patched(), [(4, 6)], _QWEN, _WIDE, types=True),
    "qwen3_vl_moe": Specimen(patched(), [(4, 6)], _QWEN, _WIDE, types=True),
    "qwen3_5": Specimen(patched(), [(4, 6)], _QWEN, _WIDE, types=True, sharpness=1.0),
    "qwen3_5_moe": Specimen(patched(), [(4, 6)], _QWEN, _WIDE, types=True),
    "qwen2_5_omni_thinker": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE, "vision_start_token_id": 13}, _WIDE),
    "qwen3_omni_moe_thinker": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE, "vision_start_token_id": 13}, _WIDE),
    "glm4v": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE}, _WIDE, types=True),
    "glm4v_moe": Specimen(patched(), [(4, 6)], {**_QWEN, **_HALF_MROPE}, _WIDE, types=True),
    "glm46v": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE}, _WIDE, types=True),
    "glm_ocr": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE}, _WIDE, types=True),
    "cosmos3_omni": Specimen(patched(), [(4, 6)], _QWEN, _WIDE, types=True),
    "cosmos3_edge": Specimen(
        patched(frames=1),
        [(4, 6)],
        {
            **_QWEN,
            f"{_T}rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        _WIDE,
        types=True,
    ),
    "glm5_next": Specimen(
        patched(),
        [(4, 6)],
        {
            **_QWEN,
            f"{_T}num_key_value_heads": 4,
            f"{_T}qk_rope_head_dim": 0,
            f"{_T}qk_nope_head_dim": 16,
            f"{_T}qk_head_dim": 16,
        },
        _WIDE,
        types=True,
    ),
    "qwen4_exp": Specimen(
        patched(),
        [(4, 6)],
        {
            **_QWEN,
            **_MROPE,
            f"{_T}indexer_n_heads": 2,
            f"{_T}indexer_kv_heads": 1,
            f"{_T}indexer_head_dim": 16,
            f"{_T}indexer_budget": 8,
            f"{_T}indexer_compress_ratio": 4,
            f"{_T}hc_lowrank": 8,
            f"{_T}ple_embed_dim": 64,
        },
        _WIDE,
        types=True,
    ),
    "dots3_note": Specimen(
        patched(frames=1),
        [(4, 6)],
        {
            **_QWEN,
            f"{_T}num_key_value_heads": 4,
            f"{_T}per_layer_config": {},
            f"{_T}layer_types": ["indexed_attention", "sliding_attention"] * 2,
            f"{_T}rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("indexed_attention", "sliding_attention")
            },
            f"{_T}index_topk": 8,
            f"{_V}per_layer_config": {},
            f"{_V}mlp_layer_types": ["dense", "dense"],
            f"{_V}adapter_in_dim": 64,
            f"{_V}adapter_out_dim": 64,
            "audio_config.adapter_input_size": 64,
            "audio_config.adapter_out_dim": 64,
            "audio_config.downsample_hidden_size": 16,
            "audio_config.conv_output_size": 256,
        },
        _WIDE,
    ),
    "minimax_m3_vl": Specimen(
        patched(),
        [(4, 6)],
        {
            **_QWEN,
            f"{_T}layer_types": ["full_attention", *["minimax_m3_sparse"] * 3],
            f"{_T}index_block_size": 4,
            f"{_T}index_topk_blocks": 3,
            f"{_T}rotary_dim": 16,
            f"{_T}dense_intermediate_size": 64,
            f"{_T}shared_intermediate_size": 64,
            "merged_hidden_size": None,
        },
        _WIDE,
    ),
    "inkling2": Specimen(
        celled,
        [(4, 6)],
        {
            f"{_V}patch_size": 8,
            f"{_V}projection_hidden_dim": 64,
            f"{_T}swa_num_attention_heads": 4,
            f"{_T}swa_num_key_value_heads": 2,
            f"{_T}swa_head_dim": 16,
            f"{_T}unpadded_vocab_size": 300,
        },
        _WIDE,
    ),
    "inkling_mm_model": Specimen(
        unplaced,
        [],
        {f"{_T}swa_num_attention_heads": 4, f"{_T}swa_num_key_value_heads": 2, f"{_T}swa_head_dim": 16},
        (80, 120),
    ),
    "muse_glimmer": Specimen(patched(merged=False), [(4, 6)], {f"{_V}patch_size": 8, "out_hidden_size": 256}, _WIDE),
    "muse_spark": Specimen(
        patched(merged=False),
        [(4, 6)],
        {
            f"{_V}patch_size": 8,
            "out_hidden_size": 256,
            f"{_T}moe_hidden_size": 64,
            f"{_T}qk_scale_factor": 2.0,
            "audio_config.patch_sizes": [16, 6],
            "audio_config.hidden_sizes": [64, 64],
            "audio_config.depths": [1, 1],
        },
        _WIDE,
    ),
    "exaone4_5": Specimen(patched(), [(4, 6)], _QWEN, _WIDE),
    "hyperclovax_vision_v2": Specimen(patched(), [(4, 6)], _QWEN, _WIDE),
    "cohere_compass": Specimen(
        patched(),
        [(4, 6)],
        {
            **_QWEN,
            f"{_T}rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
                for kind in ("full_attention", "sliding_attention")
            },
        },
        _WIDE,
        types=True,
    ),
    "ernie4_5_vl_moe": Specimen(
        patched(frames=1), [(4, 6)], {**_QWEN, f"{_T}rope_parameters.mrope_section": [3, 3, 2]}, _WIDE, types=True
    ),
    "paddleocr_vl": Specimen(patched(flat=False, merged=False), [(4, 6)], {**_QWEN, **_MROPE}, _WIDE, types=True),
    "kimi_k25": Specimen(
        patched(flat=False, merged=False),
        [(4, 6)],
        {f"{_V}patch_size": 8, "projection_hidden_size": 64, f"{_T}head_dim": 8, f"{_T}num_key_value_heads": 4},
        _WIDE,
    ),
    "video_llama_3": Specimen(
        patched(frames=1, more=lambda: {"image_merge_sizes": torch.tensor([2])}),
        [(4, 6)],
        {f"{_V}patch_size": 8},
        _WIDE,
    ),
    "llava": Specimen(square, [CUT_OUT], _SQUARE),
    "llava_next": Specimen(anyres, [(4, 4), (8, 12)], {**_SQUARE, "image_grid_pinpoints": [[64, 96], [96, 64]]}, _WIDE),
    "llava_next_video": Specimen(
        anyres, [(4, 4), (8, 12)], {**_SQUARE, "image_grid_pinpoints": [[64, 96], [96, 64]]}, _WIDE
    ),
    "llava_onevision": Specimen(
        anyres, [(4, 4), (8, 12)], {**_SQUARE, "image_grid_pinpoints": [[64, 96], [96, 64]]}, _WIDE
    ),
    "granite4_vision": Specimen(
        anyres,
        [(4, 4), (8, 12)],
        {
            **_SQUARE,
            f"{_V}patch_size": 4,
            "image_grid_pinpoints": [[64, 96], [96, 64]],
            "downsample_rate": "2/4",
            "deepstack_layer_map": [[-1, 0], [-2, 1]],
            "spatial_target_layers": [0, 1, 2, 3],
        },
        _WIDE,
    ),
    "unlimited_ocr": Specimen(
        letterboxed(2, 3, [*([IMAGE] * 12 + [NEWLINE]) * 8, *([IMAGE] * 6 + [NEWLINE]) * 6, NEWLINE]),
        [(8, 12), (6, 6, (0, -1 / 22, 1, 23 / 22))],
        {**_SAM, f"{_T}num_key_value_heads": 4, f"{_T}sliding_window": 2},
        (176, 192),
        part=0.5,
    ),
    "deepseek_ocr2": Specimen(
        letterboxed(1, 2, [*[IMAGE] * (2 * 144 + 256), NEWLINE], side=208),
        [],
        {
            **_SAM,
            f"{_T}num_experts_per_tok": 2,
            f"{_T}mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        (176, 192),
    ),
    "vipllava": Specimen(square, [CUT_OUT], {**_SQUARE, "vision_feature_layers": [-1, -2]}),
    "video_llava": Specimen(named("pixel_values_images"), [CUT_OUT], _SQUARE),
    "paligemma": Specimen(prefixed, [(4, 4)], _SQUARE),
    "deepseek_vl": Specimen(square, [(4, 4)], _SQUARE),
    "deepseek_vl_hybrid": Specimen(
        twice,
        [(4, 4)],
        {
            **_SQUARE,
            "high_res_vision_config.image_size": 64,
            "high_res_vision_config.patch_size": 8,
            "high_res_vision_config.output_channels": 32,
            "high_res_vision_config.window_size": 2,
            "high_res_vision_config.global_attn_indexes": [1],
        },
    ),
    "janus": Specimen(square, [(4, 4)], {**_SQUARE, "vq_config.base_channels": 32}),
    "gemma3": Specimen(
        square,
        [(4, 4)],
        {**_LARGE, f"{_T}layer_types": ["sliding_attention", "full_attention"] * 2, "mm_tokens_per_image": 16},
        (64, 64),
    ),
    "gemma3n": Specimen(
        square,
        [(4, 4)],
        {
            f"{_T}intermediate_size": 64,
            f"{_T}num_kv_shared_layers": 2,
            f"{_T}layer_types": ["sliding_attention", "full_attention"] * 2,
            f"{_T}activation_sparsity_pattern": [0.0] * 4,
            f"{_T}laurel_rank": 8,
            f"{_V}architecture": "resnet10t",
            f"{_V}hidden_size": 512,
            f"{_V}vocab_size": 10,
            f"{_V}vocab_offset": 280,
            "audio_config.vocab_offset": 290,
            "audio_config.vocab_size": 10,
            f"{_T}vocab_size_per_layer_input": 280,
            "vision_soft_tokens_per_image": 16,
            "image_token_id": 281,
            "audio_token_id": 291,
        },
        (128, 128),
        proof=False,
    ),
    "gemma4": Specimen(
        positioned(8, pooled=9),
        [(3, 4)],
        {
            f"{_T}per_layer_config": None,
            f"{_T}num_kv_shared_layers": 2,
            f"{_T}layer_types": ["sliding_attention", "full_attention"] * 2,
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 16,
                "patch_size": 8,
                "position_embedding_size": 64,
            },
        },
        (72, 96),
        types=True,
        sharpness=1.0,
    ),
    "gemma4_unified": Specimen(
        positioned(24, pooled=1),
        [(3, 4)],
        {
            f"{_T}per_layer_config": {},
            "vision_config": {
                "model_type": "gemma4_unified_vision",
                "patch_size": 8,
                "model_patch_size": 24,
                "pooling_kernel_size": 3,
                "mm_embed_dim": 64,
                "mm_posemb_size": 16,
                "output_proj_dims": 64,
            },
        },
        (72, 96),
        types=True,
    ),
    "shieldgemma2": Specimen(
        square,
        [(4, 4)],
        {**_LARGE, f"{_T}layer_types": ["sliding_attention", "full_attention"] * 2, "mm_tokens_per_image": 16},
        (64, 64),
    ),
    "fast_vlm": Specimen(
        square,
        [CUT_OUT],
        {f"{_V}model_args": {}, f"{_V}architecture": "resnet10t", f"{_V}hidden_size": 512, "image_seq_length": 16},
        (128, 128),
        proof=False,
    ),
    "got_ocr2": Specimen(square, [(4, 4)], {f"{_V}image_size": 128, f"{_V}patch_size": 8}, (128, 128), part=0.5),
    "chameleon": Specimen(
        square,
        [CUT_OUT],
        {
            "image_token_id": 290,
            "vocabulary_map": {"<image>": 290, **{f"IMGIMG{c}Z": 100 + i for i, c in enumerate("ABCDEFGH")}},
            "vq_config.base_channels": 32,
            "vq_config.channel_multiplier": [1, 1, 1, 1, 1],
            "vq_config.num_embeddings": 8,
            "vq_config.resolution": 64,
            "vq_config.latent_channels": 32,
            "vq_config.embed_dim": 32,
        },
        (64, 64),
        proof=False,
    ),
    "pp_chart2table": Specimen(square, [(4, 4)], {f"{_V}image_size": 128, f"{_V}patch_size": 8}, (128, 128), part=0.5),
    "mistral3": Specimen(sized, [(4, 6)], {f"{_V}patch_size": 8, f"{_V}image_size": 128}, _WIDE),
    "mistral_large4": Specimen(
        sized,
        [(4, 6)],
        {
            f"{_V}patch_size": 8,
            f"{_V}image_size": 128,
            f"{_T}kv_source_layers": None,
            f"{_T}num_key_value_heads": 4,
            f"{_T}qk_head_dim": 16,
            f"{_T}index_topk": 8,
        },
        _WIDE,
    ),
    "lighton_ocr": Specimen(unbroken, [(4, 6)], {f"{_V}patch_size": 8, f"{_V}image_size": 128}, _WIDE),
    "internvl": Specimen(
        tiled(64, together),
        [*TILES, (4, 4)],
        {f"{_V}image_size": [64, 64], f"{_V}patch_size": [8, 8], "image_seq_length": 16},
        (128, 192),
    ),
    "qianfan_ocr": Specimen(
        tiled(64, together),
        [*TILES, (4, 4)],
        {f"{_V}image_size": [64, 64], f"{_V}patch_size": [8, 8], "image_seq_length": 16},
        (128, 192),
    ),
    "aya_vision": Specimen(tiled(64, tagged), [*TILES, (4, 4)], _LARGE, (128, 192)),
    "cohere2_vision": Specimen(tiled(64, broken), [*TILES, (4, 4)], _LARGE, (128, 192)),
    "idefics3": Specimen(tiled(64, fenced, lift=1), [*TILES, (4, 4)], _LARGE, (128, 192)),
    "smolvlm": Specimen(tiled(64, fenced, lift=1), [*TILES, (4, 4)], _LARGE, (128, 192)),
    "granite_docling": Specimen(
        rowed_tiles,
        [*TILES, (4, 4)],
        {
            **_LARGE,
            f"{_V}scale_factor": 2,
            f"{_V}deepstack_visual_indexes": [0, 1],
            f"{_T}attention_multiplier": 0.25,
        },
        (128, 192),
    ),
    "step3p7": Specimen(
        local_and_global,
        [*SMALL_TILES, (4, 4)],
        {
            f"{_V}image_size": 64,
            f"{_V}patch_size": 4,
            f"{_T}layer_types": ["sliding_attention", "full_attention"] * 2,
            f"{_T}sliding_window": 512,
            f"{_T}num_sliding_attention_heads": 4,
            f"{_T}per_layer_config": None,
            f"{_T}rope_parameters": None,
            f"{_T}query_pre_attn_scalar": 16,
            f"{_T}share_expert_dim": 64,
        },
        _WIDE,
        part=0.5,
    ),
    "nemotron_h_omni": Specimen(
        packed,
        [(4, 6)],
        {
            "image_token_id": 290,
            "projector_hidden_size": 64,
            f"{_V}patch_size": 8,
            f"{_V}max_img_size": 128,
            f"{_T}mamba_num_heads": 4,
            f"{_T}mamba_head_dim": 16,
            f"{_T}n_groups": 2,
            f"{_T}ssm_state_size": 16,
            f"{_T}moe_shared_expert_intermediate_size": 64,
        },
        _WIDE,
    ),
    "llama4": Specimen(
        tiled(64, separated),
        [*TILES, (4, 4)],
        {
            **_LARGE,
            f"{_T}no_rope_layers": None,
            f"{_T}moe_layers": None,
            f"{_V}projector_input_dim": 64,
            f"{_V}projector_output_dim": 64,
            f"{_V}intermediate_size": 256,
        },
        (128, 192),
    ),
    "ovis2": Specimen(
        tiled(64, indicated, first=True),
        [(4, 4), *TILES],
        {**_LARGE, f"{_V}hidden_stride": 2, "visual_indicator_token_ids": [200, 201, 202, 203, 204]},
        (128, 192),
    ),
    "perception_lm": Specimen(
        tiled(64, together, first=True, lift=1),
        [(4, 4), *TILES],
        {
            "vision_config": {
                "model_type": "timm_wrapper",
                "architecture": "vit_tiny_patch16_224",
                "do_pooling": False,
                "model_args": {
                    "embed_dim": 64,
                    "depth": 2,
                    "num_heads": 4,
                    "img_size": [64, 64],
                    "patch_size": 8,
                    "global_pool": "",
                },
            },
            "projector_pooling_ratio": 2,
        },
        (128, 192),
    ),
    "hunyuan_vl": Specimen(
        patched(frames=1, merged=False, tokens=[NEWLINE, *([IMAGE] * 6 + [NEWLINE]) * 4, NEWLINE]),
        [(4, 6)],
        {**_QWEN, f"{_T}head_dim": 16, f"{_V}text_hidden_size": 64, f"{_T}rope_parameters.mrope_section": [2, 2, 2, 2]},
        _WIDE,
        types=True,
    ),
    "mllama": Specimen(
        crossing,
        [(4, 4, (0, 0, 1, 1 / 2)), (4, 4, (0, 1 / 2, 1, 1))],
        {
            **_SQUARE,
            f"{_V}attention_heads": 4,
            f"{_V}intermediate_layers_indices": [0],
            f"{_V}vision_output_dim": 128,
            f"{_T}cross_attention_layers": [1, 2],
        },
        (64, 32),
        proof=False,
    ),
    "molmo2": Specimen(
        twice_pooled,
        [(2, 2), (2, 2)],
        {
            f"{_V}image_size": [32, 32],
            f"{_V}patch_size": 8,
            f"{_V}num_position_embeddings": 16,
            "adapter_config.vision_feature_layer": [1, 0],
        },
        (32, 32),
    ),
    "lfm2_vl": Specimen(
        shaped,
        [*TILES, (2, 3)],
        {f"{_V}patch_size": 8, f"{_T}layer_types": ["conv", "full_attention"] * 2, f"{_T}full_attn_idxs": None},
        (128, 192),
    ),
    "idefics2": Specimen(latent(64, lift=2), [], {**_SQUARE, f"{_T}sliding_window": 4096}),
    "aria": Specimen(
        latent(4),
        [],
        {**_SQUARE, "max_value_projector_patch_to_query_dict": None, "projector_patch_to_query_dict": {"16": 4}},
    ),
    "minicpmv4_6": Specimen(
        sliced,
        [(1, 2), *SMALL_TILES],
        {
            "image_token_id": 290,
            f"{_V}insert_layer_id": 0,
            "insert_layer_id": 0,
            f"{_V}patch_size": 8,
            f"{_V}image_size": 64,
        },
        (64, 96),
    ),
    "minicpmv4_7": Specimen(
        sliced,
        [(1, 2), *SMALL_TILES],
        {
            "image_token_id": 290,
            f"{_V}insert_layer_id": 0,
            "insert_layer_id": 0,
            f"{_V}patch_size": 8,
            f"{_V}image_size": 64,
        },
        (64, 96),
        types=True,
    ),
    "minicpm_ocr": Specimen(
        sliced,
        [(1, 2), *SMALL_TILES],
        {
            "downsample_mode": "16x",
            "image_token_id": 290,
            f"{_V}insert_layer_id": 0,
            "insert_layer_id": 0,
            f"{_V}patch_size": 8,
            f"{_V}image_size": 64,
        },
        (64, 96),
    ),
    "glmga": Specimen(patched(), [(4, 6)], {**_QWEN, **_MROPE}, _WIDE, types=True),
    "lfm3_vl": Specimen(patched(), [(4, 6)], _QWEN, _WIDE),
    "emu3": Specimen(
        coded,
        [(8, 12)],
        {
            "image_token_id": 290,
            "vocabulary_map": {
                "<image>": 290,
                "<|extra_200|>": 291,
                **{f"<|visual token {code:06d}|>": 200 + code for code in range(8)},
            },
            "vq_config.codebook_size": 8,
            "vq_config.base_channels": 32,
            "vq_config.channel_multiplier": [1, 1, 1, 1],
            "vq_config.hidden_size": 32,
            "vq_config.num_attention_heads": 1,
        },
        _WIDE,
        proof=False,
    ),
    "fuyu": Specimen(lines, [(4, 6)], {"patch_size": 16}, _WIDE),
    "kosmos-2": Specimen(latent(64), [], {**_SQUARE, f"{_T}attention_heads": 4}),
    "kosmos-2.5": Specimen(
        rowed,
        [],
        {f"{_T}attention_heads": 4, f"{_T}dropout": 0.0, f"{_V}max_num_patches": 64, "latent_query_num": 8},
        _WIDE,
    ),
    "instructblip": Specimen(
        latent(32, qformer_input_ids=torch.tensor([[5, 6, 7]])),
        [],
        {**_SQUARE, "image_token_index": 290, f"{_T}word_embed_proj_dim": 64, f"{_T}dropout": 0.0},
    ),
    "blip-2": Specimen(
        latent(32), [], {**_SQUARE, "image_token_index": 290, f"{_T}word_embed_proj_dim": 64, f"{_T}dropout": 0.0}
    ),
}
