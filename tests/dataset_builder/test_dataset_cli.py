"""The command `halo-dataset`, run as a user runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset_builder.cli import main
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.manifest import read_manifests
from dataset_builder.sets import SETS

NEW_SET = [
    *("build", "my_set", "--counts", "20:40", "--radius", "8", "--gap", "16"),
    *("--size", "768", "--n", "12", "--seed", "7", "--shard-rows", "5"),
]


def test_a_new_set_is_built_from_its_parameters(tmp_path, capsys):
    assert main([*NEW_SET, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    manifest = read_manifests(tmp_path)["my_set"]
    assert out == f"my_set: 12 rows, content sha256 {manifest.content_sha256}\n"
    assert "my_set: 100%" in err
    assert "image/s" in err
    assert (manifest.seed, manifest.n, [shard.rows for shard in manifest.shards]) == (7, 12, [5, 5, 2])
    rows = [row for path in sorted(tmp_path.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert all(20 <= row["count"] <= 40 and (row["radius"], row["width"]) == (8, 768) for row in rows)
    assert min(distance for row in rows for distance in row["nearest_distance"]) >= 32
    assert main(["verify", str(tmp_path)]) == 0


def test_a_set_is_built_into_a_folder_of_its_name_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["build", "mine", "--n", "1"]) == 0
    assert list(read_manifests(tmp_path / "mine")) == ["mine"]


def test_layout_and_balance_are_parameters_too(tmp_path, capsys):
    assert (
        main(
            [
                "build",
                "ring",
                "--layout",
                "annulus",
                "--balanced",
                "--counts",
                "1:4",
                "--n",
                "8",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    rows = pq.read_table(next(tmp_path.rglob("*.parquet"))).to_pylist()
    assert sorted(row["count"] for row in rows) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert '"layout":"annulus"' in rows[0]["parameters"]


def test_a_set_of_the_study_takes_a_length_and_a_seed(tmp_path, capsys):
    assert main(["build", "halo_count", "--n", "2", "--seed", "5", "--out", str(tmp_path)]) == 0
    assert read_manifests(tmp_path)["halo_count"].seed == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["halo_count", "--radius", "8", "--gap", "3"],
         "halo_count is a set of the study; leave out --radius, --gap or give it a new name"),
        (["Mine"], "set name 'Mine': use up to 64 lower-case letters"),
        (["mine", "--n", "0"], "mine: n 0: a set has at least one row"),
        (["mine", "--counts", "7:3"], "mine: counts 7:3: give LOW:HIGH"),
        (["mine", "--shard-rows", "0"], "mine: shard_rows is 0"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_bad_usage_in_one_line(arguments, message, tmp_path, capsys):
    assert main(["build", *arguments, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"halo-dataset: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["build"], ["verify"], ["build", "a", "--counts", "3", "--out", "x"],
     ["build", "a", "--layout", "spiral", "--out", "x"]],
)  # fmt: skip
def test_a_wrong_command_line_is_bad_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: halo-dataset" in capsys.readouterr().err


@pytest.mark.parametrize("count", [444, 450])
def test_dots_that_do_not_fit_fail_in_one_line_that_names_a_count_that_does(count, tmp_path, capsys):
    assert main(["build", "crowd", "--counts", f"{count}:{count}", "--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    largest = re.search(r"the largest count that fits is (\d+):", err)[1]
    assert main(["build", "crowd", "--counts", f"{largest}:{largest}", "--n", "3", "--out", str(tmp_path)]) == 0


def test_verify_prints_what_differs_and_fails(small_sets, tmp_path, capsys):
    assert main(["verify", str(small_sets)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"halo-dataset: differences found in {small_sets}: 0\n")
    path = tmp_path / "data" / "halo_count"
    path.mkdir(parents=True)
    (tmp_path / "MANIFEST.json").write_bytes((small_sets / "MANIFEST.json").read_bytes())
    assert main(["verify", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "test-00000-of-00002.parquet: the shard is missing" in out
    assert err.endswith(f"differences found in {tmp_path}: {len(out.splitlines())}\n")


def test_verifying_what_is_not_there_fails_in_one_line(capsys):
    assert main(["verify", "/no/such/folder"]) == 1
    assert capsys.readouterr().err.startswith("halo-dataset: /no/such/folder: there is no such folder")


def test_the_list_has_every_set_and_its_hash(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [(name, CONTENT_SHA256[name]) for name in SETS]


def test_an_interrupted_build_says_how_to_go_on(tmp_path):
    command = [
        str(Path(sys.executable).with_name("halo-dataset")),
        "build",
        "long",
        "--n",
        "100000",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.rglob("*.tmp")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1] == "halo-dataset: interrupted; run the same command again to go on"
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_fails_in_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["build", "halo_count", "--n", "1", "--out", str(tmp_path / "out")]) == 1
    assert "cannot be written (Permission denied)" in capsys.readouterr().err
