"""The dataset card and eval.yaml."""

import re

import datasets
import pytest
import yaml

from dataset_builder.card import PublishedSet, card, constant_baseline, eval_yaml, yaml_features
from dataset_builder.rows import features_of
from dataset_builder.sets import SETS

PAPER_COUNTS = [str(count) for count in range(10, 17)]


def published(name: str, answers: list[str] = PAPER_COUNTS) -> PublishedSet:
    return PublishedSet(SETS[name], image_bytes=1000, answers=answers, content_sha256="0" * 64)


def metadata_of(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize(
    ("answer", "mbe", "mae"),
    [("12", -1, 1.857143), ("13", 0, 1.714286), ("10", -3, 3)],
)
def test_a_constant_answer_scores_what_the_specification_says(answer: str, mbe: float, mae: float) -> None:
    baseline = constant_baseline(PAPER_COUNTS, answer)
    assert baseline.accuracy == pytest.approx(0.142857, abs=1e-6)
    assert baseline.mbe == pytest.approx(mbe, abs=1e-6)
    assert baseline.mae == pytest.approx(mae, abs=1e-6)


def test_a_constant_answer_in_words_has_an_accuracy_and_no_errors() -> None:
    baseline = constant_baseline(["left", "above", "left"], "left")
    assert (baseline.accuracy, baseline.mbe, baseline.mae) == (pytest.approx(2 / 3), None, None)


def test_the_baselines_shown_are_of_the_most_frequent_and_the_median_answer() -> None:
    text = card([published("halo_count", ["10", "10", "12", "15", "16"])], repo_id="ada/dots", generator="1.0.0")
    assert "| `halo_count` | 10 | 0.4000 | -2.600 | 2.600 | 12 | 0.2000 | -0.600 | 2.200 |" in text


@pytest.mark.parametrize("name", SETS)
def test_the_features_in_the_card_are_those_declared_and_old_readers_know_them(name: str) -> None:
    declared = features_of(SETS[name])
    written = yaml.safe_load(yaml.safe_dump(yaml_features(declared)))
    assert datasets.Features._from_yaml_list(written) == datasets.Features.from_dict(declared)
    assert "list" not in {key for feature in written for key in feature}


def test_a_feature_that_no_set_has_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot write a feature of type Audio"):
        yaml_features({"sound": {"_type": "Audio"}})


def test_the_metadata_says_what_the_hub_asks_for_and_has_one_default() -> None:
    metadata = metadata_of(card([published(name) for name in SETS], repo_id="ada/dots", generator="1.0.0"))
    assert metadata["license"] == "mit"
    assert metadata["annotations_creators"] == ["machine-generated"]
    assert metadata["source_datasets"] == ["original"]
    assert [config["config_name"] for config in metadata["configs"]] == list(SETS)
    assert [config["config_name"] for config in metadata["configs"] if config.get("default")] == ["halo_count"]
    assert [info["config_name"] for info in metadata["dataset_info"]] == list(SETS)
    assert metadata["dataset_info"][0]["splits"] == [{"name": "test", "num_bytes": 1000, "num_examples": 7}]


def test_the_first_set_is_the_default_where_the_one_of_the_paper_is_not_published() -> None:
    sets = [published("halo_count_wide"), published("halo_relate")]
    metadata = metadata_of(card(sets, repo_id="ada/dots", generator="1.0.0"))
    assert [config.get("default") for config in metadata["configs"]] == [True, None]


def test_the_metadata_has_no_anchors_though_sets_share_their_features() -> None:
    header = card([published(name) for name in SETS], repo_id="ada/dots", generator="1.0.0").split("---\n")[1]
    assert not re.search(r"[&*]id\d", header)


@pytest.mark.parametrize(
    ("rows", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K"), (2_000_000, "1M<n<10M")]
)
def test_the_size_category_is_that_of_all_sets_together(rows: int, category: str) -> None:
    sets = [published("halo_count", ["10"]), published("halo_relate", ["left"] * (rows - 1))]
    assert metadata_of(card(sets, repo_id="ada/dots", generator="1.0.0"))["size_categories"] == [category]


def test_the_page_says_how_the_pixels_are_made_and_how_to_load_pin_and_verify() -> None:
    text = card([published("halo_count")], repo_id="ada/dots", generator="1.2.3")
    for part in (
        "(u − x)² + (v − y)² ≤ r²",
        "`dataset_builder` 1.2.3",
        'load_dataset("ada/dots", "halo_count", split="test", revision="<40-hex commit SHA>")',
        "halo-dataset verify ada/dots@<40-hex commit SHA>",
        "HALO_DATASET=ada/dots@<40-hex commit SHA>",
        "| `halo_count` | 7 | 10–16 | 1024 | 10 | 20 | 0 |",
        f"| `halo_count` | `{'0' * 64}` |",
    ):
        assert part in text


def test_eval_yaml_declares_each_set_as_a_task() -> None:
    declared = yaml.safe_load(eval_yaml([published("halo_count"), published("halo_relate")], repo_id="ada/dots"))
    assert declared.keys() == {"name", "description", "evaluation_framework", "tasks"}
    assert declared["tasks"] == [
        {"id": "halo_count", "config": "halo_count", "split": "test"},
        {"id": "halo_relate", "config": "halo_relate", "split": "test"},
    ]
