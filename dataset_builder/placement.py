"""Where the dots stand: centres drawn one after the other, never closer than asked, never over the margin."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dataset_builder.errors import PlacementError
from dataset_builder.stream import below, shuffled

Layout = Literal["uniform", "inset", "annulus", "center", "grid"]
Centers = tuple[tuple[int, int], ...]

_GRID_SIDE, _GRID_PITCH = 7, 8
_INSET = 40
_TRIES = 50_000

ATTEMPTS = 16
"""How often a layout is drawn anew before the dots are said not to fit."""


@dataclass(frozen=True)
class Space:
    """Where dots may stand.

    Args:
        size: Side of the square image in pixels.
        radius: Radius of a dot in pixels; centres lie in [radius, size - 1 - radius].
        gap: Least distance between the edges of two dots in pixels: centres are >= 2 radius + gap apart.
        layout: `uniform` on the image; `inset` at least 40 px from its edges; `annulus` .30 to .45 of the side from its
            middle; `center` up to .25 of the side from it; `grid` 7 x 7 places an eighth of the side apart, from a
            random origin.
    """

    size: int
    radius: int
    gap: int
    layout: Layout

    @property
    def distance(self) -> int:
        """Least distance of two centres in pixels."""
        return 2 * self.radius + self.gap


def place_dots(words: Iterator[int], count: int, *, space: Space) -> Centers:
    """Draw the centres of `count` dots.

    A candidate is uniform on the image and kept if it is in the region of the layout and far enough from those kept
    before. A layout that jams is drawn anew; the count never changes, since that would favour small counts.

    Args:
        words: The random stream; it is advanced.
        count: Number of dots, from 0.
        space: Where they may stand.

    Returns:
        The centres (x, y) in pixels, in the order in which they were drawn.

    Raises:
        PlacementError: If the dots do not fit; the message names the largest count that does.
    """
    reached = []
    for _ in range(ATTEMPTS):
        centers = _place(words, count, space=space)
        if len(centers) == count:
            return centers
        reached.append(len(centers))
    raise _does_not_fit(count, space=space, largest=min(reached))


def check_count(streams: Iterable[Iterator[int]], count: int, *, space: Space) -> None:
    """Check that every attempt places `count` dots, so that no row of a set will need more than a few.

    Args:
        streams: A random stream for each attempt, at least one. With the same streams the count that the message names
            passes, since an attempt does not depend on how many words another took.
        count: Number of dots, from 0.
        space: Where they may stand.

    Raises:
        PlacementError: If an attempt ends with fewer; the message names the fewest.
    """
    fewest = min(len(_place(words, count, space=space)) for words in streams)
    if fewest < count:
        raise _does_not_fit(count, space=space, largest=fewest)


def _does_not_fit(count: int, *, space: Space, largest: int) -> PlacementError:
    """The error; what the worst attempt reached, hardly any layout fails to reach."""
    return PlacementError(
        f"{count} dots of radius {space.radius} with gaps of {space.gap} px do not fit a {space.layout} layout on "
        f"{space.size} x {space.size} px; the largest count that fits is {largest}: "
        "lower the counts, the radius or the gap, or raise the size"
    )


def _place(words: Iterator[int], count: int, *, space: Space) -> Centers:
    """One attempt: up to `count` centres."""
    return (_place_on_grid if space.layout == "grid" else _place_at_random)(words, count, space=space)


def _place_at_random(words: Iterator[int], count: int, *, space: Space) -> Centers:
    """As many centres as a limited number of tries places, up to `count`."""
    distance = max(1, space.distance)
    span = space.size - 2 * space.radius
    centers: list[tuple[int, int]] = []
    # Cells of the least distance: whatever is too close to a point is in its cell or one of the eight around it.
    cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for _ in range(_TRIES if span > 0 else 0):
        if len(centers) == count:
            break
        x, y = space.radius + below(words, span), space.radius + below(words, span)
        column, row = x // distance, y // distance
        near = (
            other
            for i in (column - 1, column, column + 1)
            for j in (row - 1, row, row + 1)
            for other in cells.get((i, j), ())
        )
        if _in_region(space, x=x, y=y) and all((x - u) ** 2 + (y - v) ** 2 >= distance**2 for u, v in near):
            centers.append((x, y))
            cells.setdefault((column, row), []).append((x, y))
    return tuple(centers)


def _in_region(space: Space, *, x: int, y: int) -> bool:
    """Whether a centre is in the region of the layout, in integers: twice its distance to the middle, squared."""
    if space.layout == "uniform":
        return True
    if space.layout == "inset":
        return min(x, y) >= _INSET and max(x, y) < space.size - _INSET
    nearest, farthest = (60, 90) if space.layout == "annulus" else (0, 50)
    squared = (2 * x - space.size + 1) ** 2 + (2 * y - space.size + 1) ** 2
    return (space.size * nearest) ** 2 <= 100**2 * squared <= (space.size * farthest) ** 2


def _place_on_grid(words: Iterator[int], count: int, *, space: Space) -> Centers:
    """The places of `count` dots of the grid, or all that there are."""
    pitch = space.size // _GRID_PITCH
    span = space.size - 2 * space.radius - (_GRID_SIDE - 1) * pitch
    if span < 1 or pitch < max(1, space.distance):
        return ()
    left, top = space.radius + below(words, span), space.radius + below(words, span)
    places = [(left + i * pitch, top + j * pitch) for j in range(_GRID_SIDE) for i in range(_GRID_SIDE)]
    return tuple(shuffled(words, places)[:count])
