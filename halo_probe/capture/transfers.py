"""Copies between the host and devices that make the host wait as seldom as can be."""

from collections import defaultdict
from collections.abc import Sequence

import torch

_STAGED = ("cuda",)
"""Types of devices that have taken ordinary memory of the host over when an asynchronous copy from it returns."""


def to_host(*groups: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Groups of tensors of any dtypes on the CPU, those of all groups moved in one transfer per device."""
    moved = [list(group) for group in groups]
    by_device: dict[torch.device, list[tuple[list[torch.Tensor], int]]] = defaultdict(list)
    for group in moved:
        for place, tensor in enumerate(group):
            if tensor.device.type != "cpu":
                by_device[tensor.device].append((group, place))
    for places in by_device.values():
        tensors = [group[place] for group, place in places]
        packed = [tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors]
        parts = torch.cat(packed).cpu().split_with_sizes([part.numel() for part in packed])
        for (group, place), tensor, part in zip(places, tensors, parts, strict=True):
            group[place] = part.clone().view(tensor.dtype).view(tensor.shape)  # a copy is aligned to its dtype
    return moved


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device, without waiting for what the device still has to do, where that is safe."""
    return tensor.to(device, non_blocking=device.type in _STAGED)
