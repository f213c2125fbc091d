import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from halo_probe.errors import UsageError
from halo_probe.metrics.geometry import lay_out

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())
DOTS = VECTORS["dots"]


@st.composite
def scenes(draw, radii=(1, 3, 6)):
    """Dots with a gap of at least 2 px on a small image, and a grid that need not divide it."""
    height, width, radius = draw(st.integers(20, 60)), draw(st.integers(20, 60)), draw(st.sampled_from(radii))
    candidates = draw(
        st.lists(st.tuples(st.integers(0, width - 1), st.integers(0, height - 1)), min_size=1, max_size=8)
    )
    dots = []
    for dot in candidates:
        if all(np.hypot(dot[0] - x, dot[1] - y) >= 2 * radius + 2 for x, y in dots):
            dots.append(dot)
    grid = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return {"dots": dots, "radius": radius, "image": (height, width), "grid": grid}


def pixels(scene, inside):
    """The mask of the pixels (u, v) of the image for which inside(u, v)."""
    height, width = scene["image"]
    return np.array([[inside(u, v) for u in range(width)] for v in range(height)], dtype=np.float64)


def pooled(mask, grid, view=None):
    """Area in each cell: each pixel is cut into h × w parts, small enough for each to lie in one cell."""
    (height, width), (h, w) = mask.shape, grid
    left, top, right, bottom = view or (0, 0, width, height)
    assert all(isinstance(side, int) for side in (left, top, right, bottom))
    canvas = np.zeros((bottom - top, right - left))
    for v, u in itertools.product(range(max(top, 0), min(bottom, height)), range(max(left, 0), min(right, width))):
        canvas[v - top, u - left] = mask[v, u]
    parts = np.kron(canvas, np.ones((h, w))) / (h * w)
    return parts.reshape(h, bottom - top, w, right - left).sum(axis=(1, 3)).ravel()


def disc(dot, radius):
    return lambda u, v: (u - dot[0]) ** 2 + (v - dot[1]) ** 2 <= radius**2


@pytest.mark.parametrize(("radius", "dark"), [(10, 317), (64, 12853), (1, 5)])
def test_a_dot_is_the_pixels_at_most_its_radius_away(radius, dark):
    layout = lay_out([(500, 400)], radius=radius, image=(1024, 1024), grid=(37, 24))
    assert layout.dot_areas.sum() == pytest.approx(dark, abs=1e-9)


@pytest.mark.parametrize(("side", "sizes"), [(32, (30, 118, 876)), (16, (20, 97, 139))])
def test_the_regions_of_the_layout_of_the_vectors_have_their_sizes(side, sizes):
    layout = lay_out(DOTS, radius=10, image=(1024, 1024), grid=(side, side))
    assert (layout.on_dots.sum(), layout.around.sum(), (~layout.near).sum()) == sizes
    assert layout.hull_dots.nonzero()[0].tolist() == [0, 2, 3, 6, 8, 10, 11]


@given(scenes())
def test_areas_of_dots_are_those_of_their_pixels(scene):
    layout = lay_out(**scene)
    for areas, dot in zip(layout.dot_areas, scene["dots"], strict=True):
        assert areas == pytest.approx(pooled(pixels(scene, disc(dot, scene["radius"])), scene["grid"]), abs=1e-9)


@pytest.mark.parametrize("view", [(-20, 0, 60, 40), (10, 5, 50, 33), (-7, -9, 45, 81)])
def test_a_padded_or_cropped_view_counts_what_it_shows(view):
    scene = {"dots": [(12, 8), (33, 21), (1, 30), (20, 1), (38, 38)], "radius": 4, "image": (40, 40), "grid": (5, 7)}
    layout = lay_out(**scene, view=view)
    for areas, dot in zip(layout.dot_areas, scene["dots"], strict=True):
        expected = pooled(pixels(scene, disc(dot, 4)), scene["grid"], view)
        assert areas == pytest.approx(expected, abs=1e-9)


def test_an_uneven_resize_is_the_same_as_none():
    square = lay_out(DOTS, radius=10, image=(1024, 1024), grid=(24, 37))
    explicit = lay_out(DOTS, radius=10, image=(1024, 1024), grid=(24, 37), view=(0, 0, 1024, 1024))
    assert np.array_equal(square.dot_areas, explicit.dot_areas)


