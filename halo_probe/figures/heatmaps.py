"""Attention over the image: per layer and generated token, and before and after a change."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Circle, Polygon

from dataset_builder.geometry import hull_indices
from halo_probe.figures.maps import Picture, StoredMap
from halo_probe.figures.style import HEAT, Drawing, finished, panels, plain_text, styled

MOST_LAYERS = MOST_TOKENS = 6
MOST_CONDITIONS = 5

_FAINTEST = 0.1  # of the uniform weight: what gets less is drawn alike
_HEAT_SHARE = 0.7  # of the colour; the rest is the image
_PANEL = 1.75  # inches
_DOT, _HULL = "#ffffff", "#D55E00"


def draw_layers_and_tokens(picture: Picture, maps: Sequence[StoredMap], *, about: str) -> Drawing:
    """The maps of one document: a row per layer and a column per generated token, six of each at most.

    More layers are thinned evenly, the first and last kept; of more tokens the first are shown. The colour of a cell is
    its attention in multiples of 1/M, what it would have were attention uniform: logarithmic, the same in all panels.

    Args:
        picture: The image of the document.
        maps: Of one document, at least one.
        about: The task with its version, and the document, for the caption.
    """
    layers = sorted({one.layer for one in maps})
    layers = [layers[place] for place in _thinned(len(layers), MOST_LAYERS)]
    steps = sorted({one.step for one in maps})[:MOST_TOKENS]
    by_place = {(one.layer, one.step): one for one in maps}
    shown = [by_place[place] for layer in layers for step in steps if (place := (layer, step)) in by_place]
    norm = _norm(shown)
    with styled():
        figure, axes = panels(
            len(layers), len(steps), size=(max(5, _PANEL * len(steps) + 1.6), _PANEL * len(layers) + 1.4)
        )
        for row, layer in zip(axes, layers, strict=True):
            for panel, step in zip(row, steps, strict=True):
                one = by_place.get((layer, step))
                _draw_map(panel, picture, one, norm=norm)
                if one and layer == layers[0]:
                    panel.set_title(f"token {step + 1}: {plain_text(repr(one.token), longest=12)}", fontsize=8)
                if one and step == steps[0]:
                    panel.set_ylabel(f"layer {layer}\n{one.layer_type.replace('_', ' ')}", fontsize=8)
        _add_scale(figure, axes, norm)
        return finished(
            figure,
            title="Where the model looks, by layer and generated token",
            caption=f"{about}; n = 1; layers {', '.join(map(str, layers))}. {_KEY}",
        )


def draw_change(conditions: Mapping[str, tuple[Picture, Sequence[StoredMap]]], *, about: str) -> Drawing:
    """One document before and after a change: a row per condition, a column per digit of the reply.

    Args:
        conditions: The picture and the maps of the last layer at the digits, by what was changed; plain first.
        about: The task with its version, and the document, for the caption.
    """
    columns = max(len(maps) for _, maps in conditions.values())
    every = [one for _, maps in conditions.values() for one in maps]
    norm = _norm(every)
    with styled():
        figure, axes = panels(len(conditions), columns, size=(max(5, 2.3 * columns + 2), 2.3 * len(conditions) + 1.4))
        for row, (label, (picture, maps)) in zip(axes, conditions.items(), strict=True):
            for place, panel in enumerate(row):
                one = maps[place] if place < len(maps) else None
                _draw_map(panel, picture, one, norm=norm)
                if one:
                    panel.set_title(f"digit {place + 1}: {plain_text(repr(one.token), longest=12)}", fontsize=8)
            row[0].set_ylabel(label, fontsize=8)
        _add_scale(figure, axes, norm)
        layers = sorted({f"{one.layer} ({one.layer_type})" for one in every})
        return finished(
            figure,
            title="The same image before and after a change",
            caption=f"{about}; n = 1; layer {', '.join(layers)}. {_KEY}",
        )


_KEY = "A_eq1 in multiples of uniform attention, one logarithmic scale; white rings: dots, dashed line: their hull."


def _thinned(available: int, most: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, available - 1, min(available, most))})


def _norm(maps: Sequence[StoredMap]) -> LogNorm:
    peak = max(float(one.weights.max() / one.weights.mean()) for one in maps)
    return LogNorm(_FAINTEST, max(peak, 10 * _FAINTEST), clip=True)


def _draw_map(panel: Axes, picture: Picture, one: StoredMap | None, *, norm: LogNorm) -> None:
    width, height = picture.image.size
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.set_xticks([])
    panel.set_yticks([])
    if one is None:
        panel.set_axis_off()
        return
    x0, y0, x1, y1 = one.box
    covered = (x0 * width, x1 * width, y1 * height, y0 * height)
    grey = picture.image.convert("L")
    panel.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="nearest")
    heat = one.weights / one.weights.mean()
    panel.imshow(heat, cmap=HEAT, norm=norm, alpha=_HEAT_SHARE, extent=covered, interpolation="nearest")
    panel.set(xlim=(0, width), ylim=(height, 0))
    if picture.dots:
        # A pixel (u, v) covers [u, u + 1): its middle is half a pixel on.
        centers = [(x + 0.5, y + 0.5) for x, y in picture.dots.centers]
        for center in centers:
            panel.add_patch(Circle(center, picture.dots.radius, fill=False, edgecolor=_DOT, linewidth=0.6))
        hull = np.array([centers[place] for place in hull_indices(picture.dots.centers)])
        # Its corners come in the order of the dots; around their middle they make the outline.
        around = np.arctan2(*(hull - hull.mean(axis=0)).T)
        outline = hull[np.argsort(around)]
        panel.add_patch(Polygon(outline, fill=False, edgecolor=_HULL, linewidth=0.8, linestyle="--"))


def _add_scale(figure: Any, axes: Sequence[Sequence[Axes]], norm: LogNorm) -> None:
    drawn = next(panel.images[1] for row in axes for panel in row if panel.images)
    bar = figure.colorbar(drawn, ax=[panel for row in axes for panel in row], shrink=min(1, 3 / len(axes)), aspect=18)
    bar.set_label("attention / uniform", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000) if tick <= (norm.vmax or 0)]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
