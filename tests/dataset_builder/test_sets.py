"""The sets of the study are those of the specification, section 11, and a new set is described by its parameters."""

from pathlib import Path

import pytest

from dataset_builder import questions
from dataset_builder.errors import DatasetUsageError
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.rows import features_of
from dataset_builder.sets import SETS, SetSpec, get_set, parameters_of, parameters_text, spec_from_parameters

ENHANCED = ["base", "outline", "r20", "r32", "grid", "crosshair", "invert"]


def test_the_questions_are_those_of_the_specification_to_the_byte():
    assert questions.COUNT_QUESTION == "How many dots are there in the image? Answer directly. Answer: "
    assert questions.REVERSED_QUESTION == (
        "How many dots are there in the image? Write the units digit first, then the tens digit. Answer: "
    )
    assert questions.WORDS_QUESTION == "How many dots are there in the image? Answer with one English word. Answer: "
    assert questions.STEPS_QUESTION == (
        "How many dots are there in the image? Count the dots step by step, then finish with 'Answer: N'."
    )
    assert questions.ECHO_QUESTION.format(n=12) == "Repeat this number: 12. Answer: "
    assert questions.NUMBER_QUESTION == "What number is written in the image? Answer directly. Answer: "
    assert questions.RELATION_QUESTION == (
        "Is the black dot left of, right of, above or below the red dot? Answer with one word. Answer: "
    )


def test_there_is_every_set_of_the_study_and_each_has_a_golden_hash():
    assert set(SETS) == {
        "halo_count",
        *(f"halo_count_{name}" for name in ("balanced", "single", "wide", "three", "blank", "large", "noise")),
        *(f"halo_layout_{name}" for name in ("annulus", "center", "grid")),
        *(f"halo_enhance_{name}" for name in ENHANCED),
        "halo_ocr",
        "halo_relate",
    }
    assert set(SETS) == set(CONTENT_SHA256)
    assert len(set(CONTENT_SHA256.values())) == len(SETS)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("halo_count", (256, (10, 16), 10, 20, False)),
        ("halo_count_balanced", (700, (10, 16), 10, 20, True)),
        ("halo_count_single", (360, (1, 9), 10, 20, True)),
        ("halo_count_wide", (360, (10, 99), 10, 20, True)),
        ("halo_count_three", (400, (100, 499), 5, 10, True)),
        ("halo_count_large", (256, (4, 10), 64, 32, False)),
        ("halo_layout_annulus", (256, (10, 16), 10, 20, False)),
        ("halo_layout_center", (256, (10, 16), 10, 20, False)),
        ("halo_layout_grid", (256, (10, 16), 10, 20, False)),
    ],
)
def test_the_numbers_of_a_set_are_those_of_the_specification(name, numbers):
    spec = SETS[name]
    assert (spec.n, spec.counts, spec.radius, spec.gap, spec.balanced) == numbers
    assert spec.size == 1024
    assert spec.question == questions.COUNT_QUESTION


@pytest.mark.parametrize("name", ENHANCED)
def test_the_enhanced_sets_are_of_one_set_of_layouts(name):
    spec = SETS[f"halo_enhance_{name}"]
    assert (spec.layout_of, spec.n) == (None if name == "base" else "halo_enhance_base", 256)


def test_the_noise_set_is_of_the_layouts_of_the_papers_set():
    assert (SETS["halo_count_noise"].layout_of, SETS["halo_count_noise"].n) == ("halo_count", 256)


@pytest.mark.parametrize("name", SETS)
def test_a_set_can_be_had_again_from_its_parameters(name):
    assert spec_from_parameters(parameters_of(SETS[name]), n=SETS[name].n) == SETS[name]


def test_parameters_are_canonical_and_do_not_depend_on_the_number_of_rows():
    spec = SetSpec(name="mine", counts=(3, 5), n=7)
    assert parameters_text(spec) == parameters_text(SetSpec(name="mine", counts=(3, 5), n=99))
    assert parameters_text(SetSpec(name="mine")) == (
        '{"background":"white","balanced":false,"counts":[10,16],"gap":20,"kind":"dots","layout":"uniform",'
        '"layout_of":null,"marks":"none","name":"mine","question":"How many dots are there in the image? '
        'Answer directly. Answer: ","radius":10,"seed":0,"size":1024}'
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Mine"}, "set name 'Mine': use up to 64 lower-case letters"),
        ({"name": "a|b"}, "set name 'a|b'"),
        ({"n": 0}, "mine: n 0: a set has at least one row"),
        ({"seed": -1}, "mine: seed -1: use a number from 0 up"),
        ({"counts": (5, 4)}, "mine: counts 5:4: give LOW:HIGH"),
        ({"counts": (-1, 4)}, "mine: counts -1:4"),
        ({"radius": -1}, "mine: radius -1"),
        ({"gap": -1}, "mine: gap -1"),
        ({"size": 0}, "mine: size 0"),
        ({"kind": "dot"}, "mine: kind 'dot': use one of .'dots', 'blank', 'number', 'relation'."),
        ({"layout": "ring"}, "mine: layout 'ring': use one of "),
        ({"background": "red"}, "mine: background 'red': use one of "),
        ({"marks": "cross"}, "mine: marks 'cross': use one of "),
        ({"size": 10**6}, "mine: size 1000000: use a number of pixels from 1 to 16384"),
    ],
)
def test_a_parameter_out_of_range_is_a_usage_error(changes, message):
    with pytest.raises(DatasetUsageError, match=message.replace("|", r"\|")):
        SetSpec(**{"name": "mine", **changes})


def test_an_unknown_set_is_a_usage_error_that_lists_those_there_are():
    with pytest.raises(DatasetUsageError, match="no set is named 'halo_cuont'; there are halo_count, "):
        get_set("halo_cuont")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"counts": 3},
        {"counts": [1, 2]},
        {"counts": [1, 2], "name": "a", "x": 1},
        {**parameters_of(SETS["halo_count"]), "layout_of": "no_set"},
        {**parameters_of(SETS["halo_count"]), "gap": "x"},
    ],
)
def test_parameters_that_describe_no_set_are_an_error(parameters):
    with pytest.raises(DatasetUsageError, match="set parameters: "):
        spec_from_parameters(parameters, n=1)


def test_the_documentation_names_every_set_and_every_column():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text("utf-8")
    for name in (*SETS, *features_of(SETS["halo_count"])):
        assert f"`{name}`" in text
