"""Attention maps drawn over the image they belong to."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from halo_probe.archive.reading import StoredCall
from halo_probe.errors import InvalidAttentionError, UsageError
from halo_probe.metrics.views import WHOLE, Box, find_whole_view

__all__ = ["draw_answer", "draw_overlay"]

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Viridis at the ends of sixteen equal steps, by S. van der Walt and N. Smith (matplotlib 1.5, CC0).
_VIRIDIS = (
    (68, 1, 84),
    (72, 24, 106),
    (71, 45, 123),
    (66, 64, 134),
    (59, 82, 139),
    (51, 99, 141),
    (44, 114, 142),
    (38, 130, 142),
    (33, 145, 140),
    (31, 159, 136),
    (39, 173, 129),
    (61, 188, 116),
    (92, 200, 99),
    (129, 211, 77),
    (170, 220, 50),
    (213, 226, 26),
    (253, 231, 37),
)
_HEAT = 0.6  # share of the heat colour; the rest is the image, so that dark dots stay visible on a cold cell
_PANEL = 640  # longer side of a panel
_MARGIN = 20
_BAR = 24
_FONT_SIZE = 20
_LINE = 26
_QUANTITY = "attention"
_NARROWEST = 240  # a panel's place, wide enough for a title whatever the image's shape
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw_answer(image: Image.Image, stored: StoredCall, steps: Sequence[int], *, title: str) -> Image.Image | None:
    """Where a model looked at the last recorded layer while it generated tokens: `draw_overlay` of A_eq1.

    Args:
        image: The image of the document.
        stored: A call on it.
        steps: Which generation steps; one panel each.
        title: What the caption begins with.

    Returns:
        The picture; None without a step, or where no view shows the whole image.
    """
    generation, layer = stored.generation, stored.generation.layers[-1]
    whole, _ = find_whole_view(generation.views, tokens=generation.image_tokens)
    if whole is None or whole.box is None or not steps:
        return None
    return draw_overlay(
        _seen(image, whole.box),
        [generation.eq1[step, -1, whole.tokens] for step in steps],
        grid=whole.grid,
        titles=[f"token {step + 1}: {stored.pieces[step]!r}" for step in steps],
        caption=f"{title}; layer {layer.index} ({layer.type}), A_eq1; n = 1",
    )


def _seen(image: Image.Image, box: Box) -> Image.Image:
    """The part of an image that a view shows, with white where it is padded."""
    if box == WHOLE:
        return image
    left, top, right, bottom = (edge * side for edge, side in zip(box, image.size * 2, strict=True))
    size = (round(right - left), round(bottom - top))
    extent = (left, top, right, bottom)
    return image.convert("RGB").transform(size, Image.Transform.EXTENT, extent, fillcolor="white")


def draw_overlay(
    image: Image.Image, maps: ArrayLike, *, grid: tuple[int, int], titles: Sequence[str], caption: str
) -> Image.Image:
    """One picture: side by side, a panel per map, the image in grey under its heatmap, and one colour bar.

    Weights span orders of magnitude, so colour is logarithmic: from a tenth of the mean weight, and anything below it,
    to the largest weight. Mean and largest are those of all maps together, so panels compare. Cells are drawn as they
    are, without smoothing: token (r, c) of the h by w grid covers [c W/w, (c+1) W/w) by [r H/h, (r+1) H/h). The colours
    of the bar are those of the panels over a white image.

    Args:
        image: The image that the model saw, any mode and size.
        maps: Attention weights, one map per panel; every map has h*w weights in row-major order, flat or as a grid.
        grid: Rows and columns (h, w) of image tokens.
        titles: One line or more over each panel. Characters other than printable ASCII are shown as Python escapes.
        caption: Text under the panels, escaped in the same way.

    Returns:
        An RGB picture; the longer side of each panel is 640 pixels.

    Raises:
        UsageError: If there is no map, or titles, maps and grid do not fit each other.
        InvalidAttentionError: If a weight is negative or not finite, or all are zero.
    """
    weights = _checked(maps, grid=grid, panels=len(titles))
    scale = _PANEL / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    grey = np.asarray(image.convert("RGB").convert("L").resize((width, height), Image.Resampling.LANCZOS))
    rows = np.arange(height) * grid[0] // height
    columns = np.arange(width) * grid[1] // width
    floor, peak = 0.1 * weights.mean(), weights.max()
    heat = np.log(np.maximum(weights, floor) / floor) / np.log(peak / floor)

    font = ImageFont.load_default(_FONT_SIZE)
    place = max(width, _NARROWEST)
    headings = [_wrapped(title, font=font, width=place) for title in titles]
    bar = _MARGIN + len(titles) * (place + _MARGIN)
    footer = _wrapped(caption, font=font, width=bar - 2 * _MARGIN)
    labels = [f"{floor * (peak / floor) ** tick:.2g}" for tick in _TICKS]
    labels_width = round(max(font.getlength(text) for text in (_QUANTITY, *labels)))
    top = _MARGIN + _LINE * max(map(len, headings))
    size = (bar + _BAR + labels_width + 2 * _MARGIN, top + height + 2 * _MARGIN + _LINE * len(footer))

    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for panel, (heading, cells) in enumerate(zip(headings, heat, strict=True)):
        left = _MARGIN + panel * (place + _MARGIN)
        draw.multiline_text((left, _MARGIN // 2), "\n".join(heading), fill="black", font=font)
        picture.paste(_blend(cells[np.ix_(rows, columns)], over=grey), (left, top))
    ramp = np.repeat(np.linspace(1, 0, height)[:, None], _BAR, axis=1)
    picture.paste(_blend(ramp, over=np.full_like(ramp, 255)), (bar, top))
    draw.text((bar, top - _LINE - _MARGIN // 2), _QUANTITY, fill="black", font=font)
    for tick, label in zip(_TICKS, labels, strict=True):
        draw.text((bar + _BAR + 6, top + (1 - tick) * height), label, fill="black", font=font, anchor="lm")
    draw.multiline_text((_MARGIN, top + height + _MARGIN), "\n".join(footer), fill="black", font=font)
    return picture


def _checked(maps: ArrayLike, *, grid: tuple[int, int], panels: int) -> NDArray[np.float64]:
    """Maps as (panels, h, w) float64, or an error."""
    weights = np.asarray(maps, dtype=np.float64)
    cells = grid[0] * grid[1]
    if panels == 0 or cells == 0 or weights.shape[:1] != (panels,) or weights[0].size != cells:
        raise UsageError(
            f"overlay: {panels} titles and a grid of {grid[0]}x{grid[1]} do not fit maps of shape {weights.shape}; "
            "give one title per map and one weight per cell"
        )
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise InvalidAttentionError(
            "overlay: the maps hold a negative or non-finite weight, or zeros alone; give attention weights"
        )
    return weights.reshape(panels, *grid)


def _blend(heat: NDArray[np.float64], *, over: NDArray[Any]) -> Image.Image:
    """Heat in [0, 1] in viridis over a grey background in [0, 255] of the same (height, width)."""
    steps = np.linspace(0, 1, len(_VIRIDIS))
    colours = np.stack([np.interp(heat, steps, channel) for channel in zip(*_VIRIDIS, strict=True)], axis=-1)
    return Image.fromarray(np.rint(_HEAT * colours + (1 - _HEAT) * over[..., None]).astype(np.uint8))


def _wrapped(text: str, *, font: _Font, width: int) -> list[str]:
    """Lines of `text`, escaped to printable ASCII, none wider than `width` pixels."""
    escaped = text.encode("unicode_escape").decode("ascii")
    lines = [""]
    for columns in range(len(escaped), 0, -1):
        lines = textwrap.wrap(escaped, columns) or [""]
        if max(map(font.getlength, lines)) <= width:
            break
    return lines
