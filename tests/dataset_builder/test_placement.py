"""Placement: gaps and margins hold, regions hold, and what cannot fit ends in seconds with a count that can."""

import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from dataset_builder.errors import PlacementError
from dataset_builder.placement import Space, check_count, place_dots
from dataset_builder.stream import random_words

LAYOUTS = ["uniform", "annulus", "center", "grid"]


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=40)
@given(count=st.integers(0, 16), seed=st.integers(0, 10**6))
def test_every_layout_keeps_its_count_gaps_and_margins(layout, count, seed):
    centers = np.array(place_dots(random_words(b"%d" % seed), count, space=Space(1024, 10, 20, layout)), int).reshape(
        -1, 2
    )
    assert len(centers) == count
    assert count == 0 or (centers.min() >= 10 and centers.max() <= 1013)
    assert count < 2 or pdist(centers).min() >= 40


def test_dots_may_stand_exactly_as_close_as_the_gap_allows_and_on_the_margin():
    space = Space(200, 10, 20, "uniform")
    centers = [place_dots(random_words(b"%d" % seed), 8, space=space) for seed in range(400)]
    assert min(pdist(np.array(layout)).min() for layout in centers) == 40
    values = {value for layout in centers for center in layout for value in center}
    assert {min(values), max(values)} == {10, 189}


@pytest.mark.parametrize(("layout", "near", "far"), [("annulus", 0.30, 0.45), ("center", 0, 0.25)])
def test_a_region_holds_its_dots(layout, near, far):
    for seed in range(30):
        centers = np.array(place_dots(random_words(b"%d" % seed), 16, space=Space(1024, 10, 20, layout)))
        distance = np.hypot(*(centers - 511.5).T)
        assert distance.min() >= near * 1024
        assert distance.max() <= far * 1024


def test_a_grid_has_its_dots_on_distinct_places_an_eighth_of_the_side_apart():
    origins = set()
    for seed in range(30):
        centers = np.array(place_dots(random_words(b"%d" % seed), 16, space=Space(1024, 10, 20, "grid")))
        assert len(np.unique(centers % 128, axis=0)) == 1
        assert len(np.unique(centers, axis=0)) == 16
        assert np.ptp(centers, axis=0).max() <= 6 * 128
        origins.add(tuple(centers[0] % 128))
    assert len(origins) > 20


def test_uniform_layouts_are_uniform():
    centers = np.concatenate(
        [place_dots(random_words(b"%d" % seed), 4, space=Space(1024, 10, 20, "uniform")) for seed in range(2000)]
    )
    counts, _, _ = np.histogram2d(*centers.T, bins=4, range=[[10, 1014], [10, 1014]])
    assert abs(counts - 500).max() < 100


@pytest.mark.parametrize("count", [450, 999])
def test_a_layout_that_cannot_succeed_ends_in_seconds_and_names_a_count_that_does(count):
    start = time.process_time()
    with pytest.raises(PlacementError, match="450 dots|999 dots") as error:
        place_dots(random_words(b"jam"), count, space=Space(1024, 10, 20, "uniform"))
    assert time.process_time() - start < 20
    largest = int(re.search(r"the largest count that fits is (\d+)", str(error.value))[1])
    assert 400 <= largest < 450
    centers = place_dots(random_words(b"fits"), largest, space=Space(1024, 10, 20, "uniform"))
    assert pdist(np.array(centers)).min() >= 40


@pytest.mark.parametrize(
    ("space", "largest"),
    [
        (Space(1024, 10, 20, "grid"), 49),
        (Space(20, 10, 20, "uniform"), 0),
        (Space(21, 10, 20, "uniform"), 1),
        (Space(100, 10, 20, "grid"), 0),
    ],
)
def test_the_largest_count_is_exact_where_it_is_known(space, largest):
    with pytest.raises(PlacementError, match=rf"largest count that fits is {largest}:"):
        place_dots(random_words(b"none"), 60, space=space)


def test_a_count_that_only_some_attempts_reach_is_refused_and_the_one_named_passes():
    space = Space(256, 10, 20, "uniform")

    def streams():
        return [random_words(b"attempt %d" % attempt) for attempt in range(4)]

    with pytest.raises(PlacementError) as error:
        check_count(streams(), 999, space=space)
    largest = int(re.search(r"the largest count that fits is (\d+):", str(error.value))[1])
    check_count(streams(), largest, space=space)
    with pytest.raises(PlacementError, match=f"^{largest + 1} dots .* the largest count that fits is {largest}:"):
        check_count(streams(), largest + 1, space=space)
