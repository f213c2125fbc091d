"""The decision rules of the study, stated before any result: what is demanded, what was found, what follows.

A rule is a list of demands. A demand is met where the evidence shows it, failed where it shows the opposite, and open
where it is missing or too little. A rule is supported when all its demands are met, refuted when one has failed, and
else not decided. Each demand of a model's rule is judged two-sided at the level .05 / (number of demands), so that a
wrong verdict of either kind has a chance of at most .05 whatever the number of demands, as far as the bootstrap keeps
its level. It does not where documents are few, for its intervals are then too narrow, that of one has no width: below
20 documents with a value, or 80 % of the documents of the task, a demand is open. A cell of the Halo has
to show all three of its contrasts, each as it is and as a z-score, each judged at .05; there is no adjustment for the
number of families and layouts.

Source: the measurement specification, section 11. It leaves open what "small errors" and "recovers" are and when a
demand has failed: the constants here say so.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from halo_probe.compare.documents import LEAST_DOCUMENTS, enough
from halo_probe.statistics.information import digit_agreement
from halo_probe.statistics.intervals import (
    Floats,
    Interval,
    drawn_means,
    drawn_slopes,
    percentile_interval,
    wilson_interval,
)
from halo_probe.statistics.paired import mcnemar, signed_rank
from halo_probe.statistics.reliance import MOSTLY, OTHER

LEVEL = 0.05
TAKEOVER_USE = 0.05
"""Language Takeover: T_2 is below this."""
MAGNITUDE_USE = 0.10
"""Noisy magnitude estimation: T_2 is at least this."""
MAGNITUDE_SLOPE = 0.7
"""Noisy magnitude estimation: the slope of the predicted on the true count is at least this."""
SMALL_ERROR = 0.10
"""Noisy magnitude estimation: the mean relative error |e| / N is at most this."""
MAGNITUDE_ACCURACY = 0.9
"""Noisy magnitude estimation: the accuracy is surely below this; who makes no errors estimates nothing.

