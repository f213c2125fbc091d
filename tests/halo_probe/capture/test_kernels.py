"""Every kernel: its way to pass masks, windows, soft-caps and sinks, and what the probe makes of it."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image, ImageDraw
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as gemma2_attention
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as gpt_oss_attention
from transformers.models.inkling.modeling_inkling import eager_attention_forward as inkling_attention
from transformers.models.inkling2.modeling_inkling2 import eager_attention_forward as inkling2_attention

from halo_probe.capture import record_attention
from halo_probe.capture.dispatch import AttentionCall
from halo_probe.capture.kernel_output import weighted_values
from halo_probe.capture.rows import image_attention, learned_sinks, row_logits
from halo_probe.errors import CaptureError, UnsupportedModelError

STEPS = 4
FIXED = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "sequence_bias": None}


def build(family, kernel="sdpa"):
    """A model whose language model alone is told to use another kernel: no flash-attn has to be there to load it."""
    builder, options = {
        "qwen3_vl": (tiny_models.qwen3_vl, {}),
        "gemma3": (tiny_models.gemma3, {"sliding_window": 100}),
    }[family]
    model, processor = builder(**options)
    for module in model.get_decoder().modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = kernel
    images = []
    for number, size in enumerate([(96, 64), (128, 160)]):
        image = Image.new("RGB", size, (255, 255, 255))
        ImageDraw.Draw(image).ellipse((8, 8, 40 + 8 * number, 50), fill=(0, 90 * number, 20))
        images.append(image)
    return model, tiny_models.make_inputs(processor, images, ["How many dots?", "Dots? " * 5])


class FlashStandIn:
    """Flash attention's signature and conventions, computed in the open: 2-D masks, windows and causality of its own."""

    def __init__(self):
        self.rows = {}
        self.windows = set()

    def __call__(
        self, module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None, **kwargs
    ):
        assert attention_mask is None or attention_mask.dim() == 2
        queries, keys = query.shape[2], key.shape[2]
        group = query.shape[1] // key.shape[1]
        logits = query @ key.repeat_interleave(group, 1).transpose(2, 3) * scaling
        used = keys if attention_mask is None else attention_mask.shape[1]  # of a static cache
        at = torch.arange(used - queries, used)[:, None]
        other = torch.arange(keys)
        allowed = other <= at
        if sliding_window is not None:
            allowed = allowed & (at - other < sliding_window)
            self.windows.add(sliding_window)
        allowed = allowed.expand(len(query), 1, queries, keys)
        if attention_mask is not None:
            padding = torch.nn.functional.pad(attention_mask, (0, keys - used)).bool()
            allowed = allowed & padding[:, None, None]
        weights = logits.masked_fill(~allowed, -1e9).softmax(-1)
        self.rows.setdefault(module.layer_idx, []).append(weights[:, :, -1])
        return (weights @ value.repeat_interleave(group, 1)).transpose(1, 2), None


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_a_flash_kernel_is_recorded_with_the_mask_and_window_it_applies_itself(family, options, monkeypatch):
    model, inputs = build(family, kernel="flash_attention_2")
    stand_in = FlashStandIn()
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", stand_in)
    with record_attention(model, layers="all", heads="all") as recording:
        model.generate(**inputs, **FIXED, **options)
    assert stand_in.windows == ({100} if family == "gemma3" else set())
    for row, generation in enumerate(recording.generations):
        padding = inputs["input_ids"].shape[1] - generation.prompt_length
        for index, layer in enumerate(generation.layers):
            for step, weights in enumerate(stand_in.rows[layer.index]):
                dropped = max(inputs["input_ids"].shape[1] + step - weights.shape[-1], 0)
                columns = generation.image_positions + padding - dropped
                expected = torch.zeros(weights.shape[1], columns.size)
                expected[:, columns >= 0] = weights[row][:, columns[columns >= 0]]
                np.testing.assert_allclose(generation.heads[step, index], expected, atol=1e-5)
    assert {one.token_ids.size for one in recording.generations} == {STEPS}


@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")  # transformers gives it
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")  # seconds a shape, here
def test_flex_attention_is_recorded_from_its_block_masks():
    expected_model, inputs = build("gemma3", kernel="eager")
    model, _ = build("gemma3", kernel="flex_attention")
    with record_attention(expected_model, layers="all") as expected:
        tokens = expected_model.generate(**inputs, **FIXED)
    with torch.compiler.set_stance("force_eager"), record_attention(model, layers="all") as found:
        assert torch.equal(model.generate(**inputs, **FIXED), tokens)
    for one, other in zip(found.generations, expected.generations, strict=True):
        np.testing.assert_allclose(one.raw, other.raw, atol=1e-5)
        np.testing.assert_array_equal(one.visible, other.visible)
        assert len(set(one.visible.flatten().tolist())) > 1  # some layers slide


