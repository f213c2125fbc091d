"""How much room the maps of a run take."""

import shutil
from pathlib import Path

from halo_probe.archive.generation import Generation
from halo_probe.errors import UsageError

_NUMBER = 4  # bytes of a float32
_BESIDE = 100  # bytes of the other columns of a row


def bytes_per_token(generation: Generation) -> int:
    """Room for the maps of one generated token, before compression, which saves little.

    Args:
        generation: One of the run, or one like them.
    """
    layers, tokens = len(generation.layers), generation.image_tokens
    heads = 0 if generation.heads is None else generation.heads.shape[2]
    return layers * (_NUMBER * tokens * (2 + heads) + _BESIDE)


def require_room(at_most: float, *, folder: Path, max_gb: float, bounded: bool) -> None:
    """Refuse a run that could outgrow its cap or its disk.

    Args:
        at_most: Bytes that the maps take if every reply is as long as it may be.
        folder: Where the maps go.
        max_gb: The cap, in units of 10^9 bytes.
        bounded: Whether the run records one layer and no single heads: it is then stopped at the cap and not refused,
            as replies are mostly much shorter than they may be.

    Raises:
        UsageError: If it could.
    """
    if bounded:
        return
    smaller = "record fewer layers, leave heads=all out, limit the replies with --gen_kwargs max_new_tokens=…"
    if at_most > max_gb * 1e9:
        raise UsageError(
            f"the maps could take {at_most / 1e9:.3g} GB, more than max_gb={max_gb:g}: {smaller}, or give a larger "
            "max_gb."
        )
    free = shutil.disk_usage(folder).free
    if at_most > free:
        raise UsageError(
            f"{folder}: the maps could take {at_most / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free: {smaller}, or "
            "make room."
        )
