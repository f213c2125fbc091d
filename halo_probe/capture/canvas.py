"""Which part of its canvas an image fills, where its processor pads it and does not tell.

Rules lay views out on the canvas that a processor made. `in_image` turns their boxes into fractions of the image by the
one thing that differs between families: the part of the canvas that the image fills. It is read from the pixels that
`generate` was given. An image may have a border of the padding's own colour, so a part is returned only where no such
border could be shown alike, or where it could move the image by less than a token; else it is None.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch.nn.functional import adaptive_avg_pool2d

from halo_probe.archive.generation import View
from halo_probe.metrics.views import WHOLE, Box

UNKNOWN: Box = (float("nan"),) * 4
"""The box of a view whose place cannot be told from what `generate` was given."""

_BLACKER_THAN_BLACK = -257 / 255  # -1 of 255 levels, with mean and deviation ½
_ALMOST_BLACK = -253 / 255  # 1 of 255 levels
_LEVEL = 1 / 255
_BELOW_MEAN = -_LEVEL / 0.2  # one level, divided by the smallest deviation of any processor's
_RASTER = 64  # pictures are compared at this many pixels a side
_CLEARLY = 0.25  # a place is right if it misses by less than this part of what places a token away miss by


def in_image(views: Iterable[View], filled: Box | None) -> tuple[View, ...]:
    """The views with boxes in fractions of the image.

    Args:
        views: With boxes in fractions of a canvas.
        filled: The part of the canvas that the image fills, beyond 0..1 where it was cropped; None if not known.
    """
    return tuple(replace(view, box=UNKNOWN if filled is None else _relative(view.box, filled)) for view in views)


def _relative(box: Box, part: Box) -> Box:
    left, top, right, bottom = part
    width, height = right - left, bottom - top
    x0, y0, x1, y1 = box
    return (x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height


def mosaic(tiles: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The C × (rows · h) × (columns · w) picture that N × C × h × w tiles make up, row by row."""
    _, channels, height, width = tiles.shape
    laid = tiles.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return laid.reshape(channels, rows * height, columns * width)


def black(picture: torch.Tensor) -> torch.Tensor:
    """H × W, bool: which pixels of a C × H × W picture may be black: its darkest, however it is normalised."""
    darkest = picture.amin(dim=(1, 2), keepdim=True)
    return (picture == darkest).all(dim=0) & bool(darkest.max() <= 0)


def blacker_than_black(picture: torch.Tensor) -> torch.Tensor:
    """H × W, bool: which pixels are -1 of 255 levels, where mean and deviation are ½."""
    return ((picture - _BLACKER_THAN_BLACK).abs() < _LEVEL).all(dim=0)


def almost_black(picture: torch.Tensor) -> torch.Tensor:
    """H × W, bool: which pixels are 1 of 255 levels, where mean and deviation are ½."""
    return ((picture - _ALMOST_BLACK).abs() < _LEVEL).all(dim=0)


def mean_colour(picture: torch.Tensor) -> torch.Tensor:
    """H × W, bool: which pixels may be the mean that is subtracted of all, rounded down to one of 255 levels."""
    if float(picture.min()) > _BELOW_MEAN:  # nothing is darker than the mean, as where nothing is subtracted
        return _about_half(picture, 1) | _about_half(picture, 255)
    return ((picture > _BELOW_MEAN) & (picture < -_BELOW_MEAN / 10)).all(dim=0)


def _about_half(picture: torch.Tensor, most: int) -> torch.Tensor:
    """H × W, bool: which pixels are the mean of any processor's, of so many levels, or may be 0 as it is normalised."""
    return ((picture > 0.3 * most) & (picture < 0.6 * most)).all(dim=0) | (picture.abs() < -_BELOW_MEAN).all(dim=0)


def grey(picture: torch.Tensor) -> torch.Tensor:
    """H × W, bool: which pixels may be 127 of 255 levels, where mean and deviation are ½."""
    if float(picture.abs().max()) > 1 + _LEVEL:  # they are not
        return (picture == picture[:, :1, :1]).all(dim=0)
    return ((picture > -1.5 * _LEVEL) & (picture < 0)).all(dim=0)


