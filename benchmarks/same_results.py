"""Whether two checkouts of this repository leave the same results of the same runs, but for version, time and paths.

Run `python benchmarks/same_results.py OLD NEW`: each runs three evaluations of the embedded model (all layers with
visual reliance, a mask, a sampling run asked twice) and scores them. Printed is how many values of results, samples,
maps and scores differ, and which by more than rounding.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

_SAMPLING = "do_sample=True,temperature=1.5"
_RUNS = {
    "all layers and reliance": ("layers=all,reliance=true", "halo_count,halo_echo", ()),
    "a mask": ("intervention=top30,layers=[0,-1]", "halo_count", ()),
    "sampled twice": ("layers=last", "halo_count", ("--repeats", "2", "--gen_kwargs", _SAMPLING)),
}
_CLOSE = 1e-7
_VARIES = {"date", "files", "signature", "maps", "config", "configs", "throughput", "total_evaluation_time_seconds"}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trees", nargs=2, type=Path, help="two checkouts")
    parser.add_argument("--limit", default="4", help="documents of each task (%(default)s)")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        for number, (title, (options, tasks, more)) in enumerate(_RUNS.items()):
            outs = []
            for side, tree in enumerate(arguments.trees):
                outs.append(Path(name, f"{number}-{side}"))
                command = ["-m", "lmms_eval", "--model", "halo_tiny", "--model_args", options, "--tasks", tasks, *more]
                command += ["--device", "cpu", "--limit", arguments.limit, "--log_samples", "--output_path", outs[-1]]
                _python(tree, *command)
                _python(
                    tree, "-c", f"from halo_probe.cli import main; raise SystemExit(main(['score', {str(outs[-1])!r}]))"
                )
            found = [*_compare(*outs)]
            far = [line for line, close in found if not close]
            print(f"{title}: {len(found)} values differ, {len(far)} of them by more than {_CLOSE:g} of their size")
            print(*(f"  {line}" for line in far[:20]), sep="\n")


def _python(tree: Path, *arguments: object) -> None:
    """Run Python in a checkout, whose packages come before those that are installed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": str(tree.resolve())}
    finished = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(f"{tree}: {finished.stderr[-2000:]}")


def _compare(old: Path, new: Path) -> Iterator[tuple[str, bool]]:
    """What differs, and whether only by rounding."""
    for pattern in ("*_results.json", "*_samples_*.jsonl", "part-*.parquet", "scores.parquet"):
        files = [sorted(folder.rglob(pattern)) for folder in (old, new)]
        if not all(files):
            raise SystemExit(f"{old} and {new}: one of them has no {pattern}")
        for one, other in zip(*files, strict=True):
            yield from _differences(_content(one), _content(other), one.name.partition("_")[2] or one.name)


def _content(path: Path) -> Any:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    lines = path.read_text(encoding="utf-8")
    return json.loads(lines) if path.suffix == ".json" else [json.loads(line) for line in lines.split("\n") if line]


def _differences(one: Any, other: Any, place: str) -> Iterator[tuple[str, bool]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if key not in _VARIES:
                yield from _differences(one.get(key), other.get(key), f"{place}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{place}[{number}]")
    elif one != other and not (_is_nan(one) and _is_nan(other)):
        numbers = isinstance(one, float) and isinstance(other, float)
        close = numbers and math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
        yield f"{place}: {str(one)[:60]} -> {str(other)[:60]}", close


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


if __name__ == "__main__":
    main()
