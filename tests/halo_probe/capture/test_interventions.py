"""The operations of the specification, section 8, and how they are written down."""

import numpy as np
import pytest
import torch

from halo_probe.capture.interventions import Intervention, digit_tokens, parse_intervention, resolve
from halo_probe.errors import InvalidAttentionError, UsageError
from halo_probe.metrics.structure import random30
from tests import tiny_models

Z = [1.0, 0.5, 2.0, 0.0, -1.0]
IMAGE = [2, 3, 4]
VECTORS = {
    "scale:1": ([0.20712394, 0.12562702, 0.56302123, 0.07619664, 0.02803118], 0.66724905, 0.53452311),
    "scale:0.5": ([0.31274039, 0.18968664, 0.31274039, 0.11505076, 0.06978181], 0.49757297, 0.32552489),
    "scale:1.5": ([0.10586995, 0.06421337, 0.78227897, 0.03894738, 0.00869033], 0.82991669, 0.62141871),
    "temperature:1.5": ([0.20712394, 0.12562702, 0.62894855, 0.03131350, 0.00698699], 0.66724905, 0.62141871),
    "boost:2": ([0.12423095, 0.07534988, 0.67538948, 0.09140403, 0.03362566], 0.80041917, 0.53452311),
    "knockout": ([0.62245933, 0.37754067, 0, 0, 0], 0, None),
}
ALL = torch.ones(1, dtype=torch.bool)


def row(*logits):
    """Logits of one head of one row of a batch, 1 × 1 × K."""
    return torch.tensor(logits)[None, None]


def attended(text, logits=Z, columns=IMAGE):
    edited = parse_intervention(text).edit(row(*logits), torch.tensor([columns]), ALL)
    return torch.softmax(edited.double(), -1)[0, 0].numpy()


def gini(weights):
    """Half the relative mean absolute difference."""
    weights = np.asarray(weights)
    return np.abs(weights[:, None] - weights).mean() / (2 * weights.mean())


@pytest.mark.parametrize("text", VECTORS)
def test_the_vectors_of_the_specification_hold(text):
    probabilities, mass, sparsity = VECTORS[text]
    found = attended(text)
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    assert found[IMAGE].sum() == pytest.approx(mass, abs=1e-6)
    if sparsity is not None:
        assert gini(found[IMAGE]) == pytest.approx(sparsity, abs=1e-6)


def test_scale_alone_depends_on_a_shift_of_all_logits():
    shifted = [z - 10 for z in Z]
    assert attended("scale:1.5", shifted)[IMAGE].sum() == pytest.approx(0.03183109, abs=1e-6)
    for text in ("temperature:1.5", "boost:2", "knockout"):
        np.testing.assert_allclose(attended(text, shifted), attended(text), atol=1e-6)


def test_chosen_cells_alone_are_knocked_out():
    knocked = Intervention(name="knockout", cells=(0, 2)).edit(row(*Z), torch.tensor([IMAGE]), ALL)
    assert knocked[0, 0].tolist() == [1, 0.5, -torch.inf, 0, -torch.inf]


@pytest.mark.parametrize("text", [name for name in VECTORS if name != "scale:1"])
def test_only_the_image_keys_of_the_chosen_rows_change(text):
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(3, 2, 9, generator=generator)
    logits[:, :, -1] = -torch.inf
    logits[0, :, 2] = -torch.inf  # an image key that this query may not see
    columns = torch.tensor([[1, 2, 5], [4, 5, 6], [-1, 0, 3]])
    before = logits.clone()
    edited = parse_intervention(text).edit(logits, columns, torch.tensor([True, False, True]))
    assert torch.equal(logits, before)
    assert torch.equal(edited[1], before[1])
    untouched = torch.ones(3, 9, dtype=torch.bool)
    for number, places in enumerate(columns.tolist()):
        untouched[number, [place for place in places if place >= 0]] = False
    assert torch.equal(edited.transpose(1, 2)[untouched], before.transpose(1, 2)[untouched])
    changed = ~untouched & torch.tensor([[True], [False], [True]]) & ~torch.isneginf(before[:, 0])
    assert (edited.transpose(1, 2)[changed] != before.transpose(1, 2)[changed]).all()
    assert torch.isneginf(edited[0, :, 2]).all()
    assert not edited.isnan().any()


