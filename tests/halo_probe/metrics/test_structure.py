import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import DBSCAN

from halo_probe.errors import InvalidAttentionError, UsageError
from halo_probe.metrics.geometry import lay_out
from halo_probe.metrics.structure import (
    bottom30,
    ck,
    ck_mass30,
    ck_obj,
    entropy_course,
    hs,
    random30,
    top30,
)

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())
CLUSTERS = (ck, ck_mass30, ck_obj)
H = [6.30, 6.20, 3.70, 3.75, 3.70, 3.80, 3.72, 3.78, 3.70, 3.75, 3.80, 4.90]

weights = st.one_of(st.integers(0, 3), st.integers(5, 100)).map(float)
maps = arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(2, 12)), elements=weights).filter(np.any)


@pytest.fixture(scope="module")
def vector_maps():
    layout = lay_out(VECTORS["dots"], radius=10, image=(1024, 1024), grid=(32, 32))
    sink = (np.arange(1024) == 31 * 32).astype(float)
    row, column = np.divmod(np.arange(1024), 32)
    return {
        "uniform": np.ones(1024),
        "perfect": layout.dot_shares,
        "ring": layout.around,
        "hull_bg": layout.band,
        "hull_dots": layout.dot_areas[layout.hull_dots].sum(axis=0),
        "inner_dots": layout.dot_areas[~layout.hull_dots].sum(axis=0),
        "sink": sink,
        "diffuse": sum(
            np.exp(-((32 * column + 15.5 - x) ** 2 + (32 * row + 15.5 - y) ** 2) / (2 * 128**2))
            for x, y in VECTORS["dots"]
        ),
        "half": 0.5 / 1024 + 0.5 * layout.dot_shares,
        "one_dot": layout.dot_areas[4],
        "sink90": 0.9 * sink + 0.1 * layout.dot_shares,
    }


@pytest.mark.parametrize("name", VECTORS["maps"])
def test_the_vectors_of_the_specification_hold(vector_maps, name):
    attention, expected = vector_maps[name], VECTORS["maps"][name]
    assert hs(attention) == pytest.approx(expected["hs"], abs=1e-9)
    assert ck(attention, grid=(32, 32)) == expected["ck"]
    assert ck_mass30(attention, grid=(32, 32)) == expected["ck_mass30"]


def test_the_entropy_of_a_uniform_map_of_576_tokens_is_that_of_the_specification():
    assert hs(np.ones(576)) == pytest.approx(6.35610708, abs=1e-8)


@given(maps)
def test_hs_is_its_sum_over_the_cells(attention):
    p = attention.ravel() / attention.sum()
    assert hs(attention.ravel()) == pytest.approx(-sum(x * np.log(x + 1e-9) for x in p), abs=1e-9)


@given(maps)
def test_ck_is_the_number_of_clusters_that_dbscan_finds(attention):
    p = attention.ravel() / attention.sum()
    cells = np.argwhere(attention / attention.sum() >= np.percentile(p, 90))
    labels = DBSCAN(eps=1.5, min_samples=3).fit_predict(cells)
    assert ck(attention.ravel(), grid=attention.shape) == len(set(labels) - {-1})


def count_components(chosen):
    """By flooding."""
    left, number = set(map(tuple, np.argwhere(chosen))), 0
    while left:
        number += 1
        front = [left.pop()]
        while front:
            row, column = front.pop()
            around = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            left -= around
            front += around
    return number


@given(maps)
def test_ck_obj_is_the_number_of_components_of_the_cells_at_twice_the_uniform_weight(attention):
    chosen = attention * attention.size >= 2 * attention.sum()
    assert ck_obj(attention.ravel(), grid=attention.shape) == count_components(chosen)


@given(maps)
def test_ck_mass30_is_the_number_of_components_of_the_smallest_set_with_30_percent(attention):
    weights = attention.ravel()
    chosen = np.zeros(weights.size, dtype=bool)
    for cell in sorted(range(weights.size), key=lambda k: (-weights[k], k)):
        if 10 * weights[chosen].sum() >= 3 * weights.sum():
            break
        chosen[cell] = True
    assert ck_mass30(weights, grid=attention.shape) == count_components(chosen.reshape(attention.shape))


