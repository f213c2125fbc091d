"""Scoring a run: its maps, read part by part in several processes, become one table beside them."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pyarrow import csv
from tqdm import tqdm

from halo_probe.archive.reading import open_maps
from halo_probe.archive.results import MAPS, load_results, results_files
from halo_probe.archive.scores import SCORES, SCORES_SCHEMA, STATE_KEY, state_of
from halo_probe.errors import HaloError, UsageError, remedy
from halo_probe.score.consistency import consistencies
from halo_probe.score.dots import find_dots
from halo_probe.score.stored import Circumstances, Layers, score_part, use_one_thread


def score_run(folder: Path, *, layers: Layers = "all", null: bool = False, workers: int = 2) -> list[Path]:
    """Score every map of a run, in one row for each document, generation step and layer.

    Earlier scores of the run are replaced once the new ones are whole.

    Args:
        folder: The `--output_path` of an lmms-eval run with `--model halo`.
        layers: Which of the recorded layers.
        null: Whether to compare the spatial metrics with their null, which takes several times as long.
        workers: Number of processes, each of one thread; with 1, or for a run of one part, it is this process.

    Returns:
        Paths of the scores, `scores.parquet` and `scores.csv` in the folder.

    Raises:
        UsageError: If the folder holds no maps, or those of two runs, if the set at hand is not what the run saw, or if
            another command is scoring the run.
        DatasetError: If a set cannot be loaded.
        HaloError: If a file cannot be read or written, or a process was killed.
    """
    if workers < 1:
        raise UsageError(f"--workers {workers}: give at least 1.")
    maps = open_maps(folder / MAPS)
    if not maps.parts:
        what = "holds no maps" if folder.is_dir() else "there is no such folder"
        raise UsageError(f"{maps.folder}: {what}; give the --output_path of an lmms-eval run with --model halo.")
    signature, parts = maps.signature, [part.path for part in maps.parts]
    outputs = [folder / SCORES, folder / "scores.csv"]
    busy = min(workers, len(parts))
    with (
        _alone(folder),
        processes(busy) if busy > 1 else nullcontext() as pool,
        _replacing(outputs[0]) as table_file,
        _replacing(outputs[1]) as csv_file,
        pq.ParquetWriter(
            table_file,
            SCORES_SCHEMA.with_metadata({STATE_KEY: json.dumps(state_of(signature, parts))}),
            compression="zstd",
            write_page_checksum=True,
        ) as table_writer,
        csv.CSVWriter(csv_file, SCORES_SCHEMA) as csv_writer,
    ):
        configs = _configs(folder, signature)
        circumstances = Circumstances(
            dots=find_dots(signature, configs),
            model_layers=signature["model"].get("layers"),
            consistency=consistencies(maps.answers(), configs),
            layers=layers,
            null=null,
        )
        score = partial(score_part, circumstances=circumstances)
        scored = pool.map(score, parts) if pool else map(score, parts)
        for scores in tqdm(scored, total=len(parts), desc="Scoring", unit="part", disable=None):
            table_writer.write_table(scores)
            csv_writer.write_table(scores)
    return outputs


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each.

    Raises:
        HaloError: On leaving, if one was killed.
    """
    # Not forked: this process has threads.
    context = get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, initializer=use_one_thread) as pool:
            pool.submit(int)  # starts them: they import what they need while this process reads the set
            yield pool
    except BrokenProcessPool:
        raise HaloError(
            "a scoring process was killed, for want of memory perhaps; try again with --workers 1."
        ) from None


def _configs(folder: Path, signature: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tasks' configurations in the results of the run with this signature; empty where it did not finish.

    Raises:
        UsageError: If no results file is of this run, and one is damaged.
    """
    faults = []
    for file in results_files(folder):
        try:
            results = load_results(file)
        except UsageError as error:  # another one may be whole
            faults.append(error)
            continue
        if results.get("halo", {}).get("signature") == signature:
            configs: Mapping[str, Any] = results["configs"]
            return configs
    if faults:
        raise faults[0]
    return {}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other commands from scoring the run until the context ends; a killed one lets go of it by itself.

    Raises:
        UsageError: If another one does.
    """
    lock = FileLock(folder / ".score.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{folder}: another command is scoring this run; wait for it.") from None
    except OSError as error:
        raise HaloError(f"{folder}: cannot be written ({error.strerror or error}); {remedy(error)}.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of the path when all of it is written."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise HaloError(f"{path}: cannot be written ({error.strerror or error}); {remedy(error)}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
