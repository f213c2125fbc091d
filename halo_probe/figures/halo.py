"""The halo: attention by the distance from the dots, and the halo metrics against the dots of other images."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray
from scipy import stats

from halo_probe.errors import NothingToDrawError
from halo_probe.figures.digits import layers_of
from halo_probe.figures.maps import StoredMap
from halo_probe.figures.style import Drawing, colour_of, finished, line_of, panels, styled
from halo_probe.metrics.dots import Dots
from halo_probe.metrics.null import choose_others

_KEYS = {"halo_index_ns": "halo_index", "hull_contrast_ns": "hull_contrast"}
_NULL_IMAGES = 20
_EDGES = np.array([0, 12, 24, 36, 52, 72, 100, 140, 200, 280, 400])
_WIDEST = 6.0


def radial_profile(maps: Sequence[StoredMap], dots: Sequence[Dots | None]) -> pd.DataFrame:
    """Attention by the distance to the nearest dot, in multiples of uniform attention, beside that to other dots.

    The null is the same map with the dots of 20 other images, of the same number where there are.

    Args:
        maps: One per document.
        dots: Of all documents of the set, by `doc_id`.

    Returns:
        A row per document and range of distances that holds cells: `doc_id`, `distance` (its middle, in pixels),
        `enrichment`, `null`.

    Raises:
        NothingToDrawError: If no document has dots, or it is alone, or a map is of a document that is not in the set.
    """
    having = [place for place, one in enumerate(dots) if one]
    counts = [len(one.centers) for one in dots if one]
    if len(having) < 2:  # noqa: PLR2004 - one and another
        raise NothingToDrawError("fewer than two documents have dots")
    if foreign := [one.doc_id for one in maps if one.doc_id >= len(dots)]:
        raise NothingToDrawError(f"the set has {len(dots)} images, and none of document {foreign[0]}")
    rows = [
        {"doc_id": one.doc_id, "distance": distance, "enrichment": value, "null": null}
        for one in maps
        if dots[one.doc_id]
        for distance, value, null in _profile(one, dots, having=having, counts=counts)
    ]
    if not rows:
        raise NothingToDrawError("no document with a map has dots")
    return pd.DataFrame(rows)


def draw_halo(profiles: pd.DataFrame, scores: pd.DataFrame, *, radius: float, about: str) -> Drawing:
    """The radial profiles of runs, and the z-scores of the halo metrics against their null.

    Args:
        profiles: Rows of `radial_profile` and their `run`, at the first digit and the last layer.
        scores: Rows of `Frames.scores` at the first digit and the last layer scored, of one task.
        radius: Of the dots, in pixels.
        about: The task with its version, for the caption.

    Raises:
        NothingToDrawError: If no score was compared with a null.
    """
    columns = [f"{key}_z" for key in _KEYS]
    scored = scores.dropna(subset=columns, how="all") if len(scores) else scores
    if scored.empty:
        raise NothingToDrawError("no run has z-scores at the first digit; run halo-probe score RUN --null")
    runs = list(dict.fromkeys([*profiles["run"], *scored["run"]]))
    n = ", ".join(f"{size} ({run})" for run, size in scored.groupby("run", sort=False).size().items())
    with styled():
        figure, ((radial, *nulls),) = panels(1, 3, size=(11, 4))
        for run, rows in profiles.groupby("run", sort=False):
            means = rows.groupby("distance")[["enrichment", "null"]].mean()
            place = runs.index(str(run))
            radial.plot(
                means.index, means["enrichment"], color=colour_of(place), linestyle=line_of(place), marker="o",
                markersize=3, label=f"{run} (n = {rows['doc_id'].nunique()})",
            )  # fmt: skip
            radial.plot(means.index, means["null"], color=colour_of(place), linestyle=":", linewidth=1, alpha=0.8)
        radial.axhline(1, color="black", linewidth=0.8)
        radial.set_xscale("log")
        radial.set_yscale("log")
        for axis in (radial.xaxis, radial.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        radial.xaxis.set_minor_formatter(NullFormatter())
        radial.yaxis.set_minor_formatter(LogFormatter())  # names ticks between where there are few
        radial.axvline(radius, color="#555555", linewidth=0.8)
        radial.set_xlabel("distance to the nearest dot in pixels")
        radial.set_ylabel("attention / uniform")
        radial.set_title(f"radial profile; grey: radius {radius:g}")
        for panel, (key, name) in zip(nulls, _KEYS.items(), strict=True):
            _draw_null(panel, scored, f"{key}_z", runs=runs)
            panel.set_title(f"{name}, sinks removed")
        return finished(
            figure,
            title="The halo against its null",
            caption=f"{about}; {layers_of(scored)}, first digit; n = {n} documents with z-scores. Left: dotted, the "
            "same maps with the dots of 20 other images. Right: z-scores against the dots of 200 others; black: what a "
            "map that ignores its dots has, roughly; triangles: means.",
            legend_of=radial,
        )


def _profile(
    one: StoredMap, dots: Sequence[Dots | None], *, having: Sequence[int], counts: Sequence[int]
) -> Iterator[tuple[float, float, float]]:
    others = choose_others(counts, having.index(one.doc_id), size=_NULL_IMAGES)
    own, *null = (_enrichments(one, dots[place]) for place in (one.doc_id, *(having[other] for other in others)))
    defined = ~np.isnan(null)
    sums = np.where(defined, null, 0).sum(axis=0)
    for place, value in enumerate(own):
        if not np.isnan(value) and defined[:, place].any():
            yield float(_EDGES[place : place + 2].mean()), float(value), float(sums[place] / defined[:, place].sum())


def _enrichments(one: StoredMap, dots: Dots | None) -> NDArray[np.float64]:
    """Mean weight of the cells in each range of distances, over the mean of all; NaN where there is none."""
    assert dots is not None
    height, width = one.weights.shape
    x0, y0, x1, y1 = one.box
    ys = (y0 + (y1 - y0) * (np.arange(height) + 0.5) / height) * dots.image[0]
    xs = (x0 + (x1 - x0) * (np.arange(width) + 0.5) / width) * dots.image[1]
    centers = np.array(dots.centers) + 0.5
    square = (ys[:, None, None] - centers[:, 1]) ** 2 + (xs[None, :, None] - centers[:, 0]) ** 2
    ranges = np.digitize(np.sqrt(square.min(axis=-1)).ravel(), _EDGES) - 1
    inside = ranges < len(_EDGES) - 1
    weights = one.weights.ravel() / one.weights.mean()
    sizes = np.bincount(ranges[inside], minlength=len(_EDGES) - 1)
    sums = np.bincount(ranges[inside], weights[inside], minlength=len(_EDGES) - 1)
    return np.asarray(np.divide(sums, sizes, out=np.full(sizes.size, np.nan), where=sizes > 0))


def _draw_null(panel: Axes, scored: pd.DataFrame, column: str, *, runs: Sequence[str]) -> None:
    edges = np.linspace(-_WIDEST, _WIDEST, 25).tolist()
    for run, rows in scored.groupby("run", sort=False):
        values = rows[column].dropna().to_numpy()
        if values.size:
            place = runs.index(str(run))
            shown = np.clip(values, -_WIDEST, _WIDEST)
            panel.hist(
                shown, bins=edges, density=True, histtype="step", color=colour_of(place), linestyle=line_of(place)
            )
            mean = np.clip(values.mean(), -_WIDEST, _WIDEST)
            panel.plot(mean, 0, color=colour_of(place), marker="^", markersize=7, clip_on=False, zorder=3)
    normal = np.linspace(-_WIDEST, _WIDEST, 121)
    panel.plot(normal, stats.norm.pdf(normal), color="black", linewidth=1)
    panel.set_xlabel("z-score")
    panel.set_ylabel("density of documents")
