"""The checksum of a part's footer, which holds the answers: parquet has checksums for pages alone."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

_TAIL = 8  # the length of the footer, little-endian in 4 bytes, and `PAR1`
_DIGEST = hashlib.sha256().digest_size


def seal_footer(file: BinaryIO) -> None:
    """Put the SHA-256 of the footer of a whole parquet file before it, where readers of parquet do not look."""
    file.seek(-_TAIL, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    file.seek(-_TAIL - length, os.SEEK_END)
    footer = file.read()
    file.seek(-len(footer), os.SEEK_END)
    file.write(hashlib.sha256(footer).digest() + footer)


def is_footer_whole(part: Path) -> bool:
    """Whether the footer of a part is what was written; false for a file that was not sealed.

    Raises:
        OSError: If it cannot be read.
    """
    with part.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        length = int.from_bytes(file.read(4), "little")
        start = size - _TAIL - length - _DIGEST
        if start < 0:
            return False
        file.seek(start)
        return file.read(_DIGEST) == hashlib.sha256(file.read()).digest()
