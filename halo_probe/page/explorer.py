"""The data of the explorer: which runs and tasks there are, and every document of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from tqdm import tqdm

from halo_probe.archive.runs import Run
from halo_probe.compare.report import run_row
from halo_probe.errors import UsageError
from halo_probe.page.documents import describe_document, index_documents, read_scores, write_data
from halo_probe.page.maps import FLOOR, DocumentMaps, read_maps
from halo_probe.page.pictures import Picture, PictureWriter

MAPS = "halo"
"""The folder of the maps, in that of a run."""

_COLOURS = 33


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of the runs the explorer holds; everything else of the page is of whole runs."""

    tasks: tuple[str, ...] | None = None
    """The tasks; all where None."""
    layers: tuple[int, ...] | Literal["all", "last"] = "all"
    """Which of the recorded layers."""
    documents: int | None = None
    """How many documents of each task, from the first; all where None."""


def write_explorer(site: Path, runs: Sequence[Run], selection: Selection) -> tuple[str, ...]:
    """Write the data of the explorer.

    Args:
        site: The folder of the page.
        runs: At least one.
        selection: What to write of them.

    Returns:
        What is missing or was left out, a line each.

    Raises:
        UsageError: If the selection leaves nothing.
        HaloError: If maps or scores cannot be read.
    """
    found = tuple(dict.fromkeys(task for run in runs for task in run.samples))
    names = found if selection.tasks is None else selection.tasks
    if unknown := [name for name in names if name not in found]:
        raise UsageError(f"--tasks {unknown[0]}: no run has this task; choose of {', '.join(found)}.")
    if selection.documents is not None and selection.documents < 1:
        raise UsageError(f"--documents {selection.documents}: give at least 1.")
    pictures = PictureWriter(site)
    described, lines = [], [*_left_out(runs, [name for name in found if name not in names], selection)]
    for number, run in enumerate(tqdm(runs, desc="Documents", unit="run", disable=None)):
        mine = [name for name in names if name in run.samples]
        folders = {name: f"{number}-{place}" for place, name in enumerate(mine)}
        lines += _write_run(site, run, selection, folders=folders, pictures=pictures)
        row = run_row(run)
        described.append(
            {
                "label": run.label,
                "model": row.model,
                "intervention": row.intervention,
                "depth": run.model.get("layers"),
                "heads": row.heads,
                "tasks": folders,
            }
        )
    colours = mpl.colormaps["viridis"](np.linspace(0, 1, _COLOURS), bytes=True)[:, :3].tolist()
    write_data(site, "runs", {"runs": described, "tasks": names, "floor": FLOOR, "colours": colours})
    return tuple(dict.fromkeys(lines))  # runs of one task lack the same images


def _left_out(runs: Sequence[Run], tasks: Sequence[str], selection: Selection) -> Iterator[str]:
    if tasks:
        yield f"Left out of the explorer by --tasks ({len(tasks)}): {', '.join(tasks)}."
    if selection.layers != "all":
        yield "The explorer holds the layers that --layers names, as far as they were recorded, and no others."
    if selection.documents is not None:
        longest = max(len(samples) for run in runs for samples in run.samples.values())
        if longest > selection.documents:
            yield f"The explorer holds the first {selection.documents} documents of each task, of up to {longest}."


def _write_run(
    site: Path, run: Run, selection: Selection, *, folders: Mapping[str, str], pictures: PictureWriter
) -> list[str]:
    """Write the documents of some tasks of a run, each task in its folder; what they lack."""
    samples = {name: run.samples[name][: selection.documents] for name in folders}
    shown = {name: pictures.add(run, name, rows) for name, rows in samples.items()}
    left = {(name, row["doc_id"]): place for name, rows in samples.items() for place, row in enumerate(rows)}
    scores, layers = read_scores(run), _chosen(run, selection)
    mapped: dict[str, list[bool]] = {name: [False] * len(rows) for name, rows in samples.items()}

    def write(task: str, place: int, maps: DocumentMaps | None, missing: str) -> None:
        sample = samples[task][place]
        described = describe_document(
            sample, shown[task][place], maps, scores=scores.get((task, sample["doc_id"])), missing=missing
        )
        write_data(site, f"{folders[task]}/{place}", described)

    for maps in read_maps(run.maps, layers=layers) if layers else ():
        place = left.pop((maps.task, maps.doc_id), None)
        if place is not None:
            mapped[maps.task][place] = True
            write(maps.task, place, maps, "")
    reasons = _reasons(run)
    for (task, doc_id), place in left.items():
        write(task, place, None, reasons.get((task, doc_id), reasons["", 0]))
    for name, rows in samples.items():
        write_data(site, f"{folders[name]}/index", index_documents(rows, mapped[name]))
    return [*_missing(run, scored=bool(scores), mapped=mapped), *_without_picture(shown)]


def _chosen(run: Run, selection: Selection) -> list[int]:
    recorded = [layer["index"] for layer in run.layers]
    if selection.layers == "all" or not recorded:
        return recorded
    chosen = [max(recorded)] if selection.layers == "last" else [one for one in recorded if one in selection.layers]
    if not chosen:
        raise UsageError(f"--layers: {run.label} recorded none of these; choose of {', '.join(map(str, recorded))}.")
    return chosen


def _reasons(run: Run) -> dict[tuple[str, int], str]:
    """Why a document has no maps, by task and id; under ("", 0) what holds for any other."""
    if not run.layers:
        return {("", 0): "the run was made without the probe"}
    failures = run.results.get("halo", {}).get("failures", ())
    return {("", 0): "its maps are not there", **{(one["task"], one["doc_id"]): one["reason"] for one in failures}}


def _missing(run: Run, *, scored: bool, mapped: Mapping[str, Sequence[bool]]) -> Iterator[str]:
    if not run.layers:
        yield f"{run.label}: made without the probe, so there are scores and no attention."
        return
    folder = run.folder / MAPS
    if unfinished := len(list(folder.glob("*.unfinished"))):
        yield f"{folder}: {unfinished} half-written parts were passed over."
    for task, there in mapped.items():
        if not all(there):
            yield f"{run.label}: {there.count(False)} of {len(there)} documents of {task} have no maps."
    if not scored:
        yield f"{run.label}: is not scored, so its maps have no metrics; score it with: halo-probe score {run.label}"


def _without_picture(shown: Mapping[str, Sequence[Picture]]) -> Iterator[str]:
    for task, pictures in shown.items():
        reasons = [picture["reason"] for picture in pictures if "reason" in picture]
        if reasons:
            yield f"{task}: {len(reasons)} of {len(pictures)} documents have no image: {reasons[0]}."
