"""A PNG writer whose bytes depend on the pixels alone.

A PNG of Pillow or OpenCV depends on the system's zlib, which searches matches in its own way in every version and
fork. This one searches nothing: a byte equal to the one a pixel before it continues a run, anything else is a literal
(RFC 1951, one block, one distance). Only checksums are taken from `zlib`, and a checksum has one value.
"""

import functools
import heapq
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
_Words = npt.NDArray[np.uint32]
_Places = npt.NDArray[np.int64]
_Tokens = tuple[_Words, _Words, _Words, _Places]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_ADLER_PRIME = 65521
_END_OF_BLOCK = 256
_SYMBOLS = 286
_LONGEST_CODE = 15
_SHORTEST_RUN, _LONGEST_RUN = 3, 258
# Rows that are worked on at a time: this bounds the memory for noise, and an image of few dots has less.
_BAND_ROWS = 384
# Extra bits of the codes 257..284, whose runs of 3..258 follow one another; 285 is another code for 258
# (RFC 1951, 3.2.5).
_RUN_EXTRA_BITS = (0,) * 8 + (1,) * 4 + (2,) * 4 + (3,) * 4 + (4,) * 4 + (5,) * 4


def encode_png(pixels: Pixels) -> bytes:
    """The PNG file of an image, 8 bits a channel, filter 0 on every row.

    Args:
        pixels: uint8, height × width (grey) or height × width × 3 (RGB).

    Returns:
        The bytes of the file, the same on any machine.
    """
    height, width = pixels.shape[:2]
    colour, channels = (_GREY, 1) if pixels.ndim == 2 else (_RGB, 3)  # noqa: PLR2004 - height, width, no channel axis
    rows, repeats = _distinct_rows(pixels.reshape(height, -1))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    checksum = struct.pack(">I", _adler32(rows, repeats))
    data = b"\x78\x01" + _deflate(rows, repeats, step=channels) + checksum
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _distinct_rows(lines: Pixels) -> tuple[Pixels, _Places]:
    """The lines that differ from the one above, each behind its filter byte, and how often each is repeated.

    Most lines of an image of dots are equal to the one above, so that all further work is on a fraction of the image.
    """
    words = lines.view(np.uint64) if lines.shape[1] % 8 == 0 else lines
    places = np.flatnonzero(np.append(True, (words[1:] != words[:-1]).any(axis=1)))
    rows = np.zeros((places.size, 1 + lines.shape[1]), np.uint8)
    rows[:, 1:] = lines[places]
    return rows, np.diff(places, append=len(lines))


def _adler32(rows: Pixels, repeats: _Places) -> int:
    """The checksum of the repeated rows (RFC 1950).

    From the sums (a, b), n bytes with sums (s, t) lead to (a + s, b + n a + t), and the same bytes k times to
    (a + k s, b + k n a + n s k (k - 1) / 2 + k t).
    """
    low, high = 1, 0
    size = rows.shape[1]
    data = rows.tobytes()
    for start, times in zip(range(0, len(data), size), repeats.tolist(), strict=True):
        checksum = zlib.adler32(data[start : start + size])
        row_low, row_high = (checksum & 0xFFFF) - 1, (checksum >> 16) - size
        high += times * (size * low + row_high) + size * row_low * times * (times - 1) // 2
        low += times * row_low
    return high % _ADLER_PRIME << 16 | low % _ADLER_PRIME


