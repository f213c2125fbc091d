"""Every task as its file says it: set, question, decoding, metrics; and what replies score."""

import re
from pathlib import Path

import pytest
from PIL import Image

import lmms_eval_tasks
from dataset_builder.sets import SETS
from lmms_eval_tasks import count_task, relation_task
from lmms_eval_tasks.aggregation import mean_of_present

ROOT = Path(__file__).parents[2]
TASKS = Path(lmms_eval_tasks.__file__).with_name("tasks")

COUNT = "How many dots are there in the image? Answer directly. Answer: "
COUNTING = ("accuracy", "answered", "mbe", "mae", "off_by_one")
READING = ("accuracy", "answered")

# Aggregation, and whether higher is better; what is None for some documents has an aggregation that leaves them out.
METRICS = {
    "accuracy": ("mean", True),
    "answered": ("mean", True),
    "mbe": (mean_of_present, None),
    "mae": (mean_of_present, False),
    "off_by_one": ("mean", True),
    "in_words": ("mean", True),
    "predicted": (mean_of_present, None),
}


def snapshot(
    dataset,
    *,
    question=COUNT,
    process=count_task.process_results,
    metrics=COUNTING,
    digits=True,
    tokens=16,
    core=False,
    control=False,
):
    tags = ["halo", *["halo_core"] * core, *["halo_controls"] * control]
    return {
        "dataset_name": dataset,
        "question": question,
        "process_results": process,
        "metrics": metrics,
        "halo_digits": digits,
        "tag": tags,
        "generation_kwargs": {"do_sample": False, "temperature": 0, "max_new_tokens": tokens, "until": []},
    }


# The table of section 11 of the measurement specification, row by row, and the text-only control.
SNAPSHOTS = {
    "halo_count": snapshot("halo_count", core=True),
    "halo_count_balanced": snapshot("halo_count_balanced", core=True),
    "halo_count_single": snapshot("halo_count_single", control=True),
    "halo_count_wide": snapshot("halo_count_wide", core=True),
    "halo_count_three": snapshot("halo_count_three", control=True),
    "halo_count_rev": snapshot(
        "halo_count_wide",
        question="How many dots are there in the image? Write the units digit first, then the tens digit. Answer: ",
        process=count_task.process_reversed,
        digits="reversed",
        control=True,
    ),
    "halo_count_words": snapshot(
        "halo_count",
        question="How many dots are there in the image? Answer with one English word. Answer: ",
        process=count_task.process_words,
        metrics=(*COUNTING, "in_words"),
        digits=None,
        control=True,
    ),
    "halo_count_blank": snapshot("halo_count_blank", metrics=(*READING, "predicted"), core=True, control=True),
    "halo_count_text": snapshot("halo_count_blank", metrics=(*READING, "predicted"), control=True),
    "halo_echo": snapshot(
        "halo_count", question="Repeat this number: 14. Answer: ", metrics=READING, core=True, control=True
    ),
    "halo_ocr": snapshot(
        "halo_ocr",
        question="What number is written in the image? Answer directly. Answer: ",
        metrics=READING,
        core=True,
        control=True,
    ),
    "halo_count_cot": snapshot(
        "halo_count",
        question="How many dots are there in the image? Count the dots step by step, then finish with 'Answer: N'.",
        process=count_task.process_final,
        digits="final",
        tokens=512,
        control=True,
    ),
    "halo_count_large": snapshot("halo_count_large"),
    "halo_layout_annulus": snapshot("halo_layout_annulus"),
    "halo_layout_center": snapshot("halo_layout_center"),
    "halo_layout_grid": snapshot("halo_layout_grid"),
    "halo_enhance_base": snapshot("halo_enhance_base"),
    "halo_enhance_outline": snapshot("halo_enhance_outline"),
    "halo_enhance_r20": snapshot("halo_enhance_r20"),
    "halo_enhance_r32": snapshot("halo_enhance_r32"),
    "halo_enhance_grid": snapshot("halo_enhance_grid"),
    "halo_enhance_crosshair": snapshot("halo_enhance_crosshair"),
    "halo_enhance_invert": snapshot("halo_enhance_invert"),
    "halo_count_noise": snapshot("halo_count_noise", control=True),
    "halo_relate": snapshot(
        "halo_relate",
        question="Is the black dot left of, right of, above or below the red dot? Answer with one word. Answer: ",
        process=relation_task.process_results,
        metrics=READING,
        digits=None,
    ),
}


@pytest.fixture(scope="module")
def task_manager():
    from lmms_eval.tasks import TaskManager

    return TaskManager("INFO", include_path=str(TASKS), include_defaults=False)


def load_config(name):
    from lmms_eval.utils import load_yaml_config

    return load_yaml_config(str(TASKS / f"{name}.yaml"), mode="full")


def test_there_is_a_task_for_every_row_of_the_specification_and_one_without_images(task_manager):
    assert set(task_manager.all_subtasks) == set(SNAPSHOTS)
    assert {path.stem for path in TASKS.glob("*.yaml")} == set(SNAPSHOTS)


def test_every_set_has_a_task():
    assert {config["dataset_name"] for config in SNAPSHOTS.values()} == set(SETS)