It is that on the answered documents: an exact counter that is silent on some makes no errors either."""
LEAST_ANSWERED = 0.8
"""Noisy magnitude estimation: at least this share of the documents is answered."""
BOOST = {"name": "boost", "strength": 2.0, "steps": "d2", "layers": "all"}
"""Language Takeover: the intervention of the run whose units are held against the plain ones."""
CONTRASTS = ("ring_contrast", "halo_index", "hull_contrast")
"""Halo: each is above 0 after sink removal, as it is and as a z-score against the null."""
LEAST_GAIN = 0.05
"""A gain in units accuracy that is surely smaller than this is none."""
LEAST_Z = 0.2
"""A mean z-score against the null that is surely smaller than this is no halo."""
LEAST_LAYOUTS = LEAST_FAMILIES = 2

Outcome = Literal["met", "failed", "open"]
Conclusion = Literal["supported", "refuted", "not decided"]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """One demand of a rule."""

    text: str
    outcome: Outcome
    numbers: Mapping[str, float]
    """What the outcome rests on; empty where the evidence is missing."""
    needs: str
    """What would close it, where it is open; else empty."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What follows from a rule."""

    rule: str
    subject: str
    """The model, or the runs, that it is about."""
    conclusion: Conclusion
    needs: tuple[str, ...]
    """What is missing, where it is not decided; else empty."""
    demands: tuple[Demand, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class WideReplies:
    """The replies to the set of two-digit counts whose digits carry information."""

    counts: NDArray[np.int64]
    """(n,), 10..99."""
    predicted: Floats
    """(n,), NaN where the reply gave none."""
    units: Floats | None
    """Of the units digit after the true tens digit, what {0..9, END, OTHER} got, (n, 12); None where not recorded."""
    draws: Floats
    """From `stratified_draws` of the counts, (draws, n)."""
    documents: int
    """Documents of the whole task, evaluated or not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitsPair:
    """Whether the units digit is right without and with a change, on the documents that both runs answered.

    Documents whose intervention did not take place are none of them.
    """

    before: NDArray[np.bool_]
    """(n,)."""
    after: NDArray[np.bool_]
    """(n,)."""
    draws: Floats
    """From `stratified_draws` of the true counts, (draws, n)."""
    documents: int
    """Documents of the whole task, evaluated, answered or not."""
    missed: int = 0
    """Documents left out because the intervention missed their count."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Differences:
    """How much more a measure changes in one task than in another, on the documents that have both values."""

    values: Floats
    """(n,)."""
    documents: int
    """Documents of the whole task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HaloCell:
    """The contrasts of one run on one layout, after sink removal."""

    family: str
    layout: str
    raw: Mapping[str, Floats]
    """By `CONTRASTS`, each (n,), NaN where undefined."""
    z: Mapping[str, Floats]
    """The same as z-scores against the null."""
    draws: Floats
    """From `stratified_draws` of the true counts, (draws, n)."""
    documents: int
    """Documents of the whole task."""


def language_takeover(
    subject: str,
    *,
    decay_difference: Differences | None,
    wide: WideReplies | None,
    reversed_units: UnitsPair | None,
    boosted_units: UnitsPair | None,
) -> Verdict:
    """Judge whether the model writes its second digit from language rather than from the image.

    Args:
        subject: The model.
        decay_difference: Decay of the sparsity from digit 1 to digit 2 when counting minus that when echoing, on the
            same images; None where one of the two was not run, or they cannot be paired.
        wide: Replies to `halo_count_wide`.
        reversed_units: From `halo_count_wide` to `halo_count_rev`.
        boosted_units: From `halo_count_wide` to the same with the image keys boosted at the second digit.
    """
    level = 1 - LEVEL / 4
    return _conclude(
        "Language Takeover",
        subject,
        (
            _negative_difference(decay_difference, level=level),
            _units_use(wide, TAKEOVER_USE, above=False, level=level),
            _gain(
                reversed_units,
                "the units digit is right more often when it is asked for first",
                "the tasks halo_count_wide and halo_count_rev",
                level=level,
            ),
            _gain(
                boosted_units,
                "the units digit is right more often with the image boosted at the second digit",
                "a run of halo_count_wide with intervention=boost:2@d2",
                level=level,
            ),
        ),
    )


def noisy_magnitude(subject: str, *, wide: WideReplies | None) -> Verdict:
    """Judge whether the model sees how many there are, only not exactly: then the image does reach its second digit.

    Args:
        subject: The model.
        wide: Replies to `halo_count_wide`.
    """
    level = 1 - LEVEL / 5
    n, slope, error, accuracy = 0, None, None, None
    needs = "the task halo_count_wide"
    documents = 0
    if wide is not None:
        answered = ~np.isnan(wide.predicted)
        n, documents = int(answered.sum()), wide.documents
        needs = "" if n else "replies of halo_count_wide that give a count"
        if enough(n, documents):
            relative = np.abs(wide.predicted - wide.counts) / wide.counts
            error = percentile_interval(drawn_means(relative, wide.draws), level=level)
            right = int((wide.predicted == wide.counts).sum())
            accuracy = wilson_interval(right, n, level=level)
            if np.unique(wide.counts[answered]).size > 1:
                slope = percentile_interval(drawn_slopes(wide.counts, wide.predicted, wide.draws), level=level)
            else:
                needs = "replies of halo_count_wide to more than one true count"
    return _conclude(
        "Noisy magnitude estimation",
        subject,
        (
            _units_use(wide, MAGNITUDE_USE, above=True, level=level),
            _bounded(
                f"the count slope is at least {MAGNITUDE_SLOPE:.2f}",
                (n, slope),
                MAGNITUDE_SLOPE,
                above=True,
                needs=needs,
            ),
            _bounded(
                f"the mean relative error is at most {SMALL_ERROR:.2f}",
                (n, error),
                SMALL_ERROR,
                above=False,
                needs=needs,
            ),
            _bounded(
                f"the accuracy on the answered documents is below {MAGNITUDE_ACCURACY:.2f}",
                (n, accuracy),
                MAGNITUDE_ACCURACY,
                above=False,
                needs=needs,
            ),
            _answered(n, documents, needs=needs),
        ),
    )


def halo(subject: str, cells: Sequence[HaloCell]) -> Verdict:
    """Judge whether attention lies around the dots and along their hull, whatever the layout and the model family.

    Supported where at least two families show it in at least two layouts each; refuted where at least two were measured
    in at least two layouts each and none of those can still show it. All runs of a family have to agree.

    Args:
        subject: The runs.
        cells: One for each run and layout.
    """
    demands = tuple(_halo_demand(cell) for cell in cells)
    outcomes: defaultdict[str, defaultdict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for cell, demand in zip(cells, demands, strict=True):
        outcomes[cell.family][cell.layout].append(demand.outcome)
    measured = [list(map(_joint, layouts.values())) for layouts in outcomes.values() if len(layouts) >= LEAST_LAYOUTS]
    shown = sum(layouts.count("met") >= LEAST_LAYOUTS for layouts in measured)
    possible = sum(len(layouts) - layouts.count("failed") >= LEAST_LAYOUTS for layouts in measured)
    conclusion: Conclusion = "not decided"
    needs: tuple[str, ...] = ()
    if shown >= LEAST_FAMILIES:
        conclusion = "supported"
    elif len(measured) >= LEAST_FAMILIES and not possible:
        conclusion = "refuted"
    elif len(measured) < LEAST_FAMILIES:
        missing = LEAST_FAMILIES - len(measured)
        needs = (f"spatial scores against the null in two layouts of {missing} more model families",)
    else:
        needs = ("more documents, layouts or families: it is shown in fewer than two",)
    return Verdict(rule="Halo", subject=subject, conclusion=conclusion, needs=needs, demands=demands)


def _conclude(rule: str, subject: str, demands: tuple[Demand, ...]) -> Verdict:
    joint = _joint([demand.outcome for demand in demands])
    conclusions: dict[Outcome, Conclusion] = {"met": "supported", "failed": "refuted", "open": "not decided"}
    needs = tuple(demand.needs for demand in demands if demand.outcome == "open") if joint == "open" else ()
    return Verdict(
        rule=rule,
        subject=subject,
        conclusion=conclusions[joint],
        needs=tuple(dict.fromkeys(needs)),
        demands=demands,
    )


def _joint(outcomes: Sequence[Outcome]) -> Outcome:
    if "failed" in outcomes:
        return "failed"
    return "open" if "open" in outcomes else "met"


def _demand(text: str, outcome: Outcome, numbers: Mapping[str, float], *, needs: str = "") -> Demand:
    wanted = needs or f"more documents to tell whether {text}"
    return Demand(text=text, outcome=outcome, numbers=numbers, needs=wanted if outcome == "open" else "")


def _answered(n: int, documents: int, *, needs: str) -> Demand:
    text = f"at least {LEAST_ANSWERED:.0%} of the documents are answered"
    if not documents:
        return _demand(text, "open", {}, needs=needs)
    silent = n < LEAST_ANSWERED * documents
    return _demand(
        text,
        "open" if silent or n < LEAST_DOCUMENTS else "met",
        {"n": n, "of": documents},
        needs="replies of halo_count_wide that give a count" if silent else "",
    )


def _bounded(text: str, found: tuple[int, Interval | None], bound: float, *, above: bool, needs: str) -> Demand:
    """A demand on a value of n documents by its interval: met or failed where all of it is on one side of the bound."""
    n, interval = found
    if interval is None:
        return _demand(text, "open", {"n": n} if n else {}, needs=needs)
    low, high = interval
    outcome: Outcome = "open"
    if low >= bound or high <= bound:
        outcome = "met" if (low >= bound) == above else "failed"
    return _demand(text, outcome, {"n": n, "low": low, "high": high})


def _negative_difference(differences: Differences | None, *, level: float) -> Demand:
    text = "the sparsity decays more from digit 1 to digit 2 when counting than when echoing"
    if differences is None or not differences.values.size:
        return _demand(text, "open", {}, needs="the tasks halo_count and halo_echo of a probed run, asked alike")
    test = signed_rank(differences.values)
    outcome: Outcome = "open"
    if enough(test.n, differences.documents) and test.p < 1 - level:
        outcome = "met" if test.w_plus < test.w_minus else "failed"
    numbers = {"pairs": test.n, "of": differences.documents, "shift": test.shift, "r": test.r, "p": test.p}
    return _demand(text, outcome, numbers)


def _units_use(wide: WideReplies | None, bound: float, *, above: bool, level: float) -> Demand:
    text = f"T_2 is {'at least' if above else 'below'} {bound:.2f} on two-digit counts"
    interval = None
    n = 0 if wide is None or wide.units is None else int((~np.isnan(wide.units).any(axis=1)).sum())
    if wide is not None and wide.units is not None and enough(n, wide.documents):
        written = [str(count) for count in wide.counts]
        interval = digit_agreement(wide.units, written, digit=2, level=level).interval
        interval = None if np.isnan(interval).any() else interval
    needs = "" if n else "a run of halo_count_wide with reliance=true"
    demand = _bounded(text, (n, interval), bound, above=above, needs=needs)
    other = 0 if wide is None or wide.units is None else int((wide.units[:, OTHER] > MOSTLY).sum())
    return replace(demand, numbers={**demand.numbers, "mostly other": other}) if other else demand


def _gain(pair: UnitsPair | None, text: str, needs: str, *, level: float) -> Demand:
    if pair is None:
        return _demand(text, "open", {}, needs=needs)
    lost, won = int((pair.before & ~pair.after).sum()), int((~pair.before & pair.after).sum())
    p = mcnemar(lost, won)
    gains = pair.after.astype(np.float64) - pair.before
    _, bootstrapped = percentile_interval(drawn_means(gains, pair.draws), level=level)
    # Where hardly a document changes the bootstrap has no width; a gain varies at least as a rate without losses does.
    high = max(bootstrapped, wilson_interval(max(won - lost, 0), gains.size, level=level)[1])
    outcome: Outcome = "open"
    if enough(gains.size, pair.documents):
        if p < 1 - level and won > lost:
            outcome = "met"
        elif high < LEAST_GAIN:
            outcome = "failed"
    numbers = {"n": gains.size, "of": pair.documents, "gain": float(gains.mean()), "gain high": high, "p": p}
    if pair.missed:
        numbers["intervention missed"] = pair.missed
    return _demand(text, outcome, numbers)


def _halo_demand(cell: HaloCell) -> Demand:
    text = f"all three are above 0, and above the null, for {cell.family} in {cell.layout}"
    numbers: dict[str, float] = {}
    outcomes: list[Outcome] = []
    for name in CONTRASTS:
        for shown, values, least in ((name, cell.raw[name], 0.0), (f"{name} z", cell.z[name], LEAST_Z)):
            numbers[f"{shown} n"] = int((~np.isnan(values)).sum())
            if not enough(int(numbers[f"{shown} n"]), cell.documents):
                outcomes.append("open")
                continue
            low, high = percentile_interval(drawn_means(values, cell.draws), level=1 - LEVEL)
            numbers |= {f"{shown} low": low, f"{shown} high": high}
            outcomes.append("met" if low > 0 else "failed" if high <= least else "open")
    return _demand(text, _joint(outcomes), numbers)