@pytest.mark.parametrize("side", [24, 37])
def test_cells_that_cut_pixels_get_what_an_integral_image_with_bilinear_edges_gives(side):
    v, u = np.mgrid[:1024, :1024]
    dark = np.any([(u - x) ** 2 + (v - y) ** 2 <= 100 for x, y in DOTS], axis=0)
    integral = np.zeros((1025, 1025))
    integral[1:, 1:] = dark.cumsum(axis=0).cumsum(axis=1)
    borders = np.arange(side + 1) * 1024 / side
    low = np.minimum(borders.astype(int), 1023)
    part = borders - low
    rows = integral[low] * (1 - part)[:, None] + integral[low + 1] * part[:, None]
    corners = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    expected = np.diff(np.diff(corners, axis=0), axis=1).ravel()
    layout = lay_out(DOTS, radius=10, image=(1024, 1024), grid=(side, side))
    assert layout.dot_areas.sum(axis=0) == pytest.approx(expected, abs=1e-6)
    assert layout.dot_areas.sum() == pytest.approx(12 * 317, abs=1e-6)


@given(scenes())
def test_a_dots_own_cells_hold_a_twentieth_or_half_an_even_share_and_the_ring_is_their_neighbours(scene):
    layout = lay_out(**scene)
    h, w = scene["grid"]
    own, ring = set(), set()
    for areas in layout.dot_areas:
        least = min(0.05, 1 / (2 * sum(area > 1e-9 for area in areas)))
        own |= {k for k in range(h * w) if areas[k] > 1e-9 and areas[k] / areas.sum() >= least - 1e-12}
    for k in own:
        ring |= {
            row * w + column
            for row in range(max(k // w - 1, 0), min(k // w + 2, h))
            for column in range(max(k % w - 1, 0), min(k % w + 2, w))
        }
    assert set(layout.on_dots.nonzero()[0]) == own
    assert set(layout.around.nonzero()[0]) == ring - own
    assert set(layout.near.nonzero()[0]) == ring


def test_a_shared_cell_is_split_in_proportion_to_the_dark_pixels():
    layout = lay_out([(4, 4), (12, 4)], radius=3, image=(20, 20), grid=(2, 2))
    first, second = layout.dot_areas
    assert first[0] == 29
    assert second[0] == 1
    # The second dot has 1 of 29 pixels in the first cell: less than a twentieth, so that the cell is not its own.
    assert layout.dot_weights[:, 0].tolist() == [1, 0]
    layout = lay_out([(4, 4), (11, 4)], radius=3, image=(20, 20), grid=(2, 2))
    assert layout.dot_areas[:, 0].tolist() == [29, 6]
    assert layout.dot_weights[:, 0] == pytest.approx([29 / 35, 6 / 35])


@given(scenes())
def test_dot_weights_divide_the_own_cells_and_shares_the_dark_pixels(scene):
    layout = lay_out(**scene)
    assert layout.dot_weights.sum(axis=0) == pytest.approx(layout.on_dots.astype(float))
    assert layout.dot_shares.sum() == pytest.approx(1)


def brute_hull(dots, image):
    """Masks of band and interior in integers: no rounding at a distance of exactly 64 px."""
    corners = np.asarray(dots, dtype=np.int64)[ConvexHull(dots).vertices]
    v, u = np.mgrid[: image[0], : image[1]]
    band, inside = np.zeros(image, dtype=bool), np.ones(image, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        length = ex * ex + ey * ey
        along = (u - ax) * ex + (v - ay) * ey
        across = (u - ax) * ey - (v - ay) * ex
        band |= (along >= 0) & (along <= length) & (across**2 <= 64**2 * length)
        band |= (u - ax) ** 2 + (v - ay) ** 2 <= 64**2
        inside &= across <= 0
    return band, inside & ~band


def assert_hull(dots, image):
    # One cell per pixel, so that areas are the pixels themselves.
    layout = lay_out(dots, radius=1, image=image, grid=image)
    band, interior = brute_hull(dots, image)
    assert np.array_equal(layout.band, np.where(layout.near, 0, band.ravel()))
    assert np.array_equal(layout.interior, np.where(layout.near, 0, interior.ravel()))


points = st.tuples(st.integers(0, 349), st.integers(0, 299))


@settings(max_examples=20)
@given(st.lists(points, min_size=3, max_size=9, unique=True))
def test_band_and_interior_are_those_of_every_pixel(dots):
    if np.linalg.matrix_rank(np.array(dots[1:]) - dots[0]) == 2:
        assert_hull(dots, (300, 350))


@pytest.mark.parametrize(
    "dots",
    [
        [(40, 40), (310, 40), (310, 260), (40, 260)],
        # Edges of the 3-4-5 triangle: pixels at exactly 64 px.
        [(20, 20), (170, 220), (330, 100), (180, 10)],
        [(5, 150), (340, 149), (340, 151)],
    ],
)
def test_a_pixel_at_exactly_64_px_is_in_the_band(dots):
    assert_hull(dots, (300, 350))


@given(st.lists(points, min_size=4, max_size=16, unique=True))
def test_hull_dots_are_the_vertices_of_the_convex_hull(dots):
    if np.linalg.matrix_rank(np.array(dots[1:]) - dots[0]) == 2:
        layout = lay_out(dots, radius=2, image=(300, 350), grid=(4, 4))
        assert layout.hull_dots.nonzero()[0].tolist() == sorted(ConvexHull(dots).vertices)


@pytest.mark.parametrize("dots", [[(30, 30)], [(30, 30), (200, 90)], [(30, 30), (60, 60), (200, 200)]])
def test_a_hull_without_area_has_neither_band_nor_interior(dots):
    layout = lay_out(dots, radius=5, image=(256, 256), grid=(8, 8))
    assert not layout.band.any()
    assert not layout.interior.any()
    assert layout.hull_dots.sum() == min(len(dots), 2)


@given(scenes(radii=(8, 9)))
def test_cores_and_rims_are_pixels_by_their_distance(scene):
    layout = lay_out(**scene)
    radius, (height, width), (h, w) = scene["radius"], scene["image"], scene["grid"]
    if radius < max(height / h, width / w):
        assert not layout.cores.any()
        assert not layout.rims.any()
        return
    # A pixel of two rims counts twice.
    cores = sum(pixels(scene, disc(dot, 0.5 * radius)) for dot in scene["dots"])
    rims = sum(
        pixels(scene, disc(dot, 1.25 * radius)) - pixels(scene, disc(dot, 0.75 * radius)) for dot in scene["dots"]
    )
    assert layout.cores == pytest.approx(pooled(cores, scene["grid"]), abs=1e-9)
    assert layout.rims == pytest.approx(pooled(rims, scene["grid"]), abs=1e-9)


def test_large_dots_are_at_least_a_cell_in_radius():
    large = {"radius": 64, "image": (1024, 1024)}
    assert lay_out([(500, 500)], **large, grid=(16, 16)).cores.any()
    assert not lay_out([(500, 500)], **large, grid=(32, 15)).cores.any()


def test_the_frame_is_the_outermost_ring_of_cells():
    assert lay_out(DOTS, radius=10, image=(1024, 1024), grid=(32, 32)).frame.sum() == 124
    frame = lay_out([(5, 5)], radius=2, image=(10, 10), grid=(3, 4)).frame.reshape(3, 4)
    assert frame.tolist() == [[True] * 4, [True, False, False, True], [True] * 4]
    assert lay_out([(5, 5)], radius=2, image=(10, 10), grid=(2, 5)).frame.all()


def test_a_centre_is_in_the_cell_of_its_pixel():
    layout = lay_out([(31, 32), (32, 31), (1023, 1023)], radius=3, image=(1024, 1024), grid=(32, 32))
    assert layout.center_cells.tolist() == [32, 1, 1023]
    # A border at 33⅓: most of pixel 33 is beyond it.
    assert lay_out([(33, 33)], radius=3, image=(100, 100), grid=(3, 3)).center_cells.tolist() == [4]


def test_a_dot_out_of_view_has_no_cell_and_still_makes_the_hull():
    dots = [(10, 10), (90, 10), (10, 90), (40, 40)]
    layout = lay_out(dots, radius=4, image=(100, 100), grid=(5, 5), view=(0, 0, 50, 50))
    assert layout.dot_cells.any(axis=1).tolist() == [True, False, False, True]
    assert layout.hull_dots.tolist() == [True, True, True, False]
    assert layout.dot_shares.sum() == pytest.approx(1)


def test_a_view_of_less_than_a_dark_pixel_still_has_shares():
    layout = lay_out([(10, 10)], radius=2, image=(40, 40), grid=(3, 3), view=(12.7, 0, 40, 40))
    assert layout.dot_areas.sum() == pytest.approx(0.3)
    assert layout.dot_shares.sum() == pytest.approx(1)


def areas_pixel_by_pixel(dot, radius, side):
    """Dark area of a dot in each cell of a side × side grid on 1024², times side²: whole numbers, no rounding."""
    (x, y), areas = dot, Counter()
    for v, u in itertools.product(range(y - radius, y + radius + 1), range(x - radius, x + radius + 1)):
        if (u - x) ** 2 + (v - y) ** 2 <= radius**2 and 0 <= u < 1024 and 0 <= v < 1024:
            for row in range(v * side // 1024, ((v + 1) * side - 1) // 1024 + 1):
                down = min((v + 1) * side, (row + 1) * 1024) - max(v * side, row * 1024)
                for column in range(u * side // 1024, ((u + 1) * side - 1) // 1024 + 1):
                    across = min((u + 1) * side, (column + 1) * 1024) - max(u * side, column * 1024)
                    areas[row * side + column] += down * across
    return areas


@pytest.mark.parametrize("radius", [10, 64])
@pytest.mark.parametrize("side", [16, 24, 32, 37, 48])
def test_random_layouts_of_the_study_have_the_cells_of_every_pixel(side, radius):
    rng = np.random.default_rng(side * radius)
    for _ in range(3):
        dots = rng.integers(0, 1024, (6, 2)).tolist()
        layout = lay_out(dots, radius=radius, image=(1024, 1024), grid=(side, side))
        near = set()
        for place, dot in enumerate(dots):
            areas = areas_pixel_by_pixel(dot, radius, side)
            expected = np.zeros(side * side)
            expected[list(areas)] = [area / side**2 for area in areas.values()]
            assert layout.dot_areas[place] == pytest.approx(expected, abs=1e-9)
            dark = sum(areas.values())
            # At least .05 of the dot, or half an even share of the cells that it touches.
            own = {k for k, area in areas.items() if 20 * area >= dark or 2 * len(areas) * area >= dark}
            assert set(layout.dot_cells[place].nonzero()[0]) == own
            near |= {
                row * side + column
                for k in own
                for row in range(max(k // side - 1, 0), min(k // side + 2, side))
                for column in range(max(k % side - 1, 0), min(k % side + 2, side))
            }
        assert set(layout.near.nonzero()[0]) == near
        assert (layout.on_dots == layout.dot_cells.any(axis=0)).all()


@pytest.mark.parametrize("side", [16, 24, 32, 37, 48, 64])
def test_most_of_a_large_dot_is_in_its_own_cells_on_every_grid(side):
    centers = [(64 + 97 * k % 896, 64 + 61 * k % 896) for k in range(200)]
    layout = lay_out(centers, radius=64, image=(1024, 1024), grid=(side, side))
    own = np.where(layout.dot_cells, layout.dot_areas, 0).sum(axis=1) / 12853
    assert 0.935 < own.mean() < 0.97
    assert own.min() > 0.85


BAD = {
    "no dots": ({"dots": np.zeros((0, 2), int)}, "integer centres"),
    "floats": ({"dots": [(1.5, 2.0)]}, "integer centres"),
    "not pairs": ({"dots": [1, 2]}, "integer centres"),
    "outside": ({"dots": [(100, 10)]}, "outside the image"),
    "negative": ({"dots": [(-1, 10)]}, "outside the image"),
    "no radius": ({"radius": 0}, "must be positive"),
    "no grid": ({"grid": (0, 4)}, "must be positive"),
    "empty view": ({"view": (10, 10, 10, 40)}, "must be positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_layout_that_cannot_be_is_refused(name):
    change, message = BAD[name]
    good = {"dots": [(10, 10)], "radius": 3, "image": (100, 100), "grid": (4, 4)}
    with pytest.raises(UsageError, match=message) as caught:
        lay_out(**good | change)
    assert "\n" not in str(caught.value)


def test_the_dots_are_not_written_to():
    dots = np.array(DOTS)
    dots.setflags(write=False)
    lay_out(dots, radius=10, image=(1024, 1024), grid=(32, 32))
    assert dots.tolist() == DOTS
