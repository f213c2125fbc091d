"""Building: the same bytes however it went, in linear time, and never a half-written set."""

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from dataset_builder.build import build_set
from dataset_builder.errors import (
    DatasetMismatchError,
    DatasetSourceError,
    DatasetUsageError,
    PlacementError,
)
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.manifest import MANIFEST_NAME, read_manifests
from dataset_builder.rows import canonical_line, make_row
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS, SetSpec, parameters_of
from dataset_builder.version import GENERATOR_VERSION

SPEC = SetSpec(name="mine", counts=(1, 4), size=128, n=20)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_the_study_has_its_golden_content(name, tmp_path):
    assert build_set(SETS[name], tmp_path).content_sha256 == CONTENT_SHA256[name]


def test_the_content_hash_is_that_of_the_ordered_canonical_lines(tmp_path):
    manifest = build_set(SPEC, tmp_path, shard_rows=8)
    lines = [canonical_line(make_row(SPEC, draw_sample(SPEC, index))) for index in range(20)]
    assert manifest.content_sha256 == hashlib.sha256(b"".join(lines)).hexdigest()
    assert [shard.sha256 for shard in manifest.shards] == [
        hashlib.sha256(b"".join(lines[start : start + 8])).hexdigest() for start in (0, 8, 16)
    ]
    assert [(shard.file, shard.rows) for shard in manifest.shards] == [
        ("data/mine/test-00000-of-00003.parquet", 8),
        ("data/mine/test-00001-of-00003.parquet", 8),
        ("data/mine/test-00002-of-00003.parquet", 4),
    ]


def test_the_content_hash_does_not_depend_on_the_shards(tmp_path):
    hashes = {build_set(SPEC, tmp_path / str(rows), shard_rows=rows).content_sha256 for rows in (1, 7, 20, 2000)}
    assert len(hashes) == 1


def test_a_small_set_is_a_prefix_of_a_large_one(tmp_path):
    build_set(SPEC, tmp_path / "small", n=5)
    build_set(SPEC, tmp_path / "large", n=15)
    small, large = (
        pq.read_table(next((tmp_path / size).rglob("*.parquet"))).to_pylist() for size in ("small", "large")
    )
    assert small == large[:5]


def test_a_folder_holds_several_sets_and_its_manifest_an_entry_for_each(tmp_path):
    mine = build_set(SPEC, tmp_path)
    other = build_set(replace(SPEC, name="other", seed=3), tmp_path, n=2)
    assert read_manifests(tmp_path) == {"mine": mine, "other": other}
    content = json.loads((tmp_path / MANIFEST_NAME).read_text())
    assert content["generator"] == GENERATOR_VERSION
    assert list(content["sets"]) == ["mine", "other"]
    entry = content["sets"]["other"]
    assert (entry["seed"], entry["n"], entry["parameters"]["counts"]) == (3, 2, [1, 4])
    assert mine.spec == SPEC
    assert mine.parameters == parameters_of(SPEC)


def test_a_shard_has_row_groups_a_page_index_and_no_statistics_of_images(tmp_path):
    build_set(SPEC, tmp_path, n=250)
    file = pq.ParquetFile(next(tmp_path.rglob("*.parquet")))
    assert [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)] == [100, 100, 50]
    columns = {
        (column := file.metadata.row_group(0).column(i)).path_in_schema: column
        for i in range(file.metadata.num_columns)
    }
    assert columns["id"].has_offset_index
    assert columns["id"].has_column_index
    assert not columns["image.bytes"].is_stats_set
    assert {column.compression for column in columns.values()} == {"ZSTD"}


def test_building_again_makes_the_same_bytes_and_leaves_nothing_else(tmp_path):
    build_set(SPEC, tmp_path, shard_rows=6)
    before = files_of(tmp_path)
    build_set(SPEC, tmp_path, shard_rows=6)
    assert files_of(tmp_path) == before
    build_set(replace(SPEC, seed=1), tmp_path, shard_rows=20)
    assert sorted(files_of(tmp_path)) == [MANIFEST_NAME, "data/mine/test-00000-of-00001.parquet"]


def test_a_changed_label_does_not_survive_building_again(tmp_path):
    build_set(SPEC, tmp_path)
    before = files_of(tmp_path)
    path = next(tmp_path.rglob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[3]["count"] += 1
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    build_set(SPEC, tmp_path)
    assert files_of(tmp_path) == before


BUILD = """
import sys
from pathlib import Path
from dataset_builder.build import build_set
from dataset_builder.sets import SetSpec
build_set(SetSpec(name="mine", counts=(1, 4), size=128), Path(sys.argv[1]), n=3000, shard_rows=300)
"""


def test_a_build_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    whole = tmp_path / "whole"
    spec = SetSpec(name="mine", counts=(1, 4), size=128)
    build_set(spec, whole, n=3000, shard_rows=300)
    killed = tmp_path / "killed"
    kept = []
    for shards in (1, 4, 8):
        process = subprocess.Popen([sys.executable, "-c", BUILD, str(killed)])
        while process.poll() is None and len(list(killed.rglob("*.parquet"))) < shards:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept.append(len(list(killed.rglob("*.parquet"))))
        assert not (killed / MANIFEST_NAME).exists()
    assert kept == sorted(kept)
    assert 0 < kept[-1] < 10
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("*.parquet")}
    manifest = build_set(spec, killed, n=3000, shard_rows=300)
    assert files_of(killed) == files_of(whole)
    assert manifest == read_manifests(whole)["mine"]
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())


