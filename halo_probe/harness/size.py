"""How much room the maps of a run take."""

from halo_probe.capture import Generation
from halo_probe.errors import UsageError

_NUMBER = 4  # bytes of a float32
_BESIDE = 100  # bytes of the other columns of a row


def bytes_per_token(generation: Generation) -> int:
    """Room for the maps of one generated token, before compression, which saves little.

    Args:
        generation: One of the run, or one like them.
    """
    layers, tokens = len(generation.layers), generation.image_positions.size
    heads = 0 if generation.heads is None else generation.heads.shape[2]
    return layers * (_NUMBER * tokens * (2 + heads) + _BESIDE)


def require_room(at_most: float, *, max_gb: float, bounded: bool) -> None:
    """Refuse a run that could outgrow its cap.

    Args:
        at_most: Bytes that the maps take if every reply is as long as it may be.
        max_gb: The cap, in units of 10^9 bytes.
        bounded: Whether the run records one layer and no single heads: it is then stopped at the cap and not refused,
            as replies are mostly much shorter than they may be.

    Raises:
        UsageError: If it could.
    """
    if at_most > max_gb * 1e9 and not bounded:
        raise UsageError(
            f"the maps could take {at_most / 1e9:.3g} GB, more than max_gb={max_gb:g}: record fewer layers, leave "
            "heads=all out, limit the replies with --gen_kwargs max_new_tokens=…, or give a larger max_gb."
        )
