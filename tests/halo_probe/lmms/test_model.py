"""The probe inside lmms-eval, from Python."""

import gc
import json
import os
import shutil
import weakref

import pyarrow.parquet as pq
import pytest
from lmms_eval import evaluator, models
from lmms_eval.tasks import TaskManager
from loguru import logger

from halo_probe.capture import collection
from halo_probe.capture.rows import image_attention
from halo_probe.errors import CaptureError, NoImageTokensError, UnsupportedModelError, UsageError
from halo_probe.lmms.model import HaloChat


def create(checkpoint, options):
    return HaloChat.create_from_arg_string(f"{options}pretrained={checkpoint},device_map=cpu", {"device": "cpu"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("base=halo,", "base='halo' is not a model of lmms-eval"),
        ("base=qwen3_vl,layers=first,", "layers=first: use layers=last"),
        ("base=qwen3_vl,layers=[0,1.5],", "layers="),
        ("base=qwen3_vl,flavour=sweet,", "'qwen3_vl' refuses these --model_args.*flavour"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_to_write(options, message, qwen3_vl_checkpoint):
    with pytest.raises(UsageError, match=message):
        create(qwen3_vl_checkpoint, options)


def test_a_base_that_runs_no_model_here_is_refused():
    with pytest.raises(UnsupportedModelError, match="--model dummy"):
        HaloChat.create_from_arg_string("base=dummy", {})


@pytest.mark.parametrize("layers", ["0", "-1", "[0,3]", "last", "all"])
def test_layers_are_chosen_as_on_the_command_line(layers, qwen3_vl_checkpoint, tmp_path):
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,layers={layers},maps={tmp_path},")
    results = evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=1)
    recorded = [layer["index"] for layer in results["halo"]["signature"]["recorded_layers"]]
    assert recorded == {"0": [0], "-1": [3], "[0,3]": [0, 3], "last": [3], "all": [0, 1, 2, 3]}[layers]


def test_the_model_is_the_base_model_itself_and_is_let_go_before_scoring(qwen3_vl_checkpoint, tmp_path):
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path},")
    assert type(lm) is models.get_model("qwen3_vl")
    network, alive = weakref.ref(lm.model), []
    clean = lm.clean

    def clean_and_look():
        clean()
        gc.collect()
        alive.append(network())

    vars(lm)["clean"] = clean_and_look
    results = evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=2)
    assert network() is None
    assert 0 < results["results"]["halo_count"]["vision_sparsity,none"] < 1
    assert {"generate_until", "generate_until_multi_round"}.isdisjoint(vars(lm))


def test_every_probed_model_is_recorded_and_no_other_one(qwen3_vl_checkpoint, tmp_path):
    first, second = (create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path / name},") for name in ("a", "b"))
    plain = models.get_model("qwen3_vl")(pretrained=str(qwen3_vl_checkpoint), device_map="cpu", device="cpu")
    manager = TaskManager(model_name="another_model")
    results = evaluator.simple_evaluate(model=plain, tasks=["halo_count"], limit=1, task_manager=manager)
    assert manager.model_name == "another_model"
    assert "halo" not in results
    assert not [key for key in results["results"]["halo_count"] if key.startswith("vision")]
    for lm, name in ((first, "a"), (second, "b")):
        results = evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=1)
        assert results["halo"]["maps"] == str(tmp_path / name)
        assert results["results"]["halo_count"]["vision_mass,none"] > 0


def test_arguments_that_change_the_numbers_change_the_signature(qwen3_vl_checkpoint):
    signatures = []
    for options, call in (("", {}), ("system_prompt=Answer in French.,", {}), ("", {"torch_random_seed": 7})):
        lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,{options}")
        results = evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=1, repeats=len(call) + 1, **call)
        signatures.append(results["halo"]["signature"])
    assert len({signature["sha256"] for signature in signatures}) == 3
    assert signatures[1]["model"]["arguments"]["system_prompt"] == "Answer in French."
    assert [signature["call"]["seed"] for signature in signatures] == [1234, 1234, 7]
    assert [signature["tasks"]["halo_count"]["repeats"] for signature in signatures] == [1, 1, 2]
    assert signatures[0]["model"]["simple"] is False


