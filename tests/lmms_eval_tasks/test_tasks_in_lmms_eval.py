"""All tasks in real `lmms-eval` processes, with and without the probe.

Its command exits 0 on failure: the results file is looked at.
"""

import json
from pathlib import Path

import pytest

import lmms_eval_tasks

TASKS = {path.stem for path in Path(lmms_eval_tasks.__file__).with_name("tasks").glob("*.yaml")}


def evaluate(lmms_eval, out, *, model, model_args, tasks, limit):
    arguments = ["--model", model, "--model_args", f"{model_args},device_map=cpu", "--device", "cpu"]
    finished = lmms_eval([*arguments, "--tasks", tasks, "--limit", limit, "--output_path", out, "--log_samples"])
    assert finished.returncode == 0, finished.stderr[-2000:]
    (path,) = out.glob("*/*_results.json")
    samples = {
        file.stem.partition("_samples_")[2]: [json.loads(line) for line in file.read_text().splitlines()]
        for file in out.glob("*/*_samples_*.jsonl")
    }
    return finished.stdout, json.loads(path.read_text()), samples


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory, qwen3_vl_checkpoint, lmms_eval):
    out = tmp_path_factory.mktemp("all")
    return evaluate(
        lmms_eval, out, model="qwen3_vl", model_args=f"pretrained={qwen3_vl_checkpoint}", tasks="halo", limit=2
    )


@pytest.fixture(scope="module")
def halo_run(tmp_path_factory, qwen3_vl_checkpoint, lmms_eval):
    out = tmp_path_factory.mktemp("probed")
    model_args = f"base=qwen3_vl,pretrained={qwen3_vl_checkpoint}"
    return evaluate(lmms_eval, out, model="halo", model_args=model_args, tasks="halo_core,halo_controls", limit=1)


def test_the_tag_of_all_runs_every_task_with_a_row_per_metric_and_no_average(plain_run):
    stdout, results, _ = plain_run
    assert set(results["results"]) == TASKS
    assert "groups" not in results
    rows = {tuple(cell.strip() for cell in line.split("|")[1:5:3]) for line in stdout.splitlines() if "|none" in line}
    for name, config in results["configs"].items():
        assert {metric for task, metric in rows if task == name} == {m["metric"] for m in config["metric_list"]}


def test_every_task_has_its_version_its_set_and_a_sample_of_each_document(plain_run):
    _, results, samples = plain_run
    assert results["versions"] == dict.fromkeys(TASKS, 2) | {"halo_enhance_base": 1}
    assert set(samples) == TASKS
    for name, logged in samples.items():
        dataset = results["configs"][name]["dataset_name"]
        assert [sample["id"] for sample in logged] == [f"{dataset}-00000", f"{dataset}-00001"]
        assert {"predicted", "status"} <= set(logged[0])


def test_every_document_is_asked_the_question_of_its_task(plain_run):
    from lmms_eval.utils import load_yaml_config

    _, _, samples = plain_run
    for name, logged in samples.items():
        folder = Path(lmms_eval_tasks.__file__).with_name("tasks")
        question = load_yaml_config(str(folder / f"{name}.yaml"), mode="full")["doc_to_text"]
        for sample in logged:
            assert sample["input"] == question(sample)
    assert [sample["input"] for sample in samples["halo_echo"]] == [
        f"Repeat this number: {sample['count']}. Answer: " for sample in samples["halo_count"]
    ]


def test_the_table_is_the_mean_over_the_samples_that_have_a_value(plain_run):
    _, results, samples = plain_run
    for name, config in results["configs"].items():
        for metric in (m["metric"] for m in config["metric_list"]):
            values = [sample[metric] for sample in samples[name] if sample[metric] is not None]
            expected = pytest.approx(sum(values) / len(values)) if values else None
            assert results["results"][name][f"{metric},none"] == expected, (name, metric)


def test_the_probe_records_every_task_and_the_digits_of_those_that_have_them(halo_run):
    _, results, samples = halo_run
    assert results["halo"]["failures"] == []
    assert (results["halo"]["recorded"], results["halo"]["without_image"]) == (len(samples) - 1, 1)
    assert results["results"].pop("halo_count_text")["vision_sparsity,none"] is None
    assert {"halo_count", "halo_echo", "halo_ocr", "halo_count_rev", "halo_count_cot"} < set(samples) < TASKS
    for name, scores in results["results"].items():
        assert 0 < scores["vision_sparsity,none"] < 1
        in_digits = "halo_digits" in results["configs"][name]["metadata"]
        assert ("sparsity_d1,none" in scores) == in_digits
        assert ("digit_status" in samples[name][0]["token_counts"][0]["halo"]) == in_digits
