"""What a tensor holds, as a few numbers that are the same on every device: no float is added up on the way."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from halo_probe.capture.transfers import to_host

_WORDS = 2**14
"""Words of 8 bytes that become one number."""
_ROWS = {"cpu": 1}
"""How many such numbers are made together on a type of device: so few that a processor's threads need not be asked."""
_ROWS_ELSEWHERE = 2**11
_WORD = 8


def fingerprint(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers that change with any single word of a tensor, and with the order of its words.

    Words of 8 bytes are multiplied by odd numbers of their place and summed up, modulo 2^64, for every 2^14 of them.

    Args:
        tensor: Of any dtype and shape, on any device.

    Returns:
        int64, one number for each 128 KiB, on the same device; nothing waits for it.
    """
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    if data.storage_offset() % _WORD:
        data = data.clone()  # words begin where their number is a multiple of 8
    whole = data.numel() - data.numel() % (_WORDS * _WORD)
    rows = data[:whole].view(torch.int64).view(-1, _WORDS)
    weights = _weights(tensor.device)
    step = _ROWS.get(tensor.device.type, _ROWS_ELSEWHERE)
    sums = [(rows[start : start + step] * weights).sum(dim=1) for start in range(0, len(rows), step)]
    if whole < data.numel():
        rest = torch.nn.functional.pad(data[whole:], (0, -data.numel() % _WORD)).view(torch.int64)
        sums.append((rest * weights[: len(rest)]).sum()[None])
    return torch.cat(sums) if sums else torch.zeros(0, dtype=torch.int64, device=tensor.device)


class Fingerprints:
    """The fingerprints of some tensors, each on its own device until they are on the host.

    Args:
        tensors: With their names; each is looked at once, when it comes.
    """

    def __init__(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        found = {
            f"{name} {part.dtype} {tuple(part.shape)}": fingerprint(part)
            for whole, tensor in tensors
            for name, part in _parts(whole, tensor)
        }
        self._names = sorted(found)
        self.sums = [found[name] for name in self._names]
        """To be moved to the host."""

    def sha256(self, sums: Sequence[torch.Tensor]) -> str:
        """Over names, dtypes, shapes and fingerprints, whatever the order of the tensors.

        Args:
            sums: Those of this object, on the host.
        """
        digest = hashlib.sha256()
        for name, one in zip(self._names, sums, strict=True):
            digest.update(f"{name} ".encode())
            digest.update(one.numpy().tobytes())
        return digest.hexdigest()


def tensors_sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """`Fingerprints.sha256`, with one transfer for each device."""
    found = Fingerprints(tensors)
    (sums,) = to_host(found.sums)
    return found.sha256(sums)


def tensors_in(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a value, which may be a list or mapping of others, each with a name that begins with its own."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from tensors_in(f"{name}.{key}", one)
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from tensors_in(f"{name}.{place}", one)


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
