"""Random integers that are the same on any machine: SHAKE-256 of a key, read as 32-bit words.

The methods of numpy's generators and of `random` may change between versions; a hash function may not.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TypeVar

_WORDS_PER_BLOCK = 64
_WORD_RANGE = 1 << 32

T = TypeVar("T")


def stream_key(*parts: str | int) -> bytes:
    """The key of a stream: its parts joined by `|`, a character that no part may contain."""
    return "|".join(str(part) for part in parts).encode("ascii")


def random_words(key: bytes) -> Iterator[int]:
    """Endless uniform integers in [0, 2**32): block b is SHAKE-256(key|b), in little-endian words."""
    for block in count():
        digest = hashlib.shake_256(b"%b|%d" % (key, block)).digest(4 * _WORDS_PER_BLOCK)
        yield from struct.unpack(f"<{_WORDS_PER_BLOCK}I", digest)


def below(words: Iterator[int], bound: int) -> int:
    """One integer, uniform in [0, bound), by rejection of the words past the last multiple of `bound`."""
    limit = _WORD_RANGE - _WORD_RANGE % bound
    while (word := next(words)) >= limit:
        pass
    return word % bound


def shuffled(words: Iterator[int], values: Sequence[T]) -> list[T]:
    """The values in a uniformly random order (Fisher and Yates), as a new list."""
    order = list(values)
    for last in range(len(order) - 1, 0, -1):
        other = below(words, last + 1)
        order[last], order[other] = order[other], order[last]
    return order
