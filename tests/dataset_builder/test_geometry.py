"""Hull, nearest neighbours and patch offsets against scipy and the specification."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, KDTree

from dataset_builder.geometry import closest_pair, hull_indices, nearest_distances, patch_offsets

# The layout of the vectors of the specification, section 6.
LAYOUT = (
    (70, 70), (112, 78), (512, 96), (900, 130), (300, 300), (640, 352),
    (940, 480), (480, 560), (180, 700), (720, 720), (400, 930), (860, 900),
)  # fmt: skip
POINTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=3, max_size=30, unique=True).map(tuple)


def test_the_hull_of_the_specification():
    assert hull_indices(LAYOUT) == [0, 2, 3, 6, 8, 10, 11]


@given(POINTS)
def test_the_hull_is_that_of_scipy(points):
    spread = np.array(points) - points[0]
    if np.linalg.matrix_rank(spread) < 2:
        assert hull_indices(points) == sorted({points.index(min(points)), points.index(max(points))})
        return
    assert set(hull_indices(points)) == _corners(points)


def _corners(points):
    """The hull of scipy, less the points that lie on an edge of it, which it may keep."""
    vertices = ConvexHull(np.array(points)).vertices
    corners = set()
    for before, at, after in zip(np.roll(vertices, 1), vertices, np.roll(vertices, -1), strict=True):
        a, b, c = (np.array(points[i], int) for i in (before, at, after))
        if (b - a)[0] * (c - b)[1] - (b - a)[1] * (c - b)[0]:
            corners.add(int(at))
    return corners


@pytest.mark.parametrize("points", [(), ((3, 4),), ((3, 4), (9, 9))])
def test_few_points_are_all_corners(points):
    assert hull_indices(points) == list(range(len(points)))


@given(POINTS)
def test_nearest_distances_are_those_of_a_tree(points):
    distances, _ = KDTree(points).query(points, k=2)
    np.testing.assert_allclose(nearest_distances(points), distances[:, 1], rtol=1e-15)
    assert closest_pair(points) == min(nearest_distances(points))


def test_a_dot_that_is_alone_has_no_nearest():
    assert nearest_distances(((5, 5),)) == [None]
    assert nearest_distances(()) == []
    assert closest_pair(((5, 5),)) == math.inf


@given(POINTS, st.sampled_from([14, 16, 28, 32]))
def test_an_offset_and_its_patch_give_the_centre_again(points, patch):
    for (x, y), (dx, dy) in zip(points, patch_offsets(points, patch), strict=True):
        assert 0 <= dx < patch
        assert 0 <= dy < patch
        assert (x // patch * patch + dx, y // patch * patch + dy) == (x, y)


def test_many_dots_need_little_memory():
    points = [(x, y) for x in range(0, 400, 5) for y in range(0, 375, 5)]
    tracemalloc.start()
    try:
        assert nearest_distances(tuple(points)) == [5.0] * 6000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6000**2 * 8 / 2  # half of one matrix of all distances