def test_the_smallest_set_with_30_percent_does_not_depend_on_rounding():
    # 90 equal cells that do not touch: 27 hold 30 percent, and the sum of 27 ninetieths is below .3 in floating point.
    apart = np.zeros((6, 60))
    apart[::2, ::2] = 1
    assert ck_mass30(apart.ravel(), grid=(6, 60)) == 27


def test_components_of_neighbouring_maps_of_a_batch_do_not_touch():
    batch = np.zeros((2, 3, 5, 6))
    batch[0, :, 2, 2] = 1
    batch[1, :, ::2, ::2] = 1
    found = ck_obj(batch.reshape(2, 3, 30), grid=(5, 6))
    assert found.tolist() == [[1, 1, 1], [9, 9, 9]]


@given(arrays(np.float64, (2, 3, 30), elements=st.integers(1, 9).map(float)))
def test_a_batch_has_the_values_of_its_maps_one_by_one(batch):
    for metric in CLUSTERS:
        values = metric(batch, grid=(5, 6))
        assert values.shape == (2, 3)
        for place in np.ndindex(2, 3):
            single = metric(batch[place], grid=(5, 6))
            assert type(single) is float
            assert values[place] == single
    assert hs(batch).shape == top30(batch).shape[:-1] == (2, 3)


@given(maps, st.floats(1e-6, 1e6))
def test_the_scale_of_a_map_does_not_matter(attention, factor):
    for metric in CLUSTERS:
        assert metric(attention.ravel() * factor, grid=attention.shape) == metric(
            attention.ravel(), grid=attention.shape
        )
    assert hs(attention.ravel() * factor) == pytest.approx(hs(attention.ravel()), abs=1e-9)


@given(maps)
def test_turning_and_mirroring_a_map_keeps_its_clusters(attention):
    for turned in (np.rot90(attention), np.fliplr(attention), attention.T):
        for metric in (ck, ck_obj):
            assert metric(turned.ravel(), grid=turned.shape) == metric(attention.ravel(), grid=attention.shape)


@pytest.mark.parametrize("metric", CLUSTERS)
def test_a_map_of_another_grid_is_refused(metric):
    with pytest.raises(InvalidAttentionError, match="576 image tokens, which are no 32 x 32 grid"):
        metric(np.ones(576), grid=(32, 32))


BAD = {
    "negative": ([0.5, -0.1, 0, 0], "negative"),
    "nan": ([0.5, np.nan, 0, 0], "not finite"),
    "all zero": ([0.0] * 4, "all zero"),
}


@pytest.mark.parametrize("metric", [hs, top30, bottom30, *(lambda p, f=f: f(p, grid=(2, 2)) for f in CLUSTERS)])
@pytest.mark.parametrize("name", BAD)
def test_a_map_that_is_no_distribution_is_refused(metric, name):
    attention, message = BAD[name]
    with pytest.raises(InvalidAttentionError, match=message):
        metric(attention)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_taken(dtype):
    maps = torch.rand((2, 36), generator=torch.Generator().manual_seed(0)).to(dtype)
    plain = maps.to(torch.float64).numpy()
    for metric in CLUSTERS:
        assert metric(maps, grid=(6, 6)).tolist() == metric(plain, grid=(6, 6)).tolist()
    assert hs(maps) == pytest.approx(hs(plain))
    assert top30(maps).tolist() == top30(plain).tolist()


def test_the_map_is_not_written_to():
    p = np.array([3.0, 1.0, 2.0, 0.0])
    p.setflags(write=False)
    for metric in (hs, top30, bottom30, *(lambda p, f=f: f(p, grid=(2, 2)) for f in CLUSTERS)):
        metric(p)
    assert p.tolist() == [3, 1, 2, 0]


