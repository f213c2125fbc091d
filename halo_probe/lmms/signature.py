"""What a run's numbers depend on, stored beside them so that only like is compared with like."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from dataset_builder.load import content_sha256
from halo_probe.capture.recorder import Target
from halo_probe.lmms.arguments import Arguments

_CALL = ("limit", "offset", "system_instruction", "apply_chat_template", "fewshot_as_multiturn")
_FORMAT = 2
"""Raised when a field is added or means something else: runs of another format are not gone on with."""
_WEIGHTS = ("config.json", "adapter_config.json", "*.safetensors", "*.bin")
_SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")
_WHOLE = 64 * 2**20  # bytes of a file that is read from end to end
_ENDS = 2**20
_BLOCK = 4096
_BLOCKS = 2048
_PACKAGES = ("halo-probe", "lmms-eval", "torch", "transformers", "datasets", "numpy")


def run_signature(  # noqa: PLR0913 - all that the numbers of a run depend on
    target: Target,
    *,
    base: str,
    arguments: Arguments,
    batch: int,
    tasks: Mapping[str, Any],
    call: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe a run.

    Args:
        target: The recorded model and layers.
        base: Name of the lmms-eval model.
        arguments: The `--model_args`.
        batch: How many documents are answered together: more than one are padded, which moves the last digits.
        tasks: lmms-eval task objects by name.
        call: The arguments of lmms-eval's `evaluate`.

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
            "commit": getattr(target.model.config, "_commit_hash", None),  # of a checkpoint from the Hub
            **_checkpoints(arguments.model),
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
        "call": {**{name: call.get(name) for name in _CALL}, "seed": torch.initial_seed()},
        "packages": {name: version(name) for name in _PACKAGES},
    }
    return {**fields, "sha256": _sha256(fields)}


def _tells(name: str) -> bool:
    """Whether an argument belongs beside `pretrained`: never a secret."""
    return name != "pretrained" and not name.endswith(("token", "key", "secret", "password"))


def _checkpoints(arguments: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Hashes of the checkpoints and adapters in local folders, each by the argument that names the folder."""
    folders = {
        name: Path(value)
        for name, value in sorted(arguments.items())
        if os.path.isdir(str(value))  # noqa: PTH112 - Path.is_dir raises on a prompt that is longer than a path
    }
    found: dict[str, dict[str, str]] = {"weights": {}, "settings": {}}
    for name, folder in folders.items():
        if weights := _files(folder, _WEIGHTS):
            found["weights"][name] = _files_sha256(weights)
            found["settings"][name] = _files_sha256([file for file in _files(folder, _SETTINGS) if file not in weights])
    return found


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _files_sha256(files: Sequence[Path]) -> str:
    """Over names, sizes and contents; of large files, over a sample of the content that is always the same."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{len(path.name)} {path.name} {size} ".encode())
        with path.open("rb", buffering=0) as file:
            for start, length in _sample(file, size) if size > _WHOLE else [(0, size)]:
                file.seek(start)
                digest.update(file.read(length))
    return digest.hexdigest()


def _sample(file: FileIO, size: int) -> list[tuple[int, int]]:
    """Start and length of what is read: both ends, blocks evenly between them, and where each tensor begins.

    PyTorch's `.bin` files end in a table of the checksums of all that they hold.
    """
    blocks = [(size * number // _BLOCKS, _BLOCK) for number in range(_BLOCKS)]
    header = 8 + int.from_bytes(file.read(8), "little")  # as the safetensors format has it
    if str(file.name).endswith(".safetensors") and header < size:
        tensors = json.loads(file.read(header - 8))
        begins = [tensor["data_offsets"][0] for name, tensor in tensors.items() if name != "__metadata__"]
        blocks += [(0, header), *((header + begin, _BLOCK) for begin in begins)]
    return [(0, _ENDS), (size - _ENDS, _ENDS), *blocks]


def _task_fields(task: Any, *, chat: bool) -> dict[str, Any]:
    documents = task.eval_docs_no_media
    question = task.doc_to_text(documents[0])
    prompt = {"question": question, "generation": task.config.generation_kwargs}
    if chat and callable(task.config.doc_to_messages):
        spoken = _spoken(task.doc_to_messages(task.eval_docs[0]))  # with its media, which the task may look up
        if spoken != [("user", question)]:
            prompt["messages"] = spoken
    return {
        "version": task.VERSION,
        "num_fewshot": task.config.num_fewshot,
        "repeats": task.config.repeats or 1,
        "dataset_sha256": content_sha256(documents) or f"fingerprint:{getattr(documents, '_fingerprint', '')}",
        "prompt_sha256": _sha256(prompt),
    }


def _spoken(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The text parts of a chat, each with its role."""
    return [(turn["role"], part["text"]) for turn in messages for part in turn["content"] if part["type"] == "text"]


def _sha256(fields: Any) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()