def retrain(file):
    """Another last number of the weights; size and time of the file stay."""
    content, before = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_other_weights_in_the_same_folder_are_another_run_and_a_copy_of_it_is_not(qwen3_vl_checkpoint, tmp_path):
    folder = shutil.copytree(qwen3_vl_checkpoint, tmp_path / "checkpoint", copy_function=shutil.copyfile)
    options = f"base=qwen3_vl,maps={tmp_path / 'maps'},"

    def evaluate():
        return evaluator.simple_evaluate(model=create(folder, options), tasks=["halo_count"], limit=1)

    first = evaluate()
    shutil.rmtree(folder)
    shutil.copytree(qwen3_vl_checkpoint, folder, copy_function=shutil.copyfile)  # later, so with other times
    assert evaluate()["halo"]["resumed"] == 1
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 2.0}))
    with pytest.raises(UsageError, match=r"the hash of the settings that were loaded \(.*\) was .*, is "):
        evaluate()
    (folder / "generation_config.json").write_bytes((qwen3_vl_checkpoint / "generation_config.json").read_bytes())
    retrain(folder / "model.safetensors")
    was = first["halo"]["signature"]["model"]["weights"]
    with pytest.raises(UsageError, match=rf'the hash of the weights that were loaded was "{was}", is "'):
        evaluate()


def test_prompts_are_those_of_the_base_model(qwen3_vl_checkpoint, tmp_path):
    (tmp_path / "task.yaml").write_text(
        "task: prompted\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.json'}}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: !function code.text\ndoc_to_visual: !function code.images\n"
        "doc_to_target: answer\nlmms_eval_specific_kwargs: {default: {pre: plain}, qwen3_vl: {pre: special}}\n"
        "generation_kwargs: {max_new_tokens: 2, until: []}\nmetadata: {version: 0}\n"
        "process_results: !function code.score\nmetric_list: [{metric: ok, aggregation: mean, higher_is_better: true}]\n"
    )
    (tmp_path / "rows.json").write_text('{"answer": "1"}\n')
    (tmp_path / "code.py").write_text(
        "from PIL import Image\n"
        "def text(doc, kwargs): return kwargs['pre']\n"
        "def images(doc): return [Image.new('RGB', (64, 64))]\n"
        "def score(doc, results): return {'ok': 1.0}\n"
    )
    manager = TaskManager(include_path=str(tmp_path), model_name="halo")
    options = f"base=qwen3_vl,maps={tmp_path / 'maps'},pretrained={qwen3_vl_checkpoint},device_map=cpu"
    results = evaluator.simple_evaluate(
        model="halo", model_args=options, device="cpu", tasks=["prompted"], task_manager=manager
    )
    assert results["samples"]["prompted"][0]["arguments"][0] == "special"
    assert results["results"]["prompted"]["vision_mass,none"] > 0


def test_a_missing_capture_is_an_error_from_python_too(qwen3_vl_checkpoint, tmp_path):
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path},")
    answer = lm.generate_until

    def answer_some_without_the_model(requests):
        return answer(requests) if requests[0].doc_id == 0 else ["12"]

    vars(lm)["generate_until"] = answer_some_without_the_model
    with pytest.raises(CaptureError, match=r"halo_count 1 \(its answer came without a call.*The 1 others are kept"):
        evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=2)
    assert list(tmp_path.glob("*.parquet"))


def test_a_row_that_cannot_be_computed_is_listed_and_the_answers_go_on(qwen3_vl_checkpoint, tmp_path, monkeypatch):
    """As on a device that is full: the model's own run is not disturbed, and a later run with room tries it again."""
    options = f"base=qwen3_vl,maps={tmp_path},check=false,"
    calls = []

    def full_at_the_second(*given, **options):
        calls.append(given)
        if len(calls) == 3:  # of the second document: one went ahead, to see how large the maps are
            raise RuntimeError("out of memory")
        return image_attention(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(collection, "image_attention", full_at_the_second)
        with pytest.raises(
            CaptureError, match=r"1 answer.*halo_count 1 \(.*out of memory.*2 others.*tries these again"
        ):
            evaluator.simple_evaluate(model=create(qwen3_vl_checkpoint, options), tasks=["halo_count"], limit=3)
    (part,) = tmp_path.glob("*.parquet")
    assert set(pq.read_table(part)["doc_id"].to_pylist()) == {0, 2}
    later = evaluator.simple_evaluate(model=create(qwen3_vl_checkpoint, options), tasks=["halo_count"], limit=3)
    assert (later["halo"]["recorded"], later["halo"]["resumed"]) == (3, 2)
    assert later["samples"]["halo_count"][1]["vision_mass"] > 0


def test_unchecked_maps_that_could_outgrow_their_cap_are_refused_before_the_first_is_kept(
    qwen3_vl_checkpoint, tmp_path
):
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path},check=false,layers=all,max_gb=0.00001,")
    with pytest.raises(UsageError, match="the maps could take .* more than max_gb=1e-05"):
        evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=2)
    assert not list(tmp_path.glob("*.parquet"))


