"""How fast the paper's set is built, against the obvious way with Pillow, and in how much memory.

Run `python benchmarks/build_dataset.py`. Both ways draw the same layouts and write Parquet, the Pillow way with fewer
columns; times are processor seconds of one run, the best of `--repeats` that take turns, without the import of
libraries.
"""

import argparse
import hashlib
import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from dataset_builder.build import build_set
from dataset_builder.rows import Row, make_row
from dataset_builder.samples import Sample, draw_sample
from dataset_builder.sets import SETS
from dataset_builder.shards import shard_schema

_SPEC = SETS["halo_count"]
_MEGABYTE = 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=256, help="images of the comparison (%(default)s)")
    parser.add_argument("--long", type=int, default=4096, help="images of the long build (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (%(default)s)")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _build(folder / "warm", 1)
        before = _resident()
        ours, pillow = [], []
        for repeat in range(arguments.repeats):
            ours.append(_seconds(lambda at=folder / f"ours-{repeat}": _build(at, arguments.n)))
            pillow.append(_seconds(lambda at=folder / f"pillow-{repeat}.parquet": _build_with_pillow(at, arguments.n)))
        size = sum(path.stat().st_size for path in (folder / "ours-0").rglob("*.parquet"))
        long = _seconds(lambda: _build(folder / "long", arguments.long))
        resident = _resident()

    n, best, other = arguments.n, min(ours), min(pillow)
    print(f"halo_count, {n} images of {_SPEC.size} x {_SPEC.size}")
    print(f"  builder  {best:7.2f} s  {n / best:7.0f} images/s")
    print(f"  Pillow   {other:7.2f} s  {n / other:7.0f} images/s")
    print(f"  ratio    {other / best:7.1f} x")
    print(f"  bytes    {size / n:7.0f} per image in Parquet, {_png_bytes(n) / n:.0f} as PNG")
    print(f"a long build, {arguments.long} images")
    print(f"  builder  {long:7.2f} s  {arguments.long / long:7.0f} images/s")
    print(f"  resident {resident:7.0f} MB at most, {before:.0f} MB after the first image")


def _seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _resident() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEGABYTE if sys.platform == "darwin" else peak * 1024 / _MEGABYTE


def _build(folder: Path, n: int) -> None:
    build_set(_SPEC, folder, n=n)


def _png_bytes(n: int) -> int:
    return sum(len(make_row(_SPEC, draw_sample(_SPEC, index))["image"]["bytes"]) for index in range(n))


def _build_with_pillow(path: Path, n: int) -> None:
    rows = [_row_with_pillow(draw_sample(_SPEC, index)) for index in range(n)]
    schema = shard_schema(_SPEC)
    names = [name for name in schema.names if name in rows[0]]
    table = pa.Table.from_pylist(rows, schema=pa.schema([schema.field(name) for name in names]))
    pq.write_table(table, path)


def _row_with_pillow(sample: Sample) -> Row:
    image = Image.new("L", (_SPEC.size, _SPEC.size), sample.background)
    draw = ImageDraw.Draw(image)
    for (x, y), level in zip(sample.centers, sample.intensities, strict=True):
        draw.ellipse((x - _SPEC.radius, y - _SPEC.radius, x + _SPEC.radius, y + _SPEC.radius), fill=level)
    file = io.BytesIO()
    image.save(file, "PNG")
    return {
        "id": str(sample.index),
        "index": sample.index,
        "image": {"bytes": file.getvalue(), "path": None},
        "question": _SPEC.question,
        "answer": sample.answer,
        "count": sample.count,
        "centers": [list(center) for center in sample.centers],
        "intensities": list(sample.intensities),
        "pixel_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        "png_sha256": hashlib.sha256(file.getvalue()).hexdigest(),
    }


if __name__ == "__main__":
    main()
