"""The families of image-text-to-text models that can be recorded: one row each, and the general rule for the rest."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from halo_probe.capture import canvas, grids, tiles
from halo_probe.capture.grids import Rule, patches, read, sized, squares, vision_patches
from halo_probe.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FULL = ("full_attention",)
SLIDING = ("sliding_attention", "full_attention")


@dataclass(frozen=True)
class Family:
    """One model type: how its image tokens are found, which grid they form and what is special about it."""

    model_type: str
    """The configuration's `model_type`."""
    grid: Rule | None = None
    """None where the image tokens form no raster and all count; `note` says why."""
    token: str = "image_token_id"  # noqa: S105 - a name in a configuration
    """Where the image token id stands in the configuration: dotted paths, the first that holds a number counts."""
    mask: str = ""
    """The argument of `generate` that marks the image tokens, where no id does."""
    cross: bool = False
    """Whether the image is in the keys of cross-attention layers rather than in the prompt."""
    layers: tuple[str, ...] = FULL
    """The types of the layers that are recorded."""
    skipped: str = ""
    """What the layers are that cannot be recorded."""
    note: str = ""
    """What is special."""
    refusal: str = ""
    """Why it cannot be recorded; empty where it can."""
    known: bool = True
    """False for a model type that the table does not have, which the general rule covers."""


def family_of(config: "PretrainedConfig") -> Family:
    """The row of a model's family, or else the general rule: image tokens by their id, and no grid."""
    model_type = str(config.model_type)
    row = next((family for family in FAMILIES if family.model_type == model_type), None)
    if row is not None:
        return row
    if getattr(config, "is_encoder_decoder", False):
        return Family(model_type, refusal=_ENCODER_DECODER, known=False)
    return Family(model_type, token=GENERAL_TOKENS, note="it has no grid", known=False)


def image_token_id(config: "PretrainedConfig", family: Family) -> int:
    """The id of the tokens that stand for the image.

    Raises:
        UnsupportedModelError: If the configuration has none.
    """
    for path in family.token.split(" or "):
        try:
            token = read(config, path)
        except (AttributeError, KeyError):
            continue
        if isinstance(token, int):
            return token
    raise UnsupportedModelError(
        f"model type {family.model_type!r}: its configuration has no image token id ({family.token}), so image tokens "
        "cannot be found in a prompt. docs/families.md lists the families that can be recorded."
    )


GENERAL_TOKENS = "image_token_id or image_token_index or image_patch_id or vision_config.image_token_id"
"""Where the general rule looks for the image token id."""

_ENCODER_DECODER = "an encoder-decoder: the image is in the encoder, not among the keys of the decoder's own layers"
_OWN_ATTENTION = "its language model computes attention itself, not by transformers' attention functions"
_LINEAR = "linear-attention"
_SELECTS = "sparse layers select the keys that a head sees"
_QWEN = patches()
_TOWER = squares("a square of `image_size` // `patch_size` a side", vision_patches)
_CROPPED = squares(
    f"a square of `image_size` // `patch_size` a side; {grids.NOT_TOLD}", vision_patches, box=canvas.UNKNOWN
)
_QUERIED = "learned queries read each picture into latents, which have no place in it"
_RESAMPLED = "a resampler pools the image into latents, which have no place in it"


