"""Which lmms-eval model runs a checkpoint, where `base=` is left out."""

from collections.abc import Collection, Mapping
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from halo_probe.errors import UsageError, first_line

_GENERIC = "halo_transformers"
"""Our own model, for whatever transformers loads with a processor and a chat template."""
_BASES: Mapping[str, tuple[str, ...]] = {
    "aria": ("aria",),
    "fuyu": ("fuyu",),
    "gemma3": ("gemma3",),
    "gemma4": ("gemma4",),
    "glm4v": ("glm4v",),
    "glm4v_moe": ("glm4v",),
    "idefics2": ("idefics2",),
    "instructblip": ("instructblip",),
    "internvl": ("internvl_hf",),
    "internvl_chat": ("internvl2", "internvl3", "internvl3_5"),
    "lfm2_vl": ("lfm2_5_vl",),
    "llama4": ("llama4_scout",),
    "llava": ("llava_hf",),
    "llava_next": ("llava_hf",),
    "llava_onevision": ("llava_hf",),
    "llava_qwen": ("llava_onevision", "llava_vid"),
    "minicpmv": ("minicpm_v", "minicpm_o"),
    "mistral3": ("mistral3_vl",),
    "mllama": ("llama_vision",),
    "qwen2_5_vl": ("qwen2_5_vl",),
    "qwen2_vl": ("qwen2_vl",),
    "qwen3_5": ("qwen3_5",),
    "qwen3_5_moe": ("qwen3_5",),
    "qwen3_vl": ("qwen3_vl",),
    "qwen3_vl_moe": ("qwen3_vl",),
    "video_llava": ("video_llava",),
}
"""Model types of checkpoints, and the models of lmms-eval that run them."""


def infer_base(arguments: Mapping[str, Any], known: Collection[str]) -> str:
    """Name the lmms-eval model for a checkpoint by the model type in its configuration.

    Args:
        arguments: The base model's own arguments, `pretrained` and perhaps `revision` among them.
        known: Names of lmms-eval's models.

    Raises:
        UsageError: If there is no checkpoint, or none or several of the models run it; the message lists the choices.
    """
    checkpoint = arguments.get("pretrained")
    if checkpoint is None:
        raise UsageError(
            "base= and pretrained= are both missing: name the checkpoint, such as --model_args pretrained=PATH, or the "
            "lmms-eval model to probe, such as base=qwen3_vl (`lmms-eval models` lists them)."
        )
    model_type = _model_type(str(checkpoint), arguments.get("revision"))
    generic = (_GENERIC,) if model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES else ()
    choices = [name for name in _BASES.get(model_type, generic) if name in known]
    if len(choices) == 1:
        return choices[0]
    if choices:
        raise UsageError(
            f"pretrained={checkpoint}: several models of lmms-eval run model type {model_type!r}: "
            f"add base={' or base='.join(choices)}."
        )
    raise UsageError(
        f"pretrained={checkpoint}: no model of lmms-eval is known to run model type {model_type!r}: "
        f"add base= with one of {', '.join(sorted(known))}."
    )


def _model_type(checkpoint: str, revision: Any) -> str:
    try:
        config, _ = PretrainedConfig.get_config_dict(checkpoint, **({"revision": str(revision)} if revision else {}))
    except OSError as error:  # transformers and the Hub report a checkpoint that is not there as one
        raise UsageError(
            f"pretrained={checkpoint}: the checkpoint's configuration cannot be read ({first_line(error)}). "
            "Give a folder with config.json and weights, or the name of a model on the Hub."
        ) from error
    if "model_type" not in config:
        raise UsageError(
            f"pretrained={checkpoint}: config.json names no model_type, so base= cannot be inferred: add base=NAME "
            "(`lmms-eval models` lists them)."
        )
    return str(config["model_type"])
