"""Tiny models of the real classes, and inputs for them: random weights, attention far from uniform, two-digit answers.

Every builder returns (model, processor): float32, evaluation mode, the same weights for the same seed whatever the
attention kernel.
"""

from pathlib import Path

import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from training import qwen3_vl as embedded

GEMMA3_CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{%- set role = 'model' -%}{%- else -%}{%- set role = 'user' -%}{%- endif -%}
{{- '<start_of_turn>' + role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<start_of_image>' -}}{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""


def qwen3_vl(*, seed=embedded.SEED, layers=4, attn_implementation="sdpa"):
    """The embedded Qwen3-VL with a chosen number of layers and attention kernel."""
    processor = embedded.build_processor()
    model = embedded.build_model(processor.tokenizer, seed=seed, layers=layers, attn_implementation=attn_implementation)
    return model, processor


def qwen2_5_vl(*, seed=4):
    """A Qwen2.5-VL with the tokenizer of the embedded model: one image token per 28 by 28 pixels."""
    known = embedded.build_processor()
    tokenizer = known.tokenizer
    patches = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**patches),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**patches),
        chat_template=known.chat_template,
    )
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 4, 4]},
            "initializer_range": 0.1,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.1,
            **{name: size for name, size in patches.items() if name != "merge_size"},
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
    model.generation_config = embedded.two_digit_answers(tokenizer)
    return model.eval(), processor


def gemma3(*, seed=2, layers=6, sliding_window=1024, last_layer="sliding_attention", attn_implementation="sdpa"):
    """A Gemma3 with 256 image tokens; layers alternate sliding and full attention and end on `last_layer`.

    A `sliding_window` shorter than the way from the image to the end of the prompt, about 340 tokens for the task's
    question, hides part of the image from the sliding layers.
    """
    processor = gemma3_processor()
    tokenizer = processor.tokenizer
    kinds = ["sliding_attention", "full_attention"]
    last = kinds.index(last_layer)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "max_position_embeddings": 8192,
        "sliding_window": sliding_window,
        "layer_types": [kinds[(last + layers - 1 - layer) % 2] for layer in range(layers)],
        "initializer_range": 0.1,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 224,
        "patch_size": 14,
        "vision_use_head": False,
    }
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=256,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, attn_implementation=attn_implementation)
        # Gemma3 initialises this projection with zeros, which would show the model no image at all.
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
        # Small embeddings: otherwise the tied head repeats the last token, and the answer ignores the image.
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.01)
    for layer in model.get_decoder().layers:
        layer.self_attn.q_norm.weight.data.fill_(3.0)  # Gemma's norms scale by 1 + weight
    model.generation_config = embedded.two_digit_answers(tokenizer)
    return model.eval(), processor


def gemma3_processor():
    """One token per printable ASCII character, byte fallback for the rest, SigLIP images, 256 tokens per image."""
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
        "start_of_turn_token": "<start_of_turn>",
    }
    tokens = ["<pad>", "<end_of_turn>", "<bos>", "<unk>", "<mask>", *named.values()]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += ["▁", *(chr(code) for code in range(0x21, 0x7F))]
    tokenizer = GemmaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        eos_token="<end_of_turn>",
        extra_special_tokens=named,
    )
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessor(), tokenizer=tokenizer, chat_template=GEMMA3_CHAT_TEMPLATE
    )


def write_checkpoint(model_and_processor, folder: Path) -> Path:
    """Save a builder's result as a folder for `from_pretrained`."""
    for part in model_and_processor:
        part.save_pretrained(folder)
    return folder


def make_inputs(processor, images, texts):
    """Model inputs of a left-padded batch: one image and one text per row, sizes and lengths as they come."""
    conversations = [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
        for image, text in zip(images, texts, strict=True)
    ]
    return processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
