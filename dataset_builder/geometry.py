"""What analysis needs to know of a layout: its hull, how close its dots are, where they lie on a patch grid."""

import math

import numpy as np

from dataset_builder.placement import Centers

_BLOCK = 512


def hull_indices(centers: Centers) -> list[int]:
    """The places of the corners of the convex hull of the centres, ascending.

    A centre on an edge of the hull is no corner. Monotone chain, exact in integers.

    Args:
        centers: Distinct points (x, y) in pixels, in any number.

    >>> hull_indices(((0, 0), (9, 0), (4, 4), (9, 9), (0, 9), (4, 0)))
    [0, 1, 3, 4]
    """
    order = sorted(range(len(centers)), key=centers.__getitem__)
    corners = set(order[:1]) | set(order[-1:])
    for direction in (order, order[::-1]):
        chain: list[int] = []
        for place in direction:
            while len(chain) > 1 and not _turns_left(centers[chain[-2]], centers[chain[-1]], end=centers[place]):
                chain.pop()
            chain.append(place)
        corners.update(chain)
    return sorted(corners)


def _turns_left(start: tuple[int, int], middle: tuple[int, int], *, end: tuple[int, int]) -> bool:
    (ax, ay), (bx, by), (cx, cy) = start, middle, end
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0


def nearest_distances(centers: Centers) -> list[float | None]:
    """Distance of each centre to the nearest other one in pixels, float64; None for a centre that is alone.

    >>> nearest_distances(((0, 0), (3, 4), (3, 5)))
    [5.0, 1.0, 1.0]
    """
    if len(centers) < 2:  # noqa: PLR2004 - no other centre
        return [None] * len(centers)
    x, y = np.array(centers, np.int64).T
    nearest: list[float | None] = []
    # In blocks, since the distances of all to all do not fit in memory for many dots.
    for start in range(0, len(centers), _BLOCK):
        block = slice(start, start + _BLOCK)
        squared = (x[block, np.newaxis] - x) ** 2 + (y[block, np.newaxis] - y) ** 2
        own = np.arange(len(squared))
        squared[own, start + own] = np.iinfo(np.int64).max
        nearest += [math.sqrt(value) for value in squared.min(axis=1).tolist()]
    return nearest


def patch_offsets(centers: Centers, patch: int) -> list[list[int]]:
    """Offset (x, y) of each centre from the upper left corner of its patch, in pixels, 0..patch - 1.

    >>> patch_offsets(((70, 112),), 16)
    [[6, 0]]
    """
    return [[x % patch, y % patch] for x, y in centers]


def closest_pair(centers: Centers) -> float:
    """Distance of the two closest centres in pixels; infinite where there are fewer than two."""
    return min((distance for distance in nearest_distances(centers) if distance is not None), default=math.inf)
