"""The numbers of a document, of maps whose values are known."""

import numpy as np
import pytest

from halo_probe.archive.generation import Generation, Layer, View
from halo_probe.capture.canvas import UNKNOWN
from halo_probe.lmms.measures import Measures
from halo_probe.metrics.dots import Dots
from halo_probe.metrics.geometry import lay_out
from halo_probe.metrics.keys import DOT_KEYS, MIDDLE_KEYS, TOKEN_KEYS
from halo_probe.metrics.sparsity import entropy, gini
from halo_probe.metrics.spatial import spatial_metrics
from halo_probe.metrics.views import WHOLE
from halo_probe.score.values import (
    digit_keys,
    digit_values,
    middle_layers,
    summarize,
    token_values,
)
from lmms_eval_tasks.digits import DigitSteps

DOTS = Dots(centers=((40, 40), (470, 60), (240, 480), (50, 450), (256, 240)), radius=10, image=(512, 512))
GRID = (16, 16)
VIEWS = (View(0, *GRID),)
SPLIT = DigitSteps((0, 1), "split")


def generation(steps=3, layers=20, *, views=VIEWS, visible=None):
    rng = np.random.default_rng(0)
    raw = rng.dirichlet(np.full(256, 0.3), size=(steps, layers)).astype(np.float32) * np.float32(0.5)
    eq1 = rng.dirichlet(np.full(256, 0.3), size=(steps, layers)).astype(np.float32)
    return Generation(
        token_ids=np.arange(steps),
        ended=True,
        views=views,
        layers=tuple(Layer(layer, "full_attention") for layer in range(layers)),
        eq1=eq1,
        raw=raw,
        visual_mass=raw.sum(axis=-1),
        first_mass=np.full((steps, layers), 0.1, dtype=np.float32),
        visible=np.full((steps, layers), 256) if visible is None else visible,
    )


def values_of(one, **settings):
    return token_values(one, ["1", "2", "<end>"], **settings)


@pytest.mark.parametrize(
    ("count", "first", "last"), [(36, 14, 23), (34, 13, 22), (28, 11, 18), (20, 8, 12), (4, 1, 2), (40, 16, 25)]
)
def test_the_middle_layers_are_those_of_the_specification(count, first, last):
    layers = middle_layers(count)
    assert (layers[0], layers[-1]) == (first, last)
    assert layers[0] <= 0.4 * count < layers[0] + 1
    assert layers[-1] < 0.65 * count <= layers[-1] + 1


def test_values_of_the_middle_layers_are_their_means():
    one = generation()
    values = values_of(one, middle=middle_layers(20))
    assert {*values.columns} == {*TOKEN_KEYS, *MIDDLE_KEYS}
    middle = one.eq1[:, 8:13]
    assert values.columns["sparsity_mid"] == pytest.approx(gini(middle).mean(axis=1))
    assert values.columns["entropy_mid"] == pytest.approx(entropy(middle).mean(axis=1))
    assert values.columns["visual_mass_mid"] == pytest.approx(one.visual_mass[:, 8:13].mean(axis=1))
    assert values.columns["sparsity"] == pytest.approx(gini(one.eq1[:, -1]))
    numbers = summarize([values])
    assert numbers["vision_sparsity_mid"] == pytest.approx(gini(middle[:2]).mean())
    digits = digit_values(values, SPLIT)
    assert digits["sparsity_decay_mid"] == pytest.approx(digits["sparsity_mid_d2"] - digits["sparsity_mid_d1"])
    assert not any("_rn" in key or "_g16" in key for key in digits)
    # The grid has 16 rows and columns already.
    assert values.columns["sparsity_g16"] == pytest.approx(values.columns["sparsity"])


def test_a_view_of_unknown_place_has_what_needs_its_grid_alone():
    known, unknown = (
        values_of(generation(views=(View(0, *GRID, box),)), dots=DOTS, spatial=DOT_KEYS) for box in (WHOLE, UNKNOWN)
    )
    assert unknown.columns["sparsity_g16"] == known.columns["sparsity_g16"] != (None,) * 3
    assert {value for key in DOT_KEYS for value in unknown.columns[key]} == {None}
    assert None not in known.columns["halo_index"]


def test_a_middle_layer_that_has_left_tokens_behind_leaves_the_mean_undefined():
    visible = np.full((3, 20), 256)
    visible[1, 9] = 255
    values = values_of(generation(visible=visible), middle=middle_layers(20))
    for key in MIDDLE_KEYS:
        assert [value is None for value in values.columns[key]] == [False, True, False]
    assert None not in values.columns["sparsity"]


def test_spatial_values_are_those_of_the_whole_view_at_the_headline_layer():
    one = generation()
    layout = lay_out(DOTS.centers, radius=10, image=(512, 512), grid=GRID)
    expected = spatial_metrics(one.eq1[:, -1], layout)
    values = values_of(one, dots=DOTS, spatial=DOT_KEYS)
    for key in DOT_KEYS:
        assert values.columns[key] == pytest.approx(expected[key]), key
    digits = digit_values(values, SPLIT)
    assert set(digits) == set(digit_keys((*TOKEN_KEYS, *DOT_KEYS)))
    assert digits["hull_contrast_ns_d2"] == pytest.approx(expected["hull_contrast_ns"][1])
    merged = digit_values(values, DigitSteps((0, 0), "merged"))
    assert (merged["dot_mass_d1"], merged["dot_mass_d2"]) == (digits["dot_mass_d1"], None)


@pytest.mark.parametrize("case", ["no dots", "two images", "a window", "an undefined metric"])
def test_a_spatial_value_that_is_undefined_is_none(case):
    dots, one, keys = DOTS, generation(), DOT_KEYS
    if case == "no dots":
        dots = None
    elif case == "two images":
        one = generation(views=(View(0, 8, 16), View(1, 8, 16)))
    elif case == "a window":
        one = generation(visible=np.full((3, 20), 255))
    else:
        keys = ("penetration",)  # the dots are smaller than a cell
    values = values_of(one, dots=dots, spatial=keys)
    assert {values.columns[key] for key in keys} == {(None, None, None)}
    assert {summarize([values])[f"vision_{key}"] for key in keys} == {None}


def measures(**changes):
    plain = {"ours": True, "digits": "first", "dots": (DOTS, None), "middle": (), "repeated": False, "true_digits": ()}
    return Measures(**plain | changes)


def test_the_keys_of_a_task_are_those_that_its_documents_can_have():
    dotted = measures()
    assert {"vision_sparsity", "sparsity_d1", "entropy_rise", "halo_index_d1", "hull_contrast_ns_d2"} <= {*dotted.keys}
    assert not any("mid" in key or "consist" in key or "penetration" in key for key in dotted.keys)
    assert "vision_halo_index" not in dotted.keys
    assert dotted.dots_of(0) == DOTS
    assert dotted.dots_of(1) is None

    blank = measures(dots=(None, None))
    assert blank.spatial == () == measures(dots=()).spatial
    assert "sparsity_d1" in blank.keys
    assert measures(dots=()).dots_of(7) is None

    words = measures(digits=None)
    assert {"vision_halo_index", "vision_sink_share"} <= {*words.keys}
    assert not any(key.endswith(("_d1", "_d2")) for key in words.keys)

    large = Dots(centers=((100, 100),), radius=64, image=(256, 256))
    assert "penetration_d1" in measures(dots=(large,)).keys
    assert "vision_entropy_mid" in measures(middle=(1, 2)).keys
    assert "self_consistency" in measures(repeated=True).keys
    for one in (dotted, blank, words):
        assert len({*one.keys}) == len(one.keys)
