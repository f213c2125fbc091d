"""Nothing lost: runs that are killed, and what the same command makes of what they left."""

import json
import os
import signal
import subprocess
import sys

import forked_runs
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

DOCUMENTS = 60
KILLS = 20
SAMPLED_KILLS = 8
SAMPLING = {"limit": 16, "repeats": 2, "gen_kwargs": "do_sample=true,temperature=1.0"}
BIG = 30  # the document whose part no longer fits under the file size of the full disk


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    noise = np.random.default_rng(0)
    sizes = [512 if number == BIG else 64 for number in range(DOCUMENTS)]
    images = [Image.fromarray(noise.integers(0, 256, (size, size, 3), dtype=np.uint8)) for size in sizes]
    images[5] = None
    return forked_runs.write_task(tmp_path_factory.mktemp("patches"), images)


@pytest.fixture(scope="module")
def attempts(tmp_path_factory, tasks, qwen3_vl_checkpoint):
    """All attempts in one process that imports once: outcomes by the name of their folder."""
    out = tmp_path_factory.mktemp("attempts")
    planned = [
        {"maps": out / "whole"},
        *[{"maps": out / "killed", "kill_within": 3.0 / KILLS}] * KILLS,
        {"maps": out / "killed"},
        {"maps": out / "killed"},
        {"maps": out / "killed", "options": "layers=all"},
        {"maps": out / "killed", "options": "resume=false"},
        {"maps": out / "full", "file_size": 19_000},
        {"maps": out / "full"},
        {"maps": out / "removed", "remove_after_first_part": True},
        {"maps": out / "capped", "options": "max_gb=0.00002"},
    ]
    names = ["whole", *["kill"] * KILLS, "resumed", "again", "changed", "refused", "full", "room", "removed", "capped"]
    for end in (signal.SIGKILL, signal.SIGINT):
        name = f"sampled-{end.name}"
        whole, killed = (out / f"{name}-{what}" for what in ("whole", "killed"))
        kill = {"maps": killed, "kill_within": 2.4 / SAMPLED_KILLS, "signal": end, "of": len(planned)}
        sampled = [{"maps": whole}, *[kill] * SAMPLED_KILLS, {"maps": killed}]
        planned += [{**attempt, "call": SAMPLING} for attempt in sampled]
        names += [f"{name}-whole", *[f"{name}-kill"] * SAMPLED_KILLS, f"{name}-resumed"]
    given = {
        "checkpoint": str(qwen3_vl_checkpoint),
        "tasks": str(tasks),
        "outcome": str(out / "outcome.json"),
        "attempts": [{**attempt, "maps": str(attempt["maps"])} for attempt in planned],
    }
    finished = subprocess.run(
        [sys.executable, "-P", forked_runs.__file__],  # -P: its folder has folders named like our packages
        input=json.dumps(given),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,  # to pipes: the file that pytest captures into would be too large for the full disk
        text=True,
        timeout=800,
        check=True,
    )
    outcomes = json.loads(finished.stdout)
    grouped = {name: [one for one, its in zip(outcomes, names, strict=True) if its == name] for name in names}
    return out, grouped


def maps_of(folder):
    frame = pd.read_parquet(folder)
    return frame.sort_values(["doc_id", "repeat", "step", "layer"], ignore_index=True)


def test_a_run_killed_twenty_times_ends_with_every_document_once_and_the_values_of_an_unbroken_run(attempts):
    out, ends = attempts
    (whole,), (resumed,) = ends["whole"], ends["resumed"]
    killed = [one for one in ends["kill"] if one["signal"] == signal.SIGKILL]
    assert len(killed) >= KILLS / 2  # a machine that is fast at the end may finish before it is killed
    assert resumed["samples"] == whole["samples"]
    assert [sample["doc_id"] for sample in resumed["samples"]] == list(range(DOCUMENTS))
    assert resumed["halo"]["recorded"] == DOCUMENTS - 1
    assert resumed["halo"]["without_image"] == 1
    assert resumed["halo"]["signature"] == whole["halo"]["signature"]
    assert 0 < resumed["halo"]["resumed"] <= DOCUMENTS
    pd.testing.assert_frame_equal(maps_of(out / "killed"), maps_of(out / "whole"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_samples_ends_with_the_replies_of_an_unbroken_run_however_often_it_was_ended(end, attempts):
    out, ends = attempts
    name = f"sampled-{end.name}"
    (whole,), (resumed,), killed = (ends[f"{name}-{what}"] for what in ("whole", "resumed", "kill"))
    assert len([one for one in killed if one["signal"] or "KeyboardInterrupt" in one.get("error", "")]) > 1
    assert resumed["halo"]["resumed"] > 0
    assert resumed["samples"] == whole["samples"]
    maps = maps_of(out / f"{name}-killed")
    pd.testing.assert_frame_equal(maps, maps_of(out / f"{name}-whole"))
    replies = maps[maps.layer == maps.layer.max()].groupby(["doc_id", "repeat"]).token_id.agg(tuple)
    assert replies.nunique() > len(replies) / 2


def test_every_part_that_a_killed_run_left_is_whole(attempts):
    out, _ = attempts
    parts = sorted((out / "killed").glob("part-*.parquet"))
    assert len(parts) > 5
    assert all(pq.read_table(part).num_rows >= 0 for part in parts)
    assert not list((out / "killed").glob("*.unfinished"))


def test_a_finished_run_started_again_is_answered_from_its_maps(attempts):
    _, ends = attempts
    (again,), (whole,) = ends["again"], ends["whole"]
    assert again["halo"]["resumed"] == DOCUMENTS
    assert again["samples"] == whole["samples"]


def test_changed_settings_are_refused_with_what_they_were_and_are(attempts):
    (changed,) = attempts[1]["changed"]
    assert "UsageError" in changed["error"]
    assert "recorded_layers was [" in changed["error"]
    assert ", is [" in changed["error"]
    assert "--output_path" in changed["error"]


def test_resume_false_refuses_a_folder_that_holds_maps(attempts):
    (refused,) = attempts[1]["refused"]
    assert "holds the maps of an earlier run" in refused["error"]


def test_a_full_disk_ends_the_run_with_readable_parts_and_room_lets_it_go_on(attempts):
    out, ends = attempts
    (full,), (room,), (whole,) = ends["full"], ends["room"], ends["whole"]
    assert "cannot be written (File too large)" in full["error"]
    assert "same command again" in full["error"]
    assert room["halo"]["resumed"] == BIG
    assert room["samples"] == whole["samples"]
    pd.testing.assert_frame_equal(maps_of(out / "full"), maps_of(out / "whole"))


def test_a_folder_that_is_removed_ends_the_run_with_its_name(attempts):
    out, ends = attempts
    (removed,) = ends["removed"]
    assert f"{out / 'removed'}" in removed["error"]
    assert "No such file or directory" in removed["error"]


def test_maps_beyond_the_cap_end_the_run_and_say_how_to_go_on(attempts):
    (capped,) = attempts[1]["capped"]
    assert "more than max_gb=2e-05" in capped["error"]
    assert "larger max_gb" in capped["error"]
