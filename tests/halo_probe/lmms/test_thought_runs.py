"""Models that think, in real evaluations: nothing that is only thought is scored, measured or intervened on."""

from argparse import Namespace
from itertools import pairwise

import numpy as np
import pytest
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager

from halo_probe.errors import CaptureError, UsageError
from tests import tiny_models
from training import qwen3_vl

WIDE = "halo_count_wide"
ASSISTANT = "{{- '<|im_start|>assistant\\n' -}}"
SWITCHED = (
    "{{- '<|im_start|>assistant\\n' -}}{%- if enable_thinking is defined and not enable_thinking -%}"
    "{{- '<think>\\n\\n</think>\\n\\n' -}}{%- else -%}{{- '<think>\\n' -}}{%- endif -%}"
)
CHAIN = 1000.0


def chained(tokenizer, tokens):
    """Biases by which the reply is these tokens: each follows the one before."""
    ids = tokenizer.convert_tokens_to_ids(tokens)
    return [[list(pair), CHAIN] for pair in pairwise(ids)]


@pytest.fixture(scope="module")
def thinking_checkpoint(tmp_path_factory):
    """Replies with `[THINK]12[/THINK]43`, both marks being special tokens, which base models leave out."""
    processor = qwen3_vl.build_processor()
    processor.tokenizer.add_tokens(["[THINK]", "[/THINK]"], special_tokens=True)
    model = qwen3_vl.build_model(processor.tokenizer)
    tokens = ["[THINK]", "1", "2", "[/THINK]", "4", "3", processor.tokenizer.eos_token]
    first = processor.tokenizer.convert_tokens_to_ids("[THINK]")
    model.generation_config.sequence_bias = [[[first], 10.0], *chained(processor.tokenizer, tokens)]
    return tiny_models.write_checkpoint((model, processor), tmp_path_factory.mktemp("thinking"))


@pytest.fixture(scope="module")
def opened_checkpoint(tmp_path_factory):
    """Replies with two digits, in a thought that its template has opened."""
    processor = qwen3_vl.build_processor()
    processor.tokenizer.add_tokens(["<think>", "</think>"])
    assert ASSISTANT in processor.chat_template
    processor.chat_template = processor.chat_template.replace(ASSISTANT, SWITCHED)
    model = qwen3_vl.build_model(processor.tokenizer)
    return tiny_models.write_checkpoint((model, processor), tmp_path_factory.mktemp("opened"))


def samples_of(checkpoint, options="", task=WIDE, cli_args=None):
    results = evaluator.simple_evaluate(
        model="halo",
        model_args=f"base=qwen3_vl,check=false,{options}pretrained={checkpoint},device_map=cpu",
        device="cpu",
        tasks=[task],
        limit=2,
        cli_args=cli_args,
        task_manager=TaskManager(model_name="halo"),
    )
    return results["samples"][task], results["halo"]


def halo(sample):
    counts = sample["token_counts"][0]
    return (counts if isinstance(counts, dict) else counts.to_dict())["halo"]


def test_the_answer_is_scored_and_measured_and_not_the_thought_before_it(thinking_checkpoint):
    samples, account = samples_of(thinking_checkpoint)
    for sample in samples:
        assert sample["resps"] == [["1243"]]
        assert (sample["predicted"], sample["status"]) == (43, "ok")
        assert halo(sample)["generations"][0]["tokens"][:6] == ("[THINK]", "1", "2", "[/THINK]", "4", "3")
        assert (halo(sample)["digit_status"], halo(sample)["digit_steps"]) == ("split", (4, 5))
        assert sample["sparsity_d1"] == halo(sample)["generations"][0]["sparsity"][4]
    assert account["digits"] == {f"{WIDE} split": 2}


def test_the_marks_that_lmms_eval_is_told_of_are_in_the_signature(thinking_checkpoint):
    plain, told = (
        samples_of(thinking_checkpoint, cli_args=args)[1]["signature"]
        for args in (
            None,
            Namespace(reasoning_tags='[["<mine>", "</mine>"]]', output_path=None, process_with_media=False),
        )
    )
    assert ["<mine>", "</mine>"] in told["call"]["reasoning_tags"]
    assert ["<mine>", "</mine>"] not in plain["call"]["reasoning_tags"]
    assert plain["sha256"] != told["sha256"]


def test_an_intervention_at_a_digit_is_refused_where_the_reply_thinks(thinking_checkpoint):
    with pytest.raises(CaptureError, match="the reply holds a thought, and boost at d2 counts digits"):
        samples_of(thinking_checkpoint, "intervention=boost:2@d2,")


def test_a_thought_that_the_prompt_opened_and_nothing_closed_is_no_answer_and_reliance_closes_it(opened_checkpoint):
    samples, account = samples_of(opened_checkpoint, "reliance=true,")
    for sample in samples:
        seen = halo(sample)
        assert seen["prompt_opens_thought"] == "<think>\n"
        assert (sample["predicted"], sample["status"], seen["digit_status"]) == (None, "empty", "not_found")
        assert (seen["reliance"], seen["thought_closed"]) == ("measured", "\n</think>\n\n")
        assert np.shape(seen["digit_probabilities"]) == (2, 12)
    assert account["reliance"] == {"measured": 2}


def test_an_intervention_at_a_digit_is_refused_where_the_prompt_opens_a_thought(opened_checkpoint):
    with pytest.raises(CaptureError, match=r"the prompt opens a thought \(<think>\), and knockout at d1"):
        samples_of(opened_checkpoint, "intervention=knockout@d1,")


def test_an_intervention_at_a_digit_is_refused_for_a_task_that_reasons(opened_checkpoint):
    with pytest.raises(UsageError, match="replies of halo_count_cot reason before they answer"):
        samples_of(opened_checkpoint, "intervention=boost:2@d2,", task="halo_count_cot")
