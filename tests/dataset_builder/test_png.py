"""The PNG writer: what it writes decodes to the pixels everywhere, and is the same bytes everywhere."""

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from dataset_builder import png
from dataset_builder.png import encode_png

SHAPES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 600)), st.tuples(st.integers(1, 20), st.integers(1, 200), st.just(3))
)


def decode(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image)


@settings(deadline=None, max_examples=150)
@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 20, 255]))))
def test_an_image_of_few_levels_decodes_to_its_pixels(pixels):
    before = pixels.copy()
    np.testing.assert_array_equal(decode(encode_png(pixels)), before)
    np.testing.assert_array_equal(pixels, before)


@settings(deadline=None, max_examples=50)
@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_any_image_decodes_to_its_pixels(pixels):
    np.testing.assert_array_equal(decode(encode_png(pixels)), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_runs_of_every_length_decode_to_their_pixels(channels):
    rows = np.zeros((800, 800, channels), np.uint8)
    for length in range(800):
        rows[length, :length] = 200
    pixels = rows[:, :, 0] if channels == 1 else rows
    np.testing.assert_array_equal(decode(encode_png(pixels)), pixels)


def test_an_image_of_more_distinct_rows_than_a_band_decodes_to_its_pixels():
    pixels = np.arange(1000 * 30, dtype=np.uint32).reshape(1000, 30).astype(np.uint8)
    pixels[500:700] = 9
    np.testing.assert_array_equal(decode(encode_png(pixels)), pixels)


def test_the_stream_and_every_checksum_are_right():
    pixels = np.tile(np.arange(50, dtype=np.uint8), (70, 1))
    file = encode_png(pixels)
    chunks = {}
    at = 8
    while at < len(file):
        size, kind = struct.unpack_from(">I4s", file, at)
        data = file[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", file, at + 8 + size) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        at += size + 12
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[b"IHDR"] == struct.pack(">IIBBBBB", 50, 70, 8, 0, 0, 0, 0)
    # zlib checks the Adler-32 at the end.
    assert zlib.decompress(chunks[b"IDAT"]) == b"".join(b"\0" + row.tobytes() for row in pixels)


def test_numbers_that_would_need_long_codes_get_codes_of_at_most_fifteen_bits():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = png._code_lengths(fibonacci)
    assert max(lengths) == 15
    assert sum(2.0**-length for length in lengths) == 1


def test_code_lengths_are_optimal():
    # The example of Huffman (1952): 5 9 12 13 16 45 cost 224 bits.
    numbers = [5, 9, 12, 13, 16, 45]
    assert sum(a * b for a, b in zip(numbers, png._code_lengths(numbers), strict=True)) == 224


def test_the_bytes_are_golden():
    grey = np.zeros((64, 64), np.uint8)
    grey[10:20, 5:50] = 255
    rgb = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)
    assert [hashlib.sha256(encode_png(pixels)).hexdigest() for pixels in (grey, rgb)] == [
        "f3d845782008f8181fabcdd736adad9431c72a31595e15de5f306c6c653dec07",
        "dc949bc4086c662a99ad2cb113fe9412c641575885784abbc3101f05f1409d65",
    ]


def test_an_image_of_dots_is_no_larger_than_what_pillow_writes():
    pixels = np.full((512, 512), 255, np.uint8)
    inside = np.add.outer(np.arange(-10, 11) ** 2, np.arange(-10, 11) ** 2) <= 100
    for x, y in ((50, 60), (300, 310), (400, 90)):
        pixels[y - 10 : y + 11, x - 10 : x + 11][inside] = 12
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert len(encode_png(pixels)) <= 1.1 * file.tell()
