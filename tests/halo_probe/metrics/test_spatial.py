import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial import ConvexHull
from sklearn.metrics import roc_auc_score

from halo_probe.errors import InvalidAttentionError, UsageError
from halo_probe.metrics import spatial
from halo_probe.metrics.geometry import lay_out
from halo_probe.metrics.pairs import score_pairs
from halo_probe.metrics.sparsity import entropy, gini
from halo_probe.metrics.spatial import SPATIAL_KEYS, dot_enrichment, spatial_metrics

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())
IMAGE, GRID, RADIUS, DOTS = (tuple(VECTORS["image"]), tuple(VECTORS["grid"]), VECTORS["radius"], VECTORS["dots"])

# Large dots, so that every metric is defined; the hull has an interior.
SIDE = 480
SCENE = {"radius": 32, "image": (SIDE, SIDE), "grid": (15, 15)}
CENTERS = [(45, 40), (430, 50), (160, 165), (40, 440), (435, 425)]

FUNCTIONS = [key for key in SPATIAL_KEYS if not key.endswith("_ns")]
CONTRASTS = ["halo_index", "ring_contrast", "hull_contrast", "hull_dot_contrast", "penetration"]
UNIFORM = {
    **dict.fromkeys(CONTRASTS, 0),
    "auroc_dot": 0.5,
    "coverage": 0,
    "n_attended": 0,
    "sink_share": 0,
    "frame_enrichment": 1,
    "nss_dot": 0,
}
RANGES = {
    **dict.fromkeys(CONTRASTS, (-1, 1)),
    "auroc_dot": (0, 1),
    "coverage": (0, 1),
    "n_attended": (0, 5),
    "sink_share": (0, 1),
    "frame_enrichment": (0, 225 / 56),
    "dot_mass": (0, 1),
    "nss_dot": (-15, 15),
    "sim_dot": (0, 1),
    "n_eff_dots": (1, 5),
}

# Equal weights and weights far above the rest: ties and sinks. Whole, since weights one rounding apart may become tied.
weights = st.one_of(st.integers(0, 3), st.integers(10, 1000)).map(float)
maps = arrays(np.float64, 225, elements=weights).filter(lambda p: p.sum() > 0)


@pytest.fixture(scope="module")
def layout():
    return lay_out(CENTERS, **SCENE)


@pytest.fixture(scope="module")
def vector_layout():
    return lay_out(DOTS, radius=RADIUS, image=IMAGE, grid=GRID)