def _deflate(rows: Pixels, repeats: _Places, *, step: int) -> bytes:
    """The deflate stream of the repeated rows: literals, and runs of what is `step` bytes back.

    No run goes over the end of a row, so that a row is the same bits however often it is repeated.
    """
    bands = [_tokens(rows[i : i + _BAND_ROWS], step=step) for i in range(0, len(rows), _BAND_ROWS)]
    band_repeats = np.split(repeats, range(_BAND_ROWS, len(rows), _BAND_ROWS))
    numbers = np.zeros(_SYMBOLS, np.int64)
    numbers[_END_OF_BLOCK] = 1
    for (symbols, _, _, row_sizes), times in zip(bands, band_repeats, strict=True):
        numbers += np.bincount(symbols, np.repeat(times, row_sizes), minlength=_SYMBOLS).astype(np.int64)
    bits = np.array(_code_lengths(numbers.tolist()), np.uint32)
    codes = _reversed_codes(bits)
    # First the bits of each row, as words of its own; then the words of all rows, one after the other.
    packed_bands = [_pack(*_coded(band, codes=codes, bits=bits), group_sizes=band[3]) for band in bands]
    words, word_counts, row_words = (np.concatenate(parts) for parts in zip(*packed_bands, strict=True))
    word = _repeated(row_words, repeats)
    header_values, header_counts = _block_header(bits, step=step)
    end = [_END_OF_BLOCK]
    values = np.concatenate([header_values, words[word], codes[end]])
    counts = np.concatenate([header_counts, word_counts[word], bits[end]])
    packed, _, _ = _pack(values, counts, group_sizes=np.array([values.size]))
    return packed.astype("<u4").tobytes()[: (int(counts.sum()) + 7) // 8]


def _coded(tokens: _Tokens, *, codes: _Words, bits: _Words) -> tuple[_Words, _Words]:
    """The value and the number of bits of each token."""
    symbols, extras, extra_bits, _ = tokens
    # The only distance has the one-bit code 0: it adds a bit to every run and nothing to the value.
    return codes[symbols] | extras << bits[symbols], bits[symbols] + extra_bits + (symbols > _END_OF_BLOCK)


def _tokens(rows: Pixels, *, step: int) -> _Tokens:
    """Symbol, extra value and number of extra bits of each token of the rows, and the number of tokens of each row."""
    repeats = np.zeros(rows.shape, np.bool_)
    np.equal(rows[:, 1 + step :], rows[:, 1:-step], out=repeats[:, 1 + step :])
    is_token = ~repeats.ravel()
    # Stretches of repeats, which neither begin nor end a stream: a row begins with bytes that are none.
    edges = np.flatnonzero(is_token[1:] != is_token[:-1]) + 1
    starts = edges[::2]
    lengths = np.append(edges[1::2], rows.size)[: starts.size] - starts
    # A stretch is cut into the longest runs; what is left is one more run, or literals where it is too short.
    left = lengths % _LONGEST_RUN
    literals = np.where(left < _SHORTEST_RUN, left, 0)
    run_counts = -(-(lengths - literals) // _LONGEST_RUN)
    stretch = np.repeat(np.arange(starts.size), run_counts)
    done = (np.arange(stretch.size) - np.repeat(np.cumsum(run_counts) - run_counts, run_counts)) * _LONGEST_RUN
    runs = np.minimum((lengths - literals)[stretch] - done, _LONGEST_RUN)
    run_places = starts[stretch] + done
    ends = starts + lengths
    is_token[run_places] = True
    is_token[ends[literals > 0] - 1] = True
    is_token[ends[literals > 1] - 2] = True

    places = np.flatnonzero(is_token)
    symbols = rows.ravel()[places].astype(np.uint32)
    extras, extra_bits = np.zeros_like(symbols), np.zeros_like(symbols)
    at = np.searchsorted(places, run_places)
    symbols[at], extras[at], extra_bits[at] = (table[runs] for table in _run_tables())
    row_sizes = np.diff(np.searchsorted(places, np.arange(0, rows.size + 1, rows.shape[1])))
    return symbols, extras, extra_bits, row_sizes


@functools.cache
def _run_tables() -> tuple[_Words, _Words, _Words]:
    """Symbol, extra value and number of extra bits of each run length 0..258; the lengths 0..2 have zeros."""
    symbols, extras, extra_bits = (np.zeros(_LONGEST_RUN + 1, np.uint32) for _ in range(3))
    start = _SHORTEST_RUN
    for code, bits in enumerate(_RUN_EXTRA_BITS, start=_END_OF_BLOCK + 1):
        stop = start + (1 << bits)
        symbols[start:stop], extras[start:stop], extra_bits[start:stop] = code, np.arange(stop - start), bits
        start = stop
    symbols[_LONGEST_RUN], extras[_LONGEST_RUN], extra_bits[_LONGEST_RUN] = _SYMBOLS - 1, 0, 0
    return symbols, extras, extra_bits


def _code_lengths(numbers: Sequence[int]) -> list[int]:
    """Huffman code length in bits of each symbol, 0 for an unused one, at most 15; ties by order of creation."""
    lengths = [0] * len(numbers)
    heap: list[tuple[int, int, tuple[int, ...]]] = [
        (number, symbol, (symbol,)) for symbol, number in enumerate(numbers) if number
    ]
    heapq.heapify(heap)
    created = len(numbers)
    while len(heap) > 1:
        number, _, members = heapq.heappop(heap)
        other_number, _, other_members = heapq.heappop(heap)
        for symbol in members + other_members:
            lengths[symbol] += 1
        heapq.heappush(heap, (number + other_number, created, members + other_members))
        created += 1
    if max(lengths) > _LONGEST_CODE:
        # Flatter numbers make a shallower tree; equal numbers of 286 symbols need nine bits, so this ends.
        return _code_lengths([(number + 1) // 2 for number in numbers])
    return lengths


def _reversed_codes(lengths: _Words) -> _Words:
    """Canonical codes (RFC 1951, 3.2.2) with their bits reversed: deflate packs codes from their highest bit.

    With zeros behind it, a code is the sum of the spans 2**(15 - length) of all codes before it.
    """
    used = np.flatnonzero(lengths)
    order = used[np.argsort(lengths[used], kind="stable")]
    spans = np.uint32(1) << (np.uint32(_LONGEST_CODE) - lengths[order])
    codes = np.zeros_like(lengths)
    codes[order] = _reversed_bits()[np.cumsum(spans) - spans]
    return codes


@functools.cache
def _reversed_bits() -> _Words:
    """Each number of 15 bits with its bits in reverse order."""
    numbers = np.arange(1 << _LONGEST_CODE, dtype=np.uint32)
    flipped = np.zeros_like(numbers)
    for bit in range(_LONGEST_CODE):
        flipped |= (numbers >> bit & 1) << (_LONGEST_CODE - 1 - bit)
    return flipped


def _block_header(lengths: _Words, *, step: int) -> tuple[_Words, _Words]:
    """Values and bit counts that open the block: final, dynamic codes, all symbols, distances up to `step`.

    Code lengths are written plainly: the sixteen lengths 0..15 have the sixteen codes of four bits, and the three
    repeat codes, which come first in the order of the format, are left unused.
    """
    fields = [(1, 1), (2, 2), (_SYMBOLS - 257, 5), (step - 1, 5), (15, 4)]
    values, counts = zip(*fields, *[(0, 3)] * 3, *[(4, 3)] * 16, strict=True)
    written = np.concatenate([lengths, np.zeros(step - 1, np.uint32), np.ones(1, np.uint32)])
    length_codes = _reversed_bits()[written << (_LONGEST_CODE - 4)]
    return (
        np.concatenate([np.array(values, np.uint32), length_codes]),
        np.concatenate([np.array(counts, np.uint32), np.full(length_codes.size, 4, np.uint32)]),
    )


def _repeated(sizes: _Places, repeats: _Places) -> _Places:
    """The places of the members of groups that follow one another, each group as often as it is repeated."""
    first = np.repeat(np.cumsum(sizes) - sizes, repeats)
    sizes = np.repeat(sizes, repeats)
    shift = np.cumsum(sizes) - sizes - first
    places: _Places = np.arange(sizes.sum()) - np.repeat(shift, sizes)
    return places


def _pack(values: _Words, counts: _Words, *, group_sizes: _Places) -> tuple[_Words, _Words, _Places]:
    """Join values into words of 32 bits, the lowest bit first, beginning a new word with each group.

    Args:
        values: Values of up to 32 bits, group after group.
        counts: Bits of each value.
        group_sizes: Number of values of each group, at least one.

    Returns:
        The words, the bits of each (32 but for the last of a group), and the number of words of each group.
    """
    ends = np.cumsum(counts, dtype=np.int64)
    group_bits = np.diff(ends[np.cumsum(group_sizes) - 1], prepend=0)
    group_words = (group_bits + 31) // 32
    padding = 32 * group_words - group_bits
    starts = ends - counts + np.repeat(np.cumsum(padding) - padding, group_sizes)
    word = starts >> 5
    shifted = values.astype(np.uint64) << (starts & 31).astype(np.uint64)
    # A value begins in every word, and what goes over its end is of the word after it.
    firsts = np.append(0, np.flatnonzero(word[1:] != word[:-1]) + 1)
    joined = np.bitwise_or.reduceat(shifted, firsts)
    last_words = np.cumsum(group_words) - 1
    packed = np.zeros(last_words[-1] + 2, np.uint32)
    packed[word[firsts]] = joined.astype(np.uint32)
    packed[word[firsts] + 1] |= (joined >> np.uint64(32)).astype(np.uint32)
    packed = packed[:-1]
    word_counts = np.full(packed.size, 32, np.uint32)
    word_counts[last_words] -= padding.astype(np.uint32)
    return packed, word_counts, group_words
