"""Thoughts of a model: its marks, the prompts that open one, and where a scored reply stands in the tokens."""

import pytest
from PIL import Image

from halo_probe.lmms.answering.hearing import hear
from halo_probe.lmms.thoughts import Thinking, marks_in, thinking_of, watching_prompts
from lmms_eval_tasks.digits import digit_steps
from lmms_eval_tasks.parsing import parse_count
from lmms_eval_tasks.thoughts import THOUGHTS, joined, outside_thoughts
from tests import tiny_models

MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))


@pytest.mark.parametrize(
    ("reply", "spoken"),
    [
        ("12", "12"),
        ("<think>11</think>12", "12"),
        ("<think>11<think>10</think>12", "12"),
        ("<think>1</think>1<think>3</think>2", "12"),
        ("11</think>12", "12"),
        ("<think>11</think>12</think>13", "13"),
        ("12<think>13", "12"),
        ("<think>11", ""),
        ("[THINK]11</think>[/THINK]12", "12"),
        ("◁think▷11◁/think▷12", "12"),
        ("<|channel|>analysis<|message|>11<|end|><|start|>assistant<|channel|>final<|message|>12", "12"),
        ("<|channel|>analysis<|message|>I see 11", ""),
        ("analysisI see 11 dots.assistantfinal12", "12"),
        ("", ""),
    ],
)
def test_what_is_spoken_stands_outside_the_marks(reply, spoken):
    assert joined(reply, outside_thoughts(reply)) == spoken


@pytest.mark.parametrize(
    ("reply", "spoken"),
    [("11 or 12", ""), ("11</think>12", "12"), ("11</think>12<think>3", "12"), ("<think>11</think>12", "12")],
)
def test_a_thought_that_the_prompt_has_opened_ends_at_its_mark_or_never(reply, spoken):
    assert joined(reply, outside_thoughts(reply, opened=True)) == spoken


@pytest.mark.parametrize("pair", THOUGHTS)
def test_every_known_pair_of_marks_hides_what_stands_between_them(pair):
    assert joined(f"{pair[0]}11{pair[1]}12", outside_thoughts(f"{pair[0]}11{pair[1]}12")) == "12"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{- '<think>\\n' + r + '\\n</think>\\n\\n' }}", [("<think>", "</think>")]),
        ("a<seed:think>b</seed:think>", [("<seed:think>", "</seed:think>")]),
        ("<|thinking_start|> <|thinking_end|>", [("<|thinking_start|>", "<|thinking_end|>")]),
        ("[MY_REASONING][/MY_REASONING]", [("[MY_REASONING]", "[/MY_REASONING]")]),
        ("{{ content.split('</think>')[-1] }}", []),
        ("<b>bold</b>", []),
    ],
)
def test_the_marks_of_a_template_are_found_in_pairs(template, expected):
    assert marks_in(template) == expected


SWITCHED = (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)
OPENING = "<think>\n"
HISTORY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{{ m.content }}"
    "{% endif %}{% endfor %}"
)


def thinking(ending, history=""):
    """The tiny Qwen3-VL's, with another end of the prompt."""
    _, processor = tiny_models.qwen3_vl()
    plain = processor.chat_template
    processor.chat_template = history + plain.replace("{{- '<|im_start|>assistant\\n' -}}", f"A\n{ending}")
    assert processor.chat_template != history + plain

    class Model:
        tokenizer = processor.tokenizer

    Model.processor = processor
    return thinking_of(Model, tags=[["<mine>", "</mine>"]])


def test_a_thought_is_closed_as_the_template_closes_it():
    assert thinking(SWITCHED).closing("<think>\n") == "\n</think>\n\n"
    assert thinking(OPENING, HISTORY).closing("<think>\n") == "\n</think>\n\n"
    assert thinking(OPENING).closing("<think>\n") is None


def test_the_tags_of_lmms_eval_are_marks_too():
    assert ("<mine>", "</mine>") in thinking(OPENING).marks


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("Think in <think> </think> tags.<|im_start|>assistant\n", ""),
        ("[THINK]", "[THINK]"),
        ("", ""),
    ],
)
def test_only_an_end_of_a_prompt_opens_a_thought(prompt, opened):
    assert Thinking(marks=MARKS).opened(prompt) == opened