def vector_maps():
    """The maps of the vectors, from every pixel of the image and without the code under test."""
    h, w = GRID
    v, u = np.mgrid[: IMAGE[0], : IMAGE[1]]

    def pool(mask):
        return mask.reshape(h, IMAGE[0] // h, w, IMAGE[1] // w).sum(axis=(1, 3)).ravel().astype(float)

    f = np.array([pool((u - x) ** 2 + (v - y) ** 2 <= RADIUS**2) for x, y in DOTS])
    dark = f.sum(axis=0) / f.sum()
    own = (f / f.sum(axis=1, keepdims=True) >= 0.05).any(axis=0).reshape(h, w)
    padded = np.pad(own, 1)
    near = np.any([padded[r : r + h, c : c + w] for r in range(3) for c in range(3)], axis=0)
    corners = ConvexHull(DOTS).vertices
    distance = np.full(IMAGE, np.inf)
    polygon = np.array(DOTS, dtype=float)[corners]
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        e = b - a
        t = np.clip(((u - a[0]) * e[0] + (v - a[1]) * e[1]) / (e @ e), 0, 1)
        distance = np.minimum(distance, np.hypot(u - a[0] - t * e[0], v - a[1] - t * e[1]))
    row, column = np.divmod(np.arange(h * w), w)
    x, y = (column + 0.5) * IMAGE[1] / w, (row + 0.5) * IMAGE[0] / h
    sink = (np.arange(h * w) == (h - 1) * w).astype(float)
    hull = np.isin(np.arange(len(DOTS)), corners)
    return {
        "uniform": np.ones(h * w),
        "perfect": dark,
        "ring": (near & ~own).ravel().astype(float),
        "hull_bg": pool(distance <= 64) * ~near.ravel(),
        "hull_dots": f[hull].sum(axis=0),
        "inner_dots": f[~hull].sum(axis=0),
        "sink": sink,
        "diffuse": sum(np.exp(-((x - a - 0.5) ** 2 + (y - b - 0.5) ** 2) / (2 * 128**2)) for a, b in DOTS),
        "half": 0.5 / (h * w) + 0.5 * dark,
        "one_dot": f[4],
        "sink90": 0.9 * sink + 0.1 * dark,
    }


def test_the_vectors_of_the_specification_hold(vector_layout):
    found = vector_maps()
    assert found.keys() == VECTORS["maps"].keys()
    for name, attention in found.items():
        scores = spatial_metrics(attention, vector_layout) | {"gini": gini(attention), "entropy": entropy(attention)}
        expected = {key: value for key, value in VECTORS["maps"][name].items() if key in scores}
        assert len(expected) == 14
        for key, value in expected.items():
            wanted = np.nan if value is None else value
            assert scores[key] == pytest.approx(wanted, abs=1e-9, nan_ok=True), (name, key)


def reference(attention, layout, *, without_sinks=False):
    """Every metric by its definition, cell by cell."""
    p = np.asarray(attention) / np.sum(attention)
    m = len(p)
    sinks = {k for k in range(m) if not layout.near[k] and p[k] >= 10 / m - 1e-12}
    cells = [k for k in range(m) if not (without_sinks and k in sinks)]
    total = sum(p[k] for k in cells)
    if not total:
        return {key: np.nan for key in FUNCTIONS if key != "sink_share"}
    q = {k: p[k] / total for k in cells}

    def ratio(a, b):
        return a / b if b else np.nan

    def enrichment(areas):
        return ratio(sum(q[k] * areas[k] for k in cells), sum(areas[k] for k in cells) / len(cells))

    def contrast(a, b):
        return ratio(a - b, a + b)

    dots = range(len(layout.hull_dots))
    shares = np.zeros((len(dots), m))
    for k in np.flatnonzero(layout.on_dots):
        owners = [j for j in dots if layout.dot_cells[j, k]]
        for j in owners:
            shares[j, k] = layout.dot_areas[j, k] / sum(layout.dot_areas[i, k] for i in owners)
    e = np.array([enrichment(shares[j]) for j in dots])
    on_each = np.array([sum(q[k] * shares[j, k] for k in cells) for j in dots])
    hull = layout.hull_dots
    values = np.array([q[k] for k in cells])
    spread = values.std()
    z = [(q[k] - values.mean()) / spread if spread > 1e-12 else 0 for k in layout.center_cells]
    dark = layout.dot_areas.sum(axis=0) / layout.dot_areas.sum()
    return {
        "halo_index": contrast(enrichment(layout.around), enrichment(layout.on_dots)),
        "ring_contrast": contrast(enrichment(layout.around), enrichment(~layout.near)),
        "auroc_dot": roc_auc_score(layout.on_dots[cells], values),
        "coverage": np.mean(e >= 2 - 1e-9),
        "n_attended": np.sum(e >= 2 - 1e-9),
        "hull_contrast": contrast(enrichment(layout.band), enrichment(layout.interior)),
        "hull_dot_contrast": contrast(e[hull].mean(), e[~hull].mean()),
        "penetration": contrast(enrichment(layout.cores), enrichment(layout.rims)),
        **({} if without_sinks else {"sink_share": sum(p[k] for k in sinks)}),
        "frame_enrichment": enrichment(layout.frame),
        "dot_mass": sum(q[k] for k in cells if layout.on_dots[k]),
        "nss_dot": np.mean(z),
        "sim_dot": sum(min(q[k], dark[k]) for k in cells),
        "n_eff_dots": np.exp(stats.entropy(on_each)) if on_each.any() else np.nan,
    }


def assert_equal_to_reference(attention, layout):
    scores = spatial_metrics(attention, layout)
    expected = reference(attention, layout)
    expected |= {f"{key}_ns": value for key, value in reference(attention, layout, without_sinks=True).items()}
    assert scores.keys() == expected.keys() == set(SPATIAL_KEYS)
    for key, value in expected.items():
        assert scores[key] == pytest.approx(value, abs=1e-8, nan_ok=True), key


@settings(max_examples=30)
@given(maps)
def test_every_metric_is_its_definition_cell_by_cell(layout, attention):
    assert_equal_to_reference(attention, layout)


@pytest.mark.parametrize("name", VECTORS["maps"])
def test_every_metric_of_the_vectors_is_its_definition_cell_by_cell(vector_layout, name):
    assert_equal_to_reference(vector_maps()[name], vector_layout)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([(8, 8), (7, 11), (12, 5)]), st.sampled_from([4, 12, 30]))
