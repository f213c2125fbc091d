"""What a tensor holds, as a few numbers that are the same on every device: no float is added up on the way."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

import torch

from halo_probe.capture.transfers import to_host

_WORDS = 2**17
"""Words of 8 bytes that become one number."""
_AT_ONCE = {"cpu": 2**22}
"""Bytes that are worked on together on a type of device: what stays in the caches of a processor."""
_AT_ONCE_ELSEWHERE = 2**28
_WORD = 8


def fingerprint(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers that change with any single word of a tensor, and with the order of its words.

    Words of 8 bytes are multiplied by odd numbers of their place and summed up, modulo 2^64, for every 2^17 of them.

    Args:
        tensor: Of any dtype and shape, on any device.

    Returns:
        int64, one number for each MiB, on the same device; nothing waits for it.
    """
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    if data.storage_offset() % _WORD:
        data = data.clone()  # words begin where their number is a multiple of 8
    whole = data.numel() - data.numel() % (_WORDS * _WORD)
    rows = data[:whole].view(torch.int64).view(-1, _WORDS)
    weights = _weights(tensor.device)
    step = max(_AT_ONCE.get(tensor.device.type, _AT_ONCE_ELSEWHERE) // (_WORDS * _WORD), 1)
    sums = [(rows[start : start + step] * weights).sum(dim=1) for start in range(0, len(rows), step)]
    if whole < data.numel():
        rest = torch.nn.functional.pad(data[whole:], (0, -data.numel() % _WORD)).view(torch.int64)
        sums.append((rest * weights[: len(rest)]).sum()[None])
    return torch.cat(sums) if sums else torch.zeros(0, dtype=torch.int64, device=tensor.device)


def tensors_sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Over names, dtypes, shapes and fingerprints, whatever the order, with one transfer for each device.

    Args:
        tensors: With their names; each is looked at once, when it comes.
    """
    found = {
        f"{name} {part.dtype} {tuple(part.shape)}": fingerprint(part)
        for whole, tensor in tensors
        for name, part in _parts(whole, tensor)
    }
    (sums,) = to_host([found[name] for name in sorted(found)])
    digest = hashlib.sha256()
    for name, one in zip(sorted(found), sums, strict=True):
        digest.update(f"{name} ".encode())
        digest.update(one.numpy().tobytes())
    return digest.hexdigest()


def _parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor, or those that one of a quantised kind is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        for part in tensor.__tensor_flatten__()[0]:
            yield from _parts(f"{name}.{part}", getattr(tensor, part))
    else:
        yield name, tensor


@lru_cache(maxsize=16)
def _weights(device: torch.device) -> torch.Tensor:
    """Odd numbers without a pattern: the multiples of the golden ratio's, mixed as in splitmix64."""
    numbers = torch.arange(1, _WORDS + 1, dtype=torch.int64) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        numbers = (numbers ^ ((numbers >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (numbers | 1).to(device)
