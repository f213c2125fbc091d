"""Verify a folder or a repository: draw and render every row again, and say all that differs."""

import hashlib
import io
from collections.abc import Collection, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builder.errors import DatasetMismatchError, DatasetSourceError
from dataset_builder.geometry import closest_pair
from dataset_builder.glyphs import GLYPH_HEIGHT, GLYPH_WIDTH, glyph_scale
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.manifest import MANIFEST_NAME, Manifest, read_manifests
from dataset_builder.placement import Centers
from dataset_builder.png import Pixels
from dataset_builder.render import render
from dataset_builder.rows import IMAGE, Row, canonical_line, make_row, row_id, sample_of
from dataset_builder.samples import Sample, draw_sample
from dataset_builder.sets import SETS, SetSpec
from dataset_builder.shards import read_batches
from dataset_builder.sources import find_source
from dataset_builder.version import GENERATOR_VERSION

if TYPE_CHECKING:
    from tqdm import tqdm

_BRIGHTEST = 255
_NOISE_REACH = 23
_LONGEST_VALUE = 80


def verify(source: str | Path, *, progress: bool = False) -> list[str]:
    """Compare every row of every set of a source with what the generator makes of its number and of its geometry.

    Args:
        source: A folder, or `ORG/NAME` or `ORG/NAME@REVISION` on the Hub.
        progress: Whether to show a bar with rate and time left on stderr.

    Returns:
        One line for each difference, in the order of the rows; empty if there is none. Compared are the order of the
        rows, pixels, PNG bytes, labels, geometry, gaps, margins, every derived column, the rows, shards and hashes
        of the manifest, and the files under `data/`. A manifest that lists no set is a difference too.

    Raises:
        DatasetSourceError: If there is no such source, or it has no manifest.
        DatasetMismatchError: If the manifest does not say what it has to.
    """
    from tqdm import tqdm

    folder = find_source(str(source))
    manifests = read_manifests(folder)
    with tqdm(total=sum(manifest.n for manifest in manifests.values()), unit="image", disable=not progress) as bar:
        differences = [line for manifest in manifests.values() for line in _set_differences(folder, manifest, bar=bar)]
    return [*differences, *_folder_differences(folder, manifests.values())]


def _folder_differences(folder: Path, manifests: Collection[Manifest]) -> Iterator[str]:
    if not manifests:
        yield f"{folder / MANIFEST_NAME}: lists no set"
    listed = {folder / shard.file for manifest in manifests for shard in manifest.shards}
    for path in sorted(set((folder / "data").rglob("*")) - listed):
        if not path.is_dir():
            yield f"{path}: is not in the manifest"


def _set_differences(folder: Path, manifest: Manifest, *, bar: "tqdm[Any]") -> Iterator[str]:
    name = manifest.name
    if manifest.generator.split(".")[0] != GENERATOR_VERSION.split(".")[0]:
        yield f"{name}: is of generator {manifest.generator}, this is {GENERATOR_VERSION}; verify it with that version"
        return
    try:
        spec = manifest.spec
    except DatasetMismatchError as error:
        yield f"{name}: {error}"
        return
    yield from _study_faults(manifest)
    content = hashlib.sha256()
    start = 0
    for shard in manifest.shards:
        digest = hashlib.sha256()
        rows = 0
        try:
            for batch in read_batches(folder / shard.file, spec, generator=manifest.generator):
                for row in batch.to_pylist():
                    yield from _row_differences(row, spec, index=start + rows)
                    rows += 1
                    line = canonical_line(row)
                    content.update(line)
                    digest.update(line)
                    bar.update()
        except (DatasetSourceError, DatasetMismatchError) as error:
            yield str(error)
        if (rows, digest.hexdigest()) != (shard.rows, shard.sha256):
            yield (
                f"{folder / shard.file}: holds {rows} rows of content {digest.hexdigest()}, "
                f"the manifest says {shard.rows} of {shard.sha256}"
            )
        start += shard.rows
    if (start, content.hexdigest()) != (manifest.n, manifest.content_sha256):
        yield (
            f"{name}: the shards are of {start} rows of content {content.hexdigest()}, "
            f"the manifest says {manifest.n} of {manifest.content_sha256}"
        )


def _study_faults(manifest: Manifest) -> Iterator[str]:
    """What an entry says that does not agree with the set of the study of its name."""
    name, spec = manifest.name, manifest.spec
    if name not in SETS:
        return
    if spec != replace(SETS[name], seed=spec.seed, n=spec.n):
        yield f"{name}: the parameters are not those of the set of the study of this name"
    elif spec == SETS[name] and manifest.content_sha256 != CONTENT_SHA256[name]:
        yield f"{name}: has content {manifest.content_sha256}, {CONTENT_SHA256[name]} is published"


