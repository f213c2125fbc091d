"""Samples: index-stable, of the asked marginals, and independent of everything but version, set, seed and index."""

from collections import Counter
from dataclasses import replace

import pytest

from dataset_builder.geometry import closest_pair
from dataset_builder.samples import draw_sample
from dataset_builder.sets import BLANKS, RELATIONS, SETS, SetSpec

SMALL = SetSpec(name="mine", counts=(2, 4), size=256)


def draw(spec, n):
    return [draw_sample(spec, index) for index in range(n)]


def test_a_sample_does_not_depend_on_the_order_or_the_number_of_those_drawn():
    forward = draw(SMALL, 30)
    assert [draw_sample(replace(SMALL, n=10**6), index) for index in reversed(range(30))] == forward[::-1]


def test_a_far_sample_costs_no_more_than_a_near_one():
    assert draw_sample(SMALL, 10**9).index == 10**9


@pytest.mark.parametrize("changes", [{"seed": 1}, {"name": "other"}])
def test_another_seed_or_name_makes_another_set(changes):
    assert not {s.centers for s in draw(SMALL, 50)} & {s.centers for s in draw(replace(SMALL, **changes), 50)}


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("halo_count_balanced", 100),
        ("halo_count_single", 40),
        ("halo_count_wide", 4),
        ("halo_count_three", 1),
        ("halo_ocr", 4),
    ],
)
def test_a_balanced_set_holds_each_count_equally_often(name, each):
    spec = SETS[name]
    low, high = spec.counts
    quick = replace(spec, radius=0, gap=0, size=1024)  # placing hundreds of dots is not what is tested
    counts = Counter(draw_sample(quick, index).count for index in range(spec.n))
    assert counts == dict.fromkeys(range(low, high + 1), each)


def test_each_block_of_a_balanced_set_is_a_permutation_of_its_own():
    spec = replace(SETS["halo_count_balanced"], radius=0, gap=0)
    blocks = [tuple(draw_sample(spec, 7 * block + place).count for place in range(7)) for block in range(20)]
    assert all(sorted(block) == list(range(10, 17)) for block in blocks)
    assert len(set(blocks)) > 15


def test_the_counts_of_the_papers_set_are_uniform():
    counts = Counter(draw_sample(SETS["halo_count"], index).count for index in range(2100))
    assert set(counts) == set(range(10, 17))
    assert all(abs(count - 300) < 70 for count in counts.values())


def test_intensities_are_of_0_to_20():
    levels = Counter(level for sample in draw(SETS["halo_count"], 256) for level in sample.intensities)
    assert set(levels) == set(range(21))


@pytest.mark.parametrize("name", [name for name, spec in SETS.items() if spec.layout_of])
def test_a_set_of_the_layouts_of_another_has_its_counts_and_layouts(name):
    for seed in (0, 3):
        plain = draw(replace(SETS[SETS[name].layout_of], seed=seed), 8)
        enhanced = draw(replace(SETS[name], seed=seed), 8)
        assert [(s.count, s.answer, s.centers) for s in enhanced] == [(s.count, s.answer, s.centers) for s in plain]


def test_the_enhanced_centres_are_40_px_from_the_edge_and_80_px_apart():
    for sample in draw(SETS["halo_enhance_base"], 256):
        assert all(40 <= value <= 1023 - 40 for center in sample.centers for value in center)
        assert closest_pair(sample.centers) >= 80


def test_the_inverted_set_mirrors_the_intensities():
    plain, inverted = draw_sample(SETS["halo_enhance_base"], 5), draw_sample(SETS["halo_enhance_invert"], 5)
    assert inverted.background == 0
    assert [255 - level for level in inverted.intensities] == list(plain.intensities)


def test_blank_images_are_white_grey_and_noise_in_equal_parts():
    samples = draw(SETS["halo_count_blank"], 32)
    assert {(s.count, s.answer, s.centers) for s in samples} == {(0, "0", ())}
    kinds = Counter("noise" if s.noise else "white" if s.background == 255 else "grey" for s in samples)
    assert set(kinds) == set(BLANKS)
    assert max(kinds.values()) - min(kinds.values()) <= 1
    assert all(64 <= s.background < 192 for s in samples if s.background not in (232, 255))


def test_a_relation_is_told_by_the_longer_way_between_the_dots_and_by_far():
    samples = draw(SETS["halo_relate"], 256)
    assert Counter(s.answer for s in samples) == dict.fromkeys(RELATIONS, 64)
    for sample in samples:
        (x, y), (u, v) = sample.centers
        dx, dy = x - u, y - v
        expected = {"left": -dx, "right": dx, "above": -dy, "below": dy}[sample.answer]
        assert expected >= 153
        assert min(abs(dx), abs(dy)) <= expected // 4
        assert all(20 <= value <= 1003 for value in (x, y, u, v))


def test_a_number_to_read_lies_in_the_image_with_its_digits_side_by_side():
    for sample in draw(SETS["halo_ocr"], 90):
        (x, y), (u, v) = sample.centers
        assert sample.answer == str(sample.count)
        assert (u - x, v - y) == (192, 0)
        assert x >= 80
        assert u <= 1024 - 80
        assert 112 <= y <= 1024 - 112
