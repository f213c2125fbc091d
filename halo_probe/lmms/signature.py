"""What a run's numbers depend on, stored beside them so that only like is compared with like."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from dataset_builder.load import content_sha256
from halo_probe.archive.signature import hash_of, seal
from halo_probe.capture.recorder import Target
from halo_probe.lmms.arguments import Arguments
from halo_probe.lmms.loaded import code_sha256, settings_sha256, weights_sha256

_CALL = ("limit", "offset", "system_instruction", "apply_chat_template", "fewshot_as_multiturn")
_FORMAT = 4
"""Raised when a field is added or means something else: runs of another format are not gone on with."""
_PACKAGES = ("halo-probe", "lmms-eval", "torch", "transformers", "datasets", "numpy")


def run_signature(  # noqa: PLR0913 - all that the numbers of a run depend on
    target: Target,
    *,
    base: str,
    arguments: Arguments,
    batch: int,
    tasks: Mapping[str, Any],
    call: Mapping[str, Any],
    reasoning_tags: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Describe a run: what was asked, and what was loaded for it.

    Args:
        target: The recorded model and layers.
        base: Name of the lmms-eval model.
        arguments: The `--model_args`.
        batch: How many documents are answered together: more than one are padded, which moves the last digits.
        tasks: lmms-eval task objects by name.
        call: The arguments of lmms-eval's `evaluate`.
        reasoning_tags: Marks of thoughts that lmms-eval is told of: what stands between them is no answer.

    Returns:
        JSON-ready fields; `sha256` is over all the others.
    """
    config = target.model.config.get_text_config()
    fields = {
        "format": _FORMAT,
        "model": {
            "base": base,
            "simple": bool(call["lm"].is_simple),
            "pretrained": str(arguments.model.get("pretrained", "")),
            "weights": weights_sha256(call["lm"], target.model),
            "settings": settings_sha256(call["lm"], target.model),
            "code": code_sha256(call["lm"], target.model),
            "arguments": {name: str(value) for name, value in sorted(arguments.model.items()) if _tells(name)},
            "family": target.model.config.model_type,
            "layers": target.layer_count,
            "heads": config.num_attention_heads,
            "dtype": str(target.model.dtype).removeprefix("torch."),
            "kernel": target.kernel,
        },
        "recorded_layers": [{"index": layer.index, "type": layer.type} for layer in target.layers],
        "recording": {
            "heads": arguments.heads,
            "sinks": arguments.sinks,
            "batch": batch,
            "reliance": arguments.reliance,
        },
        "intervention": arguments.intervention.describe() if arguments.intervention else None,
        "tasks": {name: _task_fields(task, chat=not call["lm"].is_simple) for name, task in tasks.items()},
        "call": {
            **{name: call.get(name) for name in _CALL},
            "reasoning_tags": [list(pair) for pair in reasoning_tags],
            "seed": torch.initial_seed(),
        },
        "packages": {name: version(name) for name in _PACKAGES},
    }
    return seal(fields)


def _tells(name: str) -> bool:
    """Whether an argument belongs beside `pretrained`: never a secret."""
    return name != "pretrained" and not name.endswith(("token", "key", "secret", "password"))


def _task_fields(task: Any, *, chat: bool) -> dict[str, Any]:
    documents = task.eval_docs_no_media
    question = task.doc_to_text(documents[0])
    prompt: dict[str, Any] = {"question": question}
    if chat and callable(task.config.doc_to_messages):
        spoken = _spoken(task.doc_to_messages(task.eval_docs[0]))  # with its media, which the task may look up
        if spoken != [("user", question)]:
            prompt["messages"] = spoken
    return {
        "version": task.VERSION,
        "num_fewshot": task.config.num_fewshot,
        "repeats": task.config.repeats or 1,
        "dataset_sha256": content_sha256(documents) or f"fingerprint:{getattr(documents, '_fingerprint', '')}",
        "prompt_sha256": hash_of(prompt),
        "generation": task.config.generation_kwargs,
    }


def _spoken(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The text parts of a chat, each with its role."""
    return [(turn["role"], part["text"]) for turn in messages for part in turn["content"] if part["type"] == "text"]