def test_the_tags_hold_their_tasks_and_no_group_averages_over_them(task_manager):
    for tag in ("halo", "halo_core", "halo_controls"):
        assert set(task_manager.task_index[tag]["task"]) == {name for name, s in SNAPSHOTS.items() if tag in s["tag"]}
    assert task_manager.all_tags == ["halo", "halo_controls", "halo_core"]
    assert task_manager.all_groups == []


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_question_the_decoding_and_the_metrics_have_not_drifted(name):
    config = load_config(name)
    described = {
        "dataset_name": config["dataset_name"],
        "question": config["doc_to_text"]({"count": 14}),
        "process_results": config["process_results"],
        "metrics": tuple(metric["metric"] for metric in config["metric_list"]),
        "halo_digits": config["metadata"].get("halo_digits"),
        "tag": config["tag"],
        "generation_kwargs": config["generation_kwargs"],
    }
    assert described == SNAPSHOTS[name]
    for metric in config["metric_list"]:
        assert (metric["aggregation"], metric["higher_is_better"]) == METRICS[metric["metric"]]
    assert (config["score_key"], config["num_fewshot"], config["test_split"]) == ("accuracy", 0, "test")


def test_every_task_shows_its_image_but_the_text_only_control():
    document = {"image": Image.new("L", (8, 8))}
    assert {name for name in SNAPSHOTS if not load_config(name)["doc_to_visual"](document)} == {"halo_count_text"}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_every_file_has_its_own_name_and_version_and_inherits_neither(name):
    text = (TASKS / f"{name}.yaml").read_text()
    assert re.findall(r"^task: (\w+)$", text, re.MULTILINE) == [name]
    assert len(re.findall(r"^metadata:\n  version: [1-9]\d*$", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_every_metric_of_the_table_is_scored_for_a_reply_and_documented(name):
    config = load_config(name)
    document = {"id": f"{name}-00000", "count": 12, "answer": "left"}
    documented = (ROOT / "docs/metrics.md").read_text() + (ROOT / "docs/tasks.md").read_text()
    for reply in ("12", "left", ""):
        scores = config["process_results"](document, [reply])
        for metric in SNAPSHOTS[name]["metrics"]:
            assert isinstance(scores[metric], int | float | None)
            assert f"`{metric}`" in documented


def test_the_table_of_the_documentation_lists_the_tasks_that_there_are():
    text = (ROOT / "docs/tasks.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    assert [name for name, _ in listed] == list(SNAPSHOTS)
    for name, n in listed:
        assert int(n) == SETS[SNAPSHOTS[name]["dataset_name"]].n


DOCUMENT = {"id": "halo_count-00000", "count": 10}


@pytest.mark.parametrize(
    ("process", "reply", "predicted", "status"),
    [
        (count_task.process_results, "10", 10, "ok"),
        (count_task.process_results, "1. row: 4, 2. row: 6. Answer: 10", 10, "ok"),
        (count_task.process_results, "4, then 6, so 10", 10, "ok"),
        (count_task.process_final, "4, then 6, so 10", 10, "ok"),
        (count_task.process_final, "There are 4. No: 12 in total. Answer: 10", 10, "ok"),
        (count_task.process_final, "Row 1 has 4, row 2 has 6. Answer: between 9 and 11", None, "range"),
        (count_task.process_reversed, "01", 10, "ok"),
        (count_task.process_reversed, "10", 1, "ok"),
        (count_task.process_reversed, "1", 1, "ok"),
        (count_task.process_reversed, "0 1", 10, "ok"),
        (count_task.process_words, "Ten", 10, "ok"),
        (count_task.process_words, "10", 10, "ok"),
        (count_task.process_words, "plenty", None, "none"),
    ],
)
def test_a_reply_to_a_counting_question_is_read_as_its_task_asks_for_it(process, reply, predicted, status):
    scores = process(DOCUMENT, [reply])
    error = None if predicted is None else predicted - 10
    assert (scores["predicted"], scores["status"]) == (predicted, status)
    assert (scores["accuracy"], scores["answered"]) == (float(predicted == 10), float(predicted is not None))
    assert (scores["mbe"], scores["mae"]) == (error, None if error is None else abs(error))
    assert scores["off_by_one"] == float(predicted in {9, 10, 11})
    assert (scores["id"], scores["count"]) == ("halo_count-00000", 10)


@pytest.mark.parametrize(
    ("reply", "in_words"),
    [
        ("Ten", 1.0),
        ("There are twelve dots.", 1.0),
        ("10", 0.0),
        ("ten (10)", 0.0),
        ("１０", 0.0),
        ("Many", 0.0),
        ("", 0.0),
    ],
)
def test_a_count_is_in_words_when_it_has_no_digit(reply, in_words):
    assert count_task.process_words(DOCUMENT, [reply])["in_words"] == in_words


def test_a_blank_image_is_answered_rightly_by_zero_and_its_replies_are_the_prior():
    replies = ["0", "There are no dots.", "12", "Nothing"]
    scores = [count_task.process_results({"id": "halo_count_blank-00000", "count": 0}, [reply]) for reply in replies]
    assert [score["predicted"] for score in scores] == [0, 0, 12, None]
    assert [score["accuracy"] for score in scores] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("reply", "predicted", "status"),
    [
        ("left", "left", "ok"),
        ("Left.", "left", "ok"),
        ("**LEFT**", "left", "ok"),
        ("Left of", "left", "ok"),
        ("It is left, yes: left of the red dot.", "left", "ok"),
        ("<think>above or below?</think>left", "left", "ok"),
        ("The black dot is below the red dot", "below", "ok"),
        ("not right but left", None, "multi"),
        ("leftmost", None, "none"),
        ("under", None, "none"),
        ("12", None, "none"),
        ("", None, "empty"),
        (" ** ", None, "empty"),
    ],
)
def test_a_relation_is_answered_by_one_of_four_words_alone(reply, predicted, status):
    assert relation_task.process_results({"id": "halo_relate-00000", "answer": "left"}, [reply]) == {
        "accuracy": float(predicted == "left"),
        "answered": float(predicted is not None),
        "id": "halo_relate-00000",
        "relation": "left",
        "predicted": predicted,
        "status": status,
    }
