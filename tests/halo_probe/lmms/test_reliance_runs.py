"""Interventions and visual reliance in real evaluations, their files, and what `halo-probe compare` reads in them."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from lmms_eval import evaluator
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager

from halo_probe.archive.runs import open_run
from halo_probe.compare.report import compare
from halo_probe.errors import UsageError
from halo_probe.lmms.arguments import parse_arguments
from halo_probe.statistics.reliance import RELIANCE_KEYS, reliance_values

WIDE, REVERSED = "halo_count_wide", "halo_count_rev"
RUNS = {
    "plain": ("", f"{WIDE},{REVERSED}"),
    "reliance": ("reliance=true,", f"{WIDE},{REVERSED}"),
    "boosted": ("intervention=boost:2@d2,", WIDE),
    "top": ("intervention=top30,", WIDE),
    "random": ("intervention=random30,", WIDE),
    "bottom": ("intervention=bottom30,", WIDE),
}
DOCUMENTS = 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory, qwen3_vl_checkpoint):
    """Folders as lmms-eval's command leaves them, by name."""
    folder, manager = tmp_path_factory.mktemp("runs"), TaskManager(model_name="halo")
    for name, (options, tasks) in RUNS.items():
        out = folder / name
        tracker = EvaluationTracker(output_path=str(out))
        arguments = (
            f"base=qwen3_vl,check=false,{options}maps={out / 'halo'},pretrained={qwen3_vl_checkpoint},device_map=cpu"
        )
        results = evaluator.simple_evaluate(
            model="halo",
            model_args=arguments,
            device="cpu",
            tasks=tasks.split(","),
            limit=DOCUMENTS,
            task_manager=manager,
            evaluation_tracker=tracker,
        )
        samples = results.pop("samples")
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves closing to the collector
            tracker.save_results_aggregated(results=results, samples=samples, datetime_str="20260101_000000")
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
    return {name: folder / name for name in RUNS}


def results_of(out):
    (path,) = out.glob("*/*_results.json")
    return json.loads(path.read_text())


