"""Run folders as lmms-eval writes them, planted and real, through the command `halo-probe compare`."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_runs import TASK, plant_maps, plant_run, store_scores
from planted_runs import counted as planted
from planted_truths import BOOST, MAPS, PAPER, WIDE, counted, probed, reliance, sample, scenes, written
from scipy import stats

from halo_probe.archive.answers import Answer
from halo_probe.archive.generation import View
from halo_probe.archive.runs import open_run
from halo_probe.archive.signature import seal
from halo_probe.archive.writing import MapWriter
from halo_probe.cli import main
from halo_probe.errors import HaloError
from halo_probe.leaderboard.board import build_leaderboard

MODEL = {"base": "qwen3_vl", "pretrained": "org/model", "family": "qwen3_vl", "heads": 4, "dtype": "bfloat16"}
OTHER = {**MODEL, "pretrained": "org/other"}


def write_run(folder, tasks, *, model=MODEL, intervention=None, version=1, data="d" * 64, signed=True):
    """What `lmms-eval --model halo --output_path folder --log_samples` leaves there, as far as it is read."""
    place = folder / "org__model"
    place.mkdir(parents=True)
    results = {
        "config": {"model": "halo", "model_args": "base=qwen3_vl,pretrained=org/model"},
        "configs": {task: {"generation_kwargs": {"max_new_tokens": 16}, "num_fewshot": 0} for task in tasks},
        "versions": dict.fromkeys(tasks, version),
        "n-samples": {task: {"original": len(rows), "effective": len(rows)} for task, rows in tasks.items()},
        "system_instruction": None,
    }
    if signed:
        fields = {task: {"version": version, "dataset_sha256": data, "prompt_sha256": "p" * 64} for task in tasks}
        layers = [{"index": 27, "type": "full_attention"}]
        signature = {"model": model, "recorded_layers": layers, "tasks": fields, "intervention": intervention}
        results["halo"] = {"signature": seal(signature), "failures": []}
    (place / "20260101_000000_results.json").write_text(json.dumps(results))
    for task, rows in tasks.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (place / f"20260101_000000_samples_{task}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def scored(rng, *, bias=0, accuracy=0.5):
    """A plain run on the paper's counts: right in a share of the documents, else off by one or by the bias."""
    right = rng.random(PAPER.size) < accuracy
    wrong = np.where(rng.random(PAPER.size) < 0.5, -1, 1) + bias
    return [sample(k, n, n + (0 if right[k] else wrong[k])) for k, n in enumerate(PAPER)]


