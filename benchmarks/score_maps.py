"""How fast attention maps are scored: every metric of a map on its grid, with and without the null.

Run `python benchmarks/score_maps.py`. The maps are random, on the layouts of the paper's set. Times are of one run in
`--processes` processes of one BLAS thread each, without the import of libraries and the making of the maps: seconds on
the clock, and processor seconds over the number of processes, which is what a quiet machine takes. The ratios are those
of processor time, against scoring one map on one layout at a time, measured in the same run on `--sample` maps.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
from halo_probe.metrics.geometry import Layout, lay_out
from halo_probe.metrics.null import choose_others, compare_with_null
from halo_probe.metrics.sparsity import entropy, gini, kl_uniform, sparsity_eq2, sparsity_g16, sparsity_norm
from halo_probe.metrics.spatial import spatial_metrics
from halo_probe.metrics.structure import ck, ck_mass30, ck_obj, hs

_SPEC = SETS["halo_count"]
_STEPS = 3

Maps = NDArray[np.float32]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=256, help="images (%(default)s)")
    parser.add_argument("--layers", type=int, default=36, help="layers recorded (%(default)s)")
    parser.add_argument("--side", type=int, default=32, help="rows and columns of image tokens (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--sample", type=int, default=40, help="maps scored one at a time (%(default)s)")
    arguments = parser.parse_args()

    n, side, processes = arguments.documents, arguments.side, arguments.processes
    maps = [_maps(index, layers=arguments.layers, side=side) for index in range(n)]
    total = n * _STEPS * arguments.layers

    score, compare, one_by_one = (partial(work, n=n, side=side) for work in (_score, _compare, _one_by_one))
    with ProcessPoolExecutor(processes, initializer=_one_thread) as pool:
        start = time.perf_counter()
        scored = sum(pool.map(score, maps, range(n), chunksize=4)) / processes
        middle = time.perf_counter()
        compared = sum(pool.map(compare, maps, range(n), chunksize=4)) / processes
        stop = time.perf_counter()

    _one_thread()
    _layouts(n, side)
    single = list(islice(product(range(n), range(_STEPS), range(arguments.layers)), arguments.sample))
    score_slowly = np.mean([score(maps[i][step, layer], i) for i, step, layer in single]) * total / processes
    null_slowly = np.mean([one_by_one(maps[i][step, layer], i) for i, step, layer in single[:4]]) * total / processes

    print(f"{n} documents x {_STEPS} steps x {arguments.layers} layers = {total} maps of {side} x {side}")
    for name, clock, ours, slowly in (
        ("every metric", middle - start, scored, score_slowly),
        ("and the null", stop - start, scored + compared, score_slowly + null_slowly),
    ):
        print(f"  {name}  {clock:7.2f} s on the clock  {ours:7.2f} s of each processor  ratio {slowly / ours:6.1f} x")


def _one_thread() -> None:
    threadpool_limits(1)


def _maps(index: int, *, layers: int, side: int) -> Maps:
    """Attention with sinks, as that of a document."""
    return np.random.default_rng(index).lognormal(0, 1.5, (_STEPS, layers, side * side)).astype(np.float32)


@cache
def _layouts(n: int, side: int) -> tuple[Layout, ...]:
    """The layouts of the set, made once in each process: cheaper than sending them there."""
    return tuple(
        lay_out(sample.centers, radius=_SPEC.radius, image=(_SPEC.size, _SPEC.size), grid=(side, side))
        for sample in (draw_sample(_SPEC, index) for index in range(n))
    )


def _others(index: int, *, n: int, side: int) -> list[Layout]:
    layouts = _layouts(n, side)
    return [layouts[other] for other in choose_others([len(layout.hull_dots) for layout in layouts], index)]


def _score(maps: Maps, index: int, *, n: int, side: int) -> float:
    """Processor seconds of every metric that is defined on one map."""
    start = time.process_time()
    layout = _layouts(n, side)[index]
    for metric in (gini, sparsity_eq2, sparsity_norm, entropy, kl_uniform, hs):
        metric(maps)
    sparsity_g16(maps, height=side, width=side)
    for clusters in (ck, ck_mass30, ck_obj):
        clusters(maps, grid=layout.grid)
    spatial_metrics(maps, layout)
    return time.process_time() - start


def _compare(maps: Maps, index: int, *, n: int, side: int) -> float:
    """Processor seconds of the null."""
    start = time.process_time()
    compare_with_null(maps, _layouts(n, side)[index], _others(index, n=n, side=side))
    return time.process_time() - start


def _one_by_one(maps: Maps, index: int, *, n: int, side: int) -> float:
    """Processor seconds of the scores of the null, on one layout at a time."""
    start = time.process_time()
    for layout in _others(index, n=n, side=side):
        spatial_metrics(maps, layout)
    return time.process_time() - start


if __name__ == "__main__":
    main()
