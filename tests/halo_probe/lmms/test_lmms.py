"""Real `lmms-eval` processes with and without the probe. Its command exits 0 on failure: the results file is looked at."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

LIMIT = 3
RECORDING = "Answering, attention recorded"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")
ONE_PROCESS = (sys.executable, "-m", "lmms_eval")
TWO_PROCESSES = (*TORCHRUN, "-m", "lmms_eval")
FOREIGN = "brightness"
FOREIGN_TASK = """
task: brightness
dataset_path: parquet
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_visual: !function brightness.images
doc_to_text: !function brightness.question
doc_to_target: answer
generation_kwargs: {max_new_tokens: 4, do_sample: false, until: []}
process_results: !function brightness.score
metric_list:
  - {metric: length, aggregation: mean, higher_is_better: true}
metadata: {version: 3}
"""
FOREIGN_CODE = """
def images(doc):
    return [doc["image"].convert("RGB")] if doc["image"] is not None else []


def question(doc, lmms_eval_specific_kwargs=None):
    return "Is it bright?"


def score(doc, results):
    return {"length": float(len(results[0]))}
"""


@pytest.fixture(scope="session")
def foreign_tasks(tmp_path_factory):
    """A task folder that knows nothing of the probe; one of its documents has no image."""
    folder = tmp_path_factory.mktemp("foreign")
    images = [Image.new("RGB", (64 + 32 * n, 64), (60 * n, 90, 200)) for n in range(LIMIT)]
    images[1] = None
    features = datasets.Features({"image": datasets.Image(), "answer": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": images, "answer": ["yes"] * LIMIT}, features=features)
    rows.to_parquet(folder / "brightness.parquet")
    (folder / "brightness.yaml").write_text(FOREIGN_TASK.replace("DATA", str(folder / "brightness.parquet")))
    (folder / "brightness.py").write_text(FOREIGN_CODE)
    return folder


def started(lmms_eval, command):
    """`lmms-eval` started anew by another command, as a user starts it."""

    def run(arguments):
        return subprocess.run(
            [*command, *map(str, arguments)],
            env=lmms_eval.environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    return run


def evaluate(run, model, checkpoint, *extra, tasks="halo_count", out=None, limit=LIMIT, model_args="", **environment):
    arguments = ["--model", model, "--model_args", f"{model_args}pretrained={checkpoint},device_map=cpu"]
    arguments += ["--device", "cpu", "--tasks", tasks, "--limit", limit]
    arguments += ["--output_path", out, "--log_samples"] if out else []
    return run([*arguments, *extra], **environment)


def results_of(out):
    (path,) = Path(out).glob("*/*_results.json")
    return json.loads(path.read_text())


def samples_of(out, task="halo_count"):
    (path,) = Path(out).glob(f"*/*_samples_{task}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory, qwen3_vl_checkpoint, lmms_eval):
    out = tmp_path_factory.mktemp("plain")
    return evaluate(started(lmms_eval, ONE_PROCESS), "qwen3_vl", qwen3_vl_checkpoint, out=out), out


@pytest.fixture(scope="session")
def halo_run(tmp_path_factory, qwen3_vl_checkpoint, lmms_eval, foreign_tasks):
    out = tmp_path_factory.mktemp("halo")
    extra = ["--include_path", foreign_tasks]
    tasks = f"halo_count,{FOREIGN}"
    finished = evaluate(
        lmms_eval, "halo", qwen3_vl_checkpoint, *extra, tasks=tasks, out=out, model_args="base=qwen3_vl,layers=all,"
    )
    return finished, out


def test_the_task_is_found_and_scored_without_the_probe(plain_run):
    finished, out = plain_run
    assert finished.returncode == 0, finished.stderr
    scores = results_of(out)["results"]["halo_count"]
    for metric in ("accuracy", "answered", "mbe", "mae", "off_by_one"):
        assert isinstance(scores[f"{metric},none"], float)
        assert isinstance(scores[f"{metric}_stderr,none"], float)
    assert not [key for key in scores if key.startswith("vision")]
    assert results_of(out)["versions"]["halo_count"] == 2
    assert "|halo_count|" in finished.stdout.replace(" ", "")


def test_the_probe_changes_no_answer(plain_run, halo_run):
    assert halo_run[0].returncode == 0, halo_run[0].stderr
    assert RECORDING in halo_run[0].stderr
    plain, probed = samples_of(plain_run[1]), samples_of(halo_run[1])
    assert [sample["filtered_resps"] for sample in plain] == [sample["filtered_resps"] for sample in probed]
    assert [sample["input"] for sample in plain] == [sample["input"] for sample in probed]
    for metric in ("accuracy", "mbe", "mae"):
        key = f"{metric},none"
        assert (
            results_of(plain_run[1])["results"]["halo_count"][key]
            == results_of(halo_run[1])["results"]["halo_count"][key]
        )


def test_attention_stands_in_the_table_and_the_results_with_standard_errors(halo_run):
    finished, out = halo_run
    scores = results_of(out)["results"]
    for task in ("halo_count", FOREIGN):
        for metric in ("vision_sparsity", "vision_entropy", "vision_mass"):
            assert 0 < scores[task][f"{metric},none"] < 1
            assert scores[task][f"{metric}_stderr,none"] > 0
            assert re.search(rf"\|{metric} *\| *\| *0\.\d+\|± +\| *0\.\d+\|", finished.stdout)
    for metric in ("sparsity_d1", "sparsity_d2", "entropy_d1", "entropy_d2", "visual_mass_d1", "visual_mass_d2"):
        assert 0 < scores["halo_count"][f"{metric},none"] < 1
        assert f"{metric},none" not in scores[FOREIGN]
    counting = scores["halo_count"]
    decay = counting["sparsity_d2,none"] - counting["sparsity_d1,none"]
    assert counting["sparsity_decay,none"] == pytest.approx(decay, abs=1e-9)
    assert counting["entropy_rise,none"] == pytest.approx(
        counting["entropy_d2,none"] - counting["entropy_d1,none"], abs=1e-9
    )
    assert scores[FOREIGN]["length,none"] > 0


def test_the_table_is_the_mean_and_standard_error_of_the_maps(halo_run):
    """From the stored maps to the table, with numpy alone."""
    _, out = halo_run
    rows = pd.read_parquet(out / "halo")
    last = rows[(rows.task == "halo_count") & (rows.layer == rows.layer.max()) & ~rows.end]
    ascending = np.sort(np.stack(last.map_eq1.to_numpy()).astype(float), axis=1)
    count = ascending.shape[1]
    ginis = 1 - 2 / count * ((count + 0.5 - np.arange(1, count + 1)) * ascending).sum(1) / ascending.sum(1)
    documents = pd.Series(ginis).groupby(last.doc_id.to_numpy()).mean()
    scores = results_of(out)["results"]["halo_count"]
    assert scores["vision_sparsity,none"] == pytest.approx(documents.mean(), abs=1e-6)
    assert scores["vision_sparsity_stderr,none"] == pytest.approx(documents.sem(), abs=1e-6)
    second = pd.Series(ginis).groupby(last.doc_id.to_numpy()).nth(1)
    assert scores["sparsity_d2,none"] == pytest.approx(second.mean(), abs=1e-6)


def test_samples_carry_the_document_and_its_values_per_token(halo_run):
    _, out = halo_run
    for number, sample in enumerate(samples_of(out)):
        assert sample["id"] == f"halo_count-{number:05d}"
        assert {"count", "predicted", "status", "mbe"} <= set(sample)
        (generation,) = sample["token_counts"][0]["halo"]["generations"]
        assert "".join(generation["tokens"][:2]) == sample["filtered_resps"]
        assert len(generation["sparsity"]) == len(generation["tokens"]) == len(generation["visual_mass"]) == 3
        assert sample["token_counts"][0]["halo"]["digit_status"] == "split"
        assert sample["vision_sparsity"] == pytest.approx(np.mean(generation["sparsity"][:2]))
        assert sample["sparsity_d2"] == generation["sparsity"][1]


def test_a_foreign_document_without_an_image_is_counted_and_leaves_the_others_scored(halo_run):
    _, out = halo_run
    assert [sample["vision_mass"] is None for sample in samples_of(out, FOREIGN)] == [False, True, False]
    assert results_of(out)["halo"]["without_image"] == 1
    assert results_of(out)["halo"]["recorded"] == 2 * LIMIT - 1


def test_the_maps_are_complete_and_readable_by_pandas_duckdb_and_datasets(halo_run, tmp_path):
    _, out = halo_run
    frame = pd.read_parquet(out / "halo")
    assert set(frame.task) == {"halo_count", FOREIGN}
    counting = frame[frame.task == "halo_count"]
    assert len(counting) == LIMIT * 3 * frame.layer.nunique()
    assert not counting.duplicated(["doc_id", "repeat", "call", "step", "layer"]).any()
    assert {tuple(map(tuple, grid)) for grid in counting.grid} == {((32, 32),)}
    for row in counting.itertuples():
        assert len(row.map_eq1) == 1024
        assert np.sum(row.map_eq1, dtype=float) == pytest.approx(1, abs=1e-5)
        assert np.sum(row.map_raw, dtype=float) == pytest.approx(row.visual_mass, abs=1e-5)
    sql = f"select count(*) from '{out}/halo/*.parquet'"
    assert duckdb.sql(sql).fetchall() == [(len(frame),)]
    files = [str(path) for path in (out / "halo").glob("*.parquet")]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == len(frame)
    compressions = {pq.ParquetFile(file).metadata.row_group(0).column(0).compression for file in files}
    assert compressions == {"ZSTD"}


def test_the_signature_is_in_the_results_and_in_every_part(halo_run):
    _, out = halo_run
    signature = results_of(out)["halo"]["signature"]
    assert signature["model"]["kernel"] == "sdpa"
    assert signature["model"]["dtype"] == "bfloat16"
    assert signature["model"]["base"] == "qwen3_vl"
    assert signature["tasks"]["halo_count"]["version"] == 2
    assert len(signature["tasks"]["halo_count"]["dataset_sha256"]) == 64
    assert len(signature["tasks"][FOREIGN]["prompt_sha256"]) == 64
    assert {"torch", "transformers", "lmms-eval", "halo-probe"} <= set(signature["packages"])
    for part in (out / "halo").glob("*.parquet"):
        assert json.loads(pq.read_schema(part).metadata[b"halo_probe"]) == signature


def test_the_simple_form_of_a_model_is_recorded_too(tmp_path, qwen3_vl_checkpoint, lmms_eval):
    finished = evaluate(
        lmms_eval, "halo", qwen3_vl_checkpoint, "--force_simple", out=tmp_path, limit=2, model_args="base=qwen3_vl,"
    )
    assert finished.returncode == 0, finished.stderr
    results = results_of(tmp_path)
    assert results["config"]["model_backend"].endswith("(simple)")
    assert 0 < results["results"]["halo_count"]["sparsity_d2,none"] < 1
    assert pd.read_parquet(tmp_path / "halo").doc_id.nunique() == 2


def test_gemma3_is_recorded_with_its_layer_types(tmp_path, gemma3_checkpoint, lmms_eval):
    finished = evaluate(
        lmms_eval, "halo", gemma3_checkpoint, out=tmp_path, limit=2, model_args="base=gemma3,layers=[-2,-1],"
    )
    assert finished.returncode == 0, finished.stderr
    assert 0 < results_of(tmp_path)["results"]["halo_count"]["vision_sparsity,none"] < 1
    frame = pd.read_parquet(tmp_path / "halo")
    assert {tuple(map(tuple, grid)) for grid in frame.grid} == {((16, 16),)}
    assert set(frame.layer_type) == {"full_attention", "sliding_attention"}


def fails_with(finished, *words):
    assert finished.returncode != 0, finished.stdout[-2000:]
    line = finished.stderr.strip().splitlines()[-1]
    assert line.startswith("halo"), finished.stderr[-2000:]
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("model_args", "words"),
    [
        ("base=qwen9,", ["base='qwen9'", "lmms-eval models"]),
        ("base=qwen3_vl,layers=[7],", ["no attention layer 7", "0 to 3"]),
    ],
    ids=["unknown-base", "unknown-layer"],
)
def test_a_wrong_model_argument_ends_the_run_with_one_line(model_args, words, qwen3_vl_checkpoint, lmms_eval):
    fails_with(evaluate(lmms_eval, "halo", qwen3_vl_checkpoint, model_args=model_args), *words)


def test_a_missing_checkpoint_ends_the_run_with_one_line(tmp_path, lmms_eval):
    gone = tmp_path / "gone"
    fails_with(evaluate(lmms_eval, "halo", gone, model_args="base=qwen3_vl,"), str(gone), "config.json")


def test_a_checkpoint_that_is_cut_short_does_not_end_in_exit_code_0(tmp_path, qwen3_vl_checkpoint, lmms_eval):
    broken = Path(shutil.copytree(qwen3_vl_checkpoint, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    fails_with(evaluate(lmms_eval, "halo", broken, model_args="base=qwen3_vl,"), "SafetensorError")


def test_an_output_that_cannot_be_written_ends_the_run_before_the_first_sample(
    tmp_path, qwen3_vl_checkpoint, lmms_eval
):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    finished = evaluate(lmms_eval, "halo", qwen3_vl_checkpoint, out=blocked / "run", model_args="base=qwen3_vl,")
    fails_with(finished, str(blocked), "--output_path")
    assert RECORDING not in finished.stderr


@pytest.fixture(scope="session")
def built_set(tmp_path_factory, lmms_eval):
    folder = tmp_path_factory.mktemp("built")
    command = [Path(sys.executable).with_name("halo-dataset"), "build", "halo_count", "--out", folder]
    subprocess.run(command, env=lmms_eval.environment, check=True, timeout=120)
    return folder


def with_one_changed_pixel(shard):
    table = pq.read_table(shard)
    images = table["image"].to_pylist()
    picture = Image.open(io.BytesIO(images[1]["bytes"]))
    picture.putpixel((500, 500), 254 if picture.getpixel((500, 500)) == 255 else 255)
    images[1]["bytes"] = (png := io.BytesIO(), picture.save(png, "PNG"))[0].getvalue()
    column = table.schema.get_field_index("image")
    changed = table.set_column(column, table.schema.field(column), pa.array(images, table.schema.field(column).type))
    pq.write_table(changed, shard)


def cut_in_half(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "words"),
    [(with_one_changed_pixel, ["halo_count-00001"]), (cut_in_half, ["test-00000-of-00001.parquet"])],
)
def test_a_damaged_dataset_folder_ends_the_run_with_one_line(
    damage, words, built_set, tmp_path, qwen3_vl_checkpoint, lmms_eval
):
    folder = Path(shutil.copytree(built_set, tmp_path / "set"))
    (shard,) = folder.rglob("*.parquet")
    damage(shard)
    finished = evaluate(lmms_eval, "qwen3_vl", qwen3_vl_checkpoint, HALO_DATASET=str(folder))
    fails_with(finished, "halo_count: ", *words)


def test_a_good_dataset_folder_gives_the_scores_of_the_built_in_set(
    built_set, plain_run, tmp_path, qwen3_vl_checkpoint, lmms_eval
):
    finished = evaluate(lmms_eval, "qwen3_vl", qwen3_vl_checkpoint, out=tmp_path, HALO_DATASET=str(built_set))
    assert finished.returncode == 0, finished.stderr
    assert results_of(tmp_path)["results"] == results_of(plain_run[1])["results"]


def test_the_same_evaluation_by_two_processes_is_answered_from_the_maps_and_another_one_is_refused_with_the_difference(
    halo_run, tmp_path, qwen3_vl_checkpoint, lmms_eval, foreign_tasks
):
    out = shutil.copytree(halo_run[1], tmp_path / "again")
    before = {part: part.read_bytes() for part in (out / "halo").glob("*.parquet")}
    first = results_of(out)
    shutil.rmtree(next(out.glob("*/*_results.json")).parent)
    extra = ["--include_path", foreign_tasks]
    same = {"tasks": f"halo_count,{FOREIGN}", "out": out}
    all_layers = "base=qwen3_vl,layers=all,"
    again = evaluate(
        started(lmms_eval, TWO_PROCESSES), "halo", qwen3_vl_checkpoint, *extra, **same, model_args=all_layers
    )
    assert again.returncode == 0, again.stderr
    for task, scores in first["results"].items():
        assert results_of(out)["results"][task] == pytest.approx(scores, nan_ok=True)
    said = {**results_of(out)["halo"], "files": first["halo"]["files"]}  # the files of another run have other times
    assert said == {**first["halo"], "resumed": 2 * LIMIT, "maps": str(out / "halo")}
    changed = evaluate(lmms_eval, "halo", qwen3_vl_checkpoint, *extra, **same, model_args="base=qwen3_vl,")
    fails_with(changed, "recorded_layers was [", "is [", "--output_path")
    assert {part: part.read_bytes() for part in (out / "halo").glob("*.parquet")} == before


def test_two_processes_say_what_one_says_and_write_into_one_folder(
    halo_run, tmp_path, qwen3_vl_checkpoint, lmms_eval, foreign_tasks
):
    options = ["--include_path", foreign_tasks, "--tasks", f"halo_count,{FOREIGN}"]
    given = f"base=qwen3_vl,layers=all,pretrained={qwen3_vl_checkpoint},device_map=cpu"
    options += ["--model", "halo", "--model_args", given, "--device", "cpu", "--limit", LIMIT]
    finished = started(lmms_eval, TWO_PROCESSES)([*options, "--output_path", tmp_path, "--log_samples"])
    assert finished.returncode == 0, finished.stderr
    one, two = results_of(halo_run[1]), results_of(tmp_path)
    for task, scores in one["results"].items():
        assert two["results"][task] == pytest.approx(scores, nan_ok=True)
    apart = {"maps": None, "files": None}
    assert {**two["halo"], **apart} == {**one["halo"], **apart}
    for task in ("halo_count", FOREIGN):
        shown, expected = (
            {sample["doc_id"]: sample for sample in samples_of(out, task)} for out in (tmp_path, halo_run[1])
        )
        assert shown == expected
    assert len(list((tmp_path / "halo").glob("part-*.rank1.parquet"))) == 1
    rows = [
        pd.read_parquet(out / "halo").sort_values(["task", "doc_id", "step", "layer"], ignore_index=True)
        for out in (tmp_path, halo_run[1])
    ]
    pd.testing.assert_frame_equal(*rows)


def test_a_document_whose_attention_is_missing_fails_the_run_after_everything_else_is_saved(
    tmp_path, qwen3_vl_checkpoint, lmms_eval, foreign_tasks
):
    beams = (foreign_tasks / "brightness.yaml").read_text().replace("task: brightness", "task: beams")
    (tmp_path / "beams.yaml").write_text(beams.replace("max_new_tokens: 4", "max_new_tokens: 4, num_beams: 2"))
    (tmp_path / "brightness.py").write_text((foreign_tasks / "brightness.py").read_text())
    out = tmp_path / "out"
    extra = ["--include_path", tmp_path]
    boosted = "base=qwen3_vl,intervention=boost:2,"  # which beam search cannot have
    # lmms-eval evaluates tasks in reverse order of naming
    finished = evaluate(
        lmms_eval, "halo", qwen3_vl_checkpoint, *extra, tasks="beams,halo_count", out=out, model_args=boosted
    )
    fails_with(finished, "beams 0 ", "beams 2 ", "num_beams=1", "3 others are kept")
    results = results_of(out)
    assert [failure["doc_id"] for failure in results["halo"]["failures"]] == [0, 2]
    assert results["results"]["halo_count"]["vision_sparsity,none"] > 0
    assert results["results"]["beams"]["vision_sparsity,none"] is None
    assert "vision_sparsity" in finished.stdout
    assert pd.read_parquet(out / "halo").doc_id.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
