"""Attention as the reply is written: from the first to the second digit, and over all generated tokens."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from halo_probe.errors import NothingToDrawError
from halo_probe.figures.style import Drawing, colour_of, finished, line_of, panels, styled
from halo_probe.statistics.intervals import drawn_means, percentile_interval, remember_draws
from halo_probe.statistics.multiplicity import holm
from halo_probe.statistics.paired import signed_rank

MOST_STEPS = 64
_LEAST_SHARE = 0.1


def draw_digit_sparsity(documents: pd.DataFrame, *, about: str) -> Drawing:
    """Sparsity at digit 1 and digit 2 of the same replies, two boxes per run, with the paired test.

    Args:
        documents: The rows of one task of `Frames.documents`.
        about: The task with its version, for the caption.

    Raises:
        NothingToDrawError: If no run has a document with both.
    """
    pairs = documents.dropna(subset=["sparsity_d1", "sparsity_d2"])
    runs = list(dict.fromkeys(pairs["run"]))
    if not runs:
        raise NothingToDrawError("no run has sparsity at two digits; evaluate a counting task with --model halo")
    by_run = {run: pairs[pairs["run"] == run] for run in runs}
    tests = {run: signed_rank(rows["sparsity_d2"] - rows["sparsity_d1"]) for run, rows in by_run.items()}
    adjusted = dict(zip(runs, holm([test.p for test in tests.values()]).tolist(), strict=True))
    with styled():
        figure, ((panel,),) = panels(1, 1, size=(max(5, 1.7 * len(runs) + 1.2), 4.2))
        for place, run in enumerate(runs):
            boxes = panel.boxplot(
                [by_run[run][f"sparsity_d{digit}"] for digit in (1, 2)],
                positions=[place - 0.2, place + 0.2],
                widths=0.32,
                patch_artist=True,
                medianprops={"color": "black"},
                flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#555555"},
            )
            for box, alpha in zip(boxes["boxes"], (0.85, 0.35), strict=True):
                box.set(facecolor=colour_of(place), alpha=alpha)
        panel.set_xlim(-0.6, len(runs) - 0.4)
        ticks = [place + side for place in range(len(runs)) for side in (-0.2, 0.2)]
        panel.set_xticks(ticks, labels=["digit 1", "digit 2"] * len(runs), fontsize=7)
        for place, run in enumerate(runs):
            test = tests[run]
            numbers = f"n = {test.n}, shift {test.shift:+.3f}\nr {test.r:+.2f}, p {_p_text(adjusted[run])}"
            panel.text(
                place, 1.02, f"{textwrap.fill(run, 24)}\n{numbers}",
                transform=panel.get_xaxis_transform(), ha="center", va="bottom", fontsize=7,
            )  # fmt: skip
        panel.set_ylabel("sparsity (Gini of A_eq1)")
        panel.grid(visible=False, axis="x")
        return finished(
            figure,
            title="Sparsity at the first and the second digit",
            caption=f"{about}; {layers_of(pairs)}; n = documents whose two digits are tokens of their own. Wilcoxon "
            "signed-rank on second minus first: Hodges-Lehmann shift, rank-biserial r, p after Holm over the runs. "
            "Where the first digit is always the same, as in 10..16, a change is confounded with what a digit can say.",
        )


def draw_entropy_over_steps(tokens: pd.DataFrame, *, about: str) -> Drawing:
    """Mean entropy at each generated token, with a bootstrap interval, a line per run.

    Steps that fewer than a tenth of a run's documents, or fewer than two, reach are left out, and those after the 64th.

    Args:
        tokens: The rows of one task of `Frames.tokens`.
        about: The task with its version, for the caption.

    Raises:
        NothingToDrawError: If no run has an entropy.
    """
    present = tokens.dropna(subset=["entropy"])
    if present.empty:
        raise NothingToDrawError("no run has entropies of generated tokens; evaluate with --model halo")
    with styled():
        figure, ((panel,),) = panels(1, 1, size=(7.5, 4))
        draws_of = remember_draws()
        for place, (run, rows) in enumerate(present.groupby("run", sort=False)):
            table = rows.pivot_table(index=["doc_id", "count"], columns="step", values="entropy")
            least = max(2, _LEAST_SHARE * len(table))
            steps = [step for step in table.columns if table[step].count() >= least and step < MOST_STEPS]
            if not steps:
                continue
            draws = draws_of(table.index.get_level_values("count").to_numpy())
            drawn = drawn_means(table[steps].to_numpy(dtype=float), draws)
            spread = np.array([percentile_interval(means) for means in drawn.T])
            ends = table[steps[0]].count(), table[steps[-1]].count()
            numbers = f"n = {ends[0]}" if ends[0] == ends[1] else f"n = {ends[0]} to {ends[1]}"
            shown = np.array(steps) + 1
            panel.plot(
                shown, table[steps].mean(), color=colour_of(place), linestyle=line_of(place), marker="o", markersize=4,
                label=f"{run} ({numbers})",
            )  # fmt: skip
            panel.fill_between(shown, *spread.T, color=colour_of(place), alpha=0.2, linewidth=0)
        panel.set_xlabel("generated token")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel("entropy of A_eq1 / ln M")
        return finished(
            figure,
            title="Entropy over the generated tokens",
            caption=f"{about}; {layers_of(present)}; n = documents at the first and last token shown; bands: 95 % "
            "bootstrap intervals of the mean. 1 is uniform attention; the end-of-sequence token is left out.",
            legend_of=panel,
        )


def layers_of(rows: pd.DataFrame) -> str:
    """The layers that values are of, for a caption."""
    known = rows.dropna(subset=["layer"])
    found = dict.fromkeys((int(layer), kind) for layer, kind in zip(known["layer"], known["layer_type"], strict=True))
    return f"layer {', '.join(f'{layer} ({kind})' for layer, kind in found)}" if found else "no layer recorded"


def _p_text(p: float) -> str:
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".")  # noqa: PLR2004 - three decimals
