"""Which lmms-eval model runs a checkpoint, from its configuration."""

import json

import pytest
from lmms_eval import evaluator, models

from halo_probe.errors import UsageError
from halo_probe.harness.base import _BASES, infer_base
from halo_probe.harness.model import HaloChat
from halo_probe.harness.transformers_chat import _generation, _until

KNOWN = models.list_available_models(include_aliases=True)


def checkpoint(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    return {"pretrained": str(folder)}


def test_the_base_is_inferred_from_the_model_type_of_the_checkpoint(qwen3_vl_checkpoint, gemma3_checkpoint):
    assert infer_base({"pretrained": str(qwen3_vl_checkpoint)}, KNOWN) == "qwen3_vl"
    assert infer_base({"pretrained": str(gemma3_checkpoint)}, KNOWN) == "gemma3"


def test_every_base_that_can_be_inferred_is_a_model_of_lmms_eval():
    assert {base for bases in _BASES.values() for base in bases} <= set(KNOWN)


def test_a_probed_run_needs_no_base(qwen3_vl_checkpoint, tmp_path):
    options = f"pretrained={qwen3_vl_checkpoint},device_map=cpu,maps={tmp_path}"
    lm = HaloChat.create_from_arg_string(options, {"device": "cpu"})
    assert type(lm) is models.get_model("qwen3_vl")
    results = evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=1)
    assert results["halo"]["signature"]["model"]["base"] == "qwen3_vl"
    assert results["results"]["halo_count"]["vision_mass,none"] > 0


def test_a_family_without_a_model_of_its_own_in_lmms_eval_runs_through_the_general_one(tmp_path):
    assert infer_base(checkpoint(tmp_path, model_type="smolvlm"), KNOWN) == "halo_transformers"


def test_the_general_model_answers_alike_alone_together_and_recorded(gemma3_checkpoint, tmp_path):
    options = f"pretrained={gemma3_checkpoint},dtype=float32"
    replies = []
    for model in ("halo_transformers", "halo"):
        for batch in (1, 2) if model == "halo_transformers" else (1,):
            results = evaluator.simple_evaluate(
                model=model,
                model_args=f"base=halo_transformers,maps={tmp_path},{options}" if model == "halo" else options,
                tasks=["halo_count"],
                limit=3,
                batch_size=batch,
                device="cpu",
                log_samples=True,
            )
            replies.append([sample["resps"] for sample in results["samples"]["halo_count"]])
    assert replies[0] == replies[1] == replies[2]
    assert results["results"]["halo_count"]["vision_mass,none"] > 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 0}, {"do_sample": False, "temperature": None, "top_p": None, "max_new_tokens": 1024}),
        ({"temperature": 0.7, "top_p": 0.9}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
        ({"max_new_tokens": 4, "until": []}, {"do_sample": False, "max_new_tokens": 4, "num_beams": 1}),
    ],
)
def test_the_options_of_a_task_become_those_of_generate(options, expected):
    assert expected.items() <= _generation(options).items()


def test_a_reply_ends_before_the_first_stop():
    assert _until("12 dots\n\nand more. The end", ["The", "\n\n", ""]) == "12 dots"
    assert _until("12", None) == "12"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "internvl_chat"}, "several.*'internvl_chat': add base=internvl2 or base=internvl3 or base="),
        ({"model_type": "bert"}, "no model of lmms-eval.*'bert': add base= with one of aero, .*qwen3_vl"),
        ({"architectures": ["Unnamed"]}, "names no model_type.*add base=NAME"),
    ],
)
def test_an_ambiguous_or_unknown_checkpoint_is_an_error_that_lists_the_choices(config, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        infer_base(checkpoint(tmp_path, **config), KNOWN)


def test_a_checkpoint_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UsageError, match="pretrained=.*nothing: the checkpoint's configuration cannot be read"):
        infer_base({"pretrained": str(tmp_path / "nothing")}, KNOWN)


def test_without_a_checkpoint_both_are_asked_for():
    with pytest.raises(UsageError, match=r"base= and pretrained= are both missing.*base=qwen3_vl"):
        infer_base({}, KNOWN)