@pytest.mark.parametrize(
    ("reply", "pieces", "opened", "count", "steps"),
    [
        # The reply as generated; its thought taken out by lmms-eval; its marks lost, for they are special.
        ("<think>12</think>43", ["<think>", "1", "2", "</think>", "4", "3"], "", 43, (4, 5)),
        ("43", ["<think>", "4", "3", "?", "</think>", "4", "3"], "", 43, (5, 6)),
        ("1243", ["[THINK]", "1", "2", "[/THINK]", "4", "3"], "", 43, (4, 5)),
        ("1 2</think>43", ["1", " 2", "</think>", "4", "3"], "<think>\n", 43, (3, 4)),
        ("<think>12</think>43", ["1", "2", "</think>", "4", "3"], "<think>\n", 43, (3, 4)),
        ("12", ["1", "2"], "<think>\n", None, None),
        ("[THINK]12", ["[THINK]", "1", "2"], "", None, None),
        ("12", ["[THINK]", "1", "2"], "", None, None),
        # Cut at a stop, stripped, and after two thoughts.
        ("12", [" ", "1", "2", "\n\n", "13"], "", 12, (1, 2)),
        ("3<think>4</think>5", ["<think>", "1", "</think>", "3", "<think>", "4", "</think>", "5"], "", None, None),
        ("12<|end|>", ["1", "2", "<|end|>"], "", 12, (0, 1)),
        ("1243", ["", "[THINK]", "1", "", "2", "[/THINK]", "4", "", "3"], "", 43, (6, 8)),
    ],
)
def test_a_scored_reply_is_found_among_its_tokens(reply, pieces, opened, count, steps):
    heard = hear(reply, pieces, marks=MARKS, opened=opened, special={"[THINK]", "[/THINK]", "<|end|>"})
    parsed = parse_count(heard.text)
    if count is not None or steps is None:
        found = digit_steps(pieces, parsed.value, heard.span(parsed.span))
        assert (parsed.value if count else None, found.steps if count else None) == (count, steps)
    for char, place in zip(heard.text, heard.places, strict=True):
        assert char.isspace() or "".join(pieces)[place] == char


def test_a_reply_that_is_not_in_its_tokens_has_no_places():
    heard = hear("thirteen", ["1", "2"], marks=MARKS, opened="", special=())
    assert (heard.text, heard.places, heard.span((0, 2))) == ("thirteen", None, None)


def test_the_ends_of_prompts_are_noted_row_by_row_and_generate_is_left_as_it_was():
    model, processor = tiny_models.qwen3_vl()
    image = Image.new("RGB", (96, 96), (255, 255, 255))
    inputs = tiny_models.make_inputs(processor, [image, image], ["a", "much longer <think>"])
    with watching_prompts(model, processor.tokenizer.decode) as prompts:
        model.generate(**inputs, max_new_tokens=1)
    assert len(prompts) == 2
    assert all(prompt.endswith("<|im_start|>assistant\n") for prompt in prompts)
    assert "much longer" in prompts[1]
    assert "generate" not in vars(model)


def test_a_reply_keeps_the_marks_of_its_thoughts_and_loses_other_special_tokens():
    tokenizer = tiny_models.qwen3_vl()[1].tokenizer
    tokenizer.add_tokens(["[THINK]", "[/THINK]"], special_tokens=True)
    tokens = tokenizer.convert_tokens_to_ids(["[THINK]", "1", "[/THINK]", "2", "<|im_end|>"])
    asked, opening = tokenizer.encode("A\n"), tokenizer.encode("A\n[THINK]")
    assert Thinking(marks=MARKS).text(tokens, prompt=asked, tokenizer=tokenizer) == "[THINK]1[/THINK]2"
    assert Thinking(marks=MARKS).text(tokens[1:], prompt=opening, tokenizer=tokenizer) == "[THINK]1[/THINK]2"
    assert Thinking(marks=()).text(tokens, prompt=opening, tokenizer=tokenizer) == "12"


def test_a_reply_in_channels_is_heard_without_its_analysis_however_it_was_decoded():
    special = {"<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|return|>"}
    pieces = ["<|channel|>", "analysis", "<|message|>", "I see ", "11", "<|end|>", "<|start|>", "assistant"]
    pieces += ["<|channel|>", "final", "<|message|>", "12", "<|return|>"]
    for reply in ("".join(pieces), "".join(piece for piece in pieces if piece not in special)):
        heard = hear(reply, pieces, marks=THOUGHTS, opened="", special=special)
        parsed = parse_count(heard.text, mode="first")
        assert (parsed.value, heard.thought) == (12, True)
        assert digit_steps(pieces, parsed.value, heard.span(parsed.span), mode="first").steps == (11, 11)