def drawn(*, heads=6, groups=3, keys=11):
    """A query, keys, values and a mask of a batch of two, the first of them padded."""
    generator = torch.Generator().manual_seed(7)
    query = 3 * torch.randn(2, heads, 4, 8, generator=generator)
    key, value = (torch.randn(2, groups, keys, 8, generator=generator) for _ in range(2))
    mask = torch.zeros(2, 1, 4, keys)
    mask[0, ..., :3] = torch.finfo(torch.float32).min
    return query, key, value, mask, generator


@pytest.mark.parametrize("special", ["softcap", "s_aux", "sinks", "position_bias"])
def test_what_a_kernel_does_to_its_logits_is_done_to_the_row(special):
    query, key, value, mask, generator = drawn()
    module = SimpleNamespace(num_key_value_groups=2, training=False)
    if special == "softcap":
        arguments = {"scaling": 0.5, "softcap": 2.0}
        kernel = gemma2_attention
    elif special == "s_aux":
        module.sinks = torch.randn(6, generator=generator)
        arguments = {"scaling": 0.5, "s_aux": module.sinks}
        kernel = gpt_oss_attention
    elif special == "sinks":
        arguments = {"scaling": 0.5, "sinks": 3 * torch.randn(2, 6, 4, 1, generator=generator)}
        kernel = inkling2_attention
    else:
        arguments = {"scaling": 0.5, "position_bias": torch.randn(2, 6, 4, 11, generator=generator)}
        kernel = inkling_attention
    output, weights = kernel(module, query, key, value, mask, **arguments)
    bias = torch.where(mask < -1, -torch.inf, 0.0)[:, :, -1:]
    logits = row_logits(query[:, :, -1:], key, bias, arguments)
    columns = torch.tensor([[4, 5, 9], [0, 1, 2]])
    seen = image_attention(logits, columns, first=torch.tensor([3, 0]), sink_logits=learned_sinks(arguments, rows=1))
    expected = torch.stack([weights[row][:, -1, columns[row]] for row in range(2)])
    torch.testing.assert_close(seen.heads[:, :, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.first_mass[0, 0], weights[0, :, -1, 3].mean(), atol=1e-6, rtol=0)
    normalised = (expected / expected.sum(-1, keepdim=True)).mean(1)
    torch.testing.assert_close(seen.eq1[:, 0], normalised, atol=1e-6, rtol=0)
    row = weighted_values(logits[:, :, 0], AttentionCall(query, key, value, mask, arguments, kernel))
    torch.testing.assert_close(row, output[:, -1], atol=1e-6, rtol=0)


def test_packed_rows_are_refused():
    model, inputs = build("qwen3_vl")
    layer = model.get_decoder().layers[-1].self_attn
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: forward(*args, cu_seq_lens_q=torch.tensor([0, 4]), **kwargs)
    with pytest.raises(CaptureError, match="'cu_seq_lens_q': rows packed into one"), record_attention(model):
        model.generate(**inputs, **FIXED)


class Tempered(FlashStandIn):
    """A kernel that declares an argument of its own."""

    def __call__(self, *args, temperature=None, **kwargs):
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize("kernel", ["flash_attention_2", "sdpa"])
@pytest.mark.parametrize("name", ["block_indices", "indices", "temperature", "token_type_ids"])
def test_an_argument_that_the_kernel_reads_and_the_probe_does_not_is_refused(name, kernel, monkeypatch):
    model, inputs = build("qwen3_vl", kernel=kernel)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", Tempered())
    layer = model.get_decoder().layers[-1].self_attn
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: forward(*args, **{name: torch.ones(1)}, **kwargs)
    refused = kernel == "flash_attention_2" and name != "token_type_ids"  # sdpa has selected keys in its mask
    words = pytest.raises(CaptureError, match=rf"'{name}', which changes the attention.*attn_implementation=sdpa")
    with words if refused else nullcontext(), record_attention(model) as recording:
        model.generate(**inputs, **FIXED)
    assert refused or len(recording.generations) == 2


@pytest.mark.parametrize("kernel", ["paged|eager", "my_own_kernel"])
def test_a_kernel_that_is_not_known_is_refused_with_those_that_are(kernel):
    model, _ = build("qwen3_vl", kernel=kernel)
    with pytest.raises(UnsupportedModelError, match=r"sdpa, eager, flash_attention_2 or flex"), record_attention(model):
        pass
