"""Runs of lmms-eval with one byte changed somewhere: whoever opens them says so, or nothing that was read has changed."""

import json
import random
import re
import shutil
from contextlib import suppress

import pytest

from halo_probe.archive.runs import open_run
from halo_probe.errors import HaloError

CASES = 500


@pytest.fixture(scope="module")
def probed(tmp_path_factory, qwen3_vl_checkpoint, lmms_eval):
    return evaluated(tmp_path_factory.mktemp("probed"), lmms_eval, "halo", qwen3_vl_checkpoint, "base=qwen3_vl,")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, qwen3_vl_checkpoint, lmms_eval):
    return evaluated(tmp_path_factory.mktemp("plain"), lmms_eval, "qwen3_vl", qwen3_vl_checkpoint, "")


def evaluated(folder, lmms_eval, model, checkpoint, more):
    run = folder / "run"
    arguments = ["--model", model, "--model_args", f"{more}pretrained={checkpoint},device_map=cpu", "--device", "cpu"]
    arguments += ["--tasks", "halo_count", "--limit", "4", "--log_samples", "--output_path", run]
    finished = lmms_eval(arguments)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return run


def read(run):
    """All that anybody reads of a run's results and samples."""
    opened = open_run(run)
    return json.dumps([opened.results, opened.samples], sort_keys=True)


def changed(content, place, chosen):
    other = chosen.choice([digit for digit in b"0123456789" if digit != content[place]])
    return content[:place] + bytes([other]) + content[place + 1 :]


def silent_changes(run, pattern, cases, *, copy, keys):
    """How many of so many changed digits of the files that match were believed; `keys` finds the numbers."""
    shutil.copytree(run, copy)
    whole, chosen = read(run), random.Random(0)
    files = sorted(copy.glob(pattern))
    digits = [
        (file, place)
        for file in files
        for found in re.finditer(keys, file.read_bytes())
        for place in range(*found.span(1))
        if file.read_bytes()[place : place + 1].isdigit()
    ]
    believed = []
    for file, place in chosen.choices(digits, k=cases):
        content = file.read_bytes()
        file.write_bytes(changed(content, place, chosen))
        with suppress(HaloError):
            if read(copy) != whole:
                believed.append((file.name, content[max(0, place - 40) : place + 10]))
        file.write_bytes(content)
    return believed


def test_no_changed_byte_in_a_number_of_a_probed_run_is_silent(probed, tmp_path):
    for pattern in ("*/*_results.json", "*/*_samples_*.jsonl"):
        found = silent_changes(
            probed, pattern, CASES // 2, copy=tmp_path / pattern[4:8], keys=rb"[:\\[,] *(-?[0-9][-+.0-9e]*)"
        )
        assert found == []


def test_no_changed_byte_in_a_score_of_a_plain_run_is_silent(plain, tmp_path):
    scores = rb'"(?:accuracy|answered|mbe|mae|off_by_one|predicted|count)(?:,none)?": (-?[0-9][-+.0-9e]*)'
    assert silent_changes(plain, "*/*.json*", 100, copy=tmp_path / "run", keys=scores) == []
