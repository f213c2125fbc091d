"""How runs count: accuracy and bias, and every predicted against every true count."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from halo_probe.figures.style import COLOURS, Drawing, colour_of, finished, line_of, panels, styled
from lmms_eval_tasks.counting import count_slope

_CONSTANT = "always "
_MOST_BINS = 24
_MARGIN = 4
_COLUMNS = 3


def draw_accuracy_and_bias(summary: pd.DataFrame, *, about: str) -> Drawing:
    """Accuracy with Wilson intervals and mean bias error with its intervals, beside two constant answers.

    Args:
        summary: The rows of one task of `Frames.summary`.
        about: The task with its version, for the caption.
    """
    constant = summary["run"].str.startswith(_CONSTANT) & summary["accuracy_interval"].map(
        lambda pair: math.isnan(pair[0])
    )
    runs, constants = summary[~constant], summary[constant]
    places = list(range(len(runs)))
    with styled():
        figure, ((accuracy, bias),) = panels(1, 2, size=(9, 0.42 * len(runs) + 2.2))
        for panel, key in ((accuracy, "accuracy"), (bias, "mbe")):
            values = runs[key].to_numpy(dtype=float)
            low, high = np.array(runs[f"{key}_interval"].tolist(), dtype=float).T
            # A bar without an interval is drawn without one: NaN stays.
            spread = np.clip([values - low, high - values], 0, None)
            colours = [colour_of(place) for place in places]
            panel.barh(places, np.nan_to_num(values), xerr=spread, color=colours, height=0.6, capsize=3)
            for place, row in enumerate(constants.itertuples()):
                panel.axvline(
                    getattr(row, key), color="#555555", linestyle=line_of(place + 1), label=row.run, linewidth=1
                )
            panel.set_yticks(places, labels=_labels(runs) if panel is accuracy else [""] * len(runs))
            panel.invert_yaxis()
            panel.grid(visible=False, axis="y")
        accuracy.set_xlim(0, 1)
        accuracy.set_xlabel("accuracy, 95 % Wilson interval")
        bias.axvline(0, color="black", linewidth=0.8)
        bias.set_xlabel("mean bias error in dots, 95 % interval")
        return finished(
            figure,
            title="Accuracy and bias",
            caption=f"{about}; {_n_of(runs['n'])}; no layer: scores alone. An unanswered document is wrong and has no "
            "bias. Broken lines: what always giving one answer scores.",
            legend_of=bias,
        )


def draw_predicted_and_true(documents: pd.DataFrame, *, about: str) -> Drawing:
    """Predicted against true counts, a panel per run: the share of each prediction within a true count.

    Predictions far outside the true counts stand in the outermost rows, unanswered documents in the row below them.

    Args:
        documents: The rows of one task of `Frames.documents`.
        about: The task with its version, for the caption.
    """
    runs = list(dict.fromkeys(documents["run"]))
    columns = min(_COLUMNS, len(runs))
    rows = -(-len(runs) // columns)
    counts = documents["count"]
    width = max(1, -(-(int(counts.max()) - int(counts.min()) + 1) // _MOST_BINS))
    true_edges = np.arange(counts.min(), counts.max() + width + 1, width)
    low = max(0, int(counts.min()) - _MARGIN * width)
    predicted_edges = np.arange(low, counts.max() + _MARGIN * width + 2, width)
    with styled():
        figure, axes = panels(rows, columns, size=(3.1 * columns + 1.2, 3.2 * rows + 1.3))
        flat = [panel for row in axes for panel in row]
        image: Any = None
        for panel, run in zip(flat, runs, strict=False):
            image = _draw_confusion(panel, documents[documents["run"] == run], true_edges, predicted_edges)
            panel.set_xlabel("true count")
            panel.set_ylabel("predicted count")
        for panel in flat[len(runs) :]:
            panel.set_axis_off()
        bar = figure.colorbar(image, ax=flat, shrink=min(1, 2.2 / (rows + 1)))
        bar.set_label("share of the documents of a true count", fontsize=8)
        return finished(
            figure,
            title="Predicted and true counts",
            caption=f"{about}; {_n_of(documents.groupby('run').size())}; no layer: replies alone. Dotted: exact; line: "
            "least squares over the answered. Outermost rows hold everything beyond; none: no count in the reply.",
        )


def _draw_confusion(panel: Axes, rows: pd.DataFrame, true_edges: Any, predicted_edges: Any) -> Any:
    true, predicted = rows["count"].to_numpy(), rows["predicted"].to_numpy(dtype=float)
    answered = ~np.isnan(predicted)
    clipped = np.clip(predicted[answered], predicted_edges[0], predicted_edges[-1] - 1)
    cells, *_ = np.histogram2d(clipped, true[answered], bins=(predicted_edges, true_edges))
    none, _ = np.histogram(true[~answered], bins=true_edges)
    totals, _ = np.histogram(true, bins=true_edges)
    shares = np.vstack([none, cells]) / np.maximum(totals, 1)
    step = predicted_edges[1] - predicted_edges[0]
    edges = np.concatenate([[predicted_edges[0] - 2 * step], predicted_edges]) - 0.5
    # The row of the unanswered is twice as high, to be told from a count.
    image = panel.pcolormesh(true_edges - 0.5, edges, shares, cmap="cividis", vmin=0, vmax=1)
    panel.axhline(edges[1], color="white", linewidth=1.5)
    ends = np.array([true.min() - 0.5, true.max() + 0.5])
    panel.plot(ends, ends, color="white", linestyle=":", linewidth=1)
    line = count_slope(true.tolist(), [None if np.isnan(value) else int(value) for value in predicted])
    title = f"{rows['run'].iloc[0]}\n"
    if line:
        panel.plot(ends, line.intercept + line.slope * ends, color=COLOURS[4], linewidth=1.2)
        title += f"slope {line.slope:.2f}" + ("" if line.r is None else f", r {line.r:.2f}")
    panel.set_title(title, fontsize=8)
    panel.set_ylim(edges[0], edges[-1])
    panel.set_xlim(true_edges[0] - 0.5, true_edges[-1] - 0.5)
    ticks = [int(tick) for tick in panel.get_yticks() if predicted_edges[0] <= tick < predicted_edges[-1]]
    first, last = int(predicted_edges[0]), int(predicted_edges[-2])
    inner = {tick: str(tick) for tick in ticks if first + step < tick < last - step}
    named = {edges[:2].mean(): "none", first: f"≤ {first + step - 1}" if first else "0", **inner, last: f"≥ {last}"}
    panel.set_yticks(list(named), labels=list(named.values()))
    panel.grid(visible=False)
    return image


def _labels(runs: pd.DataFrame) -> list[str]:
    return [row.run if row.answered == 1 else f"{row.run}\n({row.answered:.0%} answered)" for row in runs.itertuples()]


def _n_of(sizes: pd.Series) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"