FAMILIES: tuple[Family, ...] = (
    Family("apertus1p5", refusal="the grid of its image codes is not proven yet"),
    Family("aria", note=_RESAMPLED),
    Family("aya_vision", tiles.AYA, layers=SLIDING),
    Family("blip", refusal=_OWN_ATTENTION),
    Family("blip-2", note=f"{_RESAMPLED}; with an encoder-decoder as language model it is refused"),
    Family(
        "chameleon",
        squares(
            f"codes: `resolution` // the reduction of the tokenizer; {grids.NOT_TOLD}",
            grids.code_square,
            box=canvas.UNKNOWN,
        ),
    ),
    Family("cohere2_vision", tiles.COHERE, layers=SLIDING),
    Family("cohere_compass", _QWEN),
    Family("cosmos3_edge", _QWEN),
    Family("cosmos3_omni", _QWEN),
    Family("deepseek_ocr2", grids.QUERIED, note=_QUERIED),
    Family("deepseek_vl", grids.CENTRED),
    Family("deepseek_vl_hybrid", grids.CENTRED, note="a second tower sees a higher resolution, on the same grid"),
    Family("diffusion_gemma", refusal="it denoises blocks of tokens at once, so no step predicts one token"),
    Family("dots3_note", _QWEN, layers=("indexed_attention", "sliding_attention"), note=_SELECTS),
    Family("emu3", grids.LINE_ENDED),
    Family("ernie4_5_vl_moe", _QWEN),
    Family("evolla", refusal="it reads proteins, not images"),
    Family("exaone4_5", _QWEN, layers=SLIDING),
    Family(
        "fast_vlm",
        squares(
            f"a square of `image_seq_length` tokens; {grids.NOT_TOLD}",
            lambda config: config.image_seq_length,
            box=canvas.UNKNOWN,
        ),
    ),
    Family("florence2", refusal=_ENCODER_DECODER),
    Family("fuyu", grids.LINES, note="a newline token with an id of its own ends each row"),
    Family(
        "gemma3",
        tiles.PANNED,
        layers=SLIDING,
        note="image tokens see one another; crops of an image follow it, each a view of its own",
    ),
    Family(
        "gemma3n",
        squares(
            "a square of `vision_soft_tokens_per_image` tokens", lambda config: config.vision_soft_tokens_per_image
        ),
        layers=SLIDING,
        note="the last layers share the keys of earlier ones",
    ),
    Family("gemma4", grids.POOLED, layers=SLIDING, note="the last layers may share the keys of earlier ones"),
    Family("gemma4_unified", grids.PLACED, layers=SLIDING),
    Family("git", refusal=_OWN_ATTENTION),
    Family("glm46v", _QWEN),
    Family("glm4v", _QWEN),
    Family("glm4v_moe", _QWEN),
    Family("glm5_next", grids.GLM5, layers=("indexed_attention",), skipped=_LINEAR, note=_SELECTS),
    Family("glm_ocr", _QWEN),
    Family("glmga", _QWEN),
    Family("got_ocr2", tiles.GOT, note="a token stands for the upper left of its cell: two convolutions of stride 2"),
    Family("granite_docling", tiles.DOCLING, note="the first layers add features of the image again"),
    Family(
        "granite4_vision",
        grids.ANYRES,
        note="the image enters at the layers of `deepstack_layer_map` and `spatial_target_layers`, blank before",
    ),
    Family("hunyuan_vl", grids.FRAMED),
    Family("hy_v4_vl", refusal="a newline token with the image's own id ends each row, and its rule is not proven yet"),
    Family("hyperclovax_vision_v2", _QWEN),
    Family("idefics", refusal="the image is in gated cross-attention blocks between the layers, after a resampler"),
    Family("idefics2", layers=("sliding_attention",), note=_RESAMPLED),
    Family("idefics3", tiles.IDEFICS3),
    Family("inkling2", grids.INKLING, layers=("hybrid_sliding",), note="a learned sink for every query"),
    Family("inkling2_loop", refusal="its looped layers attend several times in a pass, each time otherwise"),
    Family("inkling_mm_model", layers=("hybrid_sliding",), note="`generate` is not told how the patches lie"),
    Family("instructblip", token="image_token_index", note=_RESAMPLED),  # noqa: S106 - a name in a configuration
    Family("instructblipvideo", refusal="it reads videos, and its configuration has no image token id"),
    Family("internvl", tiles.INTERNVL),
    Family("janus", grids.CENTRED),
    Family("kimi_k25", grids.KIMI, note="compressed keys, expanded for every head"),
    Family("kosmos-2", mask="image_embeds_position_mask", note=_RESAMPLED),
    Family("kosmos-2.5", mask="image_embeds_position_mask", note=_RESAMPLED),
    Family("lfm2_vl", tiles.LFM2, skipped="convolution"),
    Family("lfm3_vl", _QWEN, skipped=_LINEAR),
    Family("lighton_ocr", sized("spatial_merge_size")),
    Family("llama4", tiles.LLAMA4, layers=("chunked_attention", "full_attention")),
    Family("llava", grids.LLAVA, note="a class token, where the tower's is kept, is left out"),
    Family("llava_next", grids.ANYRES),
    Family("llava_next_video", grids.ANYRES),
    Family("llava_onevision", grids.ONEVISION),
    Family("minicpm_ocr", tiles.SLICES, skipped=_LINEAR),
    Family("minicpmv4_6", tiles.SLICES, skipped=_LINEAR),
    Family("minicpmv4_7", tiles.SLICES, skipped=_LINEAR),
    Family(
        "minimax_m3_vl",
        _QWEN,
        token="image_token_index",  # noqa: S106 - as above
        layers=("minimax_m3_sparse", "full_attention"),
        note=_SELECTS,
    ),
    Family("mistral3", sized("spatial_merge_size"), note="a break token with an id of its own stands between the rows"),
    Family("mistral4", refusal="it is a language model without images"),
    Family(
        "mistral_large4",
        sized("spatial_merge_size"),
        layers=("indexed_attention",),
        note=f"{_SELECTS}; a break token with an id of its own stands between the rows",
    ),
    Family(
        "mllama",
        tiles.MLLAMA,
        cross=True,
        layers=("cross_attention",),
        skipped="self-attention",
        note="`last` is the last cross-attention layer, not the model's last; `visual_mass` is 1 but for class tokens",
    ),
    Family("molmo2", grids.TWO_GRIDS, note="a column token with an id of its own ends each row"),
    Family("muse_glimmer", patches("merge_size"), layers=SLIDING),
    Family("muse_spark", patches("merge_size"), layers=SLIDING),
    Family(
        "nemotron_h_omni",
        grids.SHUFFLED,
        skipped=f"{_LINEAR} and feed-forward",
        note="a video has the image's token id and is refused",
    ),
    Family("ovis2", tiles.OVIS),
    Family("paddleocr_vl", _QWEN),
    Family("paligemma", _TOWER, note="the whole prompt sees itself"),
    Family("perception_lm", tiles.PERCEPTION),
    Family("pi0", refusal="it moves a robot and generates no text"),
    Family("pix2struct", refusal=_ENCODER_DECODER),
    Family("pp_chart2table", tiles.GOT, note="as got_ocr2"),
    Family("pp_formulanet", refusal=_ENCODER_DECODER),
    Family("qianfan_ocr", tiles.INTERNVL),
    Family("qwen2_5_omni_thinker", _QWEN),
    Family("qwen2_5_vl", _QWEN),
    Family("qwen2_vl", _QWEN),
    Family("qwen3_5", _QWEN, skipped=_LINEAR),
    Family("qwen3_5_moe", _QWEN, skipped=_LINEAR),
    Family("qwen3_omni_moe_thinker", _QWEN),
    Family("qwen3_vl", _QWEN, note="the first layers add features of the image again"),
    Family("qwen3_vl_moe", _QWEN, note="the first layers add features of the image again"),
    Family("qwen4_exp", _QWEN, layers=("indexed_attention",), skipped=_LINEAR, note=_SELECTS),
    Family(
        "shieldgemma2",
        tiles.PANNED,
        token="image_token_index",  # noqa: S106 - as above
        layers=SLIDING,
        note="as gemma3",
    ),
    Family("smolvlm", tiles.IDEFICS3),
    Family(
        "step3p7",
        tiles.STEP,
        layers=SLIDING,
        note="a token stands for the upper left of its cell: two convolutions of stride 2",
    ),
    Family("t5gemma2", refusal=_ENCODER_DECODER),
    Family("udop", refusal=_ENCODER_DECODER),
    Family("unlimited_ocr", grids.STITCHED, layers=("reference_sliding_attention",), note="as got_ocr2"),
    Family("video_llama_3", grids.MERGED),
    Family("video_llava", _CROPPED),
    Family("vipllava", _CROPPED),
    Family("vision-encoder-decoder", refusal=_ENCODER_DECODER),
)
"""The families, by name. Those without a refusal are proven in tests/halo_probe/capture/test_families.py."""