@pytest.mark.parametrize("fault", ["truncated", "other seed", "other length", "temporary"])
def test_what_an_interrupted_build_left_is_kept_only_if_it_is_right(fault, tmp_path):
    build_set(SPEC, tmp_path / "whole", shard_rows=10)
    build_set(replace(SPEC, seed=5) if fault == "other seed" else SPEC, tmp_path / "left", shard_rows=10)
    (tmp_path / "left" / MANIFEST_NAME).unlink()
    shard = tmp_path / "left" / "data" / "mine" / "test-00000-of-00002.parquet"
    if fault == "truncated":
        shard.write_bytes(shard.read_bytes()[:-200])
    if fault == "other length":
        pq.write_table(pq.read_table(shard).slice(0, 9), shard)
    if fault == "temporary":
        shard.rename(shard.with_suffix(".parquet.tmp"))
    build_set(SPEC, tmp_path / "left", shard_rows=10)
    assert files_of(tmp_path / "left") == files_of(tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of resident memory from /proc")
def test_time_grows_linearly_and_memory_does_not_grow(tmp_path):
    script = (
        "import re, sys, time; from pathlib import Path; from dataset_builder.build import build_set;"
        "from dataset_builder.sets import SetSpec; spec = SetSpec(name='mine', counts=(1, 2), size=128);"
        "out = Path(sys.argv[1]); build_set(spec, out / 'warm', n=200); start = time.process_time();"
        "build_set(spec, out / 'timed', n=int(sys.argv[2]), shard_rows=500);"
        "seconds = time.process_time() - start;"
        "print(seconds, int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1000)"
    )
    measured = {}
    for n in (1000, 6000):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / str(n)), str(n)], capture_output=True, text=True, check=True
        )
        measured[n] = [float(value) for value in done.stdout.split()]
    assert measured[6000][0] < 12 * measured[1000][0]
    assert measured[6000][1] < min(250, measured[1000][1] + 25)


def test_a_count_that_cannot_be_placed_fails_before_the_first_row(tmp_path):
    spec = SetSpec(name="crowd", counts=(1, 450))
    with pytest.raises(PlacementError, match=r"^450 dots of radius 10 .* the largest count that fits is 4\d\d:"):
        build_set(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"), [({"n": 0}, "mine: n is 0"), ({"shard_rows": 0}, "mine: shard_rows is 0")]
)
def test_a_number_less_than_one_is_a_usage_error(options, message, tmp_path):
    with pytest.raises(DatasetUsageError, match=message):
        build_set(SPEC, tmp_path, **options)


def test_a_second_build_in_the_same_folder_is_refused_at_once(tmp_path):
    gc.collect()  # a lock of an earlier test that is collected meanwhile would close the file of this one
    with (
        FileLock(tmp_path / ".halo-dataset.lock"),
        pytest.raises(DatasetSourceError, match="another build is writing here"),
    ):
        build_set(SPEC, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DatasetSourceError, match=r"file: cannot be written \(.+\); free space or use another folder$"):
        build_set(SPEC, tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_clear_line(tmp_path):
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / (MANIFEST_NAME.removesuffix("json") + "json.tmp")).symlink_to("/dev/full")
    with pytest.raises(DatasetSourceError, match="cannot be written .No space left on device.; free space"):
        build_set(SPEC, tmp_path)
    assert not (tmp_path / MANIFEST_NAME).exists()


def test_a_folder_of_another_generator_is_refused(tmp_path):
    build_set(SPEC, tmp_path)
    path = tmp_path / MANIFEST_NAME
    path.write_text(path.read_text().replace(GENERATOR_VERSION, "0.9.0"))
    with pytest.raises(
        DatasetMismatchError, match="holds mine of generator 0.9.0, this is .*; build into a new folder"
    ):
        build_set(replace(SPEC, name="other"), tmp_path)


def test_importing_the_package_imports_no_model_stack_and_no_data_stack():
    code = (
        "import sys; import dataset_builder.build, dataset_builder.load, dataset_builder.verify, dataset_builder.cli;"
        "print(sorted({'torch', 'datasets', 'pyarrow', 'pandas', 'PIL', 'huggingface_hub', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "[]\n"