def test_the_entropy_vector_of_the_specification_holds():
    course = entropy_course(H)
    assert course.lock_layer == 2
    assert [course.depth, course.plateau, course.final] == pytest.approx([2.5, 0.055, 1.1])
    assert course.early_lock
    assert course.late_diffuse
    assert course.changes == pytest.approx([b - a for a, b in pairwise(H)])


COURSES = {
    "too shallow a lock": (np.r_[6.0, 5.01, np.full(10, 5.01)], False, False),
    "a lock of one nat": (np.r_[6.0, 5.0, np.full(10, 5.0)], True, False),
    "a lock after the first quarter": (np.r_[np.full(3, 6.0), np.full(9, 4.0)], False, False),
    "no plateau": (np.r_[6.0, 4.0, [4.3, 4.0] * 5], False, False),
    "a plateau of .25": (np.r_[6.0, 4.0, [4.25, 4.0] * 5], True, False),
    "half a nat at the end": (np.r_[np.full(11, 6.0), 6.5], False, True),
    "less at the end": (np.r_[np.full(11, 6.0), 6.49], False, False),
    "a rise before the end": (np.r_[np.full(10, 6.0), 6.5, 6.5], False, False),
}


@pytest.mark.parametrize("name", COURSES)
def test_an_early_lock_is_deep_early_and_followed_by_a_plateau(name):
    entropies, early_lock, late_diffuse = COURSES[name]
    course = entropy_course(entropies)
    assert (bool(course.early_lock), bool(course.late_diffuse)) == (early_lock, late_diffuse)


def test_a_batch_of_courses_has_the_values_of_each():
    batch = np.random.default_rng(0).random((2, 3, 36)) * 6
    course = entropy_course(batch)
    assert course.changes.shape == (2, 3, 35)
    for place in np.ndindex(2, 3):
        single = entropy_course(batch[place])
        for field in ("lock_layer", "depth", "plateau", "final", "early_lock", "late_diffuse"):
            assert getattr(course, field)[place] == pytest.approx(getattr(single, field))
        # By hand: the first quarter of 36 layers is 0 .. 8.
        changes = {layer: batch[place][layer] - batch[place][layer - 1] for layer in range(1, 36)}
        lock = min(range(1, 9), key=changes.get)
        assert single.lock_layer == lock
        assert single.plateau == pytest.approx(np.median([abs(changes[layer]) for layer in range(lock + 1, 35)]))


@pytest.mark.parametrize("entropies", [6.0, [6.0] * 4, [6.0, np.nan, 6.0, 6.0, 6.0]])
def test_a_course_of_too_few_layers_or_without_a_value_is_refused(entropies):
    with pytest.raises(UsageError, match="at least 5 layers"):
        entropy_course(entropies)


def test_the_top_and_bottom_thirty_percent_are_those_of_the_vector():
    p = [0.05, 0.3, 0.02, 0.2, 0.1, 0.08, 0.01, 0.09, 0.1, 0.05]
    assert top30(p).tolist() == [1, 3, 4]
    assert bottom30(p).tolist() == [0, 2, 6]


@pytest.mark.parametrize(("tokens", "kept"), [(1, 1), (10, 3), (11, 4), (576, 173), (1024, 308), (110, 33)])
def test_thirty_percent_is_rounded_up(tokens, kept):
    p = np.arange(1, tokens + 1)
    for cells in (top30(p), bottom30(p), random30(tokens, seed=0)):
        assert cells.shape == (kept,)
        assert (np.diff(cells) > 0).all()
    assert top30(p)[0] == tokens - kept
    assert bottom30(p)[-1] == kept - 1


def test_random_cells_depend_on_the_seed_and_are_equally_likely():
    drawn = [random30(20, seed=seed).tolist() for seed in range(500)]
    assert drawn[0] == random30(20, seed=0).tolist()
    times = np.bincount(np.ravel(drawn), minlength=20)
    assert (np.abs(times - 150) < 5 * np.sqrt(500 * 0.3 * 0.7)).all()
