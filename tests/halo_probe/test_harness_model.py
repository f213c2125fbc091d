"""The probe inside lmms-eval, from Python."""

import gc
import weakref

import pytest
from lmms_eval import evaluator, models

from halo_probe.errors import CaptureError, UnsupportedModelError, UsageError
from halo_probe.harness.model import HaloChat


def create(checkpoint, options):
    return HaloChat.create_from_arg_string(f"{options}pretrained={checkpoint},device_map=cpu", {"device": "cpu"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "base= is missing.*base=qwen3_vl"),
        ("base=halo,", "base='halo' is not a model of lmms-eval"),
        ("base=qwen3_vl,layers=first,", "layers=first: use layers=last"),
        ("base=qwen3_vl,layers=[0,1.5],", "layers="),
        ("base=qwen3_vl,flavour=sweet,", "'qwen3_vl' does not take these --model_args.*flavour"),
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


def test_an_evaluation_leaves_nothing_behind_in_lmms_eval(qwen3_vl_checkpoint, tmp_path):
    before = evaluator.get_task_dict, evaluator.evaluate
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path / 'maps'},")
    create(qwen3_vl_checkpoint, "base=qwen3_vl,")  # a second model that is never evaluated
    assert (evaluator.get_task_dict, evaluator.evaluate) != before
    lm = create(qwen3_vl_checkpoint, f"base=qwen3_vl,maps={tmp_path / 'maps'},")
    evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=1)
    assert (evaluator.get_task_dict, evaluator.evaluate) == before
    plain = models.get_model("qwen3_vl")(pretrained=str(qwen3_vl_checkpoint), device_map="cpu", device="cpu")
    results = evaluator.simple_evaluate(model=plain, tasks=["halo_count"], limit=1)
    assert "halo" not in results
    assert not [key for key in results["results"]["halo_count"] if key.startswith("vision")]


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
    manager = __import__("lmms_eval.tasks").tasks.TaskManager(include_path=str(tmp_path), model_name="halo")
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


def test_answers_from_a_cache_are_refused_because_nothing_ran(qwen3_vl_checkpoint, tmp_path):
    options = f"base=qwen3_vl,pretrained={qwen3_vl_checkpoint},device_map=cpu"
    with pytest.raises(UsageError, match="--use_cache"):
        evaluator.simple_evaluate(
            model="halo", model_args=options, device="cpu", tasks=["halo_count"], limit=1, use_cache=str(tmp_path)
        )


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
