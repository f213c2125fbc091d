"""The demonstration picture: the right pixels, one scale, and text that cannot break it."""

import numpy as np
import pytest
from PIL import Image

from halo_probe.errors import InvalidAttentionError, UsageError
from halo_probe.overlay import draw_overlay

# Where the panels of an upright 1:2 image lie under one line of title.
LEFT, TOP, WIDTH, HEIGHT, GAP = 20, 46, 320, 640, 20
HOT, COLD = (254, 241, 124), (143, 103, 152)  # the ends of viridis, 60 %, over white
WHITE = Image.new("L", (512, 1024), 255)


def draw(maps, *, image=WHITE, grid=(8, 4), titles=None, caption="caption"):
    return draw_overlay(image, maps, grid=grid, titles=titles or ["title"] * len(maps), caption=caption)


def panel(picture, number=0):
    left = LEFT + number * (WIDTH + GAP)
    return np.asarray(picture)[TOP : TOP + HEIGHT, left : left + WIDTH]


def planted(cell, *, grid=(8, 4), weight=0.9):
    weights = np.full(grid, (1 - weight) / (grid[0] * grid[1] - 1))
    weights[cell] = weight
    return weights


@pytest.mark.parametrize("cell", [(0, 0), (2, 3), (7, 0), (7, 3)])
def test_a_planted_hot_cell_lights_the_pixels_that_its_token_covers(cell):
    hot = (panel(draw([planted(cell)])) == HOT).all(axis=-1)
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[cell[0] * 80 : (cell[0] + 1) * 80, cell[1] * 80 : (cell[1] + 1) * 80] = True
    assert (hot == expected).all()


def test_cells_of_a_grid_that_does_not_divide_the_image_are_placed_to_the_pixel():
    hot = (panel(draw([planted((3, 1), grid=(37, 3))], grid=(37, 3))) == HOT).all(axis=-1)
    rows, columns = np.nonzero(hot)
    assert (rows.min(), rows.max() + 1) == (np.ceil(3 * 640 / 37), np.ceil(4 * 640 / 37))
    assert (columns.min(), columns.max() + 1) == (np.ceil(320 / 3), np.ceil(640 / 3))


def test_a_flat_map_and_a_map_as_a_grid_are_the_same_picture():
    weights = planted((2, 3))
    assert draw([weights]).tobytes() == draw([weights.ravel()]).tobytes()


def test_all_panels_share_one_scale():
    strong, weak = planted((1, 1), weight=0.9), planted((1, 1), weight=0.3)
    weak[5, 2] = strong[5, 2]
    picture = draw([strong, weak])
    first, second = panel(picture, 0), panel(picture, 1)
    assert tuple(first[120, 120]) == HOT
    assert tuple(second[120, 120]) != HOT
    assert tuple(first[440, 200]) == tuple(second[440, 200])


def test_the_colour_bar_runs_from_the_coldest_to_the_hottest_colour_and_carries_numbers():
    weights = planted((2, 3))
    once, twice = draw([weights]), draw([2 * weights])
    bar_left = LEFT + WIDTH + GAP
    bar = np.asarray(once)[TOP : TOP + HEIGHT, bar_left]
    assert (tuple(bar[0]), tuple(bar[-1])) == (HOT, COLD)
    lightness = bar.astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) <= 0.5).all()
    numbers = bar_left + 24
    assert once.crop((0, 0, numbers, once.height)).tobytes() == twice.crop((0, 0, numbers, once.height)).tobytes()
    assert once.tobytes() != twice.tobytes()


def test_dots_stay_visible_on_a_cold_cell():
    image = WHITE.copy()
    image.paste(0, (200, 400, 240, 440))
    cold = panel(draw([planted((0, 0))], image=image))
    assert (cold[260, 135].astype(int) + 80 < cold[200, 135]).all()


def test_colour_in_the_image_does_not_tint_the_heat():
    red = Image.new("RGB", WHITE.size, (255, 0, 0))
    assert (panel(draw([planted((2, 3))], image=red)) == panel(draw([planted((2, 3))], image=red.convert("L")))).all()


@pytest.mark.parametrize("image", [Image.new(mode, (64, 128)) for mode in ("1", "L", "P", "RGBA", "CMYK")])
def test_any_image_mode_is_drawn(image):
    assert draw([planted((0, 0))], image=image).mode == "RGB"


@pytest.mark.parametrize("size", [(1024, 5), (5, 1024), (1, 1)])
def test_any_shape_of_image_leaves_room_for_its_title(size):
    picture = draw([planted((0, 0))] * 2, image=Image.new("L", size), titles=["step 0, layer 3, 1024 tokens"] * 2)
    assert picture.width > 2 * 240
    assert picture.height < 1000


@pytest.mark.parametrize(
    "title",
    ["", "  ", "\n\n\n", "\0\x1b[31m\t\r", "<b>&amp;</b> %s {}", "Ġ12 · 数 🙂", "\ud800", "W" * 300, "a " * 200],
)
def test_no_title_or_caption_reaches_into_the_next_panel_or_breaks_the_picture(title):
    maps = [planted((0, 0))] * 2
    picture = draw(maps, titles=[title, ""])
    gap = picture.crop((LEFT + WIDTH, 0, LEFT + WIDTH + GAP, picture.height - 2 * GAP - 26))
    assert np.asarray(gap).min() == 255
    assert draw(maps, caption=title).width == picture.width == draw(maps).width


def test_characters_without_a_glyph_are_told_apart():
    assert draw([planted((0, 0))], titles=["数"]).tobytes() != draw([planted((0, 0))], titles=["字"]).tobytes()


@pytest.mark.parametrize(
    ("maps", "grid", "titles"),
    [
        ([], (8, 4), []),
        ([planted((0, 0))], (8, 4), ["one", "two"]),
        ([planted((0, 0))], (8, 8), ["one"]),
        ([planted((0, 0))], (0, 4), ["one"]),
        (0.5, (1, 1), ["one"]),
    ],
)
def test_maps_that_do_not_fit_are_one_line_with_the_shapes(maps, grid, titles):
    with pytest.raises(UsageError, match=f"{len(titles)} titles and a grid of {grid[0]}x{grid[1]}") as caught:
        draw_overlay(WHITE, maps, grid=grid, titles=titles, caption="")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_weights_that_are_no_attention_are_refused(bad):
    weights = planted((0, 0))
    weights[3, 3] = bad
    with pytest.raises(InvalidAttentionError, match="negative or non-finite"):
        draw([weights])


def test_maps_of_zeros_alone_are_refused():
    with pytest.raises(InvalidAttentionError, match="zeros alone"):
        draw(np.zeros((2, 8, 4)))


def test_a_uniform_map_is_one_colour():
    assert len(np.unique(panel(draw([np.full(32, 1 / 32)])).reshape(-1, 3), axis=0)) == 1


def test_the_arguments_are_not_written_to():
    weights, image = np.stack([planted((0, 0))]), WHITE.copy()
    weights.flags.writeable = False
    draw(weights, image=image)
    assert image.tobytes() == WHITE.tobytes()
    assert image.mode == "L"
