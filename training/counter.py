"""The embedded model that counts: a small network of the real Qwen3-VL classes, before its training."""

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from training import qwen3_vl

__all__ = ["PATCH", "build_model", "build_processor"]

PATCH = 32
"""Side of a patch, and of an image token, in pixels: a quarter of the patches of Qwen3-VL, and as many image tokens."""


def build_processor() -> Qwen3VLProcessor:
    """Tokenizer, image and video processor: an image token is a patch of 32 px, so that none are merged."""
    random = qwen3_vl.build_processor()
    patches = {
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 1,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 256**2, "longest_edge": 4096**2}, **patches),
        tokenizer=random.tokenizer,
        video_processor=Qwen3VLVideoProcessor(**patches),
        chat_template=random.chat_template,
    )


def build_model(tokenizer: Any, *, seed: int) -> Qwen3VLForConditionalGeneration:
    """The model before training: 1.7 million random float32 weights.

    Args:
        tokenizer: The tokenizer of `build_processor`; the model takes its token ids and vocabulary size.
        seed: Decides every weight; torch's own generator is left as it was.
    """
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
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
            "initializer_range": 0.05,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 8,
            "out_hidden_size": 128,
            "patch_size": PATCH,
            "spatial_merge_size": 1,
            "temporal_patch_size": 2,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.05,
            # Heads of 16 turn by four angles a side: few enough that all should tell neighbours apart.
            "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model