def _bars(padding: torch.Tensor) -> tuple[int, int, int, int]:
    """How many columns and rows at the left, top, right and bottom are padding from end to end."""
    columns, rows = padding.all(dim=0).long(), padding.all(dim=1).long()
    left, top, right, bottom = (
        int(line.cumprod(dim=0).sum()) for line in (columns, rows, columns.flip(0), rows.flip(0))
    )
    return left, top, right, bottom


def filled_but_for_a_token(padding: torch.Tensor, *, token: tuple[int, int]) -> Box:
    """The part of a canvas that an image fills from the upper left, padded by less than a token.

    Args:
        padding: H × W, bool: which pixels are of the padding's colour.
        token: Height and width of a token in pixels. A bar of at least that has a part that is the image's own; half a
            token is then taken for padding.
    """
    height, width = padding.shape
    *_, right, bottom = _bars(padding)
    tall, wide = token
    right, bottom = (bar if bar < side else side // 2 for bar, side in ((right, wide), (bottom, tall)))
    return 0, 0, 1 - right / width, 1 - bottom / height


def filled_from_corner(padding: torch.Tensor, *, least: float = 0) -> Box | None:
    """The part of a canvas that an image fills from the upper left: all of it, unless it may be padded.

    Args:
        padding: H × W, bool: which pixels are of the padding's colour.
        least: Which part of a side the padding takes at least, where there is any.
    """
    *_, right, bottom = _bars(padding)
    height, width = padding.shape
    return None if right > least * width or bottom > least * height else WHOLE


def filled_in_the_middle(padding: torch.Tensor) -> Box | None:
    """The part of a canvas that an image fills which may be padded at both ends: all of it, unless it may be."""
    left, top, right, bottom = _bars(padding)
    return None if min(left, right) or min(top, bottom) else WHOLE


def filled_as_shown(
    canvas: torch.Tensor, padding: torch.Tensor, whole: torch.Tensor, *, grid: tuple[int, int], middle: bool = False
) -> Box | None:
    """The part of a canvas that an image fills which is also shown without padding.

    What is not of the padding's colour is the image, if it looks like the other picture of it, and parts that reach a
    token further or less far do not. An image with a border of that colour looks otherwise.

    Args:
        canvas: C × H × W.
        padding: H × W, bool: which of its pixels are of the padding's colour.
        whole: C × h × w: the whole image and nothing else, stretched to any size.
        grid: Rows and columns of the tokens of the canvas.
        middle: Whether it is padded at both ends instead of at the right and the bottom.
    """
    height, width = padding.shape
    left, top, right, bottom = _bars(padding)
    if left == width:
        return None
    if not middle:
        left = top = 0
    if not (left or top or right or bottom):
        return WHOLE
    tall, wide = height / grid[0], width / grid[1]
    target = adaptive_avg_pool2d(whole.float(), _RASTER)

    def miss(along: float = 0, down: float = 0) -> float:
        """What the part misses by that reaches so many pixels further where there is padding."""
        x0, y0 = (left - along, top - down) if middle else (0, 0)
        return _miss(canvas, (x0, y0, width - right + along, height - bottom + down), target)

    others = [miss(along=step * wide) for step in (-1, 1) if right] + [
        miss(down=step * tall) for step in (-1, 1) if bottom
    ]
    if miss() >= _CLEARLY * min(others, default=0):
        return None
    return left / width, top / height, 1 - right / width, 1 - bottom / height


def _miss(canvas: torch.Tensor, part: tuple[float, float, float, float], target: torch.Tensor) -> float:
    """Mean square of what a part of a canvas, in pixels, differs by from a picture."""
    _, height, width = canvas.shape
    x0, y0, x1, y1 = (round(edge) for edge in part)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x0 >= x1 or y0 >= y1:
        return float("inf")
    shown = adaptive_avg_pool2d(canvas[:, y0:y1, x0:x1].float(), _RASTER)
    return float((shown - target).square().mean())
