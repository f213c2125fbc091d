"""A run of lmms-eval, of any model, probed or not: the one way to open it.

A run is one results file of lmms-eval (`--output_path`) with its samples (`--log_samples`) beside it, and what the
probe left there: maps and scores. Tasks whose samples have no `id`, `count`, `predicted` and `accuracy` do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from halo_probe.archive.reading import Maps, open_maps
from halo_probe.archive.results import MAPS, find_results, folder_of, load_results, load_samples, samples_file
from halo_probe.archive.scores import read_scores
from halo_probe.archive.tasks import SCORE_COLUMNS, TaskRun, contrasts_of, is_counted, task_run
from halo_probe.errors import UsageError

# What lmms-eval's models call the argument that says which model.
_NAMES = ("pretrained", "model", "model_version", "model_name", "checkpoint")


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One results file."""

    label: str
    """The folder as it was given."""
    folder: Path
    """The `--output_path`: maps are in its `halo`, spatial scores in its `scores.parquet`."""
    results: Mapping[str, Any]
    """The results file."""
    model: Mapping[str, Any]
    """What was evaluated: the signature's `model`, or lmms-eval's `model` and `model_args` without a probe."""
    intervention: Mapping[str, Any] | None
    """The signature's `intervention`: `name`, `steps`, `strength`, ...; None for a plain run."""
    layers: tuple[Mapping[str, Any], ...]
    """The recorded layers."""
    grid: tuple[tuple[int, int], ...]
    """Rows and columns of image tokens of each image of the first document; empty without maps."""
    tasks: Mapping[str, TaskRun]
    """The counting tasks by name."""
    left_out: Mapping[str, Sequence[Mapping[str, Any]]]
    """The documents of the other tasks, as lmms-eval wrote them, by task."""
    failures: int
    """Documents whose attention could not be recorded."""
    maps: Maps
    """What was recorded, read as it is asked for; without parts where the run was not probed or kept no maps."""

    def scores(self, columns: Sequence[str] | None = None) -> pa.Table | None:
        """The scores of the first answer and its first call of every document; None where the run is not scored.

        Args:
            columns: Which columns of `halo_probe.archive.scores.SCORES_SCHEMA`; None for all.

        Raises:
            UsageError: If they cannot be read, or are of other maps than the run has now.
        """
        return read_scores(self.folder, self.signature, columns=columns) if self.signature else None

    @property
    def samples(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The documents of every task, as lmms-eval wrote them."""
        return {**{name: task.samples for name, task in self.tasks.items()}, **self.left_out}

    @property
    def signature(self) -> Mapping[str, Any]:
        """That of the probe; empty without it."""
        signature: Mapping[str, Any] = self.results.get("halo", {}).get("signature", {})
        return signature

    @property
    def model_name(self) -> str:
        """The checkpoint, or what an API or a server was asked for.

        Never the model arguments as they are: they may hold a key.
        """
        given = self.model.get("arguments") or {}
        if isinstance(given, str):
            given = dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)
        names = (self.model.get("pretrained"), *(given.get(key) for key in _NAMES))
        return str(next(filter(None, names), self.model["base"]))


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """Open several runs; see `open_run`.

    Raises:
        UsageError: If one cannot be read, or is named twice, however its path is written.
    """
    files = [find_results(path).resolve() for path in paths]
    for place, file in enumerate(files):
        if file in files[:place]:
            raise UsageError(f"{paths[place]}: is named twice; name each run once.")
    return [open_run(path) for path in paths]


def open_run(path: Path | str) -> Run:
    """Open a run.

    Args:
        path: The `--output_path` of lmms-eval with one results file, or that file.

    Raises:
        UsageError: If there is no run, more than one, half of one, or one without samples; if its maps are of another
            run, or its spatial scores of an earlier state of it.
        DamagedPartError: If a part of its maps is not what was written.
    """
    path = Path(path)
    file = find_results(path)
    folder = folder_of(file, path)
    results = load_results(file)
    signature = results.get("halo", {}).get("signature", {})
    config = results["config"]
    samples = {task: load_samples(samples_file(file, task), results, task) for task in results["configs"]}
    maps = open_maps(folder / MAPS) if signature else Maps(folder / MAPS, ())
    if maps.parts and maps.signature != signature:
        raise UsageError(f"{file}: is of another run than the maps in {maps.folder}; keep one run in a folder.")
    scores = read_scores(folder, signature, columns=SCORE_COLUMNS) if signature else None
    return Run(
        label=str(path),
        folder=folder,
        results=results,
        model=signature.get("model") or {"base": config["model"], "arguments": config["model_args"]},
        intervention=signature.get("intervention"),
        layers=tuple(signature.get("recorded_layers", ())),
        grid=maps.first_grids(),
        tasks={
            task: task_run(
                task,
                rows,
                results=results,
                contrasts=contrasts_of(scores, task),
                path=samples_file(file, task),
            )
            for task, rows in samples.items()
            if all(map(is_counted, rows))
        },
        left_out={task: rows for task, rows in samples.items() if not all(map(is_counted, rows))},
        failures=len(results.get("halo", {}).get("failures", ())),
        maps=maps,
    )
