"""Putting something in the place of a name of another package: the only way in which this package does it.

Every place that does is listed in `halo_probe/lmms/seams.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replaced(owner: object, name: str, replacement: object) -> Iterator[None]:
    """Let an object, a module or an instance, have another attribute of its own until the context ends.

    Afterwards it has what it had: where that came from its class, nothing of its own.
    """
    own = vars(owner)
    had_one, before = name in own, own.get(name)
    own[name] = replacement
    try:
        yield
    finally:
        if had_one:
            own[name] = before
        else:
            own.pop(name, None)


def replace_for_good(owner: object, name: str, replacement: object) -> None:
    """Let a module, a class or an instance have another attribute for as long as the process lives."""
    setattr(owner, name, replacement)
