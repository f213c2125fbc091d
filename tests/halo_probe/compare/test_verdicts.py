"""Planted truths: models and maps whose truth is known, and the verdicts on them."""

from dataclasses import replace

import numpy as np
import pytest
from planted_truths import (
    FALSE_MAPS,
    MAGNITUDE,
    MAPS,
    MISTAKEN_MAPS,
    MODELS,
    NULL_MODELS,
    TAKEOVER,
    TRUE_MAPS,
    conclude,
    conclude_halo,
    contrasts_of,
    halo_cells,
    scenes,
    take_over,
)
from scipy import stats

from halo_probe.compare.verdicts import (
    CONTRASTS,
    LEAST_DOCUMENTS,
    LEVEL,
    Differences,
    HaloCell,
    UnitsPair,
    WideReplies,
    halo,
    language_takeover,
    noisy_magnitude,
)
from halo_probe.metrics.null import compare_with_null
from halo_probe.statistics.intervals import stratified_draws

WIDE = np.repeat(np.arange(10, 100), 4)
DRAWS = stratified_draws(WIDE, draws=2000)
FEW_DRAWS = DRAWS[:500]
PAPER = 256


def perceive(rng, *, weber):
    """A visual counter: the count with noise in proportion, and what that says of the units once the tens are given."""
    seen = WIDE * (1 + weber * rng.normal(size=WIDE.size))
    candidates = 10 * (WIDE // 10)[:, np.newaxis] + np.arange(10)
    log_weights = stats.norm.logpdf(candidates, seen[:, np.newaxis], weber * WIDE[:, np.newaxis])
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    units = np.pad(weights / weights.sum(axis=1, keepdims=True), ((0, 0), (0, 2)))
    return WideReplies(
        counts=WIDE, predicted=np.clip(np.rint(seen), 0, 99), units=units, draws=DRAWS, documents=WIDE.size
    )


def makes_units_up(rng):
    """A language-takeover agent: the tens from the image, the units from a prior that depends on the tens alone."""
    priors = np.pad(np.random.default_rng(7).dirichlet(np.ones(10), size=10), ((0, 0), (0, 2)))
    units = np.array([rng.dirichlet(300 * prior + 1e-3) for prior in priors[WIDE // 10]])
    written = [rng.choice(12, p=prior) % 10 for prior in priors[WIDE // 10]]
    return WideReplies(
        counts=WIDE, predicted=10 * (WIDE // 10) + written, units=units, draws=DRAWS, documents=WIDE.size
    )


def right(rng, rate):
    return rng.random(WIDE.size) < rate


def units_pair(before, after):
    return UnitsPair(before=before, after=after, draws=DRAWS, documents=WIDE.size)


def decayed(values):
    return Differences(values=values, documents=values.size)


def evidence(rng, wide, *, extra_decay, reversed_rate, boosted_rate):
    before = wide.predicted % 10 == wide.counts % 10
    return {
        "decay_difference": decayed(extra_decay + 0.03 * rng.normal(size=PAPER)),
        "wide": wide,
        "reversed_units": units_pair(before, right(rng, reversed_rate)),
        "boosted_units": units_pair(before, right(rng, boosted_rate)),
    }


def test_a_visual_counter_with_weber_noise_is_a_noisy_magnitude_and_no_takeover():
    rng = np.random.default_rng(0)
    wide = perceive(rng, weber=0.015)
    rate = (wide.predicted % 10 == WIDE % 10).mean()
    found = language_takeover("m", **evidence(rng, wide, extra_decay=0.0, reversed_rate=rate, boosted_rate=rate))
    assert (found.conclusion, found.needs) == ("refuted", ())
    assert noisy_magnitude("m", wide=wide).conclusion == "supported"


def test_a_coarse_visual_counter_is_no_takeover_either_though_its_units_are_noise():
    rng = np.random.default_rng(1)
    wide = perceive(rng, weber=0.2)
    rate = (wide.predicted % 10 == WIDE % 10).mean()
    found = language_takeover("m", **evidence(rng, wide, extra_decay=0.0, reversed_rate=rate, boosted_rate=rate))
    assert found.conclusion != "supported"
    assert noisy_magnitude("m", wide=wide).conclusion == "refuted"


def test_a_language_takeover_agent_is_one_and_no_noisy_magnitude():
    rng = np.random.default_rng(2)
    wide = makes_units_up(rng)
    found = language_takeover("m", **evidence(rng, wide, extra_decay=-0.02, reversed_rate=0.8, boosted_rate=0.3))
    assert (found.conclusion, found.needs) == ("supported", ())
    assert [demand.outcome for demand in found.demands] == ["met"] * 4
    assert noisy_magnitude("m", wide=wide).conclusion == "refuted"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("decay_difference", "halo_echo"),
        ("wide", "halo_count_wide"),
        ("reversed_units", "halo_count_rev"),
        ("boosted_units", "intervention=boost:2@d2"),
    ],
)
def test_a_takeover_is_not_decided_without_all_of_its_evidence(missing, words):
    rng = np.random.default_rng(3)
    whole = evidence(rng, makes_units_up(rng), extra_decay=-0.02, reversed_rate=0.8, boosted_rate=0.3)
    found = language_takeover("m", **{**whole, missing: None})
    assert found.conclusion == "not decided"
    (need,) = found.needs
    assert words in need


def test_one_demand_that_fails_refutes_whatever_is_missing():
    unhelped = units_pair(np.ones(WIDE.size, bool), np.ones(WIDE.size, bool))
    found = language_takeover("m", decay_difference=None, wide=None, reversed_units=unhelped, boosted_units=None)
    assert (found.conclusion, found.needs) == ("refuted", ())


def test_too_few_documents_decide_nothing_and_the_verdict_asks_for_more():
    few = np.array([-0.02, -0.01, 0.005])
    found = language_takeover("m", decay_difference=decayed(few), wide=None, reversed_units=None, boosted_units=None)
    assert found.conclusion == "not decided"
    assert found.needs[0].startswith("more documents to tell whether the sparsity decays more")


def test_a_model_that_never_gives_a_count_has_no_magnitude_to_judge():
    silent = replace(perceive(np.random.default_rng(4), weber=0.1), predicted=np.full(WIDE.size, np.nan), units=None)
    found = noisy_magnitude("m", wide=silent)
    assert found.conclusion == "not decided"
    assert "replies of halo_count_wide that give a count" in found.needs


def outcomes(judge, repeats=150):
    found = [judge(np.random.default_rng(seed)) for seed in range(repeats)]
    return {outcome: found.count(outcome) / repeats for outcome in ("met", "failed")}


def alone(index, **piece):
    nothing = {"decay_difference": None, "wide": None, "reversed_units": None, "boosted_units": None}
    return language_takeover("m", **{**nothing, **piece}).demands[index].outcome


def partly_read(rng, share):
    """Units that are read off the image in a share of the documents, and uniform in the others: U_2 is .11 for .3."""
    read = (rng.random(WIDE.size) < share)[:, np.newaxis]
    return np.where(read, np.eye(12)[WIDE % 10], np.pad(np.full((WIDE.size, 10), 0.1), ((0, 0), (0, 2))))


def test_each_demand_of_a_takeover_is_met_without_cause_less_often_than_the_level():
    """All demands have to be met, so a takeover is wrongly supported no more often than any one of them is met."""
    decays = outcomes(lambda rng: alone(0, decay_difference=decayed(rng.normal(size=PAPER))))
    assert decays["met"] <= LEVEL
    assert decays["failed"] <= LEVEL
    gains = outcomes(
        lambda rng: alone(
            2,
            reversed_units=UnitsPair(
                before=right(rng, 0.3), after=right(rng, 0.3), draws=FEW_DRAWS, documents=WIDE.size
            ),
        )
    )
    assert gains["met"] <= LEVEL
    use = outcomes(lambda rng: alone(1, wide=replace(perceive(rng, weber=0.1), units=partly_read(rng, 0.3))), 60)
    assert use["met"] <= LEVEL


def test_a_gain_at_the_least_that_counts_is_denied_less_often_than_the_level():
    def judge(rng):
        pair = UnitsPair(before=right(rng, 0.3), after=right(rng, 0.35), draws=FEW_DRAWS, documents=WIDE.size)
        return alone(3, boosted_units=pair)

    assert outcomes(judge)["failed"] <= LEVEL


def test_a_blind_model_is_never_a_noisy_magnitude():
    def judge(rng):
        blind = WideReplies(
            counts=WIDE,
            predicted=rng.integers(10, 100, WIDE.size),
            units=partly_read(rng, 0),
            draws=FEW_DRAWS,
            documents=WIDE.size,
        )
        return noisy_magnitude("m", wide=blind).conclusion

    assert {judge(np.random.default_rng(seed)) for seed in range(8)} == {"refuted"}


@pytest.mark.parametrize("index", [1, 2])
def test_a_magnitude_at_the_bound_of_a_demand_passes_it_less_often_than_the_level(index):
    """A slope of exactly .7 and a mean relative error of exactly .10."""

    def judge(rng):
        noise = rng.choice([-0.1, 0.1], WIDE.size) if index == 2 else 0.05 * rng.normal(size=WIDE.size)
        followed = WIDE if index == 2 else WIDE.mean() + 0.7 * (WIDE - WIDE.mean())
        error = noise * WIDE * (rng.exponential(size=WIDE.size) if index == 2 else 1)
        wide = WideReplies(counts=WIDE, predicted=followed + error, units=None, draws=FEW_DRAWS, documents=WIDE.size)
        return noisy_magnitude("m", wide=wide).demands[index].outcome

    found = outcomes(judge)
    assert found["met"] <= LEVEL
    assert found["failed"] <= LEVEL


def halo_cell(values, *, draws, **other):
    """A cell whose contrasts are all these values, as they are and as z-scores, but for some of `raw` and `z`."""
    same = dict.fromkeys(CONTRASTS, values)
    raw, z = ({**same, **other.get(name, {})} for name in ("raw", "z"))
    return HaloCell(family="a", layout="b", raw=raw, z=z, draws=draws, documents=values.size)


def short(rng, n):
    """Evidence for every demand from n documents: a null, a blind and an exact model, and units of which few change."""
    counts = rng.choice(WIDE, n, replace=False)
    draws = stratified_draws(counts, draws=500)
    blind = np.pad(rng.dirichlet(np.ones(10)), (0, 2))
    for units, predicted in ((np.tile(blind, (n, 1)), rng.integers(10, 100, n)), (np.eye(12)[counts % 10], counts)):
        wide = WideReplies(counts=counts, predicted=predicted.astype(float), units=units, draws=draws, documents=n)
        units_pair = UnitsPair(before=rng.random(n) < 0.02, after=rng.random(n) < 0.07, draws=draws, documents=n)
        yield from language_takeover(
            "m",
            decay_difference=decayed(rng.normal(size=n)),
            wide=wide,
            reversed_units=units_pair,
            boosted_units=units_pair,
        ).demands
        yield from noisy_magnitude("m", wide=wide).demands
    for z in (np.ones(n), np.zeros(n), rng.normal(size=n)):
        cell = halo_cell(z, draws=draws)
        yield from halo("all", [cell]).demands


@pytest.mark.parametrize("n", [1, 2, 8, LEAST_DOCUMENTS - 1])
def test_a_demand_on_few_documents_is_open_whatever_they_say(n):
    for seed in range(5):
        for demand in short(np.random.default_rng(seed), n):
            assert demand.outcome == "open", demand
            assert demand.needs.startswith("more documents to tell")


def test_the_documents_without_a_value_do_not_count():
    z = np.full(PAPER, np.nan)
    z[: LEAST_DOCUMENTS - 1] = 1
    cell = halo_cell(np.ones(PAPER), z={"halo_index": z}, draws=np.ones((100, PAPER)))
    (demand,) = halo("all", [cell]).demands
    assert demand.outcome == "open"
    assert (demand.numbers["halo_index z n"], demand.numbers["hull_contrast z n"]) == (LEAST_DOCUMENTS - 1, PAPER)


def test_the_least_number_of_documents_keeps_the_level():
    """A slope of .7, a gain of .05 where few units are right, and z-scores around 0, all of 20 documents."""
    n = LEAST_DOCUMENTS
    counts = np.sort(np.random.default_rng(5).choice(WIDE, n, replace=False))
    draws = stratified_draws(counts, draws=1000)

    def slope(rng):
        predicted = 0.7 * counts + 0.05 * rng.normal(size=n) * counts
        wide = WideReplies(counts=counts, predicted=predicted, units=None, draws=draws, documents=n)
        return noisy_magnitude("m", wide=wide).demands[1].outcome

    def gain(rng):
        return alone(
            2,
            reversed_units=UnitsPair(before=rng.random(n) < 0.02, after=rng.random(n) < 0.07, draws=draws, documents=n),
        )

    def cell(rng):
        z = rng.normal(size=n)
        only = halo_cell(z, draws=draws)
        return halo("all", [only]).demands[0].outcome

    assert max(outcomes(slope).values()) <= LEVEL
    assert outcomes(gain) == {"met": 0, "failed": 0}
    assert outcomes(cell)["met"] <= LEVEL


def test_the_slope_needs_replies_to_two_counts():
    few = np.where(WIDE == 37, 30.0, np.nan)
    wide = WideReplies(counts=WIDE, predicted=few, units=None, draws=DRAWS, documents=WIDE.size)
    assert noisy_magnitude("m", wide=wide).demands[1].needs.startswith("more documents")
    same = np.full(LEAST_DOCUMENTS, 37)
    wide = WideReplies(
        counts=same, predicted=same - 7.0, units=None, draws=stratified_draws(same, draws=100), documents=same.size
    )
    _, slope, error, *_ = noisy_magnitude("m", wide=wide).demands
    assert (slope.outcome, slope.needs) == ("open", "replies of halo_count_wide to more than one true count")
    assert error.outcome == "failed"


TWO = ("halo_count", "halo_layout_grid")


def cells(rng, kind, **more):
    """A cell for each of two families and two layouts of a model whose maps are of a planted kind."""
    return tuple(halo_cells(MAPS[kind], rng, **{"side": 16, "layouts": TWO, "number": 100, **more}))


def test_the_z_scores_of_the_planted_maps_are_those_of_the_package():
    rng = np.random.default_rng(0)
    own, *others = (scene.layout for scene in scenes("halo_count", 16, 40))
    maps = rng.lognormal(0, 0.5, (40, 256))
    _, mine = contrasts_of(maps, [own, *others])
    for name in CONTRASTS:
        assert mine[name][0] == pytest.approx(compare_with_null(maps[0], own, others)[f"{name}_ns"].z)


@pytest.mark.parametrize(("side", "number"), [(16, 100), (32, 40)])
@pytest.mark.parametrize("name", FALSE_MAPS)
def test_no_map_without_a_halo_is_called_one(name, side, number):
    found = conclude_halo(MAPS[name], np.random.default_rng(1), side=side, number=number)
    assert found != "supported"


@pytest.mark.parametrize(("side", "number"), [(16, 100), (32, 40)])
@pytest.mark.parametrize("name", TRUE_MAPS)
def test_a_ring_along_the_hull_is_a_halo_however_strong(name, side, number):
    assert conclude_halo(MAPS[name], np.random.default_rng(1), side=side, number=number) == "supported"


@pytest.mark.parametrize("name", MISTAKEN_MAPS)
@pytest.mark.xfail(
    strict=True,
    reason=(
        "the own ring is left out of the hull's own band and lies in those of the null, which thins their contrast: "
        "what a fixed frame gives to a hull shows as a z above 0"
    ),
)
def test_a_ring_beside_a_bright_frame_is_no_halo(name):
    assert conclude_halo(MAPS[name], np.random.default_rng(1), side=16, number=256) != "supported"


def judged(tmp_path, name, seed):
    return conclude(tmp_path, {**MODELS, **NULL_MODELS}[name], np.random.default_rng(seed))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_said_of_a_planted_model_is_true(name, tmp_path):
    """A rule that holds is found, one that does not hold is never supported, nor is one that is not shown."""
    one = MODELS[name]
    for seed in range(2):
        found = judged(tmp_path / str(seed), name, seed)
        for rule in (TAKEOVER, MAGNITUDE):
            if rule in one.true:
                assert found[rule] == "supported", rule
            elif rule not in one.unclear:
                assert found[rule] != "supported", rule


@pytest.mark.parametrize("name", [name for name, one in MODELS.items() if one.model is take_over and one.unclear])
def test_what_is_handed_over_badly_is_never_supported(name, tmp_path):
    """Few documents, doubled, forced, under another condition: a takeover that the evidence does not show."""
    assert judged(tmp_path, name, 0)[TAKEOVER] in {"not decided", "error"}


@pytest.mark.parametrize("name", NULL_MODELS)
def test_a_model_on_the_bound_of_a_demand_is_supported_less_often_than_the_level(name, tmp_path):
    rule = TAKEOVER if name.startswith("takeover") else MAGNITUDE
    found = [judged(tmp_path / str(seed), name, seed)[rule] for seed in range(6)]
    assert found.count("supported") <= 1, found


def test_evidence_on_a_part_of_the_documents_decides_nothing():
    """25 of 256, and 79 of 100: each demand is open, whatever they say."""
    for n, documents in ((25, 256), (79, 100)):
        rng = np.random.default_rng(n)
        counts = rng.choice(WIDE, n, replace=False)
        draws = stratified_draws(counts, draws=500)
        wide = WideReplies(
            counts=counts,
            predicted=counts.astype(float),
            units=np.eye(12)[counts % 10],
            draws=draws,
            documents=documents,
        )
        pair = UnitsPair(before=np.zeros(n, bool), after=np.ones(n, bool), draws=draws, documents=documents)
        verdict = language_takeover(
            "m",
            decay_difference=Differences(values=-np.ones(n), documents=documents),
            wide=wide,
            reversed_units=pair,
            boosted_units=pair,
        )
        assert {demand.outcome for demand in verdict.demands} == {"open"}
        assert {demand.outcome for demand in noisy_magnitude("m", wide=wide).demands} == {"open"}
        cell = replace(halo_cell(np.ones(n), draws=draws), documents=documents)
        assert halo("all", [cell]).demands[0].outcome == "open"


def test_a_perfect_counter_is_no_noisy_magnitude():
    wide = WideReplies(
        counts=WIDE, predicted=WIDE.astype(float), units=np.eye(12)[WIDE % 10], draws=DRAWS, documents=WIDE.size
    )
    found = noisy_magnitude("m", wide=wide)
    assert found.conclusion == "refuted"
    assert [demand.outcome for demand in found.demands] == ["met", "met", "met", "failed", "met"]


def test_a_noisy_counter_that_is_often_silent_is_not_decided():
    rng = np.random.default_rng(6)
    wide = perceive(rng, weber=0.015)
    silent = replace(wide, predicted=np.where(rng.random(WIDE.size) < 0.3, np.nan, wide.predicted))
    found = noisy_magnitude("m", wide=silent)
    assert found.conclusion == "not decided"
    assert "replies of halo_count_wide that give a count" in found.needs


def test_one_document_without_digit_probabilities_does_not_undo_the_others():
    wide = perceive(np.random.default_rng(0), weber=0.015)
    units = wide.units.copy()
    units[7] = np.nan
    use = noisy_magnitude("m", wide=replace(wide, units=units)).demands[0]
    assert (use.outcome, use.numbers["n"]) == ("met", WIDE.size - 1)


@pytest.mark.parametrize(
    ("name", "conclusion"),
    [("ring and hull", "supported"), ("one sink", "refuted"), ("frame", "refuted"), ("on the dots", "refuted")],
)
def test_the_verdict_on_the_halo_follows_the_maps(name, conclusion):
    found = halo("all", cells(np.random.default_rng(8), name))
    assert (found.conclusion, found.needs) == (conclusion, ())


def test_the_halo_needs_two_families_and_two_layouts():
    whole = cells(np.random.default_rng(9), "ring and hull")
    one_family = halo("all", whole[:2])
    assert one_family.conclusion == "not decided"
    assert "1 more model families" in one_family.needs[0]
    assert "2 more model families" in halo("all", whole[::2]).needs[0]
    assert "2 more model families" in halo("all", ()).needs[0]


def test_a_halo_in_one_family_of_two_is_not_decided():
    rng = np.random.default_rng(10)
    mixed = (*cells(rng, "ring and hull", families=["a"]), *cells(rng, "frame", families=["b"]))
    found = halo("all", mixed)
    assert found.conclusion == "not decided"
    assert "more documents, layouts or families" in found.needs[0]


def test_runs_of_one_family_have_to_agree():
    rng = np.random.default_rng(11)
    contradicted = (*cells(rng, "ring and hull"), *cells(rng, "frame", families=["b"]))
    assert halo("all", contradicted).conclusion != "supported"


@pytest.mark.parametrize("name", ["uniform", "frame", "registers"])
def test_a_map_that_ignores_the_dots_shows_a_halo_less_often_than_the_level(name):
    """Drawn again 20 times: neither the verdict nor a cell of it is met by chance."""
    found = [halo("all", cells(np.random.default_rng(seed), name, number=40)) for seed in range(20)]
    assert sum(one.conclusion == "supported" for one in found) / 20 <= LEVEL
    assert sum(demand.outcome == "met" for one in found for demand in one.demands) / 80 <= LEVEL


def test_a_cell_without_a_defined_value_is_open():
    (cell, *_) = cells(np.random.default_rng(12), "ring and hull", number=40)
    blind = replace(cell, raw={**cell.raw, "hull_contrast": np.full(40, np.nan)})
    assert halo("all", (blind,)).demands[0].outcome == "open"
