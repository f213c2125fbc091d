"""Tasks that are not ours, in the ways that lmms-eval can run them: groups, several rounds, options of the call."""

import forked_runs
import numpy as np
import pandas as pd
import pytest
import tiny_models
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager, get_task_dict
from PIL import Image

from halo_probe.lmms.model import HaloChat, HaloSimple
from halo_probe.lmms.signature import _task_fields

ROUNDS = """
def images(doc):
    return [doc["image"].convert("RGB")]
def ask(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    if round_idx is None:
        return "How many dots are there in the image?"
    return images(doc), "Count.", round_idx == 2, previous_output, None
def score(doc, results):
    return {"rounds": results[0].count("'") / 2}  # lmms-eval writes the tuple of replies as text
"""
SECOND = "include: patches.yaml\ntask: patches_again\n"
GROUP = """
group: both
task: [patches, patches_again]
aggregate_metric_list: [{metric: length, aggregation: mean, weight_by_size: true}]
metadata: {version: 1}
"""


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """`patches`, a group of it and its copy, and `rounds`, which asks twice."""
    folder = tmp_path_factory.mktemp("patches")
    noise = np.random.default_rng(2)
    images = [Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(4)]
    forked_runs.write_task(folder, images)
    (folder / "again.yaml").write_text(SECOND)
    (folder / "both.yaml").write_text(GROUP)
    rounds = (folder / "patches.yaml").read_text().replace("task: patches", "task: rounds")
    rounds = rounds.replace("generate_until", "generate_until_multi_round").replace("patches.question", "rounds.ask")
    (folder / "rounds.yaml").write_text(
        rounds.replace("patches.", "rounds.")
        .replace("metric: length", "metric: rounds")
        .replace("rounds.parquet", "patches.parquet")
    )
    (folder / "rounds.py").write_text(ROUNDS)
    return TaskManager(include_path=str(folder), include_defaults=False, model_name="halo")


def evaluate(checkpoint, maps, manager, *, tasks, base="qwen3_vl", halo=HaloChat, **call):
    given = f"base={base},pretrained={checkpoint},device_map=cpu,check=false,maps={maps}"
    lm = halo.create_from_arg_string(given, {"device": "cpu"})
    return evaluator.simple_evaluate(model=lm, tasks=tasks, task_manager=manager, **call), pd.read_parquet(maps)


def test_every_task_of_a_group_is_recorded_from_the_offset_on_with_the_options_of_the_call(
    manager, qwen3_vl_checkpoint, tmp_path
):
    results, maps = evaluate(
        qwen3_vl_checkpoint, tmp_path, manager, tasks=["both"], limit=2, offset=1, gen_kwargs="max_new_tokens=1"
    )
    rows = sorted(zip(maps.task, maps.doc_id, maps.step, strict=True))
    assert rows == [(task, document, 0) for task in ("patches", "patches_again") for document in (1, 2)]
    for task in ("patches", "patches_again"):
        assert results["results"][task]["vision_mass,none"] > 0
    assert results["groups"]["both"]["length,none"] == 1


CHAT = """
def images(doc):
    return []
def text(doc, lmms_eval_specific_kwargs=None):
    return "How many?"
def chat(doc, lmms_eval_specific_kwargs=None):
    image = {"type": "image", "url": doc["image"].convert("RGB")}
    return [{"role": "user", "content": [image, {"type": "text", "text": "ASKED"}]}]
def score(doc, results):
    return {"length": 1.0}
"""


def prompt_of(folder, asked, *, simple):
    (folder / "chat.py").write_text(CHAT.replace("ASKED", asked))
    manager = TaskManager(include_path=str(folder), include_defaults=False, model_name="qwen3_vl")
    task = get_task_dict(["chat"], manager, "simple" if simple else "chat")["chat"]
    return _task_fields(task, chat=not simple)["prompt_sha256"]


def test_the_signature_tells_prompts_of_a_chat_apart(tmp_path):
    forked_runs.write_task(tmp_path, [Image.new("RGB", (64, 64))])
    yaml = (tmp_path / "patches.yaml").read_text().replace("task: patches", "task: chat").replace("patches.", "chat.")
    yaml = yaml.replace("chat.parquet", "patches.parquet").replace("chat.question", "chat.text")
    (tmp_path / "chat.yaml").write_text(f"{yaml}doc_to_messages: !function chat.chat\n")
    simple = prompt_of(tmp_path, "How many?", simple=True)
    assert prompt_of(tmp_path, "How many?", simple=False) == simple
    assert prompt_of(tmp_path, "How few?", simple=True) == simple
    others = {prompt_of(tmp_path, asked, simple=False) for asked in ("How few?", "How come?")}
    assert len(others | {simple}) == 3


def test_a_run_without_metrics_has_its_maps_and_its_values_in_the_samples(manager, qwen3_vl_checkpoint, tmp_path):
    results, maps = evaluate(qwen3_vl_checkpoint, tmp_path, manager, tasks=["patches"], limit=2, predict_only=True)
    assert maps.doc_id.unique().tolist() == [0, 1]
    for sample in results["samples"]["patches"]:
        (generation,) = sample["token_counts"][0]["halo"]["generations"]
        assert len(generation["tokens"]) == len(generation["sparsity"]) == 3


def test_every_round_of_a_document_is_a_call_of_its_own(manager, tmp_path):
    """Qwen2.5-VL, whose lmms-eval model can ask several times."""
    checkpoint = tiny_models.write_checkpoint(tiny_models.qwen2_5_vl(), tmp_path / "checkpoint")
    options = {"base": "qwen2_5_vl", "halo": HaloSimple, "tasks": ["rounds"], "limit": 2}
    results, maps = evaluate(checkpoint, tmp_path / "maps", manager, **options)
    assert sorted(set(zip(maps.doc_id, maps.call, strict=True))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert results["results"]["rounds"]["rounds,none"] == 2
    for sample in results["samples"]["rounds"]:
        first, second = sample["token_counts"][0]["halo"]["generations"]
        assert sample["vision_mass"] == pytest.approx(np.mean([*first["visual_mass"][:2], *second["visual_mass"][:2]]))
    again, _ = evaluate(checkpoint, tmp_path / "maps", manager, **options)
    assert again["halo"]["resumed"] == 2
    assert again["results"]["rounds"] == results["results"]["rounds"]
