"""A real run with `--wandb_args`, offline: its scalars, its table of results, its heatmaps; and its results file."""

import json

import pytest
from lmms_eval.utils import make_table
from PIL import Image

from halo_probe.lmms.wandb_table import fit_for_loggers, log_heatmaps


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def logged(qwen3_vl_checkpoint, lmms_eval, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wandb")
    arguments = ["--model", "halo", "--device", "cpu", "--tasks", "halo_count"]
    arguments += ["--model_args", f"base=qwen3_vl,pretrained={qwen3_vl_checkpoint},device_map=cpu", "--limit", "2"]
    arguments += ["--output_path", str(folder / "run"), "--wandb_args", "project=dots,name=tiny"]
    places = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
    finished = lmms_eval(arguments, WANDB_MODE="offline", WANDB_DIR=str(folder), **places)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return folder, finished.stdout + finished.stderr


def test_wandb_gets_scalars_the_table_of_results_and_heatmaps(logged):
    folder, printed = logged
    assert "Weights and Biases failed" not in printed
    tables = {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("wandb/offline*/files/media/table/*/*")
    }
    metrics = {row[4] for row in tables["evaluation"]["data"]}
    assert {"accuracy", "vision_sparsity", "sparsity_d1"} <= metrics
    assert not {"id", "count", "predicted", "status"} & metrics
    assert tables["halo"]["columns"] == ["task", "doc_id", "reply", "attention"]
    rows = [row[:3] for row in tables["halo"]["data"]]
    assert [row[:2] for row in rows] == [["halo_count", 0], ["halo_count", 1]]
    assert all(reply.isdecimal() and len(reply) == 2 for *_, reply in rows)
    assert "halo_count/accuracy 0" in printed
    pictures = [path for path in folder.glob("data/artifacts/staging/*") if path.read_bytes().startswith(b"\x89PNG")]
    assert len(pictures) == 2
    with Image.open(pictures[0]) as picture:
        assert picture.width > picture.height  # two panels side by side


def test_the_results_file_is_strict_json_that_lmms_eval_can_show(logged):
    folder, _ = logged
    (file,) = folder.glob("run/*/*_results.json")
    results = json.loads(file.read_text(), parse_constant=refuse)
    metrics = results["results"]["halo_count"]
    assert not [
        key for key, value in metrics.items() if isinstance(value, list) or (value is None and "_stderr" in key)
    ]
    shown = make_table(results)
    for key in ("accuracy", "vision_sparsity", "sparsity_decay"):
        assert f"|{key} " in shown


def test_what_a_logger_cannot_format_is_left_out_or_named():
    metrics = {"id,none": [], "mbe,none": None, "mbe_stderr,none": None, "accuracy,none": 0.5, "alias": "halo_count"}
    assert fit_for_loggers({"halo_count": metrics}) == {
        "halo_count": {"mbe,none": None, "mbe_stderr,none": "N/A", "accuracy,none": 0.5, "alias": "halo_count"}
    }


def test_without_a_wandb_run_nothing_happens(tmp_path):
    log_heatmaps(tmp_path, {})
    log_heatmaps(None, {})
