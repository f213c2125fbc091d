"""Recorded attention against eager `output_attentions`, and the promise that recording changes nothing."""

import gc
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from halo_probe.archive.generation import Layer
from halo_probe.capture import record_attention
from halo_probe.capture.dispatch import AttentionCall
from halo_probe.capture.image_tokens import ImageTokens
from halo_probe.capture.kernel_output import weighted_values
from halo_probe.capture.rows import image_attention, row_logits, visible_tokens
from halo_probe.capture.session import Session
from halo_probe.errors import CaptureError, NoImageTokensError, UsageError
from tests import tiny_models

BUILDERS = {"qwen3_vl": tiny_models.qwen3_vl, "gemma3": tiny_models.gemma3}
SIZES = {"qwen3_vl": [(96, 64), (128, 160), (64, 64), (96, 96)], "gemma3": [(96, 64), (128, 160), (64, 64), (96, 96)]}
TEXTS = ["How many dots?", "How many dots are there in the image? Answer directly. Answer: ", "Count.", "Dots? " * 7]
STEPS = 5


def pictures(family):
    images = []
    for number, size in enumerate(SIZES[family]):
        image = Image.new("RGB", size, (255, 255, 255))
        draw = ImageDraw.Draw(image)
        for dot in range(3 + number):
            x, y = 9 + 17 * dot % (size[0] - 10), 11 + 23 * dot % (size[1] - 10)
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(10 * dot, 20, 60 * number))
        images.append(image)
    return images


def freely(**options):
    """Generation without the checkpoint's two-digit rule: every token of a fixed number of steps comes from logits."""
    return {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "sequence_bias": None, **options}


@pytest.fixture(scope="module", params=list(BUILDERS))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def sdpa(family):
    return BUILDERS[family]()


@pytest.fixture(scope="module")
def eager(family):
    return BUILDERS[family](attn_implementation="eager")


@pytest.fixture(scope="module")
def single(family, sdpa):
    return tiny_models.make_inputs(sdpa[1], pictures(family)[1:2], TEXTS[1:2])


@pytest.fixture(scope="module")
def batch(family, sdpa):
    return tiny_models.make_inputs(sdpa[1], pictures(family), TEXTS)


def eager_rows(model, inputs, **options):
    """Layers × heads × keys of the last query row at each step, from the model's own eager attention."""
    output = model.generate(**inputs, **freely(output_attentions=True, return_dict_in_generate=True, **options))
    return output.sequences, [
        np.stack([layer[:, :, -1].float().numpy() for layer in step]) for step in output.attentions
    ]


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_every_layer_head_and_step_equals_eager_attention(kernel, sdpa, eager, single):
    sequences, rows = eager_rows(eager[0], single)
    model = {"sdpa": sdpa, "eager": eager}[kernel][0]
    with record_attention(model, layers="all", heads="all") as recording:
        output = model.generate(**single, **freely())
    (generation,) = recording.generations
    assert torch.equal(output, sequences)
    assert generation.heads.shape[:2] == (STEPS, len(rows[0]))
    columns = np.flatnonzero((single["input_ids"][0] == model.config.image_token_id).numpy())
    spread = 0.0
    for step, layers in enumerate(rows):
        expected = layers[:, 0][:, :, columns].astype(np.float64)
        mass = expected.sum(-1, keepdims=True)
        np.testing.assert_allclose(generation.heads[step], expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(generation.raw[step], expected.mean(1), atol=2e-6, rtol=0)
        np.testing.assert_allclose(generation.eq1[step], (expected / mass).mean(1), atol=2e-6, rtol=0)
        np.testing.assert_allclose(generation.visual_mass[step], mass.mean((1, 2)), atol=2e-6, rtol=0)
        spread = max(spread, float(np.ptp(generation.eq1[step], axis=-1).max() * columns.size))
    assert spread > 2  # the maps compared are far from uniform: a shift by one token would show


def test_tokens_and_logits_are_bit_identical_with_and_without_the_recording(sdpa, batch):
    model = sdpa[0]
    options = freely(return_dict_in_generate=True, output_logits=True)
    plain = model.generate(**batch, **options)
    with record_attention(model, layers="all", heads="all"):
        probed = model.generate(**batch, **options)
    assert torch.equal(plain.sequences, probed.sequences)
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, probed.logits, strict=True))


