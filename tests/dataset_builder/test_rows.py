"""Rows: every column against an independent reference, and golden hashes of the first rows of each set."""

import hashlib
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import KDTree

from dataset_builder.rows import PATCHES, canonical_line, features_of, make_row, row_id, sample_of
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS

GOLDEN = {
    "halo_count": ["01c82a45fae7fe59", "7d7bd092c56f3f53", "961ff8583bbaab61"],
    "halo_count_balanced": ["0e799875dac9feff", "524f9b2aa5d0ea7d", "b6269938187a01af"],
    "halo_count_single": ["e4196199b3e964c7", "a603b582949dbeee", "e548721e5b7ad485"],
    "halo_count_wide": ["0881f7e1c6f36026", "6f404c7d23cc82a1", "af17bb3c74712c84"],
    "halo_count_three": ["796180673aea831a", "a63b836c8f2d0121", "176ab02c8eedab0f"],
    "halo_count_blank": ["521c62667aa04f12", "cf331c6f9a3662da", "2bef5a57bfb6ddb8"],
    "halo_count_large": ["9e4c64d0fdc702a2", "c16f01c97a81f2e4", "37591ba0d31b06cd"],
    "halo_layout_annulus": ["583b6039cd81ecc2", "b517b6c90bb2448b", "0c734bdbd5ec2522"],
    "halo_layout_center": ["05626f95874e28ff", "2a84f5805a7a470a", "22fc3cc1d1be2ce4"],
    "halo_layout_grid": ["a15cf0d890a50c96", "37183cd63f78a885", "701b9e12c96014f5"],
    "halo_enhance_base": ["6b46dc033bcb0d58", "1c512645fff553d4", "c13bff22a7a45ccc"],
    "halo_enhance_outline": ["167cc81df203877c", "0a00a00e096c1bec", "2603130342a14f74"],
    "halo_enhance_r20": ["c38667b379117097", "2640fbe8860953d2", "44ff1433fb93d7cf"],
    "halo_enhance_r32": ["5886460d1bd48854", "3da6ab9cc758c3be", "977b28a78a028ea4"],
    "halo_enhance_grid": ["0816953582006bdf", "07b52a94b82d3c43", "e37a0c530d48a412"],
    "halo_enhance_crosshair": ["edba7e861dde06e8", "05674d896e72a0bb", "e71d05a38efd74f9"],
    "halo_enhance_invert": ["70a83e6334f79273", "23d3ba6031f17e8f", "112ee5a9cac57156"],
    "halo_count_noise": ["7cb504049f9ebf78", "ee725cc0b94b93bd", "bc8abfe468884f31"],
    "halo_ocr": ["a9e7d3c01f0584ce", "8f8ac6c73fbb031a", "592e3ff9201cb5c0"],
    "halo_relate": ["978c23b3af9f485e", "d9b771b61bdf0a88", "53b5b8abf3bd62bc"],
}


def row_of(name, index):
    return make_row(SETS[name], draw_sample(SETS[name], index))


@pytest.mark.parametrize("name", SETS)
def test_the_first_rows_of_each_set_are_golden(name):
    assert [hashlib.sha256(canonical_line(row_of(name, index))).hexdigest()[:16] for index in range(3)] == GOLDEN[name]


@pytest.mark.parametrize("name", SETS)
def test_a_row_describes_its_image(name):
    row = row_of(name, 1)
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        assert image.format == "PNG"
        assert image.mode == ("RGB" if name == "halo_relate" else "L")
        assert image.size == (row["width"], row["height"]) == (1024, 1024)
        assert hashlib.sha256(np.asarray(image).tobytes()).hexdigest() == row["pixel_sha256"]
    assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["png_sha256"]
    assert (row["id"], row["index"]) == (f"{name}-00001", 1)
    assert row["layout_id"] == f"{SETS[name].layout_of or name}-00001"
    assert row["question"] == SETS[name].question
    assert json.loads(row["parameters"])["name"] == name
    assert list(row) == list(features_of(SETS[name]))


@pytest.mark.parametrize("name", [name for name, spec in SETS.items() if spec.kind == "dots"])
def test_a_row_of_dots_holds_what_analysis_needs(name):
    row = row_of(name, 2)
    centers = np.array(row["centers"])
    assert row["answer"] == str(row["count"]) == str(len(centers))
    assert len(row["intensities"]) == len(centers)
    assert row["radius"] == SETS[name].radius
    np.testing.assert_allclose(row["nearest_distance"], KDTree(centers).query(centers, k=2)[0][:, 1], rtol=1e-15)
    assert set(row["hull"]) <= set(range(len(centers)))
    for patch in PATCHES:
        np.testing.assert_array_equal(row[f"offsets_{patch}"], centers % patch)


def test_the_geometry_of_a_row_gives_the_row_again():
    for name in SETS:
        row = row_of(name, 0)
        assert make_row(SETS[name], sample_of(row)) == row


def test_ids_are_unique_and_sort_by_index():
    ids = [row_id("halo_count", index) for index in range(0, 100_000, 999)]
    assert max(Counter(ids).values()) == 1
    assert ids == sorted(ids)


def test_a_canonical_line_is_one_line_of_ascii_json_without_the_image():
    row = row_of("halo_count_single", 3)
    line = canonical_line(row)
    assert line.count(b"\n") == 1
    assert line.isascii()
    described = json.loads(line)
    assert described == {name: value for name, value in row.items() if name != "image"}
    assert list(described) == sorted(described)
