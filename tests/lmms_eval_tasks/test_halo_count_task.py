"""The task as the harness itself loads and scores it, with a model that gives written replies."""

from pathlib import Path

import pytest
from scipy.stats import sem

import lmms_eval_tasks
from lmms_eval_tasks import count_task, counting

# lmms_eval/filters/extraction.py has a docstring with one, and compiles anew where no bytecode is kept.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")

TASKS = Path(lmms_eval_tasks.__file__).with_name("tasks")
QUESTION = "How many dots are there in the image? Answer directly. Answer: "


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An empty cache, so that the set is built here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        patch.delenv("HALO_DATASET", raising=False)
        yield folder


@pytest.fixture(scope="module")
def task_manager():
    from lmms_eval.tasks import TaskManager

    return TaskManager("INFO", include_path=str(TASKS), include_defaults=False)


@pytest.fixture(scope="module", params=["simple", "chat"])
def evaluation(request, home, task_manager):
    """Results of eight documents, and the arguments of the requests that the model saw."""
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate

    class WrittenReplies(lmms):
        is_simple = request.param == "simple"

        def generate_until(self, requests):
            self.requests = [instance.args for instance in requests]
            document = [self.task_dict["halo_count"]["test"][i] for i in range(len(requests))]
            counts = [row["count"] for row in document]
            return [f"{counts[0]}", f"There are {counts[1] - 1} dots.", "Many", f"{counts[3] + 2}\n\ndots", *["12"] * 4]

        def loglikelihood(self, requests):
            raise NotImplementedError

        def generate_until_multi_round(self, requests):
            raise NotImplementedError

    model = WrittenReplies()
    results = simple_evaluate(model=model, tasks=["halo_count"], task_manager=task_manager, limit=8, log_samples=True)
    return results, model


def test_every_sample_carries_its_id_count_predicted_and_status(evaluation):
    samples = evaluation[0]["samples"]["halo_count"]
    assert [sample["id"] for sample in samples] == [f"halo_count-{i:05d}" for i in range(8)]
    assert [str(sample["count"]) for sample in samples] == [sample["target"] for sample in samples]
    errors = [None if s["predicted"] is None else s["predicted"] - s["count"] for s in samples[:4]]
    assert errors == [0, -1, None, 2]
    assert [sample["status"] for sample in samples[:4]] == ["ok", "ok", "none", "ok"]


def test_the_table_holds_the_metrics_of_the_counts_in_the_samples(evaluation):
    results, samples = evaluation[0]["results"]["halo_count"], evaluation[0]["samples"]["halo_count"]
    true, predicted = [sample["count"] for sample in samples], [sample["predicted"] for sample in samples]
    for name in ("accuracy", "answered", "mbe", "mae", "off_by_one"):
        assert results[f"{name},none"] == pytest.approx(getattr(counting, name)(true, predicted)), name
    for name in ("accuracy", "answered", "off_by_one"):
        items = [sample[name] for sample in samples]
        assert results[f"{name}_stderr,none"] == pytest.approx(sem(items)), name


def test_a_request_carries_the_question_to_the_byte_and_greedy_decoding(evaluation):
    model = evaluation[1]
    gen_kwargs = {"do_sample": False, "temperature": 0.0, "max_new_tokens": 16, "until": []}
    for context, *rest in model.requests:
        assert context == QUESTION
        assert (rest[0] if model.is_simple else rest[1]) == gen_kwargs


def test_a_model_sees_the_image_in_rgb_before_the_question(evaluation):
    model = evaluation[1]
    document = model.task_dict["halo_count"]["test"][0]
    if model.is_simple:
        [image] = model.requests[0][2](document)
    else:
        [message] = model.requests[0][1](document)
        assert message["role"] == "user"
        image, text = message["content"]
        assert text == {"type": "text", "text": QUESTION}
        assert image["type"] == "image"
        image = image["url"]
    assert (image.mode, image.size) == ("RGB", (1024, 1024))
    assert image.tobytes() == document["image"].convert("RGB").tobytes()


def test_the_configuration_has_not_drifted(evaluation):
    config = evaluation[0]["configs"]["halo_count"]
    metrics = [
        (m["metric"], getattr(m["aggregation"], "__name__", m["aggregation"]), m["higher_is_better"])
        for m in config["metric_list"]
    ]
    assert metrics == [
        ("accuracy", "mean", True),
        ("answered", "mean", True),
        ("mbe", "mean_of_present", None),
        ("mae", "mean_of_present", False),
        ("off_by_one", "mean", True),
    ]
    assert config["metadata"] == {"version": 2, "halo_digits": True}
    assert evaluation[0]["versions"]["halo_count"] == 2
    assert config["score_key"] == "accuracy"
    assert config["num_fewshot"] == 0


def test_the_whole_set_has_256_documents(evaluation):
    assert evaluation[0]["n-samples"]["halo_count"]["original"] == 256


def test_a_missing_set_ends_the_run_at_once_with_one_line(home, task_manager, tmp_path, monkeypatch):
    monkeypatch.setenv("HALO_DATASET", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as caught:
        task_manager.load_task_or_group(["halo_count"], "simple")
    assert caught.value.code.startswith("halo_count: ")
    assert "nowhere" in caught.value.code
    assert "\n" not in caught.value.code


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            "12",
            {"accuracy": 1.0, "answered": 1.0, "mbe": 0, "mae": 0, "off_by_one": 1.0, "predicted": 12, "status": "ok"},
        ),
        (
            "11",
            {"accuracy": 0.0, "answered": 1.0, "mbe": -1, "mae": 1, "off_by_one": 1.0, "predicted": 11, "status": "ok"},
        ),
        (
            "14",
            {"accuracy": 0.0, "answered": 1.0, "mbe": 2, "mae": 2, "off_by_one": 0.0, "predicted": 14, "status": "ok"},
        ),
        (
            "12 or 13",
            {
                "accuracy": 0.0,
                "answered": 0.0,
                "mbe": None,
                "mae": None,
                "off_by_one": 0.0,
                "predicted": None,
                "status": "range",
            },
        ),
    ],
)
def test_a_reply_scores_none_where_a_metric_is_undefined(reply, expected):
    doc = {"id": "halo_count-00000", "count": 12}
    assert count_task.process_results(doc, [reply]) == {**expected, **doc}