@pytest.mark.parametrize("text", ["scale:1", "temperature:1", "boost:1", "adapt:1:1:0.4"])
def test_strength_one_says_that_it_changes_nothing(text):
    assert parse_intervention(text).is_identity


def test_an_empty_knockout_says_that_it_changes_nothing_and_a_whole_one_does_not():
    assert Intervention(name="knockout", cells=()).is_identity
    assert not Intervention(name="knockout").is_identity
    assert not parse_intervention("adapt").is_identity


@pytest.mark.parametrize(("confidence", "strength"), [(0.39, 0.5), (0.4, 1.5), (0.99, 1.5)])
def test_adapt_scales_by_the_confidence_in_the_first_token(confidence, strength):
    adapt = parse_intervention("adapt@prefill_last", layers="mid")
    chosen = resolve(adapt, confidence=confidence, attention=[1.0], seed=0)
    assert chosen == Intervention(name="scale", strength=strength, steps="prefill_last", layers="mid")


@pytest.mark.parametrize(("name", "cells"), [("top30", (1, 3, 4)), ("bottom30", (0, 2, 6))])
def test_masks_are_the_cells_with_the_most_and_the_least_attention(name, cells):
    attention = [0.05, 0.3, 0.02, 0.2, 0.1, 0.08, 0.01, 0.09, 0.1, 0.05]
    chosen = resolve(parse_intervention(name), confidence=1.0, attention=attention, seed=0)
    assert chosen == Intervention(name="knockout", cells=cells)


def test_random_masks_are_of_the_same_size_and_differ_between_documents():
    masks = [resolve(parse_intervention("random30"), confidence=1, attention=np.ones(40), seed=n) for n in (0, 0, 1)]
    assert masks[0] == masks[1] != masks[2]
    assert masks[0].cells == tuple(random30(40, seed=0).tolist())
    assert len(masks[0].cells) == 12


def test_an_attention_that_is_none_cannot_be_masked():
    with pytest.raises(InvalidAttentionError):
        resolve(parse_intervention("top30"), confidence=1, attention=np.zeros(4), seed=0)


@pytest.mark.parametrize("name", ["adapt", "top30", "random30", "bottom30"])
def test_what_depends_on_a_plain_pass_is_refused_without_one(name):
    intervention = parse_intervention(name)
    assert intervention.needs_plain_pass
    with pytest.raises(UsageError, match=f"{name}: depends on .*resolve`"):
        intervention.edit(row(*Z), torch.tensor([IMAGE]), ALL)


def test_the_steps_of_digits_are_refused_without_the_digits():
    with pytest.raises(UsageError, match="steps=d2: needs to know the digits"):
        parse_intervention("boost:2@d2").require_resolved()
    Intervention(name="boost", strength=2, steps="d2", digit_token_ids=frozenset({1})).require_resolved()


def test_a_cell_beyond_the_image_is_refused():
    with pytest.raises(UsageError, match="cell 3 is beyond the 3 image tokens"):
        Intervention(name="knockout", cells=(3,)).edit(row(*Z), torch.tensor([IMAGE]), ALL)


@pytest.mark.parametrize(
    ("layers", "indices", "chosen"),
    [
        ("all", range(3), {0, 1, 2}),
        ("last", range(36), {35}),
        ("mid", range(36), set(range(14, 24))),  # 14.4 and 23.4
        ("mid", range(20), set(range(8, 13))),
        ("mid", [3, 7, 11, 15], {7}),
        ((0, -1), range(5), {0, 4}),
    ],
)
def test_layers_are_chosen_among_those_with_attention(layers, indices, chosen):
    assert Intervention(name="knockout", layers=layers).layer_indices(indices) == chosen


