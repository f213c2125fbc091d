"""Which lmms-eval model runs a checkpoint, from its configuration."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from lmms_eval import evaluator, models, tasks
from lmms_eval.api.instance import Instance
from loguru import logger
from PIL import Image

from halo_probe.errors import UsageError
from halo_probe.lmms.base import _BASES, infer_base
from halo_probe.lmms.model import HaloChat
from halo_probe.lmms.options import read_options
from halo_probe.lmms.transformers_chat import TransformersChat, _generation, _until

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


GREEDY = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "min_p": None}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 0}, {**GREEDY, "max_new_tokens": 1024}),
        ({"temperature": 0, "top_p": 0, "top_k": 3, "min_p": 0.1}, GREEDY),
        ({"temperature": 0.0, "do_sample": True, "top_k": 3}, GREEDY),
        ({"temperature": 0.7, "do_sample": False, "top_k": 3}, GREEDY),
        ({"temperature": 0.7, "top_p": 0.9}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
        ({"temperature": None, "do_sample": None}, GREEDY),
        ({"do_sample": 1, "top_k": 50}, {"do_sample": True, "top_k": 50, "top_p": None}),
        ({"max_new_tokens": 4, "until": []}, {"do_sample": False, "max_new_tokens": 4, "num_beams": 1}),
        ({"max_gen_toks": 5}, {"max_new_tokens": 5}),
        ({"max_gen_toks": 5, "max_new_tokens": 6}, {"max_new_tokens": 6}),
        ({"max_length": 500}, {"max_new_tokens": None, "max_length": 500}),
        ({"num_beams": 3, "length_penalty": 0.5}, {"num_beams": 3, "length_penalty": 0.5}),
    ],
)
def test_the_options_of_a_task_become_those_of_generate(options, expected):
    assert expected.items() <= _generation(read_options(options)).items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokns": 4}, "generation option max_new_tokns=4: .* none of this name; leave it out of --gen_kwargs"),
        ({"num_return_sequences": 2}, "num_return_sequences=2: only num_return_sequences=1 works here; leave it out"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate=True: only return_dict_in_generate=False works"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha=0.6: only penalty_alpha=0 works here"),
    ],
)
def test_an_option_that_cannot_be_followed_is_an_error_that_names_it(options, message):
    with pytest.raises(UsageError, match=message):
        _generation(options)


def options_of_lmms_eval():
    """Every generation option in a task of lmms-eval, once, with a value that it has there."""
    found = {}
    for file in Path(tasks.__file__).parent.rglob("*yaml*"):
        lines = file.read_text().splitlines() if file.is_file() and file.suffix != ".pyc" else []
        if "generation_kwargs:" not in lines:
            continue
        start = lines.index("generation_kwargs:") + 1
        end = next((at for at in range(start, len(lines)) if lines[at][:1] not in {"", " ", "#", "-"}), len(lines))
        found |= yaml.safe_load("\n".join(lines[start:end])) or {}
    found.pop("max_agentic_steps")  # lmms-eval's evaluator takes it out before a model sees it
    return found


def test_every_option_of_a_task_of_lmms_eval_is_accepted():
    options = options_of_lmms_eval()
    assert {"image_aspect_ratio", "visual_cot", "seed", "until", "top_k"} <= options.keys()
    for name, value in options.items():
        _generation(read_options({name: value}))


@pytest.fixture(scope="module")
def chat(gemma3_checkpoint):
    return TransformersChat(pretrained=str(gemma3_checkpoint), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("written", "settings", "words"),
    [
        ("pretrained=/a,b=c/d", {}, "b=c/d: halo_transformers takes pretrained, "),
        (
            "pretrained=/a,batch_size=2",
            {"batch_size": 1},
            "batch_size=2: leave it out of --model_args; --batch_size says 1",
        ),
        ("dtype=float32", {}, "needs a model; write pretrained=PATH"),
        ("pretrained=/a", {"batch_size": "auto"}, "--batch_size auto: use a number from 1 on"),
        ("pretrained=/a", {"max_batch_size": 8}, "max_batch_size=8: halo_transformers takes"),
    ],
)
def test_an_argument_that_is_unknown_or_given_twice_is_named(written, settings, words):
    with pytest.raises(UsageError) as refused:
        TransformersChat.create_from_arg_string(written, settings)
    assert words in str(refused.value)


def request_of(lm, options):
    image = Image.linear_gradient("L").convert("RGB")
    content = [{"type": "image", "url": image}, {"type": "text", "text": "How many dots?"}]
    lm.task_dict = {"task": {"test": [[{"role": "user", "content": content}]]}}
    arguments = ("", lambda messages: messages, options, 0, "task", "test")
    return Instance("generate_until", arguments, 0, {"task": "task", "doc_id": 0, "repeats": 1})


DRAWN = {"do_sample": True, "top_k": 50}
NEVER_TWICE = {"min_new_tokens": 8, "no_repeat_ngram_size": 1}


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"min_new_tokens": 6}, {"min_new_tokens": 6}),
        ({"repetition_penalty": 5, **NEVER_TWICE}, {"repetition_penalty": 5.0, **NEVER_TWICE}),
        (DRAWN, DRAWN),
        ({"do_sample": True, "temperature": 5, "top_k": 1}, {}),
        ({"do_sample": True, "temperature": 0}, {}),
        ({"do_sample": False, "temperature": 5, "image_aspect_ratio": "pad"}, {}),
        ({"max_new_tokens": None, "max_gen_toks": 1}, {"max_new_tokens": 1}),
        ({"stop_strings": list("0123456789")}, {"stop_strings": list("0123456789")}),
    ],
)
def test_a_reply_is_that_of_generate_with_the_same_options(options, given, chat):
    """Where `generate` is given more than the length, the reply is another one than without."""
    request = request_of(chat, {"max_new_tokens": 8, **options})
    inputs = chat.processor.apply_chat_template(
        chat._messages(request), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    greedy, reply = (reply_of(chat, inputs, {"max_new_tokens": 8, **own}) for own in ({}, given))
    torch.manual_seed(1)
    assert chat.generate_until([request])[0].text == reply
    assert (reply != greedy) == bool(given)


def reply_of(lm, inputs, options):
    torch.manual_seed(1)
    output = lm.model.generate(**inputs, **{"do_sample": False, **options}, tokenizer=lm.tokenizer)
    return lm.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_options_without_effect_are_told_once_and_others_are_refused_before_a_reply(chat):
    told = []
    sink = logger.add(told.append, format="{message}")
    try:
        for _ in range(2):
            chat.generate_until([request_of(chat, {"max_new_tokens": 1, "seed": 3, "visual_cot": True})])
        chat.generate_until([request_of(chat, {"max_new_tokens": 1, "seed": 3, "stop_sequences": ["."]})])
    finally:
        logger.remove(sink)
    assert ["seed, visual_cot:" in told[0], "option(s) stop_sequences:" in told[1], len(told)] == [True, True, 2]
    first, second = (request_of(chat, {"max_new_tokens": 1, **more}) for more in ({}, {"foo": 1}))
    with pytest.raises(UsageError, match="generation option foo=1"):
        chat.generate_until([first, second])


def test_a_reply_ends_before_the_first_stop():
    assert _until("12 dots\n\nand more. The end", ["The", "\n\n", ""]) == "12 dots"
    assert _until("12", ()) == "12"


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
