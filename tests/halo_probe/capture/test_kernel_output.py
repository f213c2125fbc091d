"""That the kernel does what is recorded of it, of every call."""

import numpy as np
import pytest
import tiny_families
import torch
from tiny_families import SPECIMENS
from transformers import GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from halo_probe.archive.generation import Layer
from halo_probe.capture import record_attention
from halo_probe.capture.decoding import most_tokens
from halo_probe.capture.dispatch import AttentionCall
from halo_probe.capture.interventions import Intervention
from halo_probe.capture.kernel_output import KernelOutputs
from halo_probe.errors import CaptureError
from tests.tiny_models import make_inputs, qwen3_vl

LAYER = Layer(3, "full_attention")


@pytest.fixture(scope="module")
def asked():
    model, processor = qwen3_vl()
    return model, make_inputs(processor, [tiny_families.a_picture(64, 96)], ["How many?"])


@pytest.fixture
def replaced(monkeypatch):
    """Puts another function under the name of a kernel."""

    def replace(kernel, *, name="sdpa"):
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, name, kernel)

    return replace


SDPA = ALL_ATTENTION_FUNCTIONS["sdpa"]


def sharper(module, query, key, value, mask, **arguments):
    return SDPA(module, query * 1.01, key, value, mask, **arguments)


def blind(module, query, key, value, mask, **arguments):
    """Without the mask, which hides nothing from the last query of one prompt, and without the first value."""
    return SDPA(module, query, key, torch.cat([value[:, :, :1] * 0, value[:, :, 1:]], dim=2), mask, **arguments)


def forgetful(module, query, key, value, mask, **arguments):
    return SDPA(module, query, key, value, mask, **{**arguments, "dropout": 0.1})


def of_another_shape(module, query, key, value, mask, **arguments):
    output, weights = SDPA(module, query, key, value, mask, **arguments)
    return output.flatten(2), weights


@pytest.mark.parametrize("kernel", [sharper, blind, forgetful])
@pytest.mark.parametrize("layers", ["last", [0]])
def test_another_kernel_of_the_same_name_is_an_error_that_names_layer_and_kernel(kernel, layers, asked, replaced):
    model, inputs = asked
    replaced(kernel)
    index = {"last": 3}.get(str(layers), 0)
    with (
        pytest.raises(
            CaptureError, match=rf"^Layer {index}: the kernel 'sdpa' does not return .*model\.eval\(\).*=eager"
        ),
        record_attention(model, layers=layers),
    ):
        model.generate(**inputs, max_new_tokens=2, do_sample=False)


def test_an_output_of_another_shape_is_an_error_that_shows_both(asked, replaced):
    model, inputs = asked
    replaced(of_another_shape)
    own = next(iter(model.get_decoder().layers)).self_attn.o_proj
    with (
        pytest.raises(CaptureError, match=r"Layer 3: attention of shape \(1, \d+, \d+\) where batch × queries"),
        record_attention(model),
    ):
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert own.in_features == 128


def test_dropout_in_training_mode_is_an_error():
    model, processor = qwen3_vl()
    inputs = make_inputs(processor, [tiny_families.a_picture(64, 64)], ["How many?"])
    for layer in model.get_decoder().layers:
        layer.self_attn.attention_dropout = 0.1
    with record_attention(model) as recording:  # in evaluation mode it is none
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert len(recording.generations) == 1
    model.train()
    with (
        pytest.raises(CaptureError, match=r"the kernel 'sdpa' does not return.*model\.eval\(\)"),
        record_attention(model),
    ):
        model.generate(**inputs, max_new_tokens=1, do_sample=False)


def test_a_layer_that_is_intervened_on_is_compared_before_it_is_changed(asked, replaced):
    model, inputs = asked
    change = Intervention(name="boost", strength=8.0, layers="all")
    with record_attention(model, layers="all", intervention=change) as recording:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert len(recording.generations) == 1
    replaced(sharper)
    with pytest.raises(CaptureError, match="^Layer 0: the kernel"), record_attention(model, intervention=change):
        model.generate(**inputs, max_new_tokens=2, do_sample=False)


