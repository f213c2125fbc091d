"""What was asked for, beside what reached the model."""

import json
import re

import pytest
from lmms_eval import evaluator
from loguru import logger

from halo_probe.errors import UsageError
from halo_probe.lmms.answering.given import summarize_given
from halo_probe.lmms.model import HaloChat


def evaluate(checkpoint, folder, options="", **call):
    """A probed run of two documents; its results, and the warnings of it."""
    lm = HaloChat.create_from_arg_string(f"{options}pretrained={checkpoint},maps={folder}", {"device": "cpu"})
    warnings = []
    sink = logger.add(warnings.append, level="WARNING", format="{message}")
    try:
        results = evaluator.simple_evaluate(model=lm, tasks=["halo_count"], limit=2, **call)
    finally:
        logger.remove(sink)
    return results, [one.strip() for one in warnings if "has no effect" in one]


QWEN = "base=qwen3_vl,check=false,device_map=cpu,"
GENERAL = "base=halo_transformers,check=false,dtype=float32,"


def given_of(results):
    return results["halo"]["given"]["halo_count"]


@pytest.fixture(scope="module")
def plain(qwen3_vl_checkpoint, tmp_path_factory):
    results, warnings = evaluate(qwen3_vl_checkpoint, tmp_path_factory.mktemp("plain"), QWEN)
    assert warnings == []
    return results


def test_a_sample_shows_what_generate_was_given(plain):
    first, second = (sample["token_counts"][0]["halo"]["given"] for sample in plain["samples"]["halo_count"])
    assert first[0]["options"] == {"max_new_tokens": 16}
    assert first[0]["prompt"] == second[0]["prompt"]
    assert first[0]["pictures"] != second[0]["pictures"]
    assert given_of(plain)["options"] == [first[0]["options"]]
    assert given_of(plain)["without_effect"] == []


def test_an_instruction_that_the_base_model_ignores_changes_nothing_and_is_told_of_once(
    plain, qwen3_vl_checkpoint, tmp_path
):
    results, warnings = evaluate(qwen3_vl_checkpoint, tmp_path, QWEN, system_instruction="Answer in French.")
    assert given_of(results) == {**given_of(plain), "without_effect": ["system_instruction"]}
    (line,) = warnings
    assert "halo_count: system_instruction='Answer in French.' has no effect: it is not in the prompt" in line
    again, _ = evaluate(qwen3_vl_checkpoint, tmp_path, QWEN, system_instruction="Answer in French.")
    assert again["halo"]["resumed"] == 2
    assert given_of(again) == given_of(results)


def test_a_prompt_that_the_base_model_follows_reaches_the_model(plain, qwen3_vl_checkpoint, tmp_path):
    options = f"{QWEN}system_prompt=Answer in French.,"
    results, warnings = evaluate(qwen3_vl_checkpoint, tmp_path, options, system_instruction="Answer in French.")
    assert warnings == []
    assert given_of(results)["prompts"] != given_of(plain)["prompts"]
    assert given_of(results)["pictures"] == given_of(plain)["pictures"]


def test_the_general_model_follows_a_system_instruction(gemma3_checkpoint, tmp_path):
    found = {}
    for said in (None, "Answer in French.", "Answer in Latin."):
        results, warnings = evaluate(gemma3_checkpoint, tmp_path / str(said), GENERAL, system_instruction=said)
        assert warnings == []
        assert given_of(results)["without_effect"] == []
        found[said] = given_of(results)["prompts"]
    assert len(set(found.values())) == 3


@pytest.mark.parametrize(
    ("options", "call", "names", "line"),
    [
        (
            "max_pixels=500000,",
            {},
            ["max_pixels"],
            "max_pixels=500000 has no effect: it is not what the model was given",
        ),
        (
            "",
            {"gen_kwargs": "top_k=3"},
            ["top_k"],
            "top_k=3 has no effect: it did not reach generate.* max_new_tokens=16",
        ),
        ("", {"gen_kwargs": "temperature=0.5,top_p=0.5"}, ["do_sample"], "do_sample=False has no effect"),
        (
            "",
            {"gen_kwargs": "do_sample=true,repetition_penalty=2"},
            ["repetition_penalty"],
            "repetition_penalty=2 has no effect",
        ),
        ("", {"gen_kwargs": "max_gen_toks=2"}, ["max_gen_toks"], "max_gen_toks=2 has no effect"),
    ],
)
def test_an_argument_or_option_that_the_base_model_does_not_follow_is_told_of(
    options, call, names, line, qwen3_vl_checkpoint, tmp_path
):
    results, warnings = evaluate(qwen3_vl_checkpoint, tmp_path, f"{QWEN}{options}", **call)
    assert given_of(results)["without_effect"] == names
    assert len(warnings) == len(names)
    assert re.search(line, warnings[0])


def test_a_stop_of_the_command_line_cuts_or_is_told_of(qwen3_vl_checkpoint, gemma3_checkpoint, tmp_path):
    """Both tiny models write two digits; the first base model does not cut, the second does."""
    every = json.dumps(list("0123456789"))
    uncut, warnings = evaluate(qwen3_vl_checkpoint, tmp_path / "uncut", QWEN, gen_kwargs=f"until={every}")
    assert given_of(uncut)["without_effect"] == ["until"]
    assert "stands in a reply, which was not cut before it" in warnings[0]
    cut, warnings = evaluate(gemma3_checkpoint, tmp_path / "cut", GENERAL, gen_kwargs=f"until={every}")
    assert [sample["filtered_resps"] for sample in cut["samples"]["halo_count"]] == [[""], [""]]
    assert (given_of(cut)["without_effect"], warnings) == ([], [])


def test_a_value_of_the_wrong_type_ends_a_run_in_one_line_that_names_the_task(qwen3_vl_checkpoint, tmp_path):
    with pytest.raises(UsageError, match=r"^halo_count: generation option until=7: use text"):
        evaluate(qwen3_vl_checkpoint, tmp_path, QWEN, gen_kwargs="until=7")


def row(document, *, prompt="p", pictures="q", **followed):
    given = [{"prompt": prompt, "pictures": pictures, "options": {}}]
    return {"task": "t", "doc_id": document, "repeat": 0, "given": given, "followed": followed}


def test_what_one_answer_shows_to_be_followed_is_in_force_and_silence_says_nothing():
    rows = [row(0, until=False, system_instruction=False, top_k=True), row(1, until=True, system_instruction=False)]
    assert summarize_given(rows)["t"]["without_effect"] == ["system_instruction"]
    assert summarize_given([row(0), row(1, until=False)])["t"]["without_effect"] == ["until"]


def test_hashes_of_a_task_do_not_hang_on_the_order_of_its_documents_and_need_all_of_them():
    one, two = row(0, prompt="a"), row(1, prompt="b")
    assert summarize_given([one, two]) == summarize_given([two, one])
    assert summarize_given([one, two])["t"]["prompts"] != summarize_given([row(0, prompt="b"), two])["t"]["prompts"]
    assert summarize_given([one, row(1, pictures=None)])["t"]["pictures"] is None
