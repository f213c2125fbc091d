"""The pixels of a sample, from its published geometry and the parameters of its set.

Coordinates are pixel indices, x to the right and y down. A pixel (u, v) belongs to a dot centred on (x, y) iff
(u - x)² + (v - y)² <= radius². That is 317 pixels at radius 10, where Pillow draws 349 and scikit-image 305.
"""

import functools
import hashlib

import numpy as np
import numpy.typing as npt

from dataset_builder.glyphs import DIGITS, glyph_scale
from dataset_builder.png import Pixels
from dataset_builder.samples import Sample, sample_key
from dataset_builder.sets import SetSpec

_RED = 255
_GRID_LEVEL = 160
_GRID_CELLS = 8
_OUTLINE = (4, 6)
_CROSSHAIR = (4, 9)

Mask = npt.NDArray[np.bool_]


def render(spec: SetSpec, sample: Sample) -> Pixels:
    """The image of a sample.

    Args:
        spec: The set it belongs to.
        sample: Its geometry.

    Returns:
        uint8, size × size, or size × size × 3 (RGB) for a relation.
    """
    canvas = _background(spec, sample)
    if spec.kind == "number":
        for digit, (x, y), level in zip(sample.answer, sample.centers, sample.intensities, strict=True):
            glyph = _glyph(int(digit), scale=glyph_scale(spec.size))
            top, left = y - glyph.shape[0] // 2, x - glyph.shape[1] // 2
            canvas[top : top + glyph.shape[0], left : left + glyph.shape[1]][glyph] = level
        return canvas
    if spec.kind == "relation":
        canvas = np.repeat(canvas[:, :, np.newaxis], 3, axis=2)
    if spec.marks == "grid":
        lines = np.arange(1, _GRID_CELLS) * spec.size // _GRID_CELLS
        canvas[lines] = _GRID_LEVEL
        canvas[:, lines] = _GRID_LEVEL
    for place, (center, level) in enumerate(zip(sample.centers, sample.intensities, strict=True)):
        mask = disc(spec.radius)
        rows, columns, visible = _visible(mask, center, size=spec.size)
        is_red = spec.kind == "relation" and place == 1
        canvas[rows, columns][visible] = (_RED, level, level) if is_red else level
        if spec.marks in ("outline", "crosshair"):
            rows, columns, visible = _visible(_mark(spec.marks, spec.radius), center, size=spec.size)
            canvas[rows, columns][visible] = level
    return canvas


@functools.cache
def disc(radius: int) -> Mask:
    """The pixels of a dot, a read-only square of side 2 radius + 1."""
    squared = _squared_distances(radius)
    return _read_only(squared <= radius**2)


@functools.cache
def _mark(kind: str, radius: int) -> Mask:
    """The outline of a dot, a ring 2 px wide and 4 px away from it; or its crosshair, four ticks 3 px wide."""
    near, far = _OUTLINE if kind == "outline" else _CROSSHAIR
    side = radius + far
    squared = _squared_distances(side)
    mask = (squared > (radius + near) ** 2) & (squared <= side**2)
    if kind == "crosshair":
        offset = np.abs(np.arange(-side, side + 1))
        mask &= np.minimum(offset[:, np.newaxis], offset) <= 1
    return _read_only(mask)


def _squared_distances(side: int) -> npt.NDArray[np.int64]:
    offset = np.arange(-side, side + 1, dtype=np.int64) ** 2
    return offset[:, np.newaxis] + offset


def _read_only(mask: Mask) -> Mask:
    """The same mask as a view that cannot be written, since it is handed out again."""
    view = mask.view()
    view.flags.writeable = False
    return view


def _visible(mask: Mask, center: tuple[int, int], *, size: int) -> tuple[slice, slice, Mask]:
    """The rows and columns of the image that a centred mask covers, and the part of it that is in the image."""
    x, y = center
    side = mask.shape[0] // 2
    rows = slice(max(0, y - side), min(size, y + side + 1))
    columns = slice(max(0, x - side), min(size, x + side + 1))
    top, left = y - side, x - side
    return rows, columns, mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


@functools.cache
def _glyph(digit: int, *, scale: int) -> Mask:
    """The pixels of a digit, a read-only box of seven by five cells."""
    cells = np.array([[cell == "#" for cell in row] for row in DIGITS[digit]])
    return _read_only(cells.repeat(scale, axis=0).repeat(scale, axis=1))


def _background(spec: SetSpec, sample: Sample) -> Pixels:
    if not sample.noise:
        return np.full((spec.size, spec.size), sample.background, np.uint8)
    return _noise(sample_key(spec, sample.index, purpose="noise"), size=spec.size, mean=sample.background)


def _noise(key: bytes, *, size: int, mean: int) -> Pixels:
    """Integer noise of standard deviation exactly 8 in mean ± 23, independent in every pixel.

    SHAKE-256 gives 16 bits a pixel. Three uniform numbers 0..15 (variance 255/12 each) and one of 0..1 (1/4) add up to
    a bell-shaped number 0..46 of mean 23 and variance 64.
    """
    bits = np.frombuffer(hashlib.shake_256(key).digest(2 * size**2), "<u2")
    total = (bits & 15) + (bits >> 4 & 15) + (bits >> 8 & 15) + (bits >> 12 & 1)
    noise: Pixels = (total + np.uint16(mean - 23)).astype(np.uint8)
    return noise.reshape(size, size)
