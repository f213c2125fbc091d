"""Writing the page: built in a folder beside the one that was asked for, and put in its place when it is whole."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from halo_probe.archive.runs import Run, open_runs
from halo_probe.compare.comparability import find_differences
from halo_probe.compare.evidence import COUNT
from halo_probe.compare.report import compare
from halo_probe.errors import HaloError, UsageError, remedy
from halo_probe.figures import Figure, draw_figures
from halo_probe.leaderboard.board import rank_runs
from halo_probe.leaderboard.render import render_html
from halo_probe.page.explorer import Selection, write_explorer
from halo_probe.page.page import ASSETS, Contents, FigureGroup, PlacedFigure, render_page

_PAGE = "index.html"
_COPIED = ("explorer.js", "style.css")
_FIGURES = "figures"
_EVERYTHING = Selection()


def write_report(runs: Sequence[Path], out: Path, *, selection: Selection = _EVERYTHING, force: bool = False) -> Path:
    """Write one folder that shows runs, and opens from disk.

    Args:
        runs: `--output_path`s of lmms-eval, probed or not, comparable or not.
        out: The folder to write.
        selection: What the explorer of documents holds.
        force: Whether an earlier report there may be replaced.

    Returns:
        Path of the page, `out/index.html`.

    Raises:
        UsageError: If a run cannot be read or is named twice, the selection leaves nothing, or something else is in the
            way.
        HaloError: If maps or scores cannot be read, or the folder cannot be written.
    """
    _require_free(out, force=force)
    read = open_runs(runs)
    with _replacing(out) as site:
        tasks = dict.fromkeys(task for run in read for task in run.tasks)
        contents = Contents(
            runs=read,
            report=compare(read) if tasks else None,
            lacking=write_explorer(site, read, selection),
            leaderboards={
                task: render_html(rank_runs(read, task=task)) for task in sorted(tasks, key=_after_the_count)
            },
            figures=tuple(_draw(runs, read, site)),
        )
        # A path may hold bytes that are no text.
        (site / _PAGE).write_text(render_page(contents), encoding="utf-8", errors="replace")
        for name in _COPIED:
            shutil.copyfile(ASSETS / name, site / name)
    return out / _PAGE


def _after_the_count(task: str) -> bool:
    """Sorts the paper's task before all others."""
    return task != COUNT


def _draw(paths: Sequence[Path], runs: Sequence[Run], site: Path) -> Iterator[FigureGroup]:
    """The figures of each group of comparable runs."""
    path_of = dict(zip((run.label for run in runs), paths, strict=True))
    for number, group in enumerate(_comparable(runs)):
        labels = tuple(run.label for run in group)
        folder = Path(_FIGURES, str(number))
        figures = draw_figures([path_of[label] for label in labels], site / folder)
        yield FigureGroup(
            runs=labels,
            drawn=tuple(_placed(figure, folder=folder) for figure in figures.drawn),
            left_out=figures.left_out,
        )


def _placed(figure: Figure, *, folder: Path) -> PlacedFigure:
    with Image.open(figure.path_png) as image:
        size = image.size
    return PlacedFigure(
        png=(folder / figure.path_png.name).as_posix(),
        svg=(folder / figure.path_svg.name).as_posix(),
        size=size,
        title=figure.title,
        caption=figure.caption,
    )


def _comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs with a counting task in as few groups as their order allows, all runs of a group comparable."""
    groups: list[list[Run]] = []
    for run in runs:
        if run.tasks:
            home = next((group for group in groups if not find_differences([*group, run])), None)
            if home is None:
                groups.append([run])
            else:
                home.append(run)
    return groups


def _require_free(out: Path, *, force: bool) -> None:
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a folder.")
    there = {path.name for path in out.iterdir()}
    if there and not {_PAGE, *_COPIED} <= there:
        raise UsageError(f"--out {out}: holds something else than a report; name an empty folder or a new one.")
    if there and not force:
        raise UsageError(f"--out {out}: holds an earlier report; replace it with --force, or name another folder.")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of another when all of it is written.

    Raises:
        HaloError: If the disk refuses.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".unfinished", dir=out.parent) as beside:
            site = Path(beside, "new")
            site.mkdir()
            yield site
            if out.exists():
                out.rename(Path(beside, "old"))
            site.rename(out)
    except OSError as error:
        raise HaloError(f"--out {out}: cannot be written ({error.strerror or error}); {remedy(error)}.") from error
