"""Attention to the image through the layers of the language model."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from halo_probe.errors import NothingToDrawError
from halo_probe.figures.style import Drawing, colour_of, finished, line_of, panels, styled
from halo_probe.statistics.intervals import drawn_means, percentile_interval, remember_draws

_KEYS = {
    "visual_mass": "visual mass",
    "entropy": "entropy / ln M",
    "delta_entropy": "ΔH to the layer before, nats",
}


def draw_layers(scores: pd.DataFrame, *, about: str) -> Drawing:
    """Visual mass, entropy and its change from layer to layer at the first digit, a line per run.

    Args:
        scores: Rows of `Frames.scores` at the first digit, of one task, with the `count` of the document.
        about: The task with its version, for the caption.

    Raises:
        NothingToDrawError: If no run was scored at two layers.
    """
    known = scores.dropna(subset=list(_KEYS), how="all")
    runs = [run for run, rows in known.groupby("run", sort=False) if len(rows["layer"].unique()) > 1]
    if not runs:
        raise NothingToDrawError("no run was scored at two layers; evaluate with layers=all, then halo-probe score RUN")
    with styled():
        figure, (axes,) = panels(1, len(_KEYS), size=(11, 3.8))
        draws_of = remember_draws()
        for place, run in enumerate(runs):
            rows = scores[scores["run"] == run]
            counts = rows.drop_duplicates("doc_id").sort_values("doc_id")["count"].to_numpy()
            for panel, key in zip(axes, _KEYS, strict=True):
                table = rows.pivot_table(index="doc_id", columns="layer", values=key, dropna=False).sort_index()
                table = table.loc[:, table.notna().any()]
                if table.empty:
                    continue
                drawn = drawn_means(table.to_numpy(dtype=float), draws_of(counts))
                spread = np.array([percentile_interval(means) for means in drawn.T])
                label = f"{run} (n = {len(table)})"
                panel.plot(
                    table.columns, table.mean(), color=colour_of(place), linestyle=line_of(place), marker="o",
                    markersize=3, label=label,
                )  # fmt: skip
                panel.fill_between(table.columns, *spread.T, color=colour_of(place), alpha=0.2, linewidth=0)
        for panel, (key, name) in zip(axes, _KEYS.items(), strict=True):
            panel.set_xlabel("layer")
            panel.set_title(name)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if not panel.lines:
                panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center")
            if key == "delta_entropy":
                panel.axhline(0, color="black", linewidth=0.8)
        kinds = ", ".join(
            f"{run}: n = {rows['doc_id'].nunique()}, {_kinds_of(rows)} layers"
            for run, rows in scores.groupby("run", sort=False)
            if run in runs
        )
        return finished(
            figure,
            title="Mass, entropy and its change, layer by layer",
            caption=f"{about}; first digit; {kinds}. A_eq1; bands: 95 % bootstrap intervals of the mean over n "
            "documents. Entropy 1 is uniform; ΔH needs the layer before it.",
            legend_of=axes[0],
        )


def _kinds_of(rows: pd.DataFrame) -> str:
    """How many layers of each type."""
    kinds = rows.drop_duplicates("layer")["layer_type"].value_counts(sort=False)
    return " and ".join(f"{number} {kind}" for kind, number in kinds.items())
