"""What a base model holds in memory, hashed: where it came from, at whatever remove, makes no difference.

A checkpoint may point to another one, weights may be links, adapters or files that an argument names; what counts is
what came of it.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import align_module_device
from lmms_eval.api.model import lmms
from torch import nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import PushToHubMixin

from halo_probe.capture.fingerprint import tensors_sha256

_PLACES = {
    *("_name_or_path", "name_or_path", "base_model_name_or_path"),  # where something was read
    *("_commit_hash", "revision", "_from_model_config", "transformers_version"),  # and who wrote it
}
"""Settings that say nothing of what a model does."""
_STATES = ("padding", "truncation")
"""What a tokenizer was last asked for."""
_REMOTE = "transformers_modules."
"""Package of code that came with a checkpoint."""
_PLAIN = (bool, int, float, str, type(None))
_OF_EVERY_MODULE = vars(nn.Module()).keys() - {"training"} | {"hf_device_map"}
"""What a module keeps that does not change what it computes, such as where it is."""


def weights_sha256(lm: lmms, model: nn.Module) -> str:
    """Over all parameters and stored buffers of the networks that a base model holds, from first to last number.

    Args:
        lm: The base model.
        model: What it generates with.
    """
    return tensors_sha256(
        (f"{number}.{name}", tensor)
        for number, network in enumerate(_networks(lm, model))
        for name, tensor in _stored(network)
    )


def settings_sha256(lm: lmms, model: nn.Module) -> str:
    """Over what else decides what the model is given and makes of it.

    That is its configuration and that of generation, the numbers that its modules keep beside their tensors (such as
    the strength of an adapter), its processors and tokenizers with their chat templates.

    Args:
        lm: The base model.
        model: What it generates with.
    """
    settings = {
        "networks": [
            {
                "settings": [_settings(getattr(one, name, None)) for name in ("config", "generation_config")],
                "adapters": _settings(getattr(one, "peft_config", None)),
                "modules": {name: _settings(_own(module)) for name, module in one.named_modules()},
            }
            for one in _networks(lm, model)
        ],
        "processors": {name: _settings(one) for name, one in _processors(lm).items()},
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def code_sha256(lm: lmms, model: nn.Module) -> str:
    """Over the source files of the classes of a base model, its networks and its processors.

    Of code that came with a checkpoint, over all files of its folder.

    Args:
        lm: The base model.
        model: What it generates with.
    """
    objects = [lm, *(module for one in _networks(lm, model) for module in one.modules()), *_processors(lm).values()]
    names = {cls.__module__ for kind in {type(one) for one in objects} for cls in kind.__mro__}
    files = {file for name in names for file in _sources(name)}
    digests = sorted(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _networks(lm: lmms, model: nn.Module) -> list[nn.Module]:
    """The model, and other networks that a base model keeps beside it, such as a tower of its own."""
    held = [one for _, one in sorted(vars(lm).items()) if isinstance(one, nn.Module)]
    found: list[nn.Module] = []
    for one in [model, *held]:
        if not any(one in other.modules() for other in found):
            found.append(one)
    return found


def _stored(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and stored buffers; those that are kept off the device are fetched for as long as they are looked at.

    Buffers that are not stored are made by the code, from the configuration, and may differ in the last digit from
    device to device.
    """
    for name, module in network.named_modules():
        with align_module_device(module):
            for own, tensor in module.state_dict(keep_vars=True).items():
                if own.partition(".")[0] not in module._modules and isinstance(tensor, torch.Tensor):  # noqa: SLF001
                    yield f"{name}.{own}", tensor


def _own(module: nn.Module) -> dict[str, Any]:
    """What a module keeps beside its tensors and its modules: numbers and names."""
    return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _processors(lm: lmms) -> dict[str, Any]:
    """The processors, tokenizers and the like that a base model holds, and their parts."""
    found: dict[str, Any] = {}
    held = dict(sorted(vars(lm).items()))
    while held:
        now = {name: one for name, one in held.items() if _is_processor(one) and not _holds(found, one)}
        found |= now
        held = {f"{name}.{part}": one for name, processor in now.items() for part, one in vars(processor).items()}
    return found


def _is_processor(one: Any) -> bool:
    return isinstance(one, PushToHubMixin) and not isinstance(one, nn.Module | PretrainedConfig | GenerationConfig)


def _holds(found: Mapping[str, Any], one: Any) -> bool:
    return any(one is other for other in found.values())


def _settings(value: Any) -> Any:  # noqa: C901, PLR0911 - one for each kind
    """A value as JSON that does not depend on where it was read; of anything unknown its type."""
    if isinstance(value, PreTrainedTokenizerBase):
        return _tokenizer(value)
    if isinstance(value, PretrainedConfig | GenerationConfig):
        return _settings(value.to_dict())
    if _is_processor(value):
        parts = {name: one for name, one in vars(value).items() if not _is_processor(one)}
        return {"type": type(value).__name__, **_settings(parts)}
    if is_dataclass(value):
        return _settings({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Enum):
        return _settings(value.value)
    if isinstance(value, Mapping):
        return {str(name): _settings(one) for name, one in value.items() if name not in _PLACES}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_settings(one) for one in value]
    if isinstance(value, _PLAIN):
        return value
    if hasattr(value, "to_dict"):
        return _settings(value.to_dict())
    return str(value) if isinstance(value, torch.dtype) else type(value).__name__


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = [tokenizer.get_vocab(), _settings(tokenizer.init_kwargs)]
    else:
        rules = {name: one for name, one in json.loads(backend.to_str()).items() if name not in _STATES}
    return {
        "type": type(tokenizer).__name__,
        "rules": hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest(),
        "special": _settings(tokenizer.special_tokens_map),
        "chat_template": tokenizer.chat_template,
        "padding_side": tokenizer.padding_side,
    }


def _sources(name: str) -> list[Path]:
    """The source file of a module, or all of the folder where it came with a checkpoint; none of built-in ones."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if not file or not file.endswith(".py"):
        return []
    path = Path(file)
    return sorted(path.parent.glob("*.py")) if name.startswith(_REMOTE) else [path]