def test_every_metric_is_its_definition_on_any_layout(seed, grid, radius):
    rng = np.random.default_rng(seed)
    places = rng.permutation(16)[: rng.integers(4, 12)]
    centers = [(40 + 80 * (k % 4) + rng.integers(-9, 10), 40 + 80 * (k // 4) + rng.integers(-9, 10)) for k in places]
    layout = lay_out(centers, radius=radius, image=(320, 320), grid=grid)
    attention = rng.lognormal(0, 2, grid[0] * grid[1])
    if layout.hull_dots.all():
        assert np.isnan(spatial.hull_dot_contrast(attention, layout))
    else:
        assert_equal_to_reference(attention, layout)


def test_every_key_is_documented():
    documented = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert set(FUNCTIONS) <= set(re.findall(r"`(\w+)`", documented))


@pytest.mark.parametrize("key", FUNCTIONS)
def test_each_function_gives_the_value_of_its_key(layout, key):
    attention = np.random.default_rng(0).lognormal(0, 1.5, (2, 225))
    assert np.array_equal(getattr(spatial, key)(attention, layout), spatial_metrics(attention, layout)[key])


@pytest.mark.parametrize("key", UNIFORM)
def test_a_uniform_map_has_the_uniform_value(layout, vector_layout, key):
    for where in (layout, vector_layout):
        scores = spatial_metrics(np.full(where.near.size, 0.3), where)
        for suffix in ("", "_ns"):
            value = scores.get(key + suffix, UNIFORM[key])
            if key != "penetration" or where is layout:
                assert value == pytest.approx(UNIFORM[key], abs=1e-12)


@settings(max_examples=30)
@given(maps, st.floats(1e-6, 1e6))
def test_the_scale_of_a_map_does_not_matter(layout, attention, factor):
    scores, scaled = spatial_metrics(attention, layout), spatial_metrics(attention * factor, layout)
    for key in SPATIAL_KEYS:
        assert scaled[key] == pytest.approx(scores[key], abs=1e-8, nan_ok=True)


MIRRORS = {
    "quarter turn": (lambda x, y: (SIDE - 1 - y, x), lambda a: np.rot90(a, -1)),
    "half turn": (lambda x, y: (SIDE - 1 - x, SIDE - 1 - y), lambda a: np.rot90(a, 2)),
    "left to right": (lambda x, y: (SIDE - 1 - x, y), np.fliplr),
    "across the diagonal": (lambda x, y: (y, x), np.transpose),
}


@settings(max_examples=20)
@given(maps)
@pytest.mark.parametrize("name", MIRRORS)
def test_turning_and_mirroring_map_and_dots_together_changes_nothing(layout, name, attention):
    move, turn = MIRRORS[name]
    moved = lay_out([move(x, y) for x, y in CENTERS], **SCENE)
    scores, turned = spatial_metrics(attention, layout), spatial_metrics(turn(attention.reshape(15, 15)).ravel(), moved)
    for key in SPATIAL_KEYS:
        assert turned[key] == pytest.approx(scores[key], abs=1e-8, nan_ok=True), key


@settings(max_examples=30)
@given(maps, st.permutations(CENTERS))
def test_the_order_of_the_dots_does_not_matter(layout, attention, centers):
    scores, shuffled = spatial_metrics(attention, layout), spatial_metrics(attention, lay_out(centers, **SCENE))
    for key in SPATIAL_KEYS:
        assert shuffled[key] == pytest.approx(scores[key], abs=1e-8, nan_ok=True), key


@settings(max_examples=30)
@given(maps)
def test_every_metric_stays_in_its_range(layout, attention):
    for key, value in spatial_metrics(attention, layout).items():
        low, high = RANGES[key.removesuffix("_ns")]
        assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9, key


@settings(max_examples=30)
@given(maps)
def test_leaving_sinks_out_changes_no_contrast_within_the_dots_and_their_neighbours(layout, attention):
    scores = spatial_metrics(attention, layout)
    for key in ("halo_index", "hull_dot_contrast", "n_eff_dots"):
        if not np.isnan(scores[f"{key}_ns"]):
            assert scores[f"{key}_ns"] == pytest.approx(scores[key], abs=1e-9)


def test_attention_that_leaves_the_dots_has_a_positive_halo_index_and_a_negative_ring_contrast(vector_layout):
    row, column = np.divmod(np.arange(1024), 32)
    squares = [(32 * column + 16 - x) ** 2 + (32 * row + 16 - y) ** 2 for x, y in DOTS]
    away = np.exp(-sum(np.exp(-square / (2 * 120**2)) for square in squares))
    assert spatial.halo_index(away, vector_layout) > 0
    assert spatial.ring_contrast(away, vector_layout) < -0.1
    assert spatial.ring_contrast(vector_layout.around, vector_layout) == 1
    assert spatial.ring_contrast(~vector_layout.near, vector_layout) == -1


def test_how_much_attention_a_sink_has_does_not_matter_without_sinks(layout):
    attention = np.random.default_rng(0).lognormal(0, 0.5, 225)
    (far,) = np.flatnonzero(~layout.near)[:1]
    attention[far] = 200
    more = attention.copy()
    more[far] = 10_000
    before, after = spatial_metrics(attention, layout), spatial_metrics(more, layout)
    for key in SPATIAL_KEYS:
        if key.endswith("_ns"):
            assert after[key] == pytest.approx(before[key], abs=1e-9), key
    assert after["sink_share"] > before["sink_share"] > 0.3
    assert after["dot_mass"] < before["dot_mass"] < before["dot_mass_ns"]


def test_a_map_of_sinks_alone_has_no_value_without_them(layout):
    attention = (np.arange(225) == np.flatnonzero(~layout.near)[0]).astype(float)
    scores = spatial_metrics(attention, layout)
    assert scores["sink_share"] == 1
    assert all(np.isnan(value) for key, value in scores.items() if key.endswith("_ns"))


def test_small_dots_have_no_penetration_and_large_ones_do(vector_layout, layout):
    assert np.isnan(spatial.penetration(np.ones(1024), vector_layout))
    assert spatial.penetration(layout.cores, layout) > 0.5
    assert spatial.penetration(layout.rims, layout) < 0


def test_the_enrichment_of_dots_is_one_when_uniform_and_nan_out_of_view(layout):
    assert dot_enrichment(np.ones((2, 225)), layout) == pytest.approx(np.ones((2, 5)))
    crop = lay_out(CENTERS, **SCENE | {"grid": (8, 8)}, view=(0, 0, 240, 240))
    assert np.isnan(dot_enrichment(np.ones(64), crop)).tolist() == [False, True, False, True, True]
    assert spatial.coverage(crop.dot_shares, crop) == 1


def test_a_view_without_dots_has_values_only_where_no_dot_is_needed():
    empty = lay_out(CENTERS, **SCENE, view=(85, 85, 100, 100))
    scores = spatial_metrics(np.ones(225), empty)
    defined = {key for key, value in scores.items() if not np.isnan(value)}
    assert defined - {"n_attended", "n_attended_ns"} <= {
        "sink_share",
        "frame_enrichment",
        "frame_enrichment_ns",
        "dot_mass",
        "dot_mass_ns",
        "hull_contrast",
        "hull_contrast_ns",
    }
    assert scores["n_attended"] == scores["dot_mass"] == 0
    assert scores["frame_enrichment"] == pytest.approx(1)


def test_a_batch_has_the_values_of_its_maps_one_by_one(layout):
    # More maps than are scored together.
    batch = np.random.default_rng(1).lognormal(0, 2, (2, 150, 225))
    scores = spatial_metrics(batch, layout)
    for key in SPATIAL_KEYS:
        assert scores[key].shape == (2, 150)
        assert scores[key].dtype == np.float64
    for place in [(0, 0), (0, 149), (1, 3), (1, 149)]:
        for key, value in spatial_metrics(batch[place], layout).items():
            assert type(value) is float
            assert scores[key][place] == pytest.approx(value, abs=1e-9, nan_ok=True)


def test_many_layouts_have_the_values_of_each(layout):
    rng = np.random.default_rng(2)
    layouts = [layout, *(lay_out(rng.integers(40, 440, (n, 2)), **SCENE) for n in (1, 2, 4, 7))]
    batch = rng.lognormal(0, 2, (3, 225))
    scores = score_pairs(batch, layouts, keys=SPATIAL_KEYS)
    for place, single in enumerate(layouts):
        for key, values in spatial_metrics(batch, single).items():
            assert scores[key][:, place] == pytest.approx(values, abs=1e-9, nan_ok=True), key


BAD = {
    "negative": (np.r_[-1.0, np.ones(224)], "negative"),
    "nan": (np.r_[np.nan, np.ones(224)], "not finite"),
    "all zero": (np.zeros(225), "all zero"),
    "another grid": (np.ones(64), "64 image tokens, which are no 15 x 15 grid"),
    "float16": (np.ones(225, dtype=np.float16), "float16"),
}


@pytest.mark.parametrize("key", [*FUNCTIONS, "spatial_metrics", "dot_enrichment"])
@pytest.mark.parametrize("name", BAD)
def test_a_map_that_is_no_distribution_on_the_grid_is_refused(layout, key, name):
    attention, message = BAD[name]
    with pytest.raises(InvalidAttentionError, match=message):
        getattr(spatial, key)(attention, layout)


def test_layouts_on_different_grids_are_refused(layout, vector_layout):
    for layouts, number in (([], 0), ([layout, vector_layout], 2)):
        with pytest.raises(UsageError, match=f"layouts on {number} grids"):
            score_pairs(np.ones(225), layouts, keys=SPATIAL_KEYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_are_taken(layout, dtype):
    maps = torch.rand((2, layout.near.size), generator=torch.Generator().manual_seed(0)).to(dtype)
    found, expected = spatial_metrics(maps, layout), spatial_metrics(maps.to(torch.float64).numpy(), layout)
    for key in SPATIAL_KEYS:
        assert np.allclose(found[key], expected[key], equal_nan=True), key
    assert dot_enrichment(maps, layout) == pytest.approx(dot_enrichment(maps.to(torch.float64).numpy(), layout))


def test_the_map_is_not_written_to(layout):
    attention = np.random.default_rng(3).lognormal(0, 2, (2, 225))
    before = attention.copy()
    attention.setflags(write=False)
    spatial_metrics(attention, layout)
    dot_enrichment(attention, layout)
    assert np.array_equal(attention, before)