def test_a_kernel_that_changes_later_is_found_at_the_next_call(asked, replaced):
    model, inputs = asked
    with record_attention(model) as recording:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
        replaced(sharper)
        with pytest.raises(CaptureError, match="the kernel 'sdpa'"):
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert len(recording.generations) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sharpness", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("softcap", [None, 20.0])
def test_what_rounding_explains_is_bounded_by_the_logits_that_are_rounded(dtype, sharpness, sinks, softcap):
    """A kernel that rounds each of its steps, against a reference in float64: grouped heads, a mask, all in its dtype."""
    torch.manual_seed(4)
    query, key, value = (torch.randn(2, heads, length, 16) for heads, length in ((4, 3), (2, 700), (2, 700)))
    query = (query * sharpness).to(dtype)
    key, value = key.to(dtype), value.to(dtype)
    arguments = {"softcap": softcap, **({"s_aux": torch.randn(4)} if sinks else {})}
    mask = torch.zeros(2, 1, 1, 700)
    mask[1, ..., :50] = -torch.inf
    logits = (query[:, :, -1:].double().view(2, 2, 2, 16) @ key.double().mT).view(2, 4, 700) / 4
    rounded = (query[:, :, -1:].view(2, 2, 2, 16) @ key.mT).view(2, 4, 700) / 4
    if softcap:
        logits, rounded = (softcap * torch.tanh(one / softcap) for one in (logits, rounded))
    drain = arguments["s_aux"].view(1, 4, 1).expand(2, 4, 1) if sinks else torch.empty(2, 4, 0)
    weights = [
        torch.softmax(torch.cat([(one + mask[:, 0]).float(), drain], dim=-1), dim=-1)[..., :700]
        for one in (logits, rounded)
    ]
    output = (weights[1].to(dtype).view(2, 2, 2, 700) @ value).view(2, 4, 16)
    shown = (logits + mask[:, 0]).float()
    coarse = sharpness * torch.finfo(dtype).eps > 0.01  # logits of about a hundred are off by a tenth and more
    for factor, fits in ((1.0, True), *(() if coarse else ((1.5, False),))):
        outputs = KernelOutputs(kernel="one")
        call = AttentionCall(query, key, value, mask, arguments, sharper)
        outputs.compare(LAYER, call, ((output * factor)[:, None].expand(2, 3, 4, 16), None), shown)
        (excess,) = outputs.excesses()
        assert (float(excess) <= 1) == fits


def test_a_row_that_sees_nothing_is_not_compared_and_one_that_is_not_a_number_is_not_equal():
    query, key, value = (torch.randn(1, 2, length, 8) for length in (1, 5, 5))
    for logits, fits in ((torch.full((1, 2, 5), -torch.inf), True), (torch.full((1, 2, 5), torch.nan), False)):
        outputs = KernelOutputs(kernel="one")
        call = AttentionCall(query, key, value, None, {}, sharper)
        outputs.compare(LAYER, call, (torch.full((1, 1, 2, 8), torch.nan),), logits)
        if fits:
            outputs.require_equal(outputs.excesses())
        else:
            with pytest.raises(CaptureError, match="nan times"):
                outputs.require_equal(outputs.excesses())


@pytest.mark.parametrize("name", ["mllama", "gemma3n", "llama4", "kimi_k25", "mistral_large4", "qwen3_5", "inkling2"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kernel", ["own", "eager"])
def test_no_family_is_refused_for_what_its_own_kernels_round(name, half, kernel):
    """Cross attention, shared keys, chunks, heads in one, positions in the logits: those that come nearest to the bound."""
    model = tiny_families.build(name, SPECIMENS[name])
    inputs, _ = tiny_families.encode(SPECIMENS[name], model.config, tiny_families.a_picture(*SPECIMENS[name].picture))
    if half:
        model, inputs = tiny_families.in_half_precision(model, inputs)
    if kernel == "eager":
        model.set_attn_implementation("eager")
    with record_attention(model, layers="all") as recording:
        model.generate(**inputs, max_new_tokens=1, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert np.isfinite(recording.generations[0].raw).all()


def test_a_context_without_a_call_of_generate_is_an_error(asked):
    model, inputs = asked
    before = model.generate
    for call in (lambda: None, lambda: before(**inputs, max_new_tokens=1)):
        with pytest.raises(CaptureError, match=r"Nothing was recorded.*inside the context.*model\.generate"):  # noqa: SIM117
            with record_attention(model):
                call()
    with pytest.raises(CaptureError, match="Nothing was recorded"), record_attention(model):
        type(model).generate(model, **inputs, max_new_tokens=1)


def test_a_context_that_an_exception_ends_raises_that_one(asked):
    with pytest.raises(KeyError, match="own"), record_attention(asked[0]):
        raise KeyError("own")


@pytest.mark.parametrize(
    "options",
    [{"max_new_tokens": 5}, {"max_length": 5}, {"generation_config": {"max_new_tokens": 5}}, {}],
)
@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
def test_the_most_tokens_of_a_reply_are_those_after_which_generate_ends_it(options, asked):
    model, inputs = asked
    prompt = inputs["input_ids"].shape[1]
    given = {name: value for name, value in options.items() if name != "generation_config"}
    if "max_length" in given:
        given["max_length"] += prompt
    if "generation_config" in options:
        given["generation_config"] = GenerationConfig(**options["generation_config"])
    never = {"eos_token_id": None, "do_sample": False, "pad_token_id": 0}
    written = model.generate(**inputs, **given, **never).shape[1] - prompt
    assert most_tokens(model, (), {**inputs, **given, **never}, prompt=prompt) == written
