import numpy as np
import pytest

from dataset_builder.samples import draw_sample
from dataset_builder.sets import get_set
from halo_probe.errors import InvalidAttentionError, UsageError
from halo_probe.metrics.geometry import lay_out
from halo_probe.metrics.null import NULL_KEYS, _compare, choose_others, compare_with_null
from halo_probe.metrics.spatial import SPATIAL_KEYS, spatial_metrics

COUNTS = [12, 10, 16, 12, 11, 12, 10, 14, 12, 13]


@pytest.fixture(scope="module")
def layouts():
    spec = get_set("halo_count")
    samples = [draw_sample(spec, index) for index in range(120)]
    return [lay_out(sample.centers, radius=10, image=(1024, 1024), grid=(16, 16)) for sample in samples]


def test_others_have_the_same_number_of_dots_first_and_then_the_nearest():
    assert {COUNTS[place] for place in choose_others(COUNTS, 0, size=3)} == {12}
    assert sorted(COUNTS[place] for place in choose_others(COUNTS, 0, size=5)) == [11, 12, 12, 12, 13]
    assert sorted(choose_others(COUNTS, 1, size=1)) == [6]


@pytest.mark.parametrize("document", range(10))
def test_a_document_is_not_its_own_null_and_none_comes_twice(document):
    others = choose_others(COUNTS, document).tolist()
    assert sorted([*others, document]) == list(range(10))


def test_documents_with_the_same_number_of_dots_have_different_nulls():
    chosen = [tuple(sorted(choose_others([12] * 1000, document).tolist())) for document in range(1000)]
    assert len(set(chosen)) == 1000
    # Each image is in as many nulls as any other.
    assert np.bincount(np.ravel(chosen)).tolist() == [200] * 1000


def test_the_choice_is_the_same_on_every_machine():
    assert choose_others([12] * 50, 7, size=5).tolist() == [17, 23, 8, 48, 35]


def test_a_document_that_is_not_there_or_is_alone_has_no_null():
    for counts, document in (([12], 0), ([12, 12], 2), ([12, 12], -1)):
        with pytest.raises(UsageError, match="give one of at least two"):
            choose_others(counts, document)


def test_the_null_covers_every_metric_of_the_dots():
    assert set(SPATIAL_KEYS) - set(NULL_KEYS) == {"frame_enrichment", "frame_enrichment_ns"}


def test_z_and_p_are_those_of_the_scores_on_each_other_layout(layouts):
    maps = np.random.default_rng(0).lognormal(0, 1.5, (3, 256))
    found = compare_with_null(maps, layouts[0], layouts[1:40])
    own = spatial_metrics(maps, layouts[0])
    null = [spatial_metrics(maps, layout) for layout in layouts[1:40]]
    assert found.keys() == set(NULL_KEYS)
    for key, comparison in found.items():
        assert comparison.value == pytest.approx(own[key], abs=1e-9, nan_ok=True)
        for place in range(3):
            values = np.array([scores[key][place] for scores in null])
            values = values[~np.isnan(values)]
            value = own[key][place]
            assert comparison.n[place] == len(values)
            if np.isnan(value):
                assert np.isnan([comparison.z[place], comparison.p[place]]).all()
                continue
            above, below = sum(values > value - 1e-9), sum(values < value + 1e-9)
            assert comparison.p[place] == pytest.approx(min(1, 2 * (min(above, below) + 1) / (len(values) + 1)))
            spread = np.std(values, ddof=1) if len(values) > 1 else 0
            z = (value - values.mean()) / spread if spread > 1e-9 else np.nan
            assert comparison.z[place] == pytest.approx(z, abs=1e-6, nan_ok=True), key


def test_one_map_gives_floats(layouts):
    comparison = compare_with_null(np.arange(1, 257), layouts[0], layouts[1:5])["halo_index"]
    assert {type(value) for value in (comparison.value, comparison.z, comparison.p, comparison.n)} == {float}


