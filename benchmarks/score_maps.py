"""How fast a run is scored: `halo-probe score` on all layers of a large model, with and without the null.

Run `python benchmarks/score_maps.py`. The maps are random, on the layouts of the paper's set, stored as a run stores
them. Times are those of the whole command: seconds on the clock, and processor seconds of all its processes, which do
not depend on what else the machine does. The ratios are those of processor time, against scoring one map on one layout
at a time with the functions of `halo_probe.metrics`, measured in the same run on `--sample` maps.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.load import load_set
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
from halo_probe.metrics.geometry import Layout, lay_out
from halo_probe.metrics.null import choose_others
from halo_probe.metrics.sparsity import entropy, gini, kl_uniform, sparsity_eq2, sparsity_g16, sparsity_norm
from halo_probe.metrics.spatial import spatial_metrics
from halo_probe.metrics.structure import ck, ck_mass30, ck_obj, hs

_TASK = "halo_count"
_SPEC = SETS[_TASK]
_STEPS = 3
_PART_DOCUMENTS = 32

Maps = NDArray[np.float32]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=256, help="images (%(default)s)")
    parser.add_argument("--layers", type=int, default=36, help="layers recorded (%(default)s)")
    parser.add_argument("--side", type=int, default=32, help="rows and columns of image tokens (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--sample", type=int, default=40, help="maps scored one at a time (%(default)s)")
    arguments = parser.parse_args()

    n, layers, side = arguments.documents, arguments.layers, arguments.side
    total = n * _STEPS * layers
    load_set(_TASK)  # built at its first use
    with tempfile.TemporaryDirectory() as folder:
        _write_run(Path(folder), n, layers=layers, side=side)
        program = str(Path(sys.executable).with_name("halo-probe"))
        command = [program, "score", folder, "--workers", str(arguments.workers)]
        plain, null = _measure(command), _measure([*command, "--null"])
        assert pq.read_metadata(Path(folder) / "scores.parquet").num_rows == total
    score_slowly, null_slowly = _one_by_one(n, layers=layers, side=side, sample=arguments.sample)

    print(f"{n} documents x {_STEPS} steps x {layers} layers = {total} maps of {side} x {side}")
    for name, (clock, processor), slowly in (
        ("every metric", plain, score_slowly * total),
        ("and the null", null, (score_slowly + null_slowly) * total),
    ):
        ratio = slowly / processor
        print(f"  {name}  {clock:6.1f} s on the clock  {processor:6.1f} s of processors  ratio {ratio:6.1f} x")


def _measure(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock and of processors that a command takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def _maps(index: int, *, layers: int, side: int) -> Maps:
    """Attention with sinks, as that of a document: (steps, layers, M)."""
    weights = np.random.default_rng(index).lognormal(0, 1.5, (_STEPS, layers, side * side))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def _write_run(folder: Path, n: int, *, layers: int, side: int) -> None:
    signature = {"model": {"layers": layers}, "tasks": {_TASK: {"dataset_sha256": CONTENT_SHA256[_TASK]}}}
    (folder / "halo").mkdir()
    for number, start in enumerate(range(0, n, _PART_DOCUMENTS)):
        documents = [_rows(index, layers=layers, side=side) for index in range(start, min(start + _PART_DOCUMENTS, n))]
        table = pa.concat_tables(documents).replace_schema_metadata({"halo_probe": json.dumps(signature)})
        pq.write_table(table, folder / "halo" / f"part-{number:05d}.parquet", compression="zstd")


def _rows(index: int, *, layers: int, side: int) -> pa.Table:
    maps = _maps(index, layers=layers, side=side)
    m, rows = maps.shape[-1], _STEPS * layers
    stored = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * m, pa.int32()), pa.array(maps.ravel()))
    halves = pa.ListArray.from_arrays(stored.offsets, pa.array(maps.ravel() / 2))
    numbers = {
        "doc_id": np.full(rows, index),
        "repeat": np.zeros(rows, np.int32),
        "call": np.zeros(rows, np.int32),
        "step": np.repeat(np.arange(_STEPS, dtype=np.int32), layers),
        "layer": np.tile(np.arange(layers, dtype=np.int32), _STEPS),
        "end": np.repeat(np.arange(_STEPS) == _STEPS - 1, layers),
        "visual_mass": np.full(rows, 0.5, np.float32),
        "visible": np.full(rows, m, np.int32),
    }
    words = {"task": [_TASK] * rows, "layer_type": ["full_attention"] * rows, "grid": [[[side, side]]] * rows}
    return pa.table({**numbers, **words, "map_eq1": stored, "map_raw": halves})


def _one_by_one(n: int, *, layers: int, side: int, sample: int) -> tuple[float, float]:
    """Processor seconds that a map takes alone: every metric, and the scores of its null on one layout at a time."""
    threadpool_limits(1)
    layouts = list(_layouts(n, side))
    counts = [len(layout.hull_dots) for layout in layouts]
    places = islice(product(range(n), range(_STEPS), range(layers)), sample)
    alone = [(_maps(index, layers=layers, side=side)[step, layer], index) for index, step, layer in places]
    start = time.process_time()
    for attention, index in alone:
        _score(attention, layouts[index])
    middle = time.process_time()
    compared = alone[:4]
    for attention, index in compared:
        for other in choose_others(counts, index):
            spatial_metrics(attention, layouts[other])
    return (middle - start) / len(alone), (time.process_time() - middle) / len(compared)


def _layouts(n: int, side: int) -> Iterator[Layout]:
    image = (_SPEC.size, _SPEC.size)
    for sample in (draw_sample(_SPEC, index) for index in range(n)):
        yield lay_out(sample.centers, radius=_SPEC.radius, image=image, grid=(side, side))


def _score(attention: Maps, layout: Layout) -> None:
    for metric in (gini, sparsity_eq2, sparsity_norm, entropy, kl_uniform, hs):
        metric(attention)
    sparsity_g16(attention, height=layout.grid[0], width=layout.grid[1])
    for clusters in (ck, ck_mass30, ck_obj):
        clusters(attention, grid=layout.grid)
    spatial_metrics(attention, layout)


if __name__ == "__main__":
    main()