def test_a_left_padded_batch_records_what_batch_size_one_records(family, sdpa, batch):
    model, processor = sdpa
    assert batch["attention_mask"].sum(1).unique().numel() > 1
    with record_attention(model, layers="all") as together:
        model.generate(**batch, **freely())
    for row, (image, text) in enumerate(zip(pictures(family), TEXTS, strict=True)):
        inputs = tiny_models.make_inputs(processor, [image], [text])
        with record_attention(model, layers="all") as alone:
            model.generate(**inputs, **freely())
        expected, found = alone.generations[0], together.generations[row]
        assert found.token_ids.tolist() == expected.token_ids.tolist()
        assert found.image_positions.tolist() == expected.image_positions.tolist()
        assert (found.grids, found.prompt_length) == (expected.grids, expected.prompt_length)
        np.testing.assert_allclose(found.eq1, expected.eq1, atol=1e-5)
        np.testing.assert_allclose(found.raw, expected.raw, atol=1e-5)
        np.testing.assert_allclose(found.visual_mass, expected.visual_mass, atol=1e-5)


def test_a_padded_batch_equals_eager_attention(sdpa, eager, batch):
    _, rows = eager_rows(eager[0], batch)
    with record_attention(sdpa[0], layers="all") as recording:
        sdpa[0].generate(**batch, **freely())
    for row, generation in enumerate(recording.generations):
        columns = np.flatnonzero((batch["input_ids"][row] == sdpa[0].config.image_token_id).numpy())
        for step in range(STEPS):
            expected = rows[step][:, row][:, :, columns].mean(1)
            np.testing.assert_allclose(generation.raw[step], expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_other_caches_record_what_the_dynamic_cache_records(options, sdpa, single):
    with record_attention(sdpa[0], layers="all") as expected:
        sdpa[0].generate(**single, **freely())
    with record_attention(sdpa[0], layers="all") as found:
        sdpa[0].generate(**single, **freely(**options))
    np.testing.assert_allclose(found.maps, expected.maps, atol=2e-5)


def test_the_grid_is_that_of_the_processor(family, sdpa, single):
    with record_attention(sdpa[0]) as recording:
        sdpa[0].generate(**single, **freely())
    (generation,) = recording.generations
    if family == "gemma3":
        assert generation.grids == ((16, 16),)
    else:
        _, height, width = single["image_grid_thw"][0].tolist()
        assert generation.grids == ((height // 2, width // 2),)
        assert height != width
    assert generation.image_positions.size == np.prod(generation.grids[0])


def test_the_reply_is_cut_after_its_end_of_sequence_token(sdpa, batch):
    model = sdpa[0]
    with record_attention(model) as recording:
        output = model.generate(**batch, max_new_tokens=9, do_sample=False)
    ends = np.atleast_1d(model.generation_config.eos_token_id)
    for row, generation in enumerate(recording.generations):
        assert generation.ended
        assert generation.token_ids[-1] in ends
        assert not np.isin(generation.token_ids[:-1], ends).any()
        assert (
            generation.token_ids.tolist()
            == output[row, batch["input_ids"].shape[1] :][: generation.token_ids.size].tolist()
        )
        assert len(generation.eq1) == generation.token_ids.size
        assert list(generation.content_steps) == [0, 1]


def test_maps_are_float32_and_sum_to_one_or_to_the_visual_mass(sdpa, single):
    with record_attention(sdpa[0], layers="all") as recording:
        sdpa[0].generate(**single, **freely())
    (generation,) = recording.generations
    assert recording.maps.dtype == generation.raw.dtype == generation.rn.dtype == np.float32
    np.testing.assert_allclose(generation.eq1.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(generation.rn.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(generation.raw.sum(-1), generation.visual_mass, atol=1e-5)


def test_bfloat16_models_are_recorded_with_a_float32_softmax(family, single):
    model, _ = BUILDERS[family]()
    model = model.to(torch.bfloat16)
    with record_attention(model) as recording:
        model.generate(**{**single, "pixel_values": single["pixel_values"].bfloat16()}, **freely())
    assert abs(recording.maps.astype(np.float64).sum(-1) - 1).max() < 1e-6


def test_layers_carry_their_index_and_type(family, sdpa, single):
    with record_attention(sdpa[0], layers=[0, -1]) as recording:
        sdpa[0].generate(**single, **freely())
    count = sdpa[0].config.get_text_config().num_hidden_layers
    types = [layer.type for layer in recording.generations[0].layers]
    assert [layer.index for layer in recording.generations[0].layers] == [0, count - 1]
    assert types == (["full_attention"] * 2 if family == "qwen3_vl" else ["full_attention", "sliding_attention"])


def test_nothing_stays_on_the_model_after_an_exception(sdpa, single):
    model = sdpa[0]
    before = [len(module._forward_pre_hooks) for module in model.modules()]
    attributes = [set(vars(module)) for module in model.modules()]

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    handle = model.lm_head.register_forward_hook(stop)
    with pytest.raises(Stop), record_attention(model, layers="all"):
        model.generate(**single, **freely())
    handle.remove()
    assert [len(module._forward_pre_hooks) for module in model.modules()] == before
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert "get_interface" not in vars(ALL_ATTENTION_FUNCTIONS)


def test_a_recording_does_not_keep_the_model_alive():
    model, processor = tiny_models.qwen3_vl(layers=1)
    inputs = tiny_models.make_inputs(processor, pictures("qwen3_vl")[:1], TEXTS[:1])
    with record_attention(model) as recording:
        model.generate(**inputs, **freely())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert recording.maps.size


def test_a_planted_patch_moves_the_map_where_it_lies():
    """Tokens run as the pixels do: of all cells, the one whose pixels changed changes most."""
    model, processor = tiny_models.qwen3_vl(layers=1)
    plain = Image.new("RGB", (256, 256), (255, 255, 255))
    planted = plain.copy()
    planted.paste((0, 0, 0), (160, 32, 192, 64))  # token row 1, column 5 of an 8 × 8 grid
    maps = []
    for image in (plain, planted):
        with record_attention(model) as recording:
            model.generate(**tiny_models.make_inputs(processor, [image], ["Dots?"]), max_new_tokens=1, do_sample=False)
        maps.append(recording.maps[0, 0].reshape(8, 8))
    assert np.unravel_index(np.abs(np.log(maps[1] / maps[0])).argmax(), (8, 8)) == (1, 5)


def test_the_vector_of_the_specification_comes_out_of_the_row_maths():
    """Spec §1: two heads, five keys, image keys 1 to 4."""
    logits = torch.tensor([[[4.0, 0, 1, 2, 3], [0, 2, 2, 2, 0]]])
    seen = image_attention(logits, torch.tensor([[1, 2, 3, 4]]))
    np.testing.assert_allclose(seen.visual_mass, [0.66110645], atol=1e-6)
    np.testing.assert_allclose(seen.heads.sum(-1)[0], [0.36359135, 0.95862155], atol=1e-6)
    np.testing.assert_allclose(seen.eq1[0], [0.17550188, 0.20304474, 0.27791399, 0.34353940], atol=1e-6)
    renormalised = (seen.raw / seen.visual_mass)[0]
    np.testing.assert_allclose(renormalised, [0.24005508, 0.25520294, 0.29637908, 0.20836290], atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize("window", [100, 300])
def test_a_window_that_hides_image_tokens_is_told_and_not_read_as_zero_attention(window, options):
    model, processor = tiny_models.gemma3(sliding_window=window)
    eager_model, _ = tiny_models.gemma3(sliding_window=window, attn_implementation="eager")
    inputs = tiny_models.make_inputs(processor, pictures("gemma3")[1:2], TEXTS[1:2])
    _, rows = eager_rows(eager_model, inputs, use_cache=False)
    with record_attention(model, layers="all") as recording:
        model.generate(**inputs, **freely(**options))
    (generation,) = recording.generations
    sliding = np.array([layer.type == "sliding_attention" for layer in generation.layers])
    columns = np.flatnonzero((inputs["input_ids"][0] == model.config.image_token_id).numpy())
    for step in range(STEPS):
        expected = rows[step][:, 0][:, :, columns].mean(1)
        np.testing.assert_allclose(generation.raw[step], expected, atol=1e-5)
        last = inputs["input_ids"].shape[1] - 1 + step
        assert set(generation.visible[step, sliding].tolist()) == {int((columns > last - window).sum())}
        assert set(generation.visible[step, ~sliding].tolist()) == {256}
    assert (generation.visible[:, sliding] < 256).any()


def test_prompts_padded_on_the_right_are_refused(sdpa, batch):
    model, _ = sdpa
    flipped = {**batch, "attention_mask": batch["attention_mask"].flip(1), "input_ids": batch["input_ids"].flip(1)}
    with pytest.raises(CaptureError, match="padding_side='left'"), record_attention(model):
        model.generate(**flipped, **freely())


def test_padding_is_known_without_an_attention_mask(sdpa, batch):
    """`generate` infers the mask from the padding, and so does the recording."""
    model, _ = sdpa
    given = {name: value for name, value in batch.items() if name != "attention_mask"}
    with record_attention(model) as recording:
        model.generate(**batch, **freely())
        model.generate(**given, **freely())
    rows = len(batch["input_ids"])
    for masked, inferred in zip(recording.generations[:rows], recording.generations[rows:], strict=True):
        assert inferred.prompt_length == masked.prompt_length
        np.testing.assert_array_equal(inferred.image_positions, masked.image_positions)
        np.testing.assert_array_equal(inferred.first_mass, masked.first_mass)
    assert len({generation.prompt_length for generation in recording.generations}) > 1


def test_positions_that_are_not_those_of_the_prompt_are_refused():
    """As prompt tuning adds them: image tokens and steps would be looked for in the wrong place."""
    model, processor = tiny_models.qwen3_vl(layers=1)
    inputs = dict(tiny_models.make_inputs(processor, pictures("qwen3_vl")[:1], TEXTS[:1]))
    embeddings = model.get_input_embeddings()(inputs["input_ids"]).detach()
    del inputs["mm_token_type_ids"]
    for virtual in (0, 2):
        longer = torch.cat([embeddings[:, :virtual], embeddings], dim=1)
        mask = torch.ones(longer.shape[:2], dtype=torch.int64)
        given = {**inputs, "inputs_embeds": longer, "attention_mask": mask}
        with nullcontext() if virtual == 0 else pytest.raises(CaptureError, match="leave out virtual tokens"):
            with record_attention(model) as recording:
                model.generate(**given, **freely())
            assert recording.generations


def test_the_arithmetic_is_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 5, 8, generator=generator) for _ in range(3))
    call = AttentionCall(query, key, value, None, {}, torch.nn.functional.scaled_dot_product_attention)
    logits = row_logits(query, key, None, {})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(row_logits(query, key, None, {}), logits)
        weighted = weighted_values(logits[:, :, -1], call)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)[:, :, -1]
    torch.testing.assert_close(weighted, expected, rtol=0, atol=1e-6)


def test_a_row_that_sees_nothing_has_no_mass():
    attention = image_attention(torch.full((1, 2, 4), -torch.inf), torch.tensor([[1, 2]]))
    assert (attention.visual_mass.item(), attention.first_mass.item(), attention.visible.item()) == (0, 0, 0)
    assert attention.raw.tolist() == [[0, 0]]
    assert attention.eq1.isnan().all()


def test_heads_that_see_no_image_token_are_left_out_of_the_mean_of_maps_and_not_of_the_mass():
    logits = torch.tensor([[[0.0, 0.0, -torch.inf, -torch.inf], [0.0, -torch.inf, 1.0, -torch.inf]]])
    blind = torch.tensor([[[0.0, -torch.inf, -torch.inf, -torch.inf]]])
    columns = torch.tensor([[1, 2, 3]])
    seen, unseen, both = (
        image_attention(rows, columns) for rows in (logits, blind, torch.cat([blind, logits, blind], dim=1))
    )
    assert seen.visible.tolist() == both.visible.tolist() == [2]  # one in each head, and not the same
    assert visible_tokens(torch.cat([blind, logits], dim=1), columns).tolist() == [2]
    assert both.eq1.tolist() == seen.eq1.tolist() == [[0.5, 0.5, 0.0]]
    torch.testing.assert_close(both.visual_mass, seen.visual_mass / 2)
    assert unseen.eq1.isnan().all()


def test_keys_that_are_missing_from_a_layer_of_an_unknown_kind_are_refused():
    image = ImageTokens(np.arange(3, 7), ())
    session = Session([image], lengths=[10], prompt=10)
    session.seen = 14
    assert session.dropped(Layer(0, "sliding_attention"), keys=8) == 6
    assert session.dropped(Layer(0, "reference_sliding_attention"), keys=12) == 0
    assert session.dropped(Layer(0, "window_attention"), keys=14) == 0
    for kind, keys in [("reference_sliding_attention", 8), ("window_attention", 13), ("full_attention", 13)]:
        with pytest.raises(CaptureError, match=rf"Layer 0 \({kind}\) holds {keys} keys for 14 positions"):
            session.dropped(Layer(0, kind), keys=keys)


def test_a_prompt_without_an_image_is_refused_before_anything_is_generated(sdpa):
    model, processor = sdpa
    inputs = processor(text=["How many dots?"], return_tensors="pt")
    seen = []
    handle = model.get_decoder().register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(NoImageTokensError, match="no image token"), record_attention(model):
        model.generate(**inputs, max_new_tokens=2)
    handle.remove()
    assert not seen


@pytest.mark.parametrize("layers", [[99], "first", [], [0.5], [-50]], ids=str)
def test_unknown_layers_are_refused_with_the_valid_ones(layers, sdpa):
    refusal = pytest.raises(UsageError, match="use 'last', 'all' or a list of indices out of 0 to")
    with refusal, record_attention(sdpa[0], layers=layers):
        pass


@pytest.mark.parametrize(
    "options",
    [{"penalty_alpha": 0.6, "top_k": 4}, {"dola_layers": "low"}, {"custom_generate": lambda *_, **__: None}],
    ids=["contrastive", "dola", "custom"],
)
def test_decoding_that_cannot_be_followed_is_refused_and_not_recorded_wrongly(options, sdpa, single):
    with pytest.raises(CaptureError, match="not supported"), record_attention(sdpa[0]):
        sdpa[0].generate(**single, **{**freely(), **options})


def test_two_recordings_of_one_model_are_refused(sdpa):
    with pytest.raises(CaptureError, match="already replaced"), record_attention(sdpa[0]), record_attention(sdpa[0]):
        pass


def test_a_layer_that_does_not_run_is_an_error_and_not_an_empty_result():
    model, processor = tiny_models.qwen3_vl(layers=2)
    model.get_decoder().layers[1].forward = lambda hidden_states, **_: hidden_states
    inputs = tiny_models.make_inputs(processor, pictures("qwen3_vl")[:1], TEXTS[:1])
    with pytest.raises(CaptureError, match="No attention was seen at step 0"), record_attention(model):
        model.generate(**inputs, **freely())
