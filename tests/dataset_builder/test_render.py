"""Pixels against a brute-force rendering that shares no code with the builder's."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label

from dataset_builder.render import disc, render
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS, SetSpec

X, Y = np.meshgrid(np.arange(1024), np.arange(1024))


def squared(center):
    return (X - center[0]) ** 2 + (Y - center[1]) ** 2


def brute_force(sample, radius, background=255):
    pixels = np.full((1024, 1024), background, np.uint8)
    for center, level in zip(sample.centers, sample.intensities, strict=True):
        pixels[squared(center) <= radius**2] = level
    return pixels


@pytest.mark.parametrize(("radius", "pixels"), [(0, 1), (1, 5), (5, 81), (10, 317), (64, 12853)])
def test_a_dot_has_the_pixels_of_the_specification(radius, pixels):
    assert disc(radius).sum() == pixels


@pytest.mark.parametrize(
    "name",
    ["halo_count", "halo_count_balanced", "halo_count_single", "halo_count_wide", "halo_count_three", "halo_count_large",
     "halo_layout_annulus", "halo_layout_center", "halo_layout_grid"],
)  # fmt: skip
def test_an_image_of_dots_is_the_brute_force_one(name):
    spec = SETS[name]
    for index in range(3):
        sample = draw_sample(spec, index)
        np.testing.assert_array_equal(render(spec, sample), brute_force(sample, spec.radius))


def test_the_dark_pixels_of_the_papers_set_are_317_per_dot():
    for index in range(5):
        sample = draw_sample(SETS["halo_count"], index)
        assert (render(SETS["halo_count"], sample) < 255).sum() == 317 * sample.count


def test_the_inverted_image_is_255_minus_the_plain_one():
    plain, inverted = (
        render(SETS[name], draw_sample(SETS[name], 4)) for name in ("halo_enhance_base", "halo_enhance_invert")
    )
    np.testing.assert_array_equal(inverted, 255 - plain)


@pytest.mark.parametrize("name", ["base", "r20", "r32"])
def test_no_dot_of_an_enhanced_set_is_cut_or_touches_another(name):
    spec = SETS[f"halo_enhance_{name}"]
    for index in range(40):
        sample = draw_sample(spec, index)
        pixels = render(spec, sample)
        assert (pixels < 255).sum() == sample.count * disc(spec.radius).sum()
        _, pieces = label(pixels < 255, structure=np.ones((3, 3)))
        assert pieces == sample.count
    np.testing.assert_array_equal(pixels, brute_force(sample, spec.radius))


@pytest.mark.parametrize(("name", "near", "far"), [("outline", 14, 16), ("crosshair", 14, 19)])
def test_marks_are_drawn_around_each_dot_and_the_dots_stay(name, near, far):
    spec = SETS[f"halo_enhance_{name}"]
    sample = draw_sample(spec, 2)
    expected = brute_force(sample, 10)
    for (x, y), level in zip(sample.centers, sample.intensities, strict=True):
        ring = (squared((x, y)) > near**2) & (squared((x, y)) <= far**2)
        if name == "crosshair":
            ring &= np.minimum(abs(X - x), abs(Y - y)) <= 1
        expected[ring] = level
    np.testing.assert_array_equal(render(spec, sample), expected)


def test_the_grid_is_the_same_on_every_image_and_says_nothing_of_the_count():
    spec = SETS["halo_enhance_grid"]
    lines = (X % 128 == 0) & (X > 0) | (Y % 128 == 0) & (Y > 0)
    for index in range(5):
        sample = draw_sample(spec, index)
        dots = brute_force(sample, 10)
        np.testing.assert_array_equal(render(spec, sample), np.where((dots == 255) & lines, 160, dots))


def test_noise_is_of_mean_232_and_deviation_8_and_leaves_the_dots_alone():
    spec = SETS["halo_count_noise"]
    sample = draw_sample(spec, 0)
    pixels = render(spec, sample)
    plain = render(SETS["halo_count"], draw_sample(SETS["halo_count"], 0))
    np.testing.assert_array_equal(pixels[plain < 255], plain[plain < 255])
    noise = pixels[plain == 255].astype(float)
    assert abs(noise.mean() - 232) < 0.05
    assert abs(noise.std() - 8) < 0.03
    assert (noise.min(), noise.max()) == (209, 255)
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.005


def test_noise_is_the_sum_of_three_nibbles_and_a_bit_of_the_hash():
    spec = SETS["halo_count_blank"]
    sample = next(s for i in range(9) if (s := draw_sample(spec, i)).noise)
    digest = hashlib.shake_256(f"1|halo_count_blank|0|{sample.index}|noise".encode()).digest(2 * 1024 * 1024)
    low, high = digest[2 * 5000], digest[2 * 5000 + 1]
    expected = 209 + low % 16 + low // 16 + high % 16 + high // 16 % 2
    assert render(spec, sample).ravel()[5000] == expected
    values = [a + b + c + d - 23 for a in range(16) for b in range(16) for c in range(16) for d in range(2)]
    assert (np.mean(values), np.var(values)) == (0, 64)


def test_no_two_noise_images_are_alike():
    spec = SETS["halo_count_blank"]
    noise = [render(spec, s).tobytes() for i in range(9) if (s := draw_sample(spec, i)).noise]
    assert len(set(noise)) == len(noise) == 3


def test_a_relation_shows_a_black_dot_and_a_red_one():
    spec = SETS["halo_relate"]
    sample = draw_sample(spec, 1)
    pixels = render(spec, sample)
    expected = np.full((1024, 1024, 3), 255, np.uint8)
    (black, red), (dark, shade) = sample.centers, sample.intensities
    expected[squared(black) <= 400] = dark
    expected[squared(red) <= 400] = (255, shade, shade)
    np.testing.assert_array_equal(pixels, expected)


def test_a_number_is_drawn_with_the_cells_of_its_digits():
    spec = SETS["halo_ocr"]
    sample = next(s for i in range(90) if (s := draw_sample(spec, i)).answer == "47")
    pixels = render(spec, sample)
    (x, y), _ = sample.centers
    cells = pixels[y - 112 + 16 : y + 112 : 32, x - 80 + 16 : x + 80 + 192 : 32] < 255
    assert ["".join(".#"[cell] for cell in row) for row in cells.astype(int)] == [
        "...#. #####".replace(" ", "."),
        "..##. ....#".replace(" ", "."),
        ".#.#. ...#.".replace(" ", "."),
        "#..#. ..#..".replace(" ", "."),
        "##### .#...".replace(" ", "."),
        "...#. .#...".replace(" ", "."),
        "...#. .#...".replace(" ", "."),
    ]
    assert set(np.unique(pixels)) == {sample.intensities[0], 255}
    assert (pixels < 255).sum() == cells.sum() * 32**2


def test_a_dot_at_the_edge_is_cut_and_leaves_the_other_side_alone():
    spec = replace(SetSpec(name="edge", counts=(1, 1)), size=64)
    sample = replace(draw_sample(spec, 0), centers=((0, 63),), intensities=(7,))
    pixels = render(spec, sample)
    expected = np.where((X[:64, :64] - 0) ** 2 + (Y[:64, :64] - 63) ** 2 <= 100, 7, 255)
    np.testing.assert_array_equal(pixels, expected)