def _row_differences(row: Row, spec: SetSpec, *, index: int) -> Iterator[str]:
    """What is wrong with one row, the place of which is `index`."""
    name = row_id(spec.name, index)
    if (row["id"], row["index"]) != (name, index):
        yield f"{name}: {row['id']} with index {row['index']} is in its place"
    if any(len(center) != 2 for center in row["centers"]):  # noqa: PLR2004 - x and y
        yield f"{name}: centers is {_short(row['centers'])}, not of pairs"
        return
    published = sample_of(row)
    drawn = draw_sample(spec, published.index)
    for field in fields(Sample):
        value, expected = getattr(published, field.name), getattr(drawn, field.name)
        if value != expected:
            yield f"{name}: {field.name} is {_short(value)}, the generator draws {_short(expected)}"
    faults = list(_geometry_faults(spec, published))
    yield from (f"{name}: {fault}" for fault in faults)
    if faults:
        return
    rendered = make_row(spec, published)
    for column, expected in rendered.items():
        if column != IMAGE and row[column] != expected:
            yield f"{name}: {column} is {_short(row[column])}, its geometry gives {_short(expected)}"
    if row[IMAGE]["bytes"] != rendered[IMAGE]["bytes"]:
        yield f"{name}: {_image_difference(row[IMAGE]['bytes'], render(spec, published))}"


def _geometry_faults(spec: SetSpec, sample: Sample) -> Iterator[str]:
    """What speaks against a geometry by itself: labels, margins and gaps."""
    placed = SETS[spec.layout_of] if spec.layout_of else spec
    centers = sample.centers
    labels = {
        "dots": (len(centers), str(len(centers))),
        "blank": (0, "0"),
        "number": (sample.count, str(sample.count)),
        "relation": (2, _relation(centers)),
    }[spec.kind]
    if (sample.count, sample.answer) != labels or (spec.kind == "number" and not sample.answer.isdecimal()):
        yield f"count {sample.count} and answer {sample.answer} do not fit the {len(centers)} centres"
    if len(sample.intensities) != len(centers) or (spec.kind == "number" and len(centers) != len(sample.answer)):
        yield f"{len(centers)} centres do not fit {len(sample.intensities)} intensities and answer {sample.answer}"
    reach = _NOISE_REACH if sample.noise else 0
    if not reach <= sample.background <= _BRIGHTEST - reach or not all(
        0 <= level <= _BRIGHTEST for level in sample.intensities
    ):
        yield f"background {sample.background} and intensities {_short(sample.intensities)} are not all in 0..255"
    across, down = _margins(placed)
    if not all(x in across and y in down for x, y in centers):
        margins = " and ".join(f"{margin.start}..{margin.stop - 1}" for margin in dict.fromkeys((across, down)))
        yield f"a centre is not in the margins {margins}: {_short(centers)}"
    least = 2 * placed.radius + placed.gap
    if closest_pair(centers) < least:
        yield f"two centres are {closest_pair(centers):.2f} px apart, at least {least} is asked"


def _margins(spec: SetSpec) -> tuple[range, range]:
    """The x and the y that a centre may have: a dot, or the box of a digit, lies whole in the image."""
    if spec.kind != "number":
        margin = range(spec.radius, spec.size - spec.radius)
        return margin, margin
    scale = glyph_scale(spec.size)
    width, height = GLYPH_WIDTH * scale, GLYPH_HEIGHT * scale
    across = range(width // 2, spec.size - width + width // 2 + 1)
    return across, range(height // 2, spec.size - height + height // 2 + 1)


def _relation(centers: Centers) -> str:
    """Where the first of two dots is, seen from the second, by the longer way between them."""
    if len(centers) != 2:  # noqa: PLR2004 - a black dot and a red one
        return ""
    (x, y), (u, v) = centers
    if abs(x - u) > abs(y - v):
        return "left" if x < u else "right"
    return "above" if y < v else "below"


def _image_difference(png: bytes, rendered: Pixels) -> str:
    """How an image that is not the rendered one differs from it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"the image cannot be decoded ({error})"
    if pixels.shape != rendered.shape:
        return f"the image has shape {pixels.shape}, its geometry gives {rendered.shape}"
    places = np.argwhere(pixels != rendered)
    if not places.size:
        return "the PNG bytes differ, though the pixels are those of its geometry"
    y, x = places[0, :2]
    return f"{len(places)} pixel values differ from its geometry, the first at x {x}, y {y}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
