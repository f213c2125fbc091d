"""How every figure looks: colours, type, the note under it, and files that are the same on every machine."""

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from halo_probe.errors import HaloError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of the runs, in order: Okabe and Ito's, told apart with any colour vision."""
LINES = ("-", "--", "-.", ":")
"""Of the runs, in order: so that no run is told by its colour alone."""
HEAT = "viridis"
"""Of attention: its lightness grows evenly, so it reads without colour too."""

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 9,
    "grid.alpha": 0.25,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "halo-probe",
    "text.parse_math": False,  # names of models are no formulas
}

_DOTS_PER_INCH = 144
_NOTE_SIZE = 7
_LETTERS_PER_INCH = 17  # of the note: fewer than fit


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure and what has to be said of it."""

    figure: Figure
    title: str
    caption: str
    """What is shown, of how many documents (n), of which layer and which version of the task."""


def styled() -> Any:
    """A context in which figures are made: matplotlib's settings are as before after it."""
    return mpl.rc_context(STYLE)


def panels(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        size: Width and height of the whole figure in inches.
    """
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def finished(figure: Figure, *, title: str, caption: str, legend_of: Axes | None = None) -> Drawing:
    """Put the title over a figure, the legend of one of its panels beside that, and the caption under it."""
    if legend_of:
        figure.legend(*legend_of.get_legend_handles_labels(), loc="outside upper right")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    letters = int(figure.get_figwidth() * _LETTERS_PER_INCH)
    figure.supxlabel(textwrap.fill(caption, letters), x=0.01, ha="left", fontsize=_NOTE_SIZE)
    return Drawing(figure, title, caption)


def plain_text(text: str, *, longest: int = 40) -> str:
    r"""Text from outside as it can be drawn with the one font that comes along: other characters as Python escapes.

    >>> plain_text("点 <b>$x$")
    '\\u70b9 <b>$x$'
    """
    escaped = text.encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= longest else f"{escaped[: longest - 3]}..."


def colour_of(place: int) -> str:
    """The colour of the run at a place, from 0; they repeat, in other lines."""
    return COLOURS[place % len(COLOURS)]


def line_of(place: int) -> str:
    """The line of the run at a place, from 0."""
    return LINES[place % len(LINES)]


def save(drawing: Drawing, path: Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, the same bytes for the same figure and version of matplotlib.

    Args:
        drawing: The figure.
        path: Where, without suffix.

    Returns:
        Paths of the PNG and the SVG.

    Raises:
        HaloError: If a file cannot be written.
    """
    paths = []
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        content = io.BytesIO()
        with styled():
            drawing.figure.savefig(content, format=suffix[1:], dpi=_DOTS_PER_INCH, metadata=metadata)
        written = path.with_name(path.name + suffix)
        try:
            written.write_bytes(content.getvalue())
        except OSError as error:
            raise HaloError(f"{written}: cannot be written ({error.strerror}); choose another --out.") from error
        paths.append(written)
    return paths[0], paths[1]