@pytest.mark.parametrize(("layers", "indices"), [((5,), range(5)), ((), range(5)), ((1,), [0, 2]), ("mid", [0, 5])])
def test_layers_that_are_not_there_are_refused(layers, indices):
    with pytest.raises(UsageError, match="no such attention layer; use all, mid, last or indices from 0 to"):
        Intervention(name="knockout", layers=layers).layer_indices(indices)


@pytest.mark.parametrize(
    ("text", "layers", "described"),
    [
        ("boost:2@d2", "all", {"name": "boost", "strength": 2, "steps": "d2", "layers": "all"}),
        ("knockout", "[0,-1]", {"name": "knockout", "steps": "all", "layers": [0, -1]}),
        ("random30@d1", "3", {"name": "random30", "steps": "d1", "layers": [3]}),
        (
            "adapt",
            "last",
            {
                "name": "adapt",
                "strength": 0.5,
                "confident_strength": 1.5,
                "threshold": 0.4,
                "steps": "all",
                "layers": "last",
            },
        ),
        (
            "adapt:0.25:2:0.5@prefill_last",
            "mid",
            {
                "name": "adapt",
                "strength": 0.25,
                "confident_strength": 2,
                "threshold": 0.5,
                "steps": "prefill_last",
                "layers": "mid",
            },
        ),
    ],
)
def test_one_word_says_what_is_done(text, layers, described):
    assert parse_intervention(text, layers=layers).describe() == described


@pytest.mark.parametrize(
    ("text", "layers", "message"),
    [
        ("blur", "all", "intervention=blur: intervention 'blur': use one of scale, adapt,"),
        ("", "all", "use one of scale"),
        ("boost", "all", "boost: needs a strength"),
        ("boost:", "all", "'' is no number"),
        ("boost:two", "all", "'two' is no number"),
        ("boost:0", "all", "use knockout"),
        ("scale:-1", "all", "strength -1.0 is not a number from 0 up"),
        ("temperature:nan", "all", "strength nan is not"),
        ("scale:inf", "all", "strength inf is not"),
        ("scale:1:2", "all", "scale: takes no confident_strength"),
        ("top30:2", "all", "top30: takes no strength"),
        ("adapt:1:2:3:4", "all", "4 numbers are too many"),
        ("boost:2@d3", "all", "steps='d3': use prefill_last, d1, d2, all"),
        ("boost:2@", "all", "steps=''"),
        ("boost:2", "first", "intervention_layers=first: use all, mid, last or a list"),
    ],
)
def test_whatever_is_wrong_is_named(text, layers, message):
    with pytest.raises(UsageError, match=message):
        parse_intervention(text, layers=layers)


@pytest.mark.parametrize("steps", [-1, True, 1.0, "first"])
def test_steps_are_named_or_numbered_from_zero(steps):
    with pytest.raises(UsageError, match="use prefill_last, d1, d2, all or a generation step from 0"):
        Intervention(name="knockout", steps=steps)
    assert Intervention(name="knockout", steps=0).steps == 0


@pytest.mark.parametrize(
    "cells", [{"name": "boost", "strength": 2, "cells": (1,)}, {"name": "knockout", "cells": (-1,)}]
)
def test_cells_are_for_knockout_alone(cells):
    with pytest.raises(UsageError, match="cells are for knockout alone, places among the image tokens from 0"):
        Intervention(**cells)


def test_the_digits_of_real_tokenizers_are_found(qwen3_vl_processor):
    for tokenizer in (qwen3_vl_processor.tokenizer, tiny_models.gemma3_processor().tokenizer):
        found = digit_tokens(tokenizer)
        assert set(found.values()) == set("0123456789")
        assert all(tokenizer.decode([index]).strip() == text for index, text in found.items())
        assert tokenizer.convert_tokens_to_ids("7") in found
