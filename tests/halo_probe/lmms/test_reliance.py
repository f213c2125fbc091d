"""Visual reliance of a document, against forward passes of the plain model, and in a real evaluation."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from halo_probe.errors import CaptureError
from halo_probe.lmms.passes.passes import forced_pass, greedy_pass
from halo_probe.lmms.passes.reliance import blank_image, digit_vocabulary, record_reliance
from halo_probe.statistics.reliance import RELIANCE_KEYS, mostly_other, reliance_values
from tests import tiny_models

QUESTION = "How many dots are there in the image? Answer directly. Answer: "
BUILDERS = {"qwen3_vl": tiny_models.qwen3_vl, "gemma3": tiny_models.gemma3}


@dataclasses.dataclass
class Request:
    """As far as a request of lmms-eval is read: a simple one."""

    arguments: tuple

    @classmethod
    def simple(cls, image):
        return cls((QUESTION, {}, lambda _: [image], 0, "task", "test"))

    @classmethod
    def chat(cls, image):
        content = [{"type": "image", "url": image}, {"type": "text", "text": QUESTION}]
        return cls((QUESTION, lambda _: [{"role": "user", "content": content}], {}, 0, "task", "test"))


def images_of(request):
    if callable(request.arguments[1]):
        return [part["url"] for part in request.arguments[1](None)[0]["content"] if part["type"] == "image"]
    return request.arguments[2](None)


class Base:
    """A wrapper as lmms-eval has them: builds the prompt, calls generate, decodes."""

    def __init__(self, model, processor, **options):
        self.model, self.processor, self.options = model, processor, options

    def inputs(self, image):
        return tiny_models.make_inputs(self.processor, [image], [QUESTION])

    def answer(self, requests):
        (request,) = requests
        inputs = self.inputs(images_of(request)[0])
        tokens = self.model.generate(**inputs, max_new_tokens=16, **self.options)
        return self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :])


@pytest.fixture(scope="module", params=list(BUILDERS))
def base(request):
    return Base(*BUILDERS[request.param]())


@pytest.fixture(scope="module")
def picture():
    image = Image.new("RGB", (96, 96), (255, 255, 255))
    image.paste((0, 0, 0), (10, 20, 30, 40))
    image.paste((0, 0, 0), (60, 50, 75, 65))
    return image


def forward(base, image, text):
    """Next-token probabilities after the prompt and each beginning of a text, from one forward pass of the model."""
    inputs = base.inputs(image)
    tokens = base.processor.tokenizer.convert_tokens_to_ids(list(text))
    prompt = inputs["input_ids"].shape[1]
    longer = {
        name: torch.nn.functional.pad(value, (0, len(tokens)), value=int(name == "attention_mask"))
        if value.ndim == 2 and value.shape[1] == prompt
        else value
        for name, value in inputs.items()
    }
    longer["input_ids"][0, prompt:] = torch.tensor(tokens)
    logits = base.model(**longer).logits[0, prompt - 1 :]
    return torch.softmax(logits.double(), dim=-1).detach().numpy()


def by_alphabet(base, probabilities):
    tokenizer = base.processor.tokenizer
    texts = [tokenizer.decode([token]).strip() for token in range(len(tokenizer))]
    texts[tokenizer.eos_token_id] = "END"
    symbols = [*"0123456789", "END"]
    kept = np.stack([probabilities[:, [text == one for text in texts]].sum(axis=1) for one in symbols], axis=1)
    return np.hstack([kept, 1 - kept.sum(axis=1, keepdims=True)])


@pytest.mark.parametrize("kind", ["simple", "chat"])
def test_the_distributions_are_those_of_the_model_after_the_true_digits(kind, base, picture):
    request = getattr(Request, kind)(picture)
    vocabulary = digit_vocabulary(base.processor.tokenizer, base.model)
    found = record_reliance(base.answer, request, model=base.model, vocabulary=vocabulary, digits="42")
    assert (found["reliance"], found["true_digits"]) == ("measured", "42")
    blank = Image.new("RGB", picture.size, (255, 255, 255))
    for name, image in (("digit_probabilities", picture), ("digit_probabilities_blank", blank)):
        expected = by_alphabet(base, forward(base, image, "42"))[:2]
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert np.shape(found["digit_probabilities_knockout"]) == (2, 12)
    apart = [
        np.abs(np.subtract(found["digit_probabilities"], found[f"digit_probabilities_{other}"])).max(axis=1)
        for other in ("blank", "knockout")
    ]
    assert np.min(apart) > 1e-4


def test_a_thought_of_the_prompt_is_closed_before_the_digits(base, picture):
    request, closing = Request.simple(picture), "\n.\n"
    vocabulary = digit_vocabulary(base.processor.tokenizer, base.model)
    found = record_reliance(base.answer, request, model=base.model, vocabulary=vocabulary, digits="42", closing=closing)
    assert (found["reliance"], found["thought_closed"]) == ("measured", closing)
    pieces = base.processor.tokenizer.tokenize(closing)
    expected = by_alphabet(base, forward(base, picture, [*pieces, "4", "2"]))[len(pieces) :][:2]
    np.testing.assert_allclose(found["digit_probabilities"], expected, atol=1e-6)
    assert np.shape(found["digit_probabilities_knockout"]) == np.shape(found["digit_probabilities_blank"]) == (2, 12)
    plain = record_reliance(base.answer, request, model=base.model, vocabulary=vocabulary, digits="42")
    assert np.abs(np.subtract(plain["digit_probabilities"], found["digit_probabilities"])).max() > 1e-4
    assert "thought_closed" not in plain


def test_nothing_is_measured_where_a_thought_cannot_be_closed(base, picture):
    vocabulary = digit_vocabulary(base.processor.tokenizer, base.model)
    found = record_reliance(
        base.answer, Request.simple(picture), model=base.model, vocabulary=vocabulary, digits="42", closing=None
    )
    assert found == {"reliance": "open_thought", "true_digits": "42"}
    assert set(reliance_values(found).values()) == {None}


def test_a_digit_that_the_model_would_not_write_is_counted():
    digit, other = [0.1] * 10 + [0.0, 0.0], [0.04] * 10 + [0.0, 0.6]
    assert mostly_other({"digit_probabilities": [digit, other]}) == (2,)
    assert mostly_other({"reliance": "merged"}) == ()


def test_a_pass_of_forced_tokens_sees_the_logits_of_the_plain_answer(base, picture):
    """Raw ones: the tiny models answer two digits by a bias that is no part of what the image does."""
    request = Request.simple(picture)
    plain = base.model.generate(
        **base.inputs(picture), max_new_tokens=16, return_dict_in_generate=True, output_logits=True
    )
    reply = plain.sequences[0, -3:].tolist()
    logits = forced_pass(base.model, base.answer, request, reply)
    assert torch.equal(logits, torch.cat(plain.logits))
    assert "generate" not in vars(base.model)


def test_a_sampled_answer_is_the_same_with_passes_beside_it(base, picture):
    sampling = Base(base.model, base.processor, do_sample=True, temperature=2.0)
    request, answers = Request.simple(picture), []
    for passes in (0, 3):
        torch.manual_seed(4)
        for _ in range(passes):
            greedy_pass(sampling.model, sampling.answer, request, most=1)
        answers.append([sampling.answer([request]) for _ in range(3)])
    assert answers[0] == answers[1]


def test_a_base_model_that_generates_twice_for_a_document_is_refused(base, picture):
    def twice(requests):
        return base.answer(requests) and base.answer(requests)

    with pytest.raises(CaptureError, match=r"called generate\(\) 2 times for one document"):
        greedy_pass(base.model, twice, Request.simple(picture))
    assert "generate" not in vars(base.model)


def test_a_blank_image_has_the_colour_of_the_background():
    image = Image.new("RGB", (30, 20), (250, 120, 7))
    image.paste((0, 0, 0), (0, 0, 10, 10))
    blank = blank_image(image)
    assert (blank.size, blank.mode) == (image.size, "RGB")
    assert blank.getcolors() == [(600, (250, 120, 7))]
    assert blank_image(image.convert("L")).mode == "L"
    palette = Image.new("P", (30, 20), 1)
    palette.putpalette([9, 9, 9, 250, 120, 7])
    assert blank_image(palette).getcolors() == [(600, (250, 120, 7))]


def test_an_image_that_has_no_channels_of_8_bits_is_refused(base):
    refusal = pytest.raises(CaptureError, match="mode F: reliance needs channels of 8 bits")
    vocabulary = digit_vocabulary(base.processor.tokenizer, base.model)
    with refusal:
        record_reliance(
            base.answer, Request.simple(Image.new("F", (96, 96))), model=base.model, vocabulary=vocabulary, digits="1"
        )


def test_a_tokenizer_that_merges_digits_is_not_measured(base, picture):
    merging = Tokenizer(
        models.BPE(vocab={**{str(n): n for n in range(10)}, "12": 10, "<end>": 11}, merges=[("1", "2")])
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merging, eos_token="<end>")
    vocabulary = digit_vocabulary(tokenizer, base.model)
    assert (vocabulary.spell("12"), vocabulary.spell("21")) == (None, (2, 1))
    found = record_reliance(base.answer, Request.simple(picture), model=base.model, vocabulary=vocabulary, digits="12")
    assert found == {"reliance": "merged", "true_digits": "12"}
    assert reliance_values(found) == dict.fromkeys(RELIANCE_KEYS)


def test_numbers_are_spelled_in_digits_where_the_vocabulary_begins_with_a_space(base):
    assert base.processor.tokenizer.decode(digit_vocabulary(base.processor.tokenizer, base.model).spell("107")) == "107"


def test_the_metrics_are_divergences_and_log_ratios():
    """The vector of the specification, section 9, as the second digit."""
    p = [0.05, 0.10, 0.60, 0.15, 0.05, 0.05, *[0] * 6]
    q = [0.30, 0.05, 0.20, 0.10, 0.30, 0.05, *[0] * 6]
    one = [1.0, *[0] * 11]
    recorded = {
        "true_digits": "92",
        "digit_probabilities": [one, p],
        "digit_probabilities_blank": [one, q],
        "digit_probabilities_knockout": [one, p],
    }
    values = reliance_values(recorded)
    assert values["vr_2"] == pytest.approx(0.22816227, abs=1e-6)
    assert values["dlogp_2"] == pytest.approx(np.log(3))
    assert (values["vr_1"], values["vrd_1"], values["vrd_2"]) == (0, 0, 0)
    assert values["dlogp_1"] is None  # of a digit that is impossible with and without the image
    single = {name: rows if name == "true_digits" else rows[1:] for name, rows in recorded.items()} | {
        "true_digits": "2"
    }
    assert reliance_values(single) == {
        **dict.fromkeys(RELIANCE_KEYS),
        "vr_1": values["vr_2"],
        "vrd_1": 0,
        "dlogp_1": values["dlogp_2"],
    }
