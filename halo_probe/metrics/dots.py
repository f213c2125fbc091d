"""The dots of a document, from its row in a set, and their layout on the grid of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from halo_probe.metrics.geometry import Layout, lay_out
from halo_probe.metrics.views import WHOLE, Box


@dataclass(frozen=True, kw_only=True)
class Dots:
    """The dots of one document."""

    centers: tuple[tuple[int, int], ...]
    """(x, y) in pixels; at least one."""
    radius: int
    """In pixels."""
    image: tuple[int, int]
    """Height and width in pixels."""


DOTS_COLUMNS = ("centers", "radius", "width", "height")
"""The columns of a set that `dots_of` reads."""


def dots_of(row: Mapping[str, Any]) -> Dots | None:
    """The dots of a row of a set; None where it has none."""
    # A number to read has places of its digits, but no radius.
    if not row["centers"] or not row["radius"]:
        return None
    return Dots(
        centers=tuple((x, y) for x, y in row["centers"]), radius=row["radius"], image=(row["height"], row["width"])
    )


@lru_cache(maxsize=512)
def layout_of(dots: Dots, grid: tuple[int, int], box: Box = WHOLE) -> Layout:
    """The dots on a grid that covers this part of the image; kept, as a null needs those of most of the set."""
    height, width = dots.image
    view = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    return lay_out(dots.centers, radius=dots.radius, image=dots.image, grid=grid, view=view)