def samples_of(out, task=WIDE):
    (path,) = out.glob(f"*/*_samples_{task}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def halo(sample):
    return sample["token_counts"][0]["halo"]


def maps_of(out):
    rows = pd.read_parquet(out / "halo")
    return rows[rows.task == WIDE].sort_values(["doc_id", "step"])


@pytest.mark.parametrize("task", [WIDE, REVERSED])
def test_reliance_changes_no_answer_and_no_attention(task, runs):
    for plain, measured in zip(samples_of(runs["plain"], task), samples_of(runs["reliance"], task), strict=True):
        assert plain["filtered_resps"] == measured["filtered_resps"]
        assert halo(plain)["generations"] == halo(measured)["generations"]
        assert (
            plain.items()
            >= {key: value for key, value in measured.items() if key in plain and key != "token_counts"}.items()
        )


@pytest.mark.parametrize("task", [WIDE, REVERSED])
def test_each_digit_of_the_true_count_has_three_distributions(task, runs):
    for sample in samples_of(runs["reliance"], task):
        seen = halo(sample)
        assert seen["reliance"] == "measured"
        assert seen["true_digits"] == str(sample["count"])[:: -1 if task == REVERSED else 1]
        for change in ("", "_blank", "_knockout"):
            assert np.shape(seen[f"digit_probabilities{change}"]) == (2, 12)
            assert np.sum(seen[f"digit_probabilities{change}"], axis=1) == pytest.approx([1, 1])
        assert {key: sample[key] for key in RELIANCE_KEYS} == reliance_values(seen)
        assert all(0 < sample[key] < 1 for key in RELIANCE_KEYS if key.startswith("vr"))


def test_the_table_holds_the_means_with_standard_errors(runs):
    results = results_of(runs["reliance"])
    samples = samples_of(runs["reliance"])
    for key in RELIANCE_KEYS:
        values = [sample[key] for sample in samples]
        assert results["results"][WIDE][f"{key},none"] == pytest.approx(np.mean(values))
        assert results["results"][WIDE][f"{key}_stderr,none"] == pytest.approx(
            np.std(values, ddof=1) / len(values) ** 0.5
        )
    assert results["halo"]["reliance"] == {"measured": 2 * DOCUMENTS}
    assert results["halo"]["signature"]["recording"]["reliance"] is True
    assert "reliance" not in results_of(runs["plain"])["halo"]
    assert "vr_1,none" not in results_of(runs["plain"])["results"][WIDE]


def test_a_boost_at_the_second_digit_leaves_the_first_as_it_was(runs):
    signature = results_of(runs["boosted"])["halo"]["signature"]
    assert signature["intervention"] == {"name": "boost", "strength": 2, "steps": "d2", "layers": "all"}
    assert results_of(runs["plain"])["halo"]["signature"]["intervention"] is None
    assert signature["sha256"] != results_of(runs["plain"])["halo"]["signature"]["sha256"]
    plain, boosted = maps_of(runs["plain"]), maps_of(runs["boosted"])
    first, second = (
        [np.stack(one[one.step == step].map_eq1.to_numpy()) for one in (plain, boosted)] for step in (0, 1)
    )
    np.testing.assert_array_equal(*(one[one.step == 0].token_id.to_numpy() for one in (plain, boosted)))
    # The rows beside an edited kernel are multiplied in other blocks: on some processors the last bit differs.
    np.testing.assert_allclose(*first, rtol=1e-6, atol=1e-7)
    assert np.abs(second[0] - second[1]).max() > 1e-4


@pytest.mark.parametrize("name", ["top", "bottom"])
def test_masks_hide_the_cells_that_the_plain_run_attends_to_most_and_least(name, runs):
    plain, masked = maps_of(runs["plain"]), maps_of(runs[name])
    for document, sample in enumerate(samples_of(runs[name])):
        first = plain[(plain.doc_id == sample["doc_id"]) & (plain.step == 0)].map_eq1.iloc[0]
        order = np.argsort(first, kind="stable")
        expected = set((order[-308:] if name == "top" else order[:308]).tolist())
        assert halo(sample)["intervention"]["cells"] == len(expected)
        assert 0 < halo(sample)["intervention"]["confidence"] < 1
        for row in masked[masked.doc_id == document].map_raw:
            assert set(np.flatnonzero(row == 0).tolist()) == expected


def test_compare_finds_the_evidence_of_the_takeover_rule_and_shows_reliance_and_masks(runs):
    report = compare([open_run(folder) for folder in runs.values()])
    takeover = next(verdict for verdict in report.verdicts if verdict.rule == "Language Takeover")
    decay, use, recovered, boosted = takeover.demands
    assert not decay.numbers  # halo_count and halo_echo were not run
    assert use.numbers
    assert recovered.numbers["n"] == boosted.numbers["n"] == DOCUMENTS
    magnitude = next(verdict for verdict in report.verdicts if verdict.rule == "Noisy magnitude estimation")
    assert all(demand.numbers for demand in magnitude.demands)
    rows = {(row.task, row.digit): row for row in report.reliance}
    assert set(rows) == {(task, digit) for task in (WIDE, REVERSED) for digit in (1, 2)}
    samples = samples_of(runs["reliance"])
    assert rows[WIDE, 2].vr == pytest.approx(np.mean([sample["vr_2"] for sample in samples]))
    assert rows[WIDE, 2].n == DOCUMENTS
    assert np.isnan(rows[WIDE, 1].t)  # two documents have no pair with the same digit
    (masks,) = report.masks
    assert (masks.task, masks.run, masks.where) == (WIDE, str(runs["plain"]), "steps all, layers all")
    assert not np.isnan([masks.plain, masks.top30, masks.random30, masks.bottom30]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("intervention=blur", "intervention=blur: .*use one of scale, adapt"),
        ("intervention=3", "intervention=3: "),
        ("intervention_layers=mid", "nothing says what; add intervention=boost:2"),
        ("intervention=boost:2,intervention_layers=first", "intervention_layers=first: use all, mid, last or a list"),
        ("reliance=yes", "reliance=yes: use reliance=true or reliance=false"),
        ("reliance=true,intervention=boost:2", "measured without an intervention; leave intervention=boost out"),
        ("reliance=true,batching=batch", "reliance=true runs each document several times.*leave batching=batch out"),
        ("intervention=top30,batching=batch", "intervention=top30 runs each document several times"),
    ],
)
def test_arguments_that_do_not_fit_are_errors_that_say_what_to_write(options, message):
    with pytest.raises(UsageError, match=message):
        parse_arguments(f"base=qwen3_vl,{options}")


def test_layers_of_an_intervention_are_written_as_those_of_the_recording():
    arguments = parse_arguments("base=qwen3_vl,intervention=boost:2@d2,intervention_layers=[0,-1],batching=batch")
    assert arguments.intervention.describe() == {"name": "boost", "strength": 2, "steps": "d2", "layers": [0, -1]}
    assert parse_arguments("base=qwen3_vl,intervention=knockout,intervention_layers=3").intervention.layers == (3,)
