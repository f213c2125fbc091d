"""Which image tokens show the whole image, where a model is shown several views of it: tiles, crops, a thumbnail."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Protocol

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, as fractions of its width and height; beyond 0..1 for padding."""
WHOLE: Box = (0, 0, 1, 1)


class View(Protocol):
    """A grid of image tokens, and the part of an image that it shows."""

    @property
    def image(self) -> int:
        """Which image of the prompt, from 0."""

    @property
    def height(self) -> int:
        """Rows of image tokens."""

    @property
    def width(self) -> int:
        """Columns of image tokens."""

    @property
    def box(self) -> Box:
        """The part of the image; NaN where it is unknown."""


@dataclass(frozen=True, kw_only=True)
class WholeView:
    """The image tokens that show the whole image, or as much of it as the model was shown."""

    tokens: slice
    """Their places among all image tokens; they run row by row."""
    grid: tuple[int, int]
    """Their rows and columns."""
    box: Box | None
    """The part of the image that they cover: all of it, and more where it is padded. None where that is unknown: then
    the grid has rows and columns, and no place in the image."""


def find_whole_view(views: Sequence[View], *, tokens: int) -> tuple[WholeView | None, str]:
    """The finest view that shows all of the only image, or why there is none.

    Args:
        views: In the order of the image tokens; none where these form no grid.
        tokens: Number M of image tokens.

    Returns:
        The view, and why it is missing or has no box, empty where it has one. A view of unknown place is returned where
        it is the only one: its grid is the whole of what the model was shown.
    """
    if not views:
        return None, "the image tokens form no grid"
    images = len({view.image for view in views})
    if images > 1:
        return None, f"{images} images"
    starts = [0]
    for view in views:
        starts.append(starts[-1] + view.height * view.width)
    if starts[-1] != tokens:
        grids = " and ".join(f"{view.height} x {view.width}" for view in views)
        return None, f"{tokens} image tokens are no {grids} grid"
    whole = [place for place, view in enumerate(views) if _covers_all(view.box)]
    if not whole:
        if all(isnan(edge) for view in views for edge in view.box):
            grid = (views[0].height, views[0].width)
            only = WholeView(tokens=slice(0, tokens), grid=grid, box=None) if len(views) == 1 else None
            return only, "which part of the image the model was shown is unknown"
        return None, f"none of {len(views)} views shows the whole image"
    place = max(whole, key=lambda place: views[place].height * views[place].width)
    view = views[place]
    return WholeView(tokens=slice(starts[place], starts[place + 1]), grid=(view.height, view.width), box=view.box), ""


def _covers_all(box: Box) -> bool:
    x0, y0, x1, y1 = box
    return x0 <= 0 and y0 <= 0 and x1 >= 1 and y1 >= 1
