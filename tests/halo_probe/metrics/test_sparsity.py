import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from halo_probe.errors import InvalidAttentionError
from halo_probe.metrics.sparsity import (
    entropy,
    entropy_nats,
    gini,
    head_entropy,
    head_sparsity,
    kl_uniform,
    pool_to_grid,
    sparsity_eq2,
    sparsity_g16,
    sparsity_norm,
)

METRICS = (gini, sparsity_eq2, sparsity_norm, entropy, entropy_nats, kl_uniform)

weights = st.floats(0.001, 1000)
maps = arrays(np.float64, st.integers(2, 40), elements=weights)
batches = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 20)), elements=weights)


def reference_gini(p):
    """Half the relative mean absolute difference of all pairs."""
    p = np.asarray(p, dtype=np.float64)
    return np.abs(p[:, None] - p[None, :]).mean() / (2 * p.mean())


def one_hot(m):
    return np.eye(m)[m // 3]


# map: gini, eq2, norm, entropy, nats, from the table of the specification.
TABLE = {
    "increasing": ([0.1, 0.2, 0.3, 0.4], 0.25, 0, 0.33333333, 0.92321967, 1.27985423),
    "any order": ([0.3, 0.1, 0.4, 0.2], 0.25, 0, 0.33333333, 0.92321967, 1.27985423),
    "one large": ([0.7, 0.1, 0.1, 0.1], 0.45, 0.20, 0.60, 0.67838982, 0.94044799),
    "two equal": ([0, 0, 0.5, 0.5], 0.5, 0.25, 0.66666667, 0.5, 0.69314718),
    "not normalised": ([2, 3, 5], 0.2, -0.13333333, 0.3, 0.93723056, 1.02965301),
    "uniform 256": (np.ones(256), 0, -0.00390625, 0, 1, 5.54517744),
    "uniform 1024": (np.ones(1024), 0, -0.00097656, 0, 1, 6.93147181),
    "one-hot 256": (one_hot(256), 0.99609375, 0.99218750, 1, 0, 0),
    "one-hot 1024": (one_hot(1024), 0.99902344, 0.99804688, 1, 0, 0),
    "12 of 256": (np.arange(256) < 12, 0.95312500, 0.94921875, 0.95686275, 0.44812031, 2.48490665),
    "1/i": (1 / np.arange(1, 257), 0.67734071, 0.67343446, 0.67999695, 0.77771002, 4.31254005),
    "0.9^i": (0.9 ** np.arange(256), 0.92578125, 0.92187500, 0.92941176, 0.58624449, 3.25082973),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_the_specification_holds(name):
    p, *expected = TABLE[name]
    m = len(p)
    found = [metric(p) for metric in (gini, sparsity_eq2, sparsity_norm, entropy, entropy_nats)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert kl_uniform(p) == pytest.approx(np.log(m) - expected[-1], abs=1e-6)


def test_the_attention_map_vector_of_the_specification_holds():
    z = np.array([[4, 0, 1, 2, 3], [0, 2, 2, 2, 0]], dtype=np.float64)
    a = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    image = a[:, 1:]
    mass = image.sum(axis=-1, keepdims=True)
    eq1, rn = (image / mass).mean(axis=0), image.sum(axis=0) / mass.sum()
    assert [gini(eq1), sparsity_eq2(eq1), entropy(eq1)] == pytest.approx(
        [0.14474545, -0.10525455, 0.97527696], abs=1e-6
    )
    assert [gini(rn), sparsity_eq2(rn), entropy(rn)] == pytest.approx([0.06979910, -0.18020090, 0.99423636], abs=1e-6)
    assert [head_sparsity(image), head_entropy(image)] == pytest.approx([0.35158092, 0.78504328], abs=1e-6)


@given(maps)
def test_gini_equals_the_mean_absolute_difference_of_all_pairs(p):
    assert gini(p) == pytest.approx(reference_gini(p), abs=1e-9)


@given(maps)
def test_entropy_and_divergence_are_those_of_scipy(p):
    assert entropy_nats(p) == pytest.approx(stats.entropy(p), abs=1e-9)
    assert entropy(p) == pytest.approx(stats.entropy(p, base=len(p)), abs=1e-9)
    assert kl_uniform(p) == pytest.approx(stats.entropy(p, np.ones(len(p))), abs=1e-9)


# The six axioms of Hurley and Rickard (2009), in their names.


@given(maps, st.floats(0.01, 0.99))
def test_robin_hood_taking_from_the_rich_lowers_sparsity(p, share):
    rich, poor = p.argmax(), p.argmin()
    assume(p[rich] - p[poor] > 1e-3)
    alpha = share * (p[rich] - p[poor]) / 2
    robbed = p.copy()
    robbed[rich] -= alpha
    robbed[poor] += alpha
    assert gini(robbed) < gini(p)


@given(maps, st.floats(1e-6, 1e6))
def test_scaling_leaves_every_metric(p, factor):
    for metric in METRICS:
        assert metric(p * factor) == pytest.approx(metric(p), abs=1e-9)


@given(maps, st.floats(0.01, 100))
def test_rising_tide_adding_to_all_lowers_sparsity(p, alpha):
    assume(gini(p) > 1e-3)
    assert gini(p + alpha) < gini(p)


@given(maps, st.integers(2, 4))
def test_cloning_leaves_sparsity_and_the_printed_equation_does_not(p, copies):
    assert gini(np.tile(p, copies)) == pytest.approx(gini(p), abs=1e-9)
    assert sparsity_eq2(np.tile(p, copies)) != pytest.approx(sparsity_eq2(p), abs=1e-9)


@given(maps, st.data())
def test_bill_gates_one_growing_without_end_raises_sparsity(p, data):
    i = data.draw(st.integers(0, len(p) - 1))
    # Beyond this wealth, one more step always raises the share of the richest.
    rich, richer = p.copy(), p.copy()
    rich[i] += p.sum() * 10
    richer[i] += p.sum() * (10 + data.draw(st.floats(0.01, 100)))
    assert gini(richer) > gini(rich)


@given(maps)
def test_babies_adding_an_empty_cell_raises_sparsity(p):
    assert gini(np.append(p, 0)) > gini(p)


@given(maps, st.randoms(use_true_random=False))
def test_the_order_of_the_image_tokens_does_not_matter(p, seed):
    order = list(range(len(p)))
    seed.shuffle(order)
    for metric in METRICS:
        assert metric(p[order]) == pytest.approx(metric(p), abs=1e-12)


@given(maps)
def test_every_metric_stays_in_its_range(p):
    m = len(p)
    assert 0 <= gini(p) <= 1 - 1 / m
    assert -1 / m <= sparsity_eq2(p) <= 1 - 2 / m
    assert 0 <= sparsity_norm(p) <= 1
    assert 0 <= entropy(p) <= 1
    assert 0 <= kl_uniform(p) <= np.log(m)


@given(batches)
def test_a_batch_has_the_values_of_its_maps_one_by_one(batch):
    for metric in METRICS:
        values = metric(batch)
        assert values.shape == batch.shape[:-1]
        assert values.dtype == np.float64
        for place in np.ndindex(values.shape):
            assert values[place] == pytest.approx(metric(batch[place]), abs=1e-12)


@given(batches)
def test_head_metrics_are_means_over_the_heads(batch):
    assert head_sparsity(batch) == pytest.approx(gini(batch).mean(axis=-1))
    assert head_entropy(batch) == pytest.approx(entropy(batch).mean(axis=-1))
    # The Gini is convex: averaging heads lowers it.
    assert (head_sparsity(batch) >= gini((batch / batch.sum(axis=-1, keepdims=True)).mean(axis=-2)) - 1e-12).all()


def test_one_map_gives_a_float():
    for metric in METRICS:
        assert type(metric([1, 2, 3])) is float
    assert type(head_sparsity([[1, 2, 3]])) is float
    assert type(sparsity_g16(np.ones(256), height=16, width=16)) is float


def test_the_grid_of_sixteen_is_left_as_it_is():
    p = np.random.default_rng(0).random(256)
    assert pool_to_grid(p, height=16, width=16) == pytest.approx(p)


def test_a_finer_grid_is_summed_in_blocks():
    p = np.random.default_rng(0).random((3, 32 * 48))
    blocks = p.reshape(3, 16, 2, 16, 3).sum(axis=(2, 4)).reshape(3, 256)
    assert pool_to_grid(p, height=32, width=48) == pytest.approx(blocks)


@given(st.integers(1, 40), st.integers(1, 40))
def test_any_grid_keeps_its_total_and_a_uniform_map_stays_uniform(height, width):
    p = np.random.default_rng(height * 41 + width).random(height * width)
    assert pool_to_grid(p, height=height, width=width).sum() == pytest.approx(p.sum())
    assert sparsity_g16(np.ones(height * width), height=height, width=width) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (37, 37), (5, 7)])
def test_pooling_equals_summing_small_squares(height, width):
    p = np.random.default_rng(0).random((height, width))
    # On a raster that both grids divide, each cell is a block of equal squares.
    fine = np.kron(p, np.ones((16, 16))) / 256
    expected = fine.reshape(16, height, 16, width).sum(axis=(1, 3)).ravel()
    assert pool_to_grid(p.ravel(), height=height, width=width) == pytest.approx(expected)


def test_a_grid_that_is_not_the_map_is_refused_with_both_sizes():
    with pytest.raises(InvalidAttentionError, match="256 image tokens are no 32 x 32 grid"):
        sparsity_g16(np.ones(256), height=32, width=32)


BAD = {
    "negative": ([0.5, -0.1], "negative"),
    "nan": ([0.5, np.nan], "not finite"),
    "inf": ([0.5, np.inf], "not finite"),
    "all zero": ([0.0, 0.0], "all zero"),
    "one of two maps all zero": ([[0.0, 1.0], [0.0, 0.0]], "all zero"),
    "empty": ([], "shape"),
    "no maps": (np.ones((0, 4)), "shape"),
    "a number": (1.0, "shape"),
    "numpy float16": (np.ones(4, dtype=np.float16), "float16"),
    "torch float16": (torch.ones(4, dtype=torch.float16), "float16"),
}


@pytest.mark.parametrize(
    "metric", [*METRICS, head_sparsity, head_entropy, lambda p: sparsity_g16(p, height=1, width=2)]
)
@pytest.mark.parametrize("name", BAD)
def test_a_map_that_is_no_distribution_is_refused(metric, name):
    attention, message = BAD[name]
    with pytest.raises(InvalidAttentionError, match=message):
        metric(attention)


@pytest.mark.parametrize("metric", [sparsity_norm, entropy])
def test_one_image_token_has_no_normalised_value(metric):
    with pytest.raises(InvalidAttentionError, match="at least 2"):
        metric([1.0])


@pytest.mark.parametrize("metric", [head_sparsity, head_entropy])
def test_head_metrics_want_a_head_axis(metric):
    with pytest.raises(InvalidAttentionError, match="one map per head"):
        metric([1.0, 2.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_are_taken(dtype):
    assert gini(torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=dtype)) == 0.75


@pytest.mark.parametrize("scale", [1e-320, 1e308])
def test_weights_of_any_scale_are_taken(scale):
    assert gini(np.array([0, 0, 1, 1]) * scale) == 0.5
    assert entropy_nats(np.array([0, 0, 1, 1]) * scale) == pytest.approx(np.log(2))


def test_the_argument_is_not_written_to():
    p = np.array([[3.0, 1.0, 2.0, 0.0]])
    p.setflags(write=False)
    for metric in (*METRICS, head_sparsity, head_entropy):
        metric(p)
    sparsity_g16(p, height=2, width=2)
    assert p.tolist() == [[3.0, 1.0, 2.0, 0.0]]