def test_a_map_that_rings_the_dots_stands_out_of_the_null_and_one_on_them_on_the_other_side(layouts):
    ring = compare_with_null(layouts[0].around + 0.3, layouts[0], layouts[1:])
    dots = compare_with_null(layouts[0].on_dots + 0.3, layouts[0], layouts[1:])
    assert ring["halo_index"].z > 3
    assert dots["halo_index"].z < -3
    assert ring["halo_index"].p == dots["halo_index"].p == pytest.approx(2 / 120)
    assert dots["auroc_dot"].z > 3
    assert dots["coverage"].z > 3


def test_a_map_along_the_hull_stands_out_with_and_without_a_strong_sink(layouts):
    attention = layouts[0].band / 4096 + 0.2
    (sinks,) = np.nonzero(np.arange(256) == 255)
    attention[sinks] += attention.sum()
    found = compare_with_null(attention, layouts[0], layouts[1:])
    assert found["sink_share"].value == pytest.approx(0.5, abs=0.01)
    assert found["hull_contrast_ns"].z > 2
    assert found["hull_contrast_ns"].p == pytest.approx(2 / 120)


def test_a_uniform_map_has_no_spread_and_a_p_value_of_one(layouts):
    for key, comparison in compare_with_null(np.ones(256), layouts[0], layouts[1:20]).items():
        if key not in ("dot_mass", "dot_mass_ns", "sim_dot", "sim_dot_ns", "n_eff_dots", "n_eff_dots_ns", "n_attended"):
            assert np.isnan(comparison.z), key
            assert np.isnan(comparison.p) or comparison.p == 1, key


def test_values_that_differ_by_rounding_are_tied():
    for value, other in ((0.1 + 0.2, 0.3), (0.3, 0.1 + 0.2)):
        comparison = _compare(np.array(value), np.array([other] * 9))
        assert (comparison.p, comparison.n) == (1, 9)
        assert np.isnan(comparison.z)


def test_a_metric_that_is_undefined_on_its_own_dots_has_no_comparison(layouts):
    found = compare_with_null(layouts[0].on_dots, layouts[0], layouts[1:20])["hull_contrast"]
    assert np.isnan([found.value, found.z, found.p]).all()
    assert 0 < found.n <= 19


def test_an_empty_null_gives_no_p_value(layouts):
    found = compare_with_null(np.arange(1, 257), layouts[0], [])["halo_index"]
    assert np.isnan([found.z, found.p]).all()
    assert found.n == 0


def sink_and_frame_map(rng):
    """Attention that does not know the dots: a frame, a centre, sinks anywhere."""
    row, column = np.divmod(np.arange(256), 16)
    frame = (row % 15 == 0) | (column % 15 == 0)
    centre = np.exp(-((row - 7.5) ** 2 + (column - 7.5) ** 2) / 30)
    sinks = np.bincount(rng.integers(0, 256, 12), rng.lognormal(3, 1, 12), minlength=256)
    return rng.lognormal(0, 0.7, 256) + frame + 2 * centre + sinks


@pytest.mark.parametrize("key", ["halo_index", "hull_contrast", "hull_contrast_ns", "auroc_dot_ns", "coverage_ns"])
def test_a_map_that_does_not_know_the_dots_is_rarely_significant(null_p_values, key):
    # 240 maps, level .05: at most 12 of them are expected, and 24 or more have a chance of .001.
    values = null_p_values[key]
    assert (values <= 0.05).sum() < 24
    assert values.mean() > 0.4


@pytest.fixture(scope="module")
def null_p_values(layouts):
    rng = np.random.default_rng(4)
    found = []
    for own in [*range(120), *range(120)]:
        others = rng.permutation([place for place in range(120) if place != own])[:59]
        found.append(compare_with_null(sink_and_frame_map(rng), layouts[own], [layouts[place] for place in others]))
    return {key: np.array([comparison[key].p for comparison in found]) for key in NULL_KEYS}


def test_a_map_that_is_no_distribution_is_refused(layouts):
    with pytest.raises(InvalidAttentionError, match="all zero"):
        compare_with_null(np.zeros(256), layouts[0], layouts[1:3])
