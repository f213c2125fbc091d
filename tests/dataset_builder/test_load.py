"""Loading: every load is checked, whatever the source, and nothing stale is ever returned."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.build import build_set
from dataset_builder.errors import DatasetError, DatasetMismatchError, DatasetSourceError, DatasetUsageError
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.load import content_sha256, load_set
from dataset_builder.manifest import MANIFEST_NAME, read_manifests
from dataset_builder.sets import SETS

SHARDS = ("data/halo_count/test-00000-of-00002.parquet", "data/halo_count/test-00001-of-00002.parquet")


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HALO_DATASET", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(small_sets: Path, tmp_path: Path) -> Path:
    """A copy of the small sets, to be spoilt."""
    return Path(shutil.copytree(small_sets, tmp_path / "folder"))


def change_rows(path: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), path)


def change_entry(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text())
    content["sets"]["halo_count"].update(changes)
    path.write_text(json.dumps(content))


def test_a_set_is_loaded_from_a_folder_with_its_features_and_its_hash(small_sets):
    rows = load_set("halo_relate", source=str(small_sets))
    assert len(rows) == 6
    assert rows.column_names[:3] == ["id", "index", "image"]
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows[5]["image"].mode == "RGB"
    assert rows[5]["id"] == "halo_relate-00005"
    assert content_sha256(rows) == read_manifests(small_sets)["halo_relate"].content_sha256


def test_the_hash_survives_all_that_keeps_rows(small_sets):
    rows = load_set("halo_count", source=str(small_sets))
    expected = content_sha256(rows)
    for derived in (
        rows.select(range(2)),
        rows.shuffle(seed=0),
        rows.filter(lambda row: row["count"] > 0),
        rows.select_columns(["id"]),
        rows.map(lambda row: {"twice": 2 * row["count"]}),
        rows.shard(2, 0),
    ):
        assert content_sha256(derived) == expected


def test_another_dataset_has_no_hash():
    assert content_sha256(datasets.Dataset.from_dict({"a": [1]})) is None


def test_the_built_in_set_is_built_once_into_a_folder_named_by_its_content(tmp_path, capsys):
    rows = load_set("halo_count")
    assert len(rows) == 256
    assert content_sha256(rows) == CONTENT_SHA256["halo_count"]
    assert "halo_count: 100%" in capsys.readouterr().err
    folders = list((tmp_path / "cache" / "halo-probe" / "datasets").iterdir())
    assert [folder.name for folder in folders] == [CONTENT_SHA256["halo_count"]]
    written = {path: path.stat().st_mtime_ns for path in folders[0].rglob("*")}
    assert load_set("halo_count", expected_sha256=CONTENT_SHA256["halo_count"])[:2] == rows[:2]
    assert {path: path.stat().st_mtime_ns for path in folders[0].rglob("*")} == written
    assert capsys.readouterr().err == ""


def test_a_build_for_the_cache_that_was_killed_goes_on_in_the_same_folder(tmp_path):
    root = tmp_path / "cache" / "halo-probe" / "datasets"
    sha = CONTENT_SHA256["halo_count_blank"]
    shard = Path("data/halo_count_blank/test-00000-of-00001.parquet")
    build_set(SETS["halo_count_blank"], root / f".{sha}.partial")
    (root / f".{sha}.partial" / MANIFEST_NAME).unlink()
    (root / f".{sha}.lock").touch()
    written = (root / f".{sha}.partial" / shard).stat().st_mtime_ns
    assert len(load_set("halo_count_blank")) == 32
    assert [path.name for path in root.iterdir()] == [sha]
    assert (root / sha / shard).stat().st_mtime_ns == written


def test_processes_that_start_at_once_all_load_the_built_in_set_that_one_of_them_builds(tmp_path):
    code = "from dataset_builder.load import *; print(content_sha256(load_set('halo_count_blank')))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    progress = ""
    for process in processes:
        out, err = process.communicate()
        progress += err
        assert (process.returncode, out) == (0, CONTENT_SHA256["halo_count_blank"] + "\n"), err
    folders = list((tmp_path / "cache" / "halo-probe" / "datasets").iterdir())
    assert [folder.name for folder in folders] == [CONTENT_SHA256["halo_count_blank"]]
    assert progress.count("| 0/32 [") == 1  # a bar may show its end twice, its beginning once


def test_a_spoilt_cache_is_an_error_that_says_what_to_remove(tmp_path):
    load_set("halo_count_blank")
    folder = tmp_path / "cache" / "halo-probe" / "datasets" / CONTENT_SHA256["halo_count_blank"]
    shard = next(folder.rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(
        DatasetSourceError, match=rf"cannot be read.*; this is the cache: remove {folder} and run again$"
    ):
        load_set("halo_count_blank")


def test_a_stale_set_in_the_cache_is_refused(small_sets, tmp_path):
    folder = tmp_path / "cache" / "halo-probe" / "datasets" / CONTENT_SHA256["halo_count"]
    shutil.copytree(small_sets, folder)
    with pytest.raises(
        DatasetMismatchError, match="halo_count has content .* is expected; .* this is the cache: remove"
    ):
        load_set("halo_count")


def test_a_cache_that_cannot_be_written_is_one_line_that_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        DatasetSourceError, match="the cache cannot be written .*; set XDG_CACHE_HOME .* or HALO_DATASET"
    ):
        load_set("halo_count_blank")


def test_halo_dataset_names_a_folder_instead_of_the_built_in_set(other_sets, monkeypatch, tmp_path):
    monkeypatch.setenv("HALO_DATASET", str(other_sets))
    rows = load_set("halo_count", expected_sha256=CONTENT_SHA256["halo_count"])
    assert content_sha256(rows) == read_manifests(other_sets)["halo_count"].content_sha256
    assert not (tmp_path / "cache").exists()


def test_an_empty_halo_dataset_is_none(monkeypatch):
    monkeypatch.setenv("HALO_DATASET", "")
    assert content_sha256(load_set("halo_count_blank")) == CONTENT_SHA256["halo_count_blank"]


def test_an_expected_hash_is_checked_where_the_caller_names_the_source(small_sets, other_sets):
    expected = read_manifests(small_sets)["halo_count"].content_sha256
    assert content_sha256(load_set("halo_count", source=str(small_sets), expected_sha256=expected)) == expected
    with pytest.raises(DatasetMismatchError, match=f"has content [0-9a-f]{{64}} where {expected} is expected"):
        load_set("halo_count", source=str(other_sets), expected_sha256=expected)


def test_a_rebuilt_folder_gives_its_new_rows(tmp_path):
    spec = replace(SETS["halo_count"], n=3)
    build_set(spec, tmp_path / "folder")
    before = load_set("halo_count", source=str(tmp_path / "folder"))
    manifest = build_set(replace(spec, seed=9), tmp_path / "folder")
    after = load_set("halo_count", source=str(tmp_path / "folder"))
    assert content_sha256(after) == manifest.content_sha256
    assert before["centers"] != after["centers"]


def test_a_build_under_a_home_sign_is_found(small_sets, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(small_sets, tmp_path / "sets")
    assert len(load_set("halo_count", source="~/sets")) == 6


def flip_a_pixel(rows):
    image = bytearray(rows[1]["image"]["bytes"])
    image[100] ^= 1
    rows[1]["image"]["bytes"] = bytes(image)
    return rows


def change_a_label(rows):
    rows[2]["count"] += 1
    return rows


def empty_a_cell(rows):
    rows[0]["centers"][0][1] = None
    return rows


def empty_an_image(rows):
    rows[0]["image"] = None
    return rows


def name_a_path(rows):
    rows[0]["image"]["path"] = "halo.png"
    return rows


FIX = "build or download the set again$"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip_a_pixel, rf"{SHARDS[0]}: the image of halo_count-00001 is not the one of its png_sha256; {FIX}"),
        (change_a_label, rf"{SHARDS[0]}: holds 4 rows of content .*; see which rows differ with: halo-dataset verify"),
        (lambda rows: [rows[1], rows[0], *rows[2:]],
         rf"row 0 is halo_count-00001 with index 1 where halo_count-00000 should be; {FIX}"),
        (lambda rows: rows[:3], rf"{SHARDS[0]}: holds 3 rows of content .* where the manifest says 4 of"),
        (lambda rows: [row | {"parameters": "{}"} for row in rows], "halo_count-00000 has other parameters than the manifest"),
        (empty_a_cell, "has empty cells in centers"),
        (empty_an_image, "has empty cells in image"),
        (name_a_path, "has paths in image"),
        (lambda rows: [rows[0] | {"nearest_distance": [float("nan")]}, *rows[1:]],
         "has cells that are no numbers in nearest_distance"),
    ],
)  # fmt: skip
def test_changed_rows_are_an_error_that_says_where_and_what(change, message, folder):
    change_rows(folder / SHARDS[0], change)
    with pytest.raises(DatasetMismatchError, match=message) as error:
        load_set("halo_count", source=str(folder))
    assert "\n" not in str(error.value)
    assert len(load_set("halo_relate", source=str(folder))) == 6


def truncate(folder):
    path = folder / SHARDS[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_a_column(folder):
    pq.write_table(pq.read_table(folder / SHARDS[1]).drop_columns("hull"), folder / SHARDS[1])


def break_utf8(folder):
    table = pq.read_table(folder / SHARDS[1])
    place = table.schema.get_field_index("answer")
    broken = pa.array([b"\xff"] * table.num_rows, pa.binary()).view(pa.string())
    pq.write_table(table.set_column(place, table.schema.field(place), broken), folder / SHARDS[1])


def redescribe(key, value):
    def spoil(folder):
        table = pq.read_table(folder / SHARDS[1])
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, key: value}), folder / SHARDS[1])

    return spoil


def change_shard(folder, **changes):
    shards = json.loads((folder / MANIFEST_NAME).read_text())["sets"]["halo_count"]["shards"]
    change_entry(folder, shards=[{**shards[0], **changes}, *shards[1:]])


def change_generator(folder, generator):
    content = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**content, "generator": generator}))


def drop_last_shard_from_manifest(folder):
    content = json.loads((folder / MANIFEST_NAME).read_text())
    del content["sets"]["halo_count"]["shards"][1]
    (folder / MANIFEST_NAME).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (truncate, DatasetSourceError, rf"{SHARDS[1]}: cannot be read \(.+\); {FIX}"),
        (drop_a_column, DatasetMismatchError, rf"{SHARDS[1]}: has other columns than halo_count"),
        (lambda f: (f / SHARDS[1]).unlink(), DatasetSourceError, rf"{SHARDS[1]}: the shard is missing; {FIX}"),
        (lambda f: (f / SHARDS[1]).write_bytes(b""), DatasetSourceError, rf"{SHARDS[1]}: cannot be read"),
        (lambda f: shutil.copy(f / SHARDS[0], f / SHARDS[1]), DatasetMismatchError,
         "row 4 is halo_count-00000 with index 0 where halo_count-00004 should be"),
        (break_utf8, DatasetSourceError, rf"{SHARDS[1]}: cannot be read \(.*UTF8.*\); {FIX}"),
        (redescribe(b"huggingface", b"{}"), DatasetMismatchError, rf"{SHARDS[1]}: declares other features than halo_count"),
        (redescribe(b"halo_generator", b"0.1"), DatasetMismatchError, "or another generator; build or download"),
        (lambda f: change_generator(f, "9.9.9"), DatasetMismatchError, "halo_count of generator 9.9.9, or another"),
        (lambda f: change_generator(f, 1), DatasetMismatchError, "TypeError: generator is 1, not of type str"),
        (lambda f: change_entry(f, n="6"), DatasetMismatchError, "TypeError: n is '6', not of type int"),
        (lambda f: change_entry(f, seed=True), DatasetMismatchError, "TypeError: seed is True, not of type int"),
        (lambda f: change_entry(f, seed=5), DatasetMismatchError, "are of halo_count with seed 0, the entry says seed 5"),
        (lambda f: change_entry(f, parameters=[]), DatasetMismatchError, "parameters is .., not of type dict"),
        (lambda f: change_entry(f, content_sha256=None), DatasetMismatchError, "content_sha256 is None, not of type str"),
        (lambda f: change_entry(f, content_sha256="0"), DatasetMismatchError, "content_sha256 is '0', not a SHA-256"),
        (lambda f: change_shard(f, rows=4.0), DatasetMismatchError, "rows is 4.0, not of type int"),
        (lambda f: change_shard(f, sha256="x" * 64), DatasetMismatchError, "sha256 is 'x+', not a SHA-256"),
        (lambda f: change_shard(f, file=7), DatasetMismatchError, "file is 7, not of type str"),
        (lambda f: change_shard(f, file="../a.parquet"), DatasetMismatchError, "file is '../a.parquet', not data/halo_count/"),
        (drop_last_shard_from_manifest, DatasetMismatchError, "halo_count has 4 rows of content .* says 6 of"),
        (lambda f: change_entry(f, n=7), DatasetMismatchError, "halo_count has 6 rows of content .* says 7 of"),
        (lambda f: change_entry(f, content_sha256="0" * 64), DatasetMismatchError, "where the manifest says 6 of 0000"),
        (lambda f: change_entry(f, parameters={}), DatasetMismatchError,
         "the entry of halo_count in the manifest describes no set .set parameters: KeyError: 'counts'"),
        (lambda f: change_entry(f, shards=3), DatasetMismatchError, f"{MANIFEST_NAME}: is not a manifest"),
        (lambda f: (f / MANIFEST_NAME).write_text("{"), DatasetMismatchError, f"{MANIFEST_NAME}: is not a manifest"),
        (lambda f: (f / MANIFEST_NAME).write_bytes(b"\xff"), DatasetSourceError, f"{MANIFEST_NAME}: cannot be read"),
        (lambda f: (f / MANIFEST_NAME).unlink(), DatasetSourceError, f"holds no {MANIFEST_NAME}; build a set there with"),
    ],
)  # fmt: skip
def test_a_spoilt_folder_is_one_clear_line(spoil, error, message, folder):
    spoil(folder)
    with pytest.raises(error, match=message) as raised:
        load_set("halo_count", source=str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["no_such_folder", "/no/such/folder", "a/b/c", "bad name/x@1"])
def test_a_missing_folder_is_one_clear_line(source):
    with pytest.raises(
        DatasetSourceError, match=rf"^{source}: there is no such folder, and it is not ORG/NAME@REVISION;"
    ):
        load_set("halo_count", source=source)


@pytest.mark.parametrize(
    "change", [{"radius": 10.0}, {"question": ["How many?"]}, {"balanced": 0}, {"counts": [1, "2"]}]
)
def test_a_parameter_of_another_type_is_one_clear_line(change, folder):
    parameters = read_manifests(folder)["halo_count"].parameters
    change_entry(folder, parameters={**parameters, **change})
    with pytest.raises(
        DatasetMismatchError, match="describes no set .set parameters: TypeError: .+ is .+, not of type"
    ):
        load_set("halo_count", source=str(folder))


@pytest.mark.parametrize("source", ["~no-such-user-as-this/sets", "a" * 5000])
def test_a_name_that_the_system_refuses_is_one_clear_line(source):
    with pytest.raises(DatasetSourceError, match=r"cannot be looked for \(.+\); name a folder"):
        load_set("halo_count", source=source)


def test_a_folder_without_the_set_says_what_it_holds(small_sets):
    with pytest.raises(
        DatasetSourceError, match="holds no set halo_ocr, only halo_count, halo_count_wide, halo_relate;"
    ):
        load_set("halo_ocr", source=str(small_sets))


def test_an_unknown_built_in_set_is_a_usage_error():
    with pytest.raises(DatasetUsageError, match="no set is named 'halo_cuont'"):
        load_set("halo_cuont")


def test_a_hub_that_cannot_be_reached_is_one_clear_line(tmp_path):
    code = (
        "from dataset_builder.load import load_set; from dataset_builder.errors import DatasetError\n"
        "try: load_set('halo_count', source='nobody/nothing@main')\n"
        "except DatasetError as error: print(error)"
    )
    env = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_ETAG_TIMEOUT": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nobody/nothing@main: there is no such folder, and the Hub gives no such dataset (")
    assert done.stdout.endswith("); check name, revision, login and connection\n")
    assert done.stdout.count("\n") == 1


def test_every_error_of_the_builder_has_one_base():
    for error in (DatasetMismatchError, DatasetSourceError, DatasetUsageError):
        assert issubclass(error, DatasetError)
