"""A tiny checkpoint of the real Qwen3-VL classes, built by code: it runs the whole path without a download.

The weights are random: it cannot count. Two things make its output worth looking at all the same. The query norms of
the language model are raised, so that attention maps are far from uniform; and ``generation_config.json`` biases the
scores so that every answer is two digits and the end of sequence. Which digits, the random weights decide.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from halo_probe.errors import UsageError

__all__ = [
    "CORPUS",
    "SEED",
    "build_model",
    "build_processor",
    "cached_checkpoint",
    "two_digit_answers",
    "write_checkpoint",
]

CORPUS = (
    "You are a helpful assistant.",
    "system\nuser\nassistant\n",
    "How many dots are there in the image? Answer directly. Answer: ",
    "How many dots are there in the image? Answer with one English word. Answer: ",
    "How many dots are there in the image? Write the units digit first, then the tens digit. Answer: ",
    "How many dots are there in the image? Count the dots step by step, then finish with 'Answer: N'.",
    "Repeat this number: . Answer: ",
    "What number is written in the image? Answer directly. Answer: ",
    "Is the black dot left of, right of, above or below the red dot? Answer with one word. Answer: ",
    "Describe this image. There are dots in the image.",
)
"""What the tokenizer is trained on: the questions and the words around them, without digits (each stays one token)."""

SEED = 10
"""Of the first forty seeds, one whose answers differ between images."""

_SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The rendering of Qwen3-VL's own template for system, user and assistant turns; tools are left out.
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' or 'video' in part -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_VOCAB_SIZE = 512
_SHARPNESS = 4.0
_DIGIT_BIAS = 100.0


def build_processor() -> Qwen3VLProcessor:
    """Tokenizer, image and video processor with Qwen3-VL's patch of 16 px and merge of 2: one image token per 32 px."""
    untrained = Qwen2Tokenizer(extra_special_tokens=list(_SPECIAL_TOKENS), eos_token="<|im_end|>")  # noqa: S106
    patches = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 256**2, "longest_edge": 4096**2}, **patches),
        tokenizer=untrained.train_new_from_iterator(CORPUS, vocab_size=_VOCAB_SIZE, show_progress=False),
        video_processor=Qwen3VLVideoProcessor(**patches),
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: Any, *, seed: int = SEED, layers: int = 4, attn_implementation: str = "sdpa"
) -> Qwen3VLForConditionalGeneration:
    """A random float32 Qwen3-VL of about a million parameters, in evaluation mode.

    Grouped-query attention (4 heads, 2 of keys and values), interleaved multimodal rotary positions and one deepstack
    layer, as in the released models.

    Args:
        tokenizer: The tokenizer of `build_processor`; the model takes its token ids and vocabulary size.
        seed: Decides every weight; torch's own generator is left as it was.
        layers: Number of language-model layers.
        attn_implementation: Attention kernel, as transformers names it.
    """
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [8, 4, 4],  # sums to half the head
                "mrope_interleaved": True,
            },
            "initializer_range": 0.1,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 128,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.1,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, attn_implementation=attn_implementation)
    for layer in model.get_decoder().layers:
        layer.self_attn.q_norm.weight.data.fill_(_SHARPNESS)
    model.generation_config = two_digit_answers(tokenizer)
    return model.eval()


def two_digit_answers(tokenizer: Any) -> GenerationConfig:
    """Greedy decoding in which every answer is two digits and the end of sequence, whatever the weights.

    Any digit gains 100 over every other token, and after two digits the end of sequence gains 200. The order among the
    ten digits stays the model's own.

    Args:
        tokenizer: One token per digit; its `eos_token_id` ends the answer.
    """
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    end = tokenizer.eos_token_id
    return GenerationConfig(
        do_sample=False,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
        sequence_bias=[
            *([[digit], _DIGIT_BIAS] for digit in digits),
            *([[tens, units, end], 2 * _DIGIT_BIAS] for tens in digits for units in digits),
        ],
    )


def write_checkpoint(folder: Path, *, seed: int = SEED) -> Path:
    """Write model, processor, tokenizer, chat template and generation settings, ready for `from_pretrained`.

    Args:
        folder: Where to write; made if missing.
        seed: Decides every weight.

    Returns:
        The folder.

    Raises:
        OSError: If the folder cannot be written.
        SafetensorError: If the weights cannot, for example on a full disk.
    """
    processor = build_processor()
    model = build_model(processor.tokenizer, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def cached_checkpoint() -> Path:
    """The checkpoint of `SEED` in the user's cache, built on first use.

    It lies in ``halo-probe/models`` under ``$XDG_CACHE_HOME`` (default ``~/.cache``), in a folder whose name carries a
    hash of this module and of the versions of torch and transformers: whatever could change a byte of it makes a new
    folder. It is built under a temporary name and renamed, so two processes may start at once.

    Raises:
        UsageError: If the cache cannot be written.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes())
    recipe.update(f"{torch.__version__} {transformers.__version__}".encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halo-probe" / "models"
    checkpoint = cache / f"qwen3-vl-random-{recipe.hexdigest()[:16]}"
    if checkpoint.is_dir():
        return checkpoint
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{checkpoint.name}-") as temporary:
            built = write_checkpoint(Path(temporary) / checkpoint.name)
            try:
                built.rename(checkpoint)
            except OSError:
                # Another process was first: its checkpoint is the same.
                if not checkpoint.is_dir():
                    raise
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{cache}: cannot write the embedded model ({error}); "
            "free space there, or set XDG_CACHE_HOME to a folder you can write to"
        ) from error
    return checkpoint
