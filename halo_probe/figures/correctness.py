"""Whether attention goes with being right: within documents of the same count, and over models."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from halo_probe.errors import NothingToDrawError
from halo_probe.figures.digits import layers_of
from halo_probe.figures.style import Drawing, colour_of, finished, line_of, panels, styled
from halo_probe.metrics.reliability import LEAST_EACH, associate
from halo_probe.statistics.intervals import wilson_interval
from halo_probe.statistics.scatter import LEAST_MODELS, model_scatter

_GROUPS = 5
_KEYS = {"sparsity_d1": "sparsity at digit 1", "vision_sparsity": "mean sparsity of the reply"}


def draw_accuracy_against_sparsity(documents: pd.DataFrame, *, about: str) -> Drawing:
    """Accuracy by sparsity within documents of the same count, and over models with the warning that belongs to it.

    Left: documents in fifths by how far their sparsity is from the mean of their true count. Right: a point per model,
    over its runs without an intervention.

    Args:
        documents: The rows of one task of `Frames.documents`.
        about: The task with its version, for the caption.

    Raises:
        NothingToDrawError: If no run has a sparsity.
    """
    key = next((key for key in _KEYS if documents[key].notna().any()), None)
    if key is None:
        raise NothingToDrawError("no run has sparsity; evaluate with --model halo")
    present = documents.dropna(subset=[key])
    with styled():
        figure, ((within, over),) = panels(1, 2, size=(9.5, 4.2))
        for place, (run, rows) in enumerate(present.groupby("run", sort=False)):
            _draw_within(within, rows, key=key, place=place, run=str(run))
        within.set_xlabel(f"{_KEYS[key]}, less the mean of the same true count")
        within.set_ylabel("accuracy")
        within.set_title("within documents of the same count")
        within.set_ylim(-0.03, 1.03)
        _draw_over(over, present, key=key)
        sizes = present.groupby("run").size()
        n = str(sizes.min()) if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        return finished(
            figure,
            title="Accuracy against sparsity",
            caption=f"{about}; n = {n} documents per run; {layers_of(present)}. Bars: 95 % Wilson intervals of "
            "fifths of the documents; r: point-biserial, within counts, with 95 % interval. Sparsity of models with "
            "other grids or numbers of heads is not comparable without care.",
            legend_of=within,
        )


def _draw_within(panel: Axes, rows: pd.DataFrame, *, key: str, place: int, run: str) -> None:
    values = (rows[key] - rows.groupby("count")[key].transform("mean")).to_numpy()
    right = rows["correct"].to_numpy(dtype=bool)
    groups = [group for group in np.array_split(np.argsort(values, kind="stable"), _GROUPS) if group.size]
    accuracy = np.array([right[group].mean() for group in groups])
    spread = np.array([wilson_interval(int(right[group].sum()), group.size) for group in groups]).T
    found = associate(rows[key], right, counts=rows["count"])
    low, high = found.r_interval
    told = f"r {found.r:+.2f} [{low:+.2f}, {high:+.2f}], AUROC {found.auroc:.2f}"
    if min(found.right, found.wrong) < LEAST_EACH:
        told = f"{found.right} right, {found.wrong} wrong, too few for r"
    elif np.isnan(found.r):
        told = "r undefined"
    panel.errorbar(
        [values[group].mean() for group in groups],
        accuracy,
        yerr=np.clip([accuracy - spread[0], spread[1] - accuracy], 0, None),
        color=colour_of(place), linestyle=line_of(place), marker="o", markersize=4, capsize=3, label=f"{run}: {told}",
    )  # fmt: skip


def _draw_over(panel: Axes, present: pd.DataFrame, *, key: str) -> None:
    means = present.dropna(subset=["model"]).groupby("model", sort=False)[[key, "correct"]].mean()
    for place, (x, y) in enumerate(means.to_numpy(dtype=float)):
        panel.plot(x, y, marker="o", color=colour_of(place), linestyle="none")
    models = len(means)
    if models < LEAST_MODELS:
        warning = f"{models} model{'s' if models != 1 else ''}: no correlation over models"
    else:
        found = model_scatter(means[key], means["correct"].astype(float))
        told = "r undefined" if np.isnan(found.r) else f"r {found.r:+.2f}"
        warning = f"{told} over {models} models: a picture, no test;\nso few need |r| > {found.needed:.3f}"
    panel.text(0.02, 0.98, warning, transform=panel.transAxes, va="top", fontsize=8)
    panel.set_xlabel(f"{_KEYS[key]}, mean")
    panel.set_title("over models")
    panel.set_ylim(-0.03, 1.03)
    panel.margins(x=0.3)