def compare(capsys, *arguments):
    code = main(["compare", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def compared(capsys, tmp_path, *arguments):
    """The numbers of a report, which has to come about."""
    code, _, error = compare(capsys, *arguments, "--json", tmp_path / "report.json")
    assert (code, error) == (0, "")
    return json.loads((tmp_path / "report.json").read_text())


def test_a_run_without_the_probe_is_scored_beside_the_constants(capsys, tmp_path):
    rows = scored(np.random.default_rng(0))
    rows[0] |= {"predicted": None, "accuracy": 0.0}
    run = write_run(tmp_path / "a", {"halo_count": rows}, signed=False)
    report = compared(capsys, tmp_path, run)
    found, *constants = report["scores"]
    e = np.array([row["predicted"] - row["count"] for row in rows[1:]])
    correct = sum(row["accuracy"] for row in rows)
    assert found["n"] == 210
    assert found["accuracy"] == pytest.approx(correct / 210)
    assert found["accuracy_interval"] == pytest.approx(
        stats.binomtest(int(correct), 210).proportion_ci(method="wilson")
    )
    assert found["answered"] == pytest.approx(209 / 210)
    assert (found["mbe"], found["mae"]) == pytest.approx((e.mean(), np.abs(e).mean()))
    assert found["mbe_interval"][0] < found["mbe"] < found["mbe_interval"][1]
    assert found["mbe_bounds"] == pytest.approx([(e.sum() - 10) / 210, (e.sum() + 10) / 210])
    slope = np.polyfit([row["count"] for row in rows[1:]], [row["predicted"] for row in rows[1:]], 1)[0]
    assert found["slope"] == pytest.approx(slope)
    assert [(one["run"], round(one["accuracy"], 3), one["mbe"]) for one in constants] == [
        ("always 10", 0.143, -3),
        ("always 13", 0.143, 0),
    ]
    for attention in ("digits", "decays", "contrasts", "associations"):
        assert report[attention] == []


def test_what_is_printed_is_what_is_written(capsys, tmp_path):
    run = write_run(tmp_path / "a", {"halo_count": scored(np.random.default_rng(1))})
    code, out, _ = compare(capsys, run, "--json", tmp_path / "report.json")
    assert code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert out.startswith("# Comparison of 1 run\n\n## Verdicts\n\n**Language Takeover**")
    score = report["scores"][0]
    assert f"| {score['accuracy']:.3f} [{score['accuracy_interval'][0]:.3f}, " in out
    for verdict in report["verdicts"]:
        assert f"**{verdict['rule']}** ({verdict['subject']}): **{verdict['conclusion']}**" in out
    for line in out.splitlines():
        assert line.count("|") == 0 or line.startswith("| ")


def test_two_models_are_told_apart_on_the_same_documents(capsys, tmp_path):
    rng = np.random.default_rng(2)
    better, worse = scored(rng, accuracy=0.7), scored(rng, accuracy=0.4, bias=-2)
    a = write_run(tmp_path / "a", {"halo_count": worse})
    b = write_run(tmp_path / "b", {"halo_count": better[::-1]}, model={**MODEL, "pretrained": "org/other"})
    for rows in (worse, better):
        assert [row["id"] for row in rows] == [f"set-{k:05d}" for k in range(210)]
    pairs = {row["measure"]: row for row in compared(capsys, tmp_path, a, b)["pairs"]}
    right = [np.array([row["accuracy"] == 1 for row in rows]) for rows in (worse, better)]
    only = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    assert pairs["accuracy"]["p"] == pytest.approx(stats.binomtest(int(only[0]), int(sum(only))).pvalue)
    assert pairs["mae"]["difference"] < 0 < pairs["mbe"]["difference"]
    p_values = sorted(row["p"] for row in pairs.values())
    assert min(row["p_adjusted"] for row in pairs.values()) == pytest.approx(3 * p_values[0])


def test_a_model_that_gives_no_count_has_no_bias_to_compare(capsys, tmp_path):
    rows = scored(np.random.default_rng(18))
    silent = [row | {"predicted": None, "accuracy": 0.0, "token_counts": [None]} for row in rows]
    a = write_run(tmp_path / "a", {"halo_count": rows})
    b = write_run(tmp_path / "b", {"halo_count": silent}, model=OTHER)
    report = compared(capsys, tmp_path, a, b)
    assert report["pairs"] == []
    mute = report["scores"][1]
    assert (mute["answered"], mute["accuracy"], mute["mbe"], mute["mae"], mute["slope"]) == (0, 0, None, None, None)
    assert mute["mbe_bounds"] == [-13, 13]


def test_replies_may_hold_any_line_break(capsys, tmp_path):
    rows = [row | {"filtered_resps": "1\u2028\x852"} for row in scored(np.random.default_rng(19))]
    assert compared(capsys, tmp_path, write_run(tmp_path / "a", {"halo_count": rows}))["scores"][0]["n"] == 210


def test_the_same_run_twice_does_not_differ_from_itself(capsys, tmp_path):
    rows = scored(np.random.default_rng(3))
    runs = [
        write_run(tmp_path / "a", {"halo_count": rows}),
        write_run(tmp_path / "b", {"halo_count": rows}, model=OTHER),
    ]
    for row in compared(capsys, tmp_path, *runs)["pairs"]:
        assert (row["difference"], row["p_adjusted"]) == (0, 1)
        assert row["difference_interval"][0] < 0 < row["difference_interval"][1]


def take_over(rng):
    """An agent that reads the tens and makes the units up; asked for them first, or made to look, it reads them."""
    prior = np.pad(rng.dirichlet(np.ones(10)), (0, 2))
    units = np.array([rng.dirichlet(300 * prior + 1e-3) for _ in WIDE])
    made_up = 10 * (WIDE // 10) + rng.choice(12, p=prior, size=WIDE.size) % 10
    looked = np.where(rng.random(WIDE.size) < 0.6, WIDE, made_up)
    return {
        "halo_count": counted(rng, extra_decay=-0.03),
        "halo_echo": counted(rng, extra_decay=0.0),
        "halo_count_wide": written(made_up, units),
        "halo_count_rev": written(looked, units),
    }, {"halo_count_wide": written(looked, units)}


def estimate(rng):
    """A visual counter with Weber noise of 1.5 %, in whatever order and however much it is made to look."""
    seen = WIDE * (1 + 0.015 * rng.normal(size=WIDE.size))
    digits = 10 * (WIDE // 10)[:, np.newaxis] + np.arange(10)
    likelihood = stats.norm.pdf(digits, seen[:, np.newaxis], 0.015 * WIDE[:, np.newaxis]) + 1e-9
    units = np.pad(likelihood / likelihood.sum(axis=1, keepdims=True), ((0, 0), (0, 2)))
    wide = written(np.rint(seen), units)
    return {
        "halo_count": counted(rng, extra_decay=0.0),
        "halo_echo": counted(rng, extra_decay=0.0),
        "halo_count_wide": wide,
        "halo_count_rev": wide,
    }, {"halo_count_wide": wide}


@pytest.mark.parametrize(
    ("agent", "takeover", "magnitude"), [(take_over, "supported", "refuted"), (estimate, "refuted", "supported")]
)
def test_the_verdicts_on_planted_models_come_out_right(agent, takeover, magnitude, capsys, tmp_path):
    plain, boosted = agent(np.random.default_rng(4))
    boost = BOOST
    runs = [
        write_run(tmp_path / "plain", plain),
        write_run(tmp_path / "boosted", boosted, intervention=boost),
        write_run(tmp_path / "another", boosted, intervention=boost, model={**MODEL, "pretrained": "org/other"}),
    ]
    report = compared(capsys, tmp_path, *runs)
    found = {verdict["rule"]: verdict["conclusion"] for verdict in report["verdicts"]}
    assert found == {"Language Takeover": takeover, "Noisy magnitude estimation": magnitude, "Halo": "not decided"}
    contrast = {row["measure"]: row for row in report["contrasts"]}
    assert (contrast["sparsity"]["p_adjusted"] < 0.05) == (agent is take_over)
    assert contrast["sparsity"]["mean"] == pytest.approx(-contrast["entropy"]["mean"])
    assert report["digits"][0]["split"] == 210


def conclusions(capsys, tmp_path, *runs):
    """By rule, of the first model."""
    return {one["rule"]: one["conclusion"] for one in reversed(compared(capsys, tmp_path, *runs)["verdicts"])}


def test_a_verdict_does_not_hang_on_the_order_of_the_runs_nor_on_another_condition(capsys, tmp_path):
    plain, boosted = take_over(np.random.default_rng(4))
    unhelped = {"halo_count_wide": plain["halo_count_wide"]}
    runs = [
        write_run(tmp_path / "plain", plain),
        write_run(tmp_path / "boosted", boosted, intervention=BOOST),
        write_run(tmp_path / "weak", unhelped, intervention={**BOOST, "strength": 1.2}),
        write_run(tmp_path / "middle", unhelped, intervention={**BOOST, "layers": "mid"}),
        write_run(tmp_path / "all_steps", unhelped, intervention={**BOOST, "steps": "all"}),
    ]
    for order in (runs, runs[::-1], [runs[0], *runs[:0:-1]]):
        assert conclusions(capsys, tmp_path, *order)["Language Takeover"] == "supported"
    assert conclusions(capsys, tmp_path, runs[0], *runs[2:])["Language Takeover"] == "not decided"


def test_two_runs_that_could_both_be_the_evidence_are_an_error_that_names_both(capsys, tmp_path):
    plain, boosted = take_over(np.random.default_rng(4))
    runs = [write_run(tmp_path / name, plain) for name in ("a", "b")]
    code, out, error = compare(capsys, *runs)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"{runs[0]} and {runs[1]}: are both runs of halo_count" in error
    twice = [write_run(tmp_path / name, boosted, intervention=BOOST) for name in ("c", "d")]
    code, _, error = compare(capsys, runs[0], *twice)
    assert code == 2
    assert f"{twice[0]} and {twice[1]}: are both runs of halo_count_wide" in error


def test_units_are_paired_on_the_documents_that_both_runs_answered(capsys, tmp_path):
    """Right on half of the answered ones in both runs, and 60 % answered in the plain one: answering more is no gain."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        plain, boosted = take_over(rng)
        guessed = [np.where(rng.random(WIDE.size) < 0.5, WIDE, 10 * (WIDE // 10) + (WIDE + 1) % 10) for _ in range(2)]
        units = np.pad(np.full((WIDE.size, 10), 0.1), ((0, 0), (0, 2)))
        silent = rng.random(WIDE.size) < 0.4
        plain["halo_count_wide"] = [
            row | ({"predicted": None, "accuracy": 0.0} if mute else {})
            for row, mute in zip(written(guessed[0], units), silent, strict=True)
        ]
        plain["halo_count_rev"] = written(guessed[1], units)
        boosted["halo_count_wide"] = written(guessed[1], units)
        runs = [
            write_run(tmp_path / f"plain{seed}", plain),
            write_run(tmp_path / f"boosted{seed}", boosted, intervention=BOOST),
        ]
        report = compared(capsys, tmp_path, *runs)
        demands = report["verdicts"][0]["demands"]
        assert [demand["outcome"] for demand in demands[2:]] == ["open", "open"]
        assert demands[2]["numbers"]["n"] == int((~silent).sum())
        assert {row["n"] for row in report["pairs"]} == {int((~silent).sum())}


def test_documents_that_an_intervention_missed_are_left_out_of_what_rests_on_it_and_counted(capsys, tmp_path):
    rng = np.random.default_rng(3)
    plain, boosted = take_over(rng)
    for row in boosted["halo_count_wide"][:40]:
        row["token_counts"][0]["halo"]["intervention_missed"] = True
    masked = scored(rng)
    masked[0]["token_counts"] = [{"halo": {"intervention_missed": True}}]
    runs = [
        write_run(tmp_path / "plain", plain),
        write_run(tmp_path / "boosted", boosted, intervention=BOOST),
        write_run(
            tmp_path / "masked",
            {"halo_layout_grid": masked},
            intervention={"name": "top30", "steps": "d1", "layers": "all"},
        ),
    ]
    report = compared(capsys, tmp_path, *runs)
    numbers = report["verdicts"][0]["demands"][3]["numbers"]
    assert (numbers["n"], numbers["intervention missed"]) == (WIDE.size - 40, 40)
    assert {(row["n"], row["missed"]) for row in report["pairs"]} == {(WIDE.size - 40, 40)}
    digits = {row["run"]: row["missed"] for row in report["digits"] if row["task"] == "halo_count_wide"}
    assert digits == {str(runs[0]): 0, str(runs[1]): 40}
    pairs = {row["pairs"] for row in report["decays"] if row["run"] == str(runs[1])}
    assert pairs <= {WIDE.size - 40}
    (row,) = report["masks"]
    assert row["missed"] == 1
    assert row["top30"] == pytest.approx(np.mean([one["accuracy"] for one in masked[1:]]))


def test_digits_that_the_model_would_not_write_are_counted_beside_what_they_say(capsys, tmp_path):
    rng = np.random.default_rng(4)
    plain, _ = take_over(rng)
    for row in plain["halo_count_wide"][:7]:
        row["token_counts"][0]["halo"]["digit_probabilities"][1] = [*[0.04] * 10, 0.0, 0.6]
    report = compared(capsys, tmp_path, write_run(tmp_path / "a", plain))
    others = {row["digit"]: row["other"] for row in report["reliance"] if row["task"] == "halo_count_wide"}
    assert others == {1: 0, 2: 7}
    assert report["verdicts"][0]["demands"][1]["numbers"]["mostly other"] == 7


def test_a_document_that_stands_in_a_run_twice_is_an_error(capsys, tmp_path):
    plain, _ = take_over(np.random.default_rng(4))
    plain["halo_count_wide"] = plain["halo_count_wide"] * 6
    code, out, error = compare(capsys, write_run(tmp_path / "a", plain))
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "_samples_halo_count_wide.jsonl: holds the document" in error
    assert "more than once" in error


@pytest.mark.parametrize(
    "change",
    [
        {"generation_kwargs": {"max_new_tokens": 16, "do_sample": True}},
        {"num_fewshot": 2},
    ],
    ids=["sampling", "examples"],
)
def test_forced_runs_of_other_settings_leave_the_demands_that_pair_them_open(change, capsys, tmp_path):
    plain, boosted = take_over(np.random.default_rng(4))
    runs = [write_run(tmp_path / "plain", plain), write_run(tmp_path / "boosted", boosted, intervention=BOOST)]
    results = json.loads(results_file(runs[1]).read_text())
    results["configs"]["halo_count_wide"] |= change
    amend_results(runs[1], configs=results["configs"])
    assert compare(capsys, *runs)[0] == 2
    report = compared(capsys, tmp_path, *runs, "--force")
    takeover = report["verdicts"][0]
    assert takeover["conclusion"] == "not decided"
    assert [demand["outcome"] for demand in takeover["demands"]] == ["met", "met", "met", "open"]


def test_a_run_of_a_part_of_the_documents_decides_nothing(capsys, tmp_path):
    plain, boosted = take_over(np.random.default_rng(4))
    runs = [write_run(tmp_path / "plain", plain), write_run(tmp_path / "boosted", boosted, intervention=BOOST)]
    for run in runs:
        results = json.loads(results_file(run).read_text())
        numbers = {task: {**one, "original": 10 * one["original"]} for task, one in results["n-samples"].items()}
        amend_results(run, **{"n-samples": numbers})
    takeover = compared(capsys, tmp_path, *runs)["verdicts"][0]
    assert {demand["outcome"] for demand in takeover["demands"]} == {"open"}


def test_other_runs_and_tasks_never_change_a_primary_p_value(capsys, tmp_path):
    plain, boosted = take_over(np.random.default_rng(4))
    alone = compared(capsys, tmp_path, write_run(tmp_path / "alone", {"halo_count": plain["halo_count"]}))
    more = [
        write_run(tmp_path / "plain", plain),
        write_run(tmp_path / "boosted", boosted, intervention=BOOST),
        write_run(tmp_path / "other", {"halo_count": counted(np.random.default_rng(9), extra_decay=0)}, model=OTHER),
    ]
    report = compared(capsys, tmp_path, *more)

    def primary(rows):
        return {row["measure"]: row["p_adjusted"] for row in rows if row["measure"] != "visual_mass"}

    whole = [row for row in report["decays"] if row["task"] == "halo_count" and row["run"].endswith("plain")]
    assert primary(whole) == pytest.approx(primary(alone["decays"]))
    first, second = (row["p"] for row in alone["decays"] if row["measure"] != "visual_mass")
    assert (
        sorted(primary(alone["decays"]).values())
        == pytest.approx(sorted([max(2 * min(first, second), first, second), 2 * min(first, second)]))
        or first == second
    )


def test_reliance_takes_the_digits_in_the_order_in_which_they_are_asked_for(capsys, tmp_path):
    """Units first, read exactly; the tens are made up. 10 is written 01."""
    units, flat = np.pad(np.eye(10)[WIDE % 10], ((0, 0), (0, 2))), np.full(12, 1 / 12)
    rows = [
        probed(k, n, n, d1=0.7, d2=0.7, halo=reliance(n, [units[k], flat]), vr_1=0.9, vr_2=None if k else 0.1)
        for k, n in enumerate(WIDE)
    ]
    for row in rows:
        row["token_counts"][0]["halo"]["true_digits"] = str(row["count"])[::-1]
    report = compared(capsys, tmp_path, write_run(tmp_path / "a", {"halo_count_rev": rows}))
    first, second = report["reliance"]
    assert (first["digit"], first["n"], first["vr"], first["vrd"]) == (1, 360, pytest.approx(0.9), None)
    assert (second["digit"], second["t"], second["vr"]) == (2, pytest.approx(0), pytest.approx(0.1))
    assert (second["u_plain"], second["u_less_chance"], second["u_jackknife"]) == pytest.approx((0, 0, 0), abs=1e-9)
    assert (first["t"], first["u_plain"], first["u_jackknife"]) == pytest.approx((1, 1, 1))
    assert first["t_interval"][0] < 1 < first["t_interval"][1]


def test_masks_stand_side_by_side_and_a_missing_one_is_seen(capsys, tmp_path):
    rng = np.random.default_rng(6)
    accuracies = {None: 0.8, "top30": 0.2, "bottom30": 0.7}
    runs = [
        write_run(
            tmp_path / str(name),
            {"halo_count": scored(rng, accuracy=accuracy)},
            intervention=name and {"name": name, "steps": "all", "layers": "mid"},
        )
        for name, accuracy in accuracies.items()
    ]
    report = compared(capsys, tmp_path, *runs)
    (row,) = report["masks"]
    assert (row["task"], row["run"], row["where"]) == ("halo_count", str(runs[0]), "steps all, layers mid")
    scores = {one["run"]: one["accuracy"] for one in report["scores"]}
    assert [row[name] for name in ("plain", "top30", "random30", "bottom30")] == [
        scores[str(runs[0])],
        scores[str(runs[1])],
        None,
        scores[str(runs[2])],
    ]


def test_two_runs_with_the_same_mask_are_an_error_that_names_both(capsys, tmp_path):
    rng = np.random.default_rng(6)
    mask = {"name": "random30", "steps": "all", "layers": "mid"}
    runs = [
        write_run(tmp_path / name, {"halo_count": scored(rng)}, intervention=did)
        for name, did in (("plain", None), ("a", mask), ("b", mask))
    ]
    code, out, error = compare(capsys, *runs)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"{runs[1]} and {runs[2]}: are both runs of halo_count with random30" in error


@pytest.mark.parametrize(
    ("answered", "n", "shown"), [(19, 20, False), (20, 20, True), (79, 100, False), (80, 100, True)]
)
def test_a_pair_of_runs_on_too_few_documents_has_no_test(answered, n, shown, capsys, tmp_path):
    rng = np.random.default_rng(0)
    replies = [np.where(np.arange(n) < answered, 12 + rng.integers(0, 2, n), np.nan), np.full(n, 12.0)]
    runs = [
        write_run(tmp_path / name, {"halo_count": [sample(k, 12, one[k]) for k in range(n)]}, model=model)
        for name, model, one in zip("ab", (MODEL, OTHER), replies, strict=True)
    ]
    rows = compared(capsys, tmp_path, *runs)["pairs"]
    assert [(row["n"], row["documents"]) for row in rows] == [(answered, n)] * 3
    for row in rows:
        assert ((row["p"] is not None), (row["p_adjusted"] is not None)) == (shown, shown)
        assert (row["difference_interval"] != [None, None]) == shown


@pytest.mark.parametrize(("kind", "conclusion"), [("ring and hull", "supported"), ("away, exp(-1.5 sum)", "refuted")])
def test_planted_maps_are_judged_by_what_the_score_command_says_of_them(kind, conclusion, capsys, tmp_path):
    """From maps on the disk to the verdict: two families, two layouts."""
    number, side = 24, 16
    for family in ("qwen3_vl", "gemma3"):
        folder, rng = tmp_path / family, np.random.default_rng(len(family))
        tasks = ("halo_count", "halo_layout_grid")
        dots = {task: scenes(task, side, number) for task in tasks}
        plant_run(
            folder,
            {
                task: [
                    probed(k, len(one.centers), 12, d1=0.7, d2=0.7, id=f"{task}-{k:05d}") for k, one in enumerate(own)
                ]
                for task, own in dots.items()
            },
            family=family,
            layers=[3],
        )
        for task in tasks:
            maps = [MAPS[kind](one) * rng.lognormal(0, 0.5, side * side) for one in dots[task]]
            plant_maps(
                folder,
                lambda document, *_, maps=maps: maps[document],
                documents=range(number),
                tokens=("1", "2", "<end>"),
                layers=[3],
                views=(View(0, side, side),),
                task=task,
            )
        assert main(["score", str(folder), "--null", "--workers", "1"]) == 0
        capsys.readouterr()
    *_, halo = compared(capsys, tmp_path, tmp_path / "qwen3_vl", tmp_path / "gemma3")["verdicts"]
    assert (halo["rule"], halo["conclusion"]) == ("Halo", conclusion)


def test_an_intervention_of_another_kind_is_no_evidence_and_another_run_supplies_tasks(capsys, tmp_path):
    plain, boosted = take_over(np.random.default_rng(5))
    weak = {**BOOST, "strength": 0.5}
    first = {task: rows for task, rows in plain.items() if task != "halo_echo"}
    runs = [
        write_run(tmp_path / "plain", first),
        write_run(tmp_path / "echo", {"halo_echo": plain["halo_echo"]}),
        write_run(tmp_path / "weakened", boosted, intervention=weak),
    ]
    report = compared(capsys, tmp_path, *runs)
    takeover = report["verdicts"][0]
    assert takeover["conclusion"] == "not decided"
    assert takeover["needs"] == ["a run of halo_count_wide with intervention=boost:2@d2"]
    assert len(report["verdicts"]) == 3


def test_the_replies_of_a_run_are_counted_as_the_parser_read_them(capsys, tmp_path):
    rows = [sample(k, 12, None if k < 2 else 12 + k % 2, status="range" if k < 2 else "ok") for k in range(10)]
    silent = [sample(k, 12, None, status="refusal") for k in range(10)]
    model = {**MODEL, "pretrained": "org/silent"}
    runs = [
        write_run(tmp_path / "a", {"halo_count_blank": rows}),
        write_run(tmp_path / "b", {"halo_count_blank": silent}, model=model),
    ]
    first, second = compared(capsys, tmp_path, *runs)["replies"]
    assert (first["n"], first["most_frequent"], first["share"], first["distinct"]) == (10, 12, 0.4, 2)
    assert first["entropy"] == pytest.approx(1)
    assert first["counts"] == "12: 40%, 13: 40%"
    assert first["statuses"] == "ok: 8, range: 2"
    assert (second["distinct"], second["most_frequent"], second["entropy"], second["counts"]) == (0, None, None, "")
    assert second["statuses"] == "refusal: 10"


def test_attention_is_shown_with_what_it_depends_on(capsys, tmp_path):
    rng = np.random.default_rng(12)
    rows = counted(rng, extra_decay=0)
    for row in rows:
        row |= {"vision_sparsity_g16": row["vision_sparsity"] / 2, "vision_mass": None}
    run = write_run(tmp_path / "a", {"halo_count": rows})
    views = (View(0, 32, 32), View(0, 16, 16))
    plant_maps(run, lambda *_: np.ones(1280), documents=[0], layers=[27], views=views)
    plain = write_run(tmp_path / "b", {"halo_count": scored(rng)}, model={**MODEL, "pretrained": "org/b"})
    (row,) = compared(capsys, tmp_path, run, plain)["attention"]
    assert (row["run"], row["image_tokens"], row["heads"], row["layer"]) == (str(run), 1280, "4", "27 full_attention")
    assert row["sparsity_g16"] == pytest.approx(row["sparsity"] / 2)
    assert row["sparsity_interval"][0] < row["sparsity"] < row["sparsity_interval"][1]
    assert row["visual_mass"] is None


def test_the_decay_rests_on_the_documents_that_have_it(capsys, tmp_path):
    rows = counted(np.random.default_rng(6), extra_decay=-0.05)
    for row in rows[:10]:
        row |= {"sparsity_d2": None, "entropy_d2": None}
        row["token_counts"][0]["halo"] |= {"digit_status": "merged", "digit_steps": [0, 0]}
    report = compared(capsys, tmp_path, write_run(tmp_path / "a", {"halo_count": rows}))
    decays = {row["measure"]: row for row in report["decays"]}
    differences = [row["sparsity_d2"] - row["sparsity_d1"] for row in rows[10:]]
    assert decays["sparsity"]["pairs"] == 200
    assert decays["sparsity"]["p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert decays["sparsity"]["mean"] == pytest.approx(np.mean(differences))
    assert decays["visual_mass"]["p"] == 1
    assert (report["digits"][0]["split"], report["digits"][0]["merged"]) == (200, 10)


def test_attention_that_goes_with_being_right_is_found_within_counts_and_over_models(capsys, tmp_path):
    rng = np.random.default_rng(7)
    runs = []
    for number, accuracy in enumerate((0.3, 0.5, 0.8)):
        rows = scored(rng, accuracy=accuracy)
        # Sparsity grows with the count for all, and with being right within a count.
        values = [0.3 + 0.02 * row["count"] + 0.1 * row["accuracy"] + rng.normal(0, 0.05) for row in rows]
        rows = [row | {"vision_sparsity": value} for row, value in zip(rows, values, strict=True)]
        model = {**MODEL, "pretrained": f"org/{number}"}
        runs.append(write_run(tmp_path / str(number), {"halo_count": rows}, model=model))
    report = compared(capsys, tmp_path, *runs)
    assert len(report["associations"]) == 3
    for row in report["associations"]:
        assert row["r"] > 0.5
        assert row["p"] <= row["p_adjusted"] < 0.001
    (scatter,) = report["scatters"]
    assert (scatter["models"], scatter["needed"]) == (3, pytest.approx(0.997, abs=1e-3))


def write_scores(folder, rng, *, layouts, shift):
    documents = PAPER.size
    step, layer = np.meshgrid([0, 1], [3, 27])
    rows = {
        "task": np.repeat(list(layouts), 4 * documents),
        **{name: np.zeros(4 * documents * len(layouts), dtype=np.int32) for name in ("repeat", "call")},
        "doc_id": np.tile(np.repeat(np.arange(documents), 4), len(layouts)),
        "step": np.tile(step.ravel(), documents * len(layouts)),
        "layer": np.tile(layer.ravel(), documents * len(layouts)),
    }
    # Only the first digit at the last layer follows the dots.
    told = (rows["step"] == 0) & (rows["layer"] == 27)
    for key in ("ring_contrast_ns", "halo_index_ns", "hull_contrast_ns"):
        rows[key] = (rng.normal(size=told.size) + shift * told) / 10
        rows[f"{key}_z"] = rng.normal(size=told.size) + shift * told
    store_scores(folder, pa.table(rows))


@pytest.mark.parametrize(("shift", "conclusion"), [(1.0, "supported"), (0.0, "refuted")])
def test_the_halo_is_judged_on_the_spatial_scores_of_the_runs(shift, conclusion, capsys, tmp_path):
    rng = np.random.default_rng(8)
    layouts = ("halo_count", "halo_layout_annulus")
    runs = []
    for family in ("qwen3_vl", "gemma3"):
        tasks = {task: counted(rng, extra_decay=0) for task in layouts}
        runs.append(write_run(tmp_path / family, tasks, model={**MODEL, "family": family}))
        write_scores(runs[-1], rng, layouts=layouts, shift=shift)
    report = compared(capsys, tmp_path, *runs)
    found = report["verdicts"][-1]
    assert (found["rule"], found["conclusion"]) == ("Halo", conclusion)
    assert len(found["demands"]) == 4


INCOMPARABLE = {
    "task version": {"version": 2},
    "data hash": {"data": "e" * 64},
}


@pytest.mark.parametrize("field", INCOMPARABLE)
def test_runs_that_differ_in_a_field_are_refused_by_its_name_and_labelled_when_forced(field, capsys, tmp_path):
    rows = scored(np.random.default_rng(9))
    a = write_run(tmp_path / "a", {"halo_count": rows})
    b = write_run(tmp_path / "b", {"halo_count": rows}, **INCOMPARABLE[field])
    code, out, error = compare(capsys, a, b)
    assert (code, out) == (2, "")
    assert error.startswith(f"halo-probe: halo_count: the {field} differs: ")
    assert error.count("\n") == 1
    assert "--force" in error
    code, out, _ = compare(capsys, a, b, "--force")
    assert code == 0
    assert "**Forced: these runs are not comparable.**" in out
    assert f"- halo_count: the {field} differs: " in out


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda rows: rows[:100], "number of documents"),
        (lambda rows: [row | {"id": f"other-{row['id']}"} for row in rows], "set of documents"),
        (lambda rows: [row | {"input": "Count the dots."} for row in rows], "set of questions"),
    ],
)
def test_other_documents_or_questions_are_refused_without_any_signature(change, field, capsys, tmp_path):
    rows = scored(np.random.default_rng(10))
    a = write_run(tmp_path / "a", {"halo_count": rows}, signed=False)
    b = write_run(tmp_path / "b", {"halo_count": change(rows)}, signed=False)
    code, _, error = compare(capsys, a, b)
    assert code == 2
    assert f"halo_count: the {field} differs" in error
    expected = {"number of documents": {100}, "set of documents": set(), "set of questions": {210}}[field]
    assert {row["n"] for row in compared(capsys, tmp_path, a, b, "--force")["pairs"]} == expected


def test_a_run_without_the_probe_is_comparable_with_one_that_has_it(capsys, tmp_path):
    rows = scored(np.random.default_rng(11))
    a = write_run(tmp_path / "a", {"halo_count": rows}, signed=False)
    b = write_run(tmp_path / "b", {"halo_count": rows})
    assert compare(capsys, a, b)[0] == 0


def test_the_same_task_is_not_asked_of_every_run(capsys, tmp_path):
    rows = scored(np.random.default_rng(12))
    a = write_run(tmp_path / "a", {"halo_count": rows})
    b = write_run(tmp_path / "b", {"halo_echo": rows}, version=3)
    assert compared(capsys, tmp_path, a, b)["pairs"] == []


def amend_results(run, **fields):
    """Give the results file of a run these fields in place of its own."""
    results = json.loads(results_file(run).read_text())
    results_file(run).write_text(json.dumps(results | fields))


def test_what_had_no_effect_makes_no_run_incomparable_and_what_had_one_does(capsys, tmp_path):
    rows = scored(np.random.default_rng(21))
    a, b = (
        write_run(tmp_path / name, {"halo_count": rows}, model=model) for name, model in (("a", MODEL), ("b", OTHER))
    )
    asked = {"max_new_tokens": 16, "top_k": 3, "until": ["."]}
    amend_results(
        b,
        system_instruction="You are a pirate.",
        configs={"halo_count": {"generation_kwargs": asked, "num_fewshot": 0}},
    )
    for idle, fields in (
        (["system_instruction", "top_k", "until"], []),
        (["system_instruction", "top_k"], ["generation configuration"]),
        (["top_k", "until"], ["system prompt"]),
    ):
        halo = json.loads(results_file(b).read_text())["halo"]
        amend_results(b, halo={**halo, "given": {"halo_count": {"without_effect": idle}}})
        found = compared(capsys, tmp_path, a, b, "--force")["differences"]
        assert [line.partition(": the ")[2].partition(" differs")[0] for line in found] == fields


def other_counts(rows):
    return [row | {"count": other["count"]} for row, other in zip(rows, rows[::-1], strict=True)]


@pytest.mark.parametrize(
    ("tasks", "change", "data", "prompt", "field"),
    [
        (("halo_count", "halo_echo"), list, "e" * 64, None, "data hash"),
        (("halo_count", "halo_echo"), other_counts, "d" * 64, None, "true count of a document"),
        (("halo_count", "halo_echo"), list, "d" * 64, "You are a pirate.", "system prompt"),
        (("halo_count_wide", "halo_count_rev"), other_counts, "d" * 64, None, "true count of a document"),
    ],
)
def test_two_tasks_are_paired_on_the_same_images_alone(tasks, change, data, prompt, field, capsys, tmp_path):
    first, second = tasks
    rows = counted(np.random.default_rng(20), extra_decay=0.0)
    decaying = [row | {"sparsity_d2": row["sparsity_d2"] - 0.1} for row in rows]
    wrong = [row | {"predicted": row["predicted"] + 1, "accuracy": 0.0} for row in decaying]
    a = write_run(tmp_path / "a", {first: wrong})
    same = write_run(tmp_path / "same", {second: rows})
    b = write_run(tmp_path / "b", {second: change(rows)}, data=data)
    amend_results(b, system_instruction=prompt)
    place = {"halo_echo": 0, "halo_count_rev": 2}[second]
    paired = compared(capsys, tmp_path, a, same)
    assert paired["verdicts"][0]["demands"][place]["outcome"] == "met"
    code, out, error = compare(capsys, a, b)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(
        f"halo-probe: {first} and {second} of the model of {a}: the {field} differs, so they are not paired"
    )
    forced = compared(capsys, tmp_path, a, b, "--force")
    assert (forced["verdicts"][0]["demands"][place]["outcome"], forced["contrasts"]) == ("open", [])
    assert len(forced["differences"]) == 1
    (entry,) = build_leaderboard([a, b], task=first).boards[0].entries
    assert np.isnan(entry.decay_beyond_echo)


def test_no_system_prompt_is_another_than_one(capsys, tmp_path):
    rows = scored(np.random.default_rng(21))
    a, b = (write_run(tmp_path / name, {"halo_count": rows}) for name in "ab")
    amend_results(b, system_instruction="You are a pirate.")
    code, _, error = compare(capsys, a, b)
    assert code == 2
    assert f"the system prompt differs: none in {a}, You are a pirate. in {b}" in error


def test_a_run_of_one_document_or_of_one_count_is_compared(capsys, tmp_path):
    some = [sample(k, n, 30 if n == 37 else None) for k, n in enumerate(WIDE)]
    many = [sample(k, 37, 30) for k in range(30)]
    for name, rows in (("one", [sample(0, 37, 30)]), ("some", some), ("many", many)):
        report = compared(capsys, tmp_path, write_run(tmp_path / name, {"halo_count_wide": rows}))
        assert report["verdicts"][1]["demands"][1]["outcome"] == "open"


def test_a_value_that_no_document_has_is_passed_over(capsys, tmp_path):
    rows = [row | {"sparsity_d1": float("nan")} for row in counted(np.random.default_rng(22), extra_decay=0)]
    report = compared(capsys, tmp_path, write_run(tmp_path / "a", {"halo_count": rows}))
    assert "sparsity_d1" not in {row["key"] for row in report["associations"]}
    assert "entropy_d1" in {row["key"] for row in report["associations"]}


def test_the_grid_is_that_of_the_first_document_with_an_image(tmp_path):
    run = write_run(tmp_path / "a", {"halo_count": scored(np.random.default_rng(23))})
    assert open_run(run).grid == ()
    (run / "halo").mkdir()
    with MapWriter(run / "halo", signature=open_run(run).signature) as writer:
        writer.add(("halo_count", 0, 0), Answer(text="1", counts=None, values=()))
    assert open_run(run).grid == ()
    plant_maps(run, lambda *_: np.ones(64), documents=[1])
    assert open_run(run).grid == ((8, 8),)


def test_scores_are_of_the_maps_that_the_run_has(capsys, tmp_path):
    run = plant_run(tmp_path / "a", {TASK: [planted(k, 0) for k in range(2)]})
    plant_maps(run, lambda *_: np.arange(1, 65), documents=[0])
    part = run / "halo" / "part-00000.parquet"
    assert main(["score", str(run), "--workers", "1"]) == 0
    assert compare(capsys, run)[0] == 0
    plant_maps(run, lambda *_: np.arange(1, 65), documents=[1])
    code, out, error = compare(capsys, run)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert (
        f"scores.parquet: is of other maps than the run has now; score the run again: halo-probe score {run}" in error
    )
    (run / "halo" / "part-00001.parquet").unlink()
    # Maps may be removed when they are scored; scores of another run are no scores of this one.
    part.unlink()
    assert compare(capsys, run)[0] == 0
    results = json.loads(results_file(run).read_text())
    results["halo"]["signature"]["model"]["dtype"] = "float32"
    results["halo"]["signature"] = seal(results["halo"]["signature"])
    amend_results(run, halo=results["halo"])
    assert "is of other maps than the run has now" in compare(capsys, run)[2]
    amend_results(run, halo={})
    assert open_run(run).tasks[TASK].contrasts == {}


def test_a_foreign_task_is_left_out_by_name(capsys, tmp_path):
    rows = scored(np.random.default_rng(13))
    foreign = [{"doc_id": 0, "length": 3.0, "input": "?"}]
    both = write_run(tmp_path / "a", {"halo_count": rows, "brightness": foreign})
    code, out, _ = compare(capsys, both)
    assert code == 0
    assert "Left out, being no counting tasks: brightness." in out
    alone = write_run(tmp_path / "b", {"brightness": foreign})
    code, _, error = compare(capsys, alone)
    assert code == 2
    assert "no counting task" in error


def results_file(run):
    return next(run.glob("*/*_results.json"))


def samples_file(run):
    return next(run.glob("*/*_samples_*.jsonl"))


def cut(path):
    path.write_text(path.read_text()[:-30])


def drop_last_line(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def amend_samples(**fields):
    def amend(run):
        rows = [json.loads(line) | fields for line in samples_file(run).read_text().splitlines()]
        samples_file(run).write_text("".join(json.dumps(row) + "\n" for row in rows))

    return amend


def replace_samples(line):
    return lambda run: samples_file(run).write_bytes((line + b"\n") * 210)


def no_part(run):
    (run / "halo").mkdir()
    pq.write_table(pa.table({"a": [1]}), run / "halo" / "part-00000.parquet")


def flip_scores(run):
    """One bit of a score that is stored as it is."""
    write_scores(run, np.random.default_rng(24), layouts=["halo_count"], shift=0)
    table = pq.read_table(run / "scores.parquet")
    pq.write_table(table, run / "scores.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray((run / "scores.parquet").read_bytes())
    data[data.index(table["halo_index_ns_z"].to_numpy().tobytes()[:64])] ^= 1
    (run / "scores.parquet").write_bytes(data)


def damage_scores(run):
    (run / "scores.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: results_file(run).unlink(), ["holds no *_results.json", "did not finish"]),
        (lambda run: cut(results_file(run)), ["_results.json", "only half of it"]),
        (lambda run: results_file(run).write_text("[]"), ["is no results file of lmms-eval"]),
        (lambda run: samples_file(run).unlink(), ["_samples_halo_count.jsonl", "--log_samples"]),
        (lambda run: cut(samples_file(run)), ["_samples_halo_count.jsonl", "is damaged"]),
        (lambda run: drop_last_line(samples_file(run)), ["has 209 documents instead of 210"]),
        (lambda run: results_file(run).with_name("2_results.json").write_text("{}"), ["holds 2 runs", "name one"]),
        (damage_scores, ["scores.parquet", "score the run again"]),
        (flip_scores, ["scores.parquet", "score the run again"]),
        (lambda run: amend_results(run, halo=None), ["_results.json: is damaged (halo is null, no object)"]),
        (lambda run: amend_results(run, versions=None), ["versions is null, no object"]),
        (lambda run: amend_results(run, configs=None), ["configs is null, no object"]),
        (lambda run: amend_results(run, config={}, halo={}), ["config has no model and model_args"]),
        (lambda run: amend_results(run, configs={"halo_count": 1}), ["what it says of halo_count is 1, no object"]),
        (lambda run: amend_results(run, halo={"signature": None}), ["the signature is null, no object"]),
        (lambda run: amend_results(run, halo={"given": []}), ["what was given is [], no object"]),
        (lambda run: amend_results(run, halo={"given": {"t": 1}}), ["what was given of t is 1, no object"]),
        (lambda run: amend_results(run, halo={"signature": {"model": {}}}), ["is not the one that its hash is of"]),
        (replace_samples(b"\xff"), ["_samples_halo_count.jsonl: is damaged", "decode"]),
        (replace_samples(b"[]"), ["_samples_halo_count.jsonl: is damaged (a document is [], no object)"]),
        (replace_samples(b"null"), ["a document is null, no object"]),
        (amend_samples(token_counts=[3]), ["token_counts is 3, no object"]),
        (amend_samples(token_counts=[{"halo": []}]), ["halo is [], no object"]),
        (amend_samples(token_counts=[{"halo": {"digit_status": []}}]), ["digit_status is [], no text"]),
        (amend_samples(token_counts=[{"halo": {"digit_probabilities": [3]}}]), ["digit_probabilities is 3, no list"]),
        (amend_samples(token_counts=[{"halo": {"digit_probabilities": [["x"]]}}]), ["are no numbers"]),
        (amend_samples(sparsity_d1="x"), ['sparsity_d1 is "x", no number']),
    ],
)
def test_half_a_run_is_refused_with_one_line(damage, words, capsys, tmp_path):
    run = write_run(tmp_path / "a", {"halo_count": scored(np.random.default_rng(14))})
    damage(run)
    code, out, error = compare(capsys, run)
    assert (code, out) == (2, "")
    assert error.startswith("halo-probe: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_no_run_at_all_is_refused_with_one_line(capsys, tmp_path):
    code, _, error = compare(capsys, tmp_path / "gone")
    assert (code, error.count("\n")) == (2, 1)
    assert "there is no such folder" in error
    (tmp_path / "empty").mkdir()
    assert "is empty; give the --output_path" in compare(capsys, tmp_path / "empty")[2]
    run = write_run(tmp_path / "a", {"halo_count": scored(np.random.default_rng(15))})
    for same in (run, run / ".." / run.name, results_file(run)):
        assert "is named twice" in compare(capsys, run, same)[2]
    assert "cannot be written" in compare(capsys, run, "--json", tmp_path / "no" / "where.json")[2]


def test_a_command_without_a_run_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare"])
    assert stopped.value.code == 2
    assert "RUN" in capsys.readouterr().err


def test_a_results_file_can_be_named_instead_of_its_folder(tmp_path):
    run = write_run(tmp_path / "a", {"halo_count": scored(np.random.default_rng(16))})
    by_file, by_folder = open_run(results_file(run)), open_run(run)
    assert by_file.tasks["halo_count"].ids == by_folder.tasks["halo_count"].ids
    results_file(run).with_name("2_results.json").write_text("{}")
    with pytest.raises(HaloError, match="name one results file"):
        open_run(run)


def test_names_from_outside_break_neither_a_table_nor_the_page(capsys, tmp_path):
    model = {**MODEL, "pretrained": "a|b<script>alert(1)</script>\nc"}
    run = write_run(tmp_path / "a", {"halo_count": scored(np.random.default_rng(17))}, model=model)
    code, out, _ = compare(capsys, run)
    assert code == 0
    assert "<script" not in out
    (line,) = [line for line in out.splitlines() if "alert(1)" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 11


def test_the_report_of_a_real_run_is_that_of_its_table(capsys, tmp_path, qwen3_vl_checkpoint, lmms_eval):
    arguments = ["--model", "halo", "--model_args", f"base=qwen3_vl,pretrained={qwen3_vl_checkpoint},device_map=cpu"]
    arguments += ["--device", "cpu", "--tasks", "halo_count,halo_echo", "--limit", "4"]
    arguments += ["--output_path", str(tmp_path / "run"), "--log_samples"]
    finished = lmms_eval(arguments)
    assert finished.returncode == 0, finished.stderr[-3000:]
    table = json.loads(results_file(tmp_path / "run").read_text())["results"]
    report = compared(capsys, tmp_path, tmp_path / "run")
    scores = {row["task"]: row for row in report["scores"] if not row["run"].startswith("always")}
    assert scores.keys() == {"halo_count", "halo_echo"}
    assert scores["halo_echo"]["accuracy"] == pytest.approx(table["halo_echo"]["accuracy,none"])
    for key in ("accuracy", "answered", "mbe", "mae"):
        assert scores["halo_count"][key] == pytest.approx(table["halo_count"][f"{key},none"])
    for row in report["decays"]:
        if row["measure"] == "sparsity":
            assert row["mean"] == pytest.approx(table[row["task"]]["sparsity_decay,none"])
    assert {row["measure"] for row in report["contrasts"]} == {"sparsity", "entropy", "visual_mass"}
    assert report["runs"][0]["grid"] == "32x32"
    assert report["digits"][0]["split"] == 4


@pytest.mark.parametrize("name", ["out", "out/model", "out/model/1_results.json", "moved", "moved/1_results.json"])
def test_the_maps_of_a_run_are_found_however_it_is_named(name, tmp_path):
    for results in (tmp_path / "out" / "model", tmp_path / "moved"):
        plain = plant_run(tmp_path / "planted" / results.name, {TASK: [planted(0, 0)]})
        results.parent.mkdir(exist_ok=True)
        (plain / "org__model").rename(results)
    for folder in (tmp_path / "out", tmp_path / "moved"):
        plant_maps(folder, lambda *_: np.ones(64), documents=[0])
    run = open_run(tmp_path / name)
    assert run.folder == tmp_path / Path(name).parts[0]
    assert run.grid == ((8, 8),)
