"""Verifying: nothing is said of a right folder, and each way of being wrong is found and named."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset_builder.build import build_set
from dataset_builder.errors import DatasetSourceError
from dataset_builder.manifest import MANIFEST_NAME, read_manifests, write_manifests
from dataset_builder.png import encode_png
from dataset_builder.rows import canonical_line, make_row, sample_of
from dataset_builder.sets import SETS, SetSpec, parameters_of
from dataset_builder.verify import verify

SPEC = replace(SETS["halo_count"], n=6)
SHARD = "data/halo_count/test-00000-of-00002.parquet"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build_set(SPEC, folder, shard_rows=3)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "folder"))


def change_rows(folder: Path, change: Callable[[list[dict]], object], *, cover_up: bool = False) -> None:
    """Change the rows of the first shard; covering up, give the manifest the hashes of what is there then."""
    path = folder / SHARD
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    if cover_up:
        manifest = read_manifests(folder)["halo_count"]
        lines = [
            [canonical_line(row) for row in pq.read_table(folder / shard.file).to_pylist()] for shard in manifest.shards
        ]
        shards = tuple(
            replace(shard, sha256=hashlib.sha256(b"".join(of)).hexdigest())
            for shard, of in zip(manifest.shards, lines, strict=True)
        )
        content = hashlib.sha256(b"".join(line for of in lines for line in of)).hexdigest()
        write_manifests(folder, [replace(manifest, shards=shards, content_sha256=content)])


def test_nothing_is_said_of_a_right_folder_of_any_kind_of_set(tmp_path):
    for name, spec in SETS.items():
        build_set(spec, tmp_path, n=1 if "noise" in name else 3)
    build_set(SetSpec(name="mine", counts=(20, 40), radius=8, gap=16, size=768, seed=7), tmp_path, n=2)
    assert verify(tmp_path) == []


def test_nothing_is_said_of_the_whole_papers_set(tmp_path):
    build_set(SETS["halo_count"], tmp_path)
    assert verify(str(tmp_path)) == []


def flip(rows):
    with Image.open(io.BytesIO(rows[1]["image"]["bytes"])) as image:
        pixels = np.array(image)
    pixels[700, 30] ^= 1
    png = encode_png(pixels)
    rows[1] |= {
        "image": {"bytes": png, "path": None},
        "png_sha256": hashlib.sha256(png).hexdigest(),
        "pixel_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def test_one_flipped_pixel_is_found_even_if_every_hash_is_covered_up(folder):
    change_rows(folder, flip, cover_up=True)
    differences = verify(folder)
    assert "halo_count-00001: 1 pixel values differ from its geometry, the first at x 30, y 700" in differences
    assert all(line.startswith("halo_count-00001: ") for line in differences)
    assert len(differences) == 3  # the pixels and the two hashes of them


def move(rows):
    rows[2]["centers"][0][0] += 1


def test_one_moved_centre_is_found(folder):
    change_rows(folder, move, cover_up=True)
    differences = verify(folder)
    assert any(
        line.startswith("halo_count-00002: centers is ") and "the generator draws" in line for line in differences
    )
    assert any("halo_count-00002: " in line and "pixel values differ from its geometry" in line for line in differences)


def move_and_redraw(rows):
    move(rows)
    rows[2] = make_row(SPEC, sample_of(rows[2]))


def test_a_moved_centre_is_found_even_if_all_else_was_made_to_fit(folder):
    change_rows(folder, move_and_redraw, cover_up=True)
    [difference] = verify(folder)
    assert difference.startswith("halo_count-00002: centers is ")


def mislabel(rows):
    rows[0] |= {"count": rows[0]["count"] + 1, "answer": str(rows[0]["count"] + 1)}


def test_a_wrong_label_is_found(folder):
    change_rows(folder, mislabel, cover_up=True)
    differences = verify(folder)
    assert any(line.startswith("halo_count-00000: count is ") for line in differences)
    assert any("halo_count-00000: count" in line and "do not fit the" in line for line in differences)


def test_a_wrong_answer_is_found(folder):
    change_rows(folder, lambda rows: rows[0].update(answer="7"), cover_up=True)
    assert any(line.startswith("halo_count-00000: answer is 7") for line in verify(folder))


def test_a_missing_shard_is_found(folder):
    (folder / SHARD).unlink()
    differences = verify(folder)
    assert any(f"{SHARD}: the shard is missing" in line for line in differences)
    assert any("holds 0 rows" in line and "the manifest says 3" in line for line in differences)
    assert any("the manifest says 6 of" in line for line in differences)


def test_swapped_rows_are_found(folder):
    change_rows(folder, lambda rows: rows.insert(0, rows.pop(1)), cover_up=True)
    differences = verify(folder)
    assert differences == [
        "halo_count-00000: halo_count-00001 with index 1 is in its place",
        "halo_count-00001: halo_count-00000 with index 0 is in its place",
    ]


def test_swapped_images_are_found(folder):
    def swap(rows):
        for column in ("image", "png_sha256", "pixel_sha256"):
            rows[0][column], rows[1][column] = rows[1][column], rows[0][column]

    change_rows(folder, swap, cover_up=True)
    for name in ("halo_count-00000", "halo_count-00001"):
        assert any(line.startswith(name) and "pixel values differ" in line for line in verify(folder))


def test_a_stale_cache_is_found_old_shards_under_a_new_manifest(folder, tmp_path):
    build_set(replace(SPEC, seed=7), tmp_path / "new", shard_rows=3)
    shutil.copy(tmp_path / "new" / MANIFEST_NAME, folder / MANIFEST_NAME)
    differences = verify(folder)
    assert any("halo_count-00000: centers is " in line for line in differences)
    assert any("halo_count-00000: parameters is " in line for line in differences)
    assert any(f"{SHARD}: holds 3 rows of content" in line for line in differences)


def test_a_stale_cache_is_found_an_old_folder_after_a_new_one_was_verified(tmp_path):
    build_set(replace(SPEC, seed=7), tmp_path, n=2)
    assert verify(tmp_path) == []
    kept = (tmp_path / "data/halo_count/test-00000-of-00001.parquet").read_bytes()
    build_set(SPEC, tmp_path, n=2)
    assert verify(tmp_path) == []
    (tmp_path / "data/halo_count/test-00000-of-00001.parquet").write_bytes(kept)
    assert verify(tmp_path) != []


def test_a_file_that_is_left_over_is_found(folder):
    shutil.copy(folder / SHARD, folder / "data/halo_count/test-00002-of-00003.parquet")
    [difference] = verify(folder)
    assert difference.endswith("test-00002-of-00003.parquet: is not in the manifest")


def test_the_whole_set_of_another_content_than_the_published_is_found(tmp_path):
    spec = replace(SETS["halo_count_blank"], seed=1)
    manifest = build_set(spec, tmp_path)
    write_manifests(tmp_path, [replace(manifest, seed=0, parameters={**manifest.parameters, "seed": 0})])
    differences = verify(tmp_path)
    assert any(
        line.startswith("halo_count_blank: has content ") and line.endswith(" is published") for line in differences
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["centers"].__setitem__(0, [5, 500]), "a centre is not in the margins 10..1013"),
        (lambda row: row["centers"].__setitem__(0, [9999, -3]), "a centre is not in the margins 10..1013"),
        (lambda row: row["centers"].__setitem__(1, [row["centers"][0][0] + 39, row["centers"][0][1]]),
         "two centres are 39.00 px apart, at least 40 is asked"),
        (lambda row: row["centers"].__setitem__(0, [5]), "centers is [[5], "),
        (lambda row: row["intensities"].pop(), "intensities and answer"),
        (lambda row: row["intensities"].__setitem__(0, 300), "are not all in 0..255"),
        (lambda row: row.update(background=-1), "are not all in 0..255"),
        (lambda row: row["hull"].pop(), "hull is "),
        (lambda row: row["nearest_distance"].__setitem__(0, None), "nearest_distance is "),
        (lambda row: row["offsets_28"].pop(), "offsets_28 is "),
        (lambda row: row.update(question="How many?"), "question is How many?, its geometry gives How many dots"),
        (lambda row: row.update(layout_id="x"), "layout_id is x"),
        (lambda row: row.update(radius=11), "radius is 11, its geometry gives 10"),
        (lambda row: row.update(noise=True), "noise is True, the generator draws False"),
        (lambda row: row["image"].update(bytes=b"no image"), "the image cannot be decoded"),
        (lambda row: row["image"].update(bytes=encode_png(np.zeros((5, 5), np.uint8))), "the image has shape (5, 5)"),
    ],
)  # fmt: skip
def test_any_column_that_does_not_fit_is_named(change, message, folder):
    change_rows(folder, lambda rows: change(rows[1]))
    assert any(line.startswith("halo_count-00001: ") and message in line for line in verify(folder))


def test_a_png_of_the_same_pixels_in_other_bytes_is_found(folder):
    def rewrite(rows):
        with Image.open(io.BytesIO(rows[0]["image"]["bytes"])) as image:
            file = io.BytesIO()
            image.save(file, "PNG")
        rows[0]["image"]["bytes"] = file.getvalue()

    change_rows(folder, rewrite)
    assert "halo_count-00000: the PNG bytes differ, though the pixels are those of its geometry" in verify(folder)


def test_a_wrong_relation_is_found(tmp_path):
    spec = replace(SETS["halo_relate"], n=2)
    build_set(spec, tmp_path)
    path = next(tmp_path.rglob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["answer"] = {"left": "right", "right": "left", "above": "below", "below": "above"}[rows[0]["answer"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    assert any("halo_relate-00000: count 2 and answer" in line for line in verify(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "the entry says seed 3"),
        ({"parameters": {"counts": [1, 2]}}, "set parameters: "),
        ({"parameters": {**parameters_of(SPEC), "kind": "dot"}}, "kind 'dot'"),
        ({"n": 9}, "the manifest says 9 of"),
    ],
)
def test_a_manifest_that_does_not_agree_with_itself_is_found(changes, message, folder):
    write_manifests(folder, [replace(read_manifests(folder)["halo_count"], **changes)])
    assert any(message in line for line in verify(folder))


def test_a_set_of_the_study_with_other_parameters_is_found(tmp_path):
    build_set(replace(SETS["halo_count"], radius=8), tmp_path, n=2)
    assert "halo_count: the parameters are not those of the set of the study of this name" in verify(tmp_path)


def test_a_set_of_another_generator_is_named_and_not_compared(folder):
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "generator": "0.3.1"}))
    [difference] = verify(folder)
    assert difference.startswith("halo_count: is of generator 0.3.1, this is ")


def test_a_source_without_a_manifest_is_an_error(tmp_path):
    with pytest.raises(DatasetSourceError, match="holds no MANIFEST.json"):
        verify(tmp_path)


def test_a_manifest_says_the_same_after_writing_and_reading(folder):
    manifest = read_manifests(folder)["halo_count"]
    write_manifests(folder, [manifest])
    assert asdict(read_manifests(folder)["halo_count"]) == asdict(manifest)


def change_first_number(folder: Path, change: Callable[[dict], object]) -> list[str]:
    build_set(replace(SETS["halo_ocr"], n=2), folder)
    path = next(folder.rglob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return verify(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["centers"].__setitem__(0, [79, 500]), "not in the margins 80..944 and 112..912"),
        (lambda row: row["centers"].__setitem__(0, [945, 500]), "not in the margins 80..944 and 112..912"),
        (lambda row: row["centers"].__setitem__(1, [500, 111]), "not in the margins 80..944 and 112..912"),
        (lambda row: row["centers"].__setitem__(1, [500, 913]), "not in the margins 80..944 and 112..912"),
        (lambda row: row["centers"].__setitem__(1, [1020, 1020]), "not in the margins 80..944 and 112..912"),
        (lambda row: row["centers"].__setitem__(0, [80, 112]), "pixel values differ from its geometry"),
        (lambda row: row["centers"].__setitem__(0, [944, 912]), "pixel values differ from its geometry"),
        (lambda row: row.update(answer="ab"), "count "),
        (lambda row: row.update(answer="-5", count=-5), "count -5 and answer -5 do not fit"),
    ],
)
def test_a_number_that_cannot_be_drawn_there_is_named(change, message, tmp_path):
    assert any(
        line.startswith("halo_ocr-00000: ") and message in line for line in change_first_number(tmp_path, change)
    )


def test_noise_that_would_be_clipped_is_named(tmp_path):
    build_set(replace(SETS["halo_count_noise"], n=1), tmp_path)
    path = next(tmp_path.rglob("*.parquet"))
    table = pq.read_table(path)
    row = table.to_pylist()[0] | {"background": 5}
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema), path)
    assert any(line.startswith("halo_count_noise-00000: background 5 and") for line in verify(tmp_path))


@pytest.mark.parametrize("stray", ["data/stray.parquet", "data/other/test-00000-of-00001.parquet"])
def test_a_file_under_data_that_no_set_lists_is_found(stray, folder):
    (folder / stray).parent.mkdir(exist_ok=True)
    (folder / stray).touch()
    assert verify(folder) == [f"{folder / stray}: is not in the manifest"]


def test_a_set_that_was_dropped_from_the_manifest_is_found_and_a_manifest_of_none_too(folder):
    shards = sorted((folder / "data/halo_count").iterdir())
    write_manifests(folder, [])
    assert verify(folder) == [
        f"{folder / MANIFEST_NAME}: lists no set",
        *(f"{shard}: is not in the manifest" for shard in shards),
    ]


def test_cells_that_cannot_be_compared_are_one_line(folder):
    change_rows(folder, lambda rows: rows[0]["nearest_distance"].__setitem__(0, float("nan")))
    assert f"{folder / SHARD}: has cells that are no numbers in nearest_distance; build the set again" in verify(folder)
    table = pq.read_table(folder / SHARD)
    broken = pa.array([b"\xff"] * table.num_rows, pa.binary()).view(pa.string())
    place = table.schema.get_field_index("answer")
    pq.write_table(table.set_column(place, table.schema.field(place), broken), folder / SHARD)
    assert any(line.startswith(f"{folder / SHARD}: cannot be read (") for line in verify(folder))
