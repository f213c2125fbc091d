"""The page itself: what was measured, with warnings first, and the frame that the explorer fills."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import jinja2
from markupsafe import Markup

from halo_probe._version import __version__
from halo_probe.archive.runs import Run
from halo_probe.compare.report import Report, run_row
from halo_probe.compare.sections import Section, demand_numbers, report_sections, section_of

ASSETS = Path(__file__).parent / "site"
"""The template, and what goes into the folder of the page as it is."""

_TEMPLATE = "index.html.jinja"


@dataclass(frozen=True, kw_only=True)
class PlacedFigure:
    """A figure in the folder of the page."""

    png: str
    """Relative to the page, as is `svg`."""
    svg: str
    size: tuple[int, int]
    """Width and height of the PNG: the page keeps its place until it is loaded."""
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class FigureGroup:
    """The figures of comparable runs."""

    runs: tuple[str, ...]
    """Their labels."""
    drawn: tuple[PlacedFigure, ...]
    left_out: tuple[tuple[str, str], ...]
    """Title and reason of those that could not be drawn."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the page shows besides the documents."""

    runs: Sequence[Run]
    report: Report | None
    """None where no run has a counting task."""
    lacking: Sequence[str]
    """What the explorer lacks or leaves out."""
    leaderboards: Mapping[str, str]
    """By task, a fragment of HTML whose texts are escaped."""
    figures: Sequence[FigureGroup]


def render_page(contents: Contents) -> str:
    """The HTML of the page; every text that comes from runs is escaped."""
    report, runs = contents.report, contents.runs
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        version=__version__,
        warnings=list(_warnings(contents)),
        measured=[
            section_of("runs", [replace(run_row(run), recorded_layers=_layers(run)) for run in runs]),
            _tasks(runs),
        ],
        verdicts=report.verdicts if report else (),
        demand_numbers=demand_numbers,
        # Escaped where they were made.
        leaderboards={task: Markup(html) for task, html in contents.leaderboards.items()},  # noqa: S704
        figures=contents.figures,
        sections=[section for section in report_sections(report) if section.heading != "Runs"] if report else (),
    )


def _warnings(contents: Contents) -> Iterator[str]:
    if contents.report is None:
        yield "No run has a counting task: there are no scores, verdicts or figures, only documents to explore."
    else:
        for line in contents.report.differences:
            yield f"These runs are not comparable; what stands side by side below is of different things. {line}."
        if left_out := contents.report.left_out:
            names = ", ".join(left_out)
            yield f"No counting tasks, so without scores, verdicts and figures ({len(left_out)}): {names}."
    for run in contents.runs:
        if run.failures:
            yield f"{run.label}: the attention of {run.failures} documents could not be recorded."
    yield from contents.lacking


def _tasks(runs: Sequence[Run]) -> Section:
    names = dict.fromkeys(task for run in runs for task in run.samples)
    return Section(
        heading="Tasks",
        note="Version of the task and number of documents in each run.",
        header=("task", *(run.label for run in runs)),
        rows=tuple((name, *(_extent(run, name) for run in runs)) for name in names),
    )


def _extent(run: Run, task: str) -> str:
    if task not in run.samples:
        return "–"
    return f"version {run.results['versions'].get(task)}, n = {len(run.samples[task])}"


def _layers(run: Run) -> str:
    """The recorded layers by type, neighbours as a range."""
    types = dict.fromkeys(layer["type"] for layer in run.layers)
    return "; ".join(
        f"{_ranges([layer['index'] for layer in run.layers if layer['type'] == kind])} {kind.replace('_', ' ')}"
        for kind in types
    )


def _ranges(numbers: Sequence[int]) -> str:
    runs = [[number for _, number in same] for _, same in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