def test_a_failed_repeat_does_not_lend_its_place_to_the_next(qwen3_vl_checkpoint, tmp_path, monkeypatch):
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path},check=false,")
    calls = []

    def fail_at_the_third_answer(*given, **options):
        calls.append(given)
        if len(calls) == 4:  # document 1, first repeat: one went ahead, to see how large the maps are
            raise RuntimeError("no")
        return image_attention(*given, **options)

    monkeypatch.setattr(collection, "image_attention", fail_at_the_third_answer)
    with pytest.raises(CaptureError, match="halo_count 1 "):
        evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=2, repeats=2)
    (part,) = tmp_path.glob("*.parquet")
    rows = pq.read_table(part, columns=["doc_id", "repeat"]).to_pylist()
    assert {(row["doc_id"], row["repeat"]) for row in rows} == {(0, 0), (0, 1), (1, 1)}


def test_documents_that_all_lack_an_image_are_refused_before_the_first_is_answered(qwen3_vl_checkpoint, tmp_path):
    (tmp_path / "task.yaml").write_text(
        "task: worded\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.json'}}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: question\ndoc_to_visual: !function code.none\n"
        "doc_to_target: answer\ngeneration_kwargs: {max_new_tokens: 2, until: []}\nmetadata: {version: 0}\n"
        "process_results: !function code.score\nmetric_list: [{metric: ok, aggregation: mean, higher_is_better: true}]\n"
    )
    (tmp_path / "rows.json").write_text('{"question": "How many?", "answer": "1"}\n' * 3)
    (tmp_path / "code.py").write_text("def none(doc): return []\ndef score(doc, results): return {'ok': 1.0}\n")
    manager = TaskManager(include_path=str(tmp_path), model_name="halo")
    lm = create(qwen3_vl_checkpoint, "base=qwen3_vl,")
    generated = []
    lm.model.register_forward_hook(lambda *_: generated.append(1))
    with pytest.raises(NoImageTokensError, match="worded: none of 3 documents has an image.*--model qwen3_vl"):
        evaluator.simple_evaluate(model=lm, tasks=["worded", "halo_count_text"], task_manager=manager, limit=3)
    assert not generated


def test_a_task_without_images_by_design_is_scored_alone_with_a_warning(qwen3_vl_checkpoint, tmp_path):
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path},")
    warnings = []
    handler = logger.add(warnings.append, level="WARNING", format="{message}")
    try:
        results = evaluator.simple_evaluate(model=lm, tasks=["halo_count_text"], limit=2)
    finally:
        logger.remove(handler)
    assert [one for one in warnings if "halo_count_text: none of 2 documents has an image" in one]
    assert (results["halo"]["recorded"], results["halo"]["without_image"]) == (0, 2)
    assert results["results"]["halo_count_text"]["accuracy,none"] in (0.0, 0.5, 1.0)
    assert pq.read_table(tmp_path / "part-00000.parquet").num_rows == 0


def test_the_digits_of_a_reversed_reply_are_those_of_the_reversed_number(qwen3_vl_checkpoint, tmp_path):
    """The tiny model answers the wide set with any two digits: written `01`, they are the number 10 read backwards."""
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path},")
    results = evaluator.simple_evaluate(model=lm, tasks=["halo_count_rev"], limit=2)
    for sample in results["samples"]["halo_count_rev"]:
        reply = sample["filtered_resps"][0]
        halo = sample["token_counts"][0]["halo"]
        assert sample["predicted"] == int(reply[::-1])
        assert halo["digit_status"] == ("split" if reply[1] != "0" else "single")
        assert sample["sparsity_d1"] == halo["generations"][0]["sparsity"][halo["digit_steps"][0]]
