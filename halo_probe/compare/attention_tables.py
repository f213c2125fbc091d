"""The tables of a comparison that are about the attention of runs: how it changes, and what the answers owe to it.

Every row is a plain record; a value is NaN where it is undefined on these documents. Intervals are at 95 %. The
functions leave `p_adjusted` undefined: it is over all rows of a table, and `adjusted` fills it in.

Source: the measurement specification, sections 5, 7, 9 and 10.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from halo_probe.archive.runs import Run
from halo_probe.archive.tasks import TaskRun
from halo_probe.compare.documents import UNDEFINED, find_mispairing, interval_of, mean_of, shared
from halo_probe.metrics.keys import ASSOCIATED_KEYS, MEASURES
from halo_probe.metrics.reliability import associate
from halo_probe.statistics.information import digit_agreement, digit_use
from halo_probe.statistics.intervals import DrawsOf, Floats, Interval
from halo_probe.statistics.paired import signed_rank
from halo_probe.statistics.scatter import LEAST_MODELS, model_scatter

BEYOND_ECHO = "count - echo"
"""What the rows of the difference in differences have as their task."""


@dataclass(frozen=True, kw_only=True)
class AttentionRow:
    """The attention of a run, with what it depends on besides the model's looking: means over documents."""

    task: str
    run: str
    image_tokens: float
    """M of the first document; NaN without maps."""
    heads: str
    layer: str
    """Index and type of the layer that is shown."""
    sparsity: float
    sparsity_interval: Interval
    sparsity_g16: float
    sparsity_g16_interval: Interval
    entropy: float
    entropy_interval: Interval
    visual_mass: float
    visual_mass_interval: Interval


@dataclass(frozen=True, kw_only=True)
class ChangeRow:
    """A paired change of an attention measure: from digit 1 to digit 2, or of that decay from echo to count."""

    task: str
    run: str
    measure: str
    pairs: int
    """Documents with both values."""
    mean: float
    mean_interval: Interval
    shift: float
    r: float
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class RelianceRow:
    """What a digit owes to the image: how much of the count it tells, and what taking the image away does to it."""

    task: str
    run: str
    digit: int
    """In the order in which they are asked for, from 1."""
    n: int
    """Documents measured; the others have digits merged in one token."""
    other: int
    """Of these, documents with more than half of the probability on OTHER at this digit: the rest is small there."""
    t: float
    """How far two images with the same digit agree on it: what decides."""
    t_interval: Interval
    u_plain: float
    """Three estimates of the share of what the digit can say that comes from the image; none decides."""
    u_less_chance: float
    u_jackknife: float
    vr: float
    vr_interval: Interval
    vrd: float
    vrd_interval: Interval
    dlogp: float
    dlogp_interval: Interval


@dataclass(frozen=True, kw_only=True)
class AssociationRow:
    """An attention value against correctness, within documents of the same count."""

    task: str
    run: str
    key: str
    n: int
    right: int
    wrong: int
    """Where there are fewer than ten of either, there is nothing else."""
    r: float
    r_interval: Interval
    auroc: float
    auroc_interval: Interval
    p: float
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class ScatterRow:
    """Accuracy against the mean of an attention value, over models."""

    task: str
    key: str
    models: int
    r: float
    needed: float


def attention_rows(task: str, runs: Sequence[Run], *, draws_of: DrawsOf) -> Iterator[AttentionRow]:
    """The attention of each probed run, averaged over the generated tokens of each document."""
    for run in runs:
        one = run.tasks[task]
        missing = np.full(one.counts.size, np.nan)
        names = {"sparsity": "sparsity", "sparsity_g16": "sparsity_g16", "entropy": "entropy", "visual_mass": "mass"}
        values = {name: one.attention.get(f"vision_{key}", missing) for name, key in names.items()}
        if np.isnan(list(values.values())).all():
            continue
        draws = draws_of(one.counts)
        shown = run.layers[-1] if run.layers else {"index": "", "type": ""}
        yield AttentionRow(
            task=task,
            run=run.label,
            image_tokens=sum(rows * columns for rows, columns in run.grid) or np.nan,
            heads=str(run.model.get("heads", "")),
            layer=f"{shown['index']} {shown['type']}".strip(),
            sparsity=mean_of(values["sparsity"]),
            sparsity_interval=interval_of(values["sparsity"], draws),
            sparsity_g16=mean_of(values["sparsity_g16"]),
            sparsity_g16_interval=interval_of(values["sparsity_g16"], draws),
            entropy=mean_of(values["entropy"]),
            entropy_interval=interval_of(values["entropy"], draws),
            visual_mass=mean_of(values["visual_mass"]),
            visual_mass_interval=interval_of(values["visual_mass"], draws),
        )


def decay_rows(task: str, taken: Mapping[str, TaskRun], *, draws_of: DrawsOf) -> Iterator[ChangeRow]:
    """The change from digit 1 to digit 2 in each probed run."""
    for label, one in taken.items():
        for measure in MEASURES:
            yield from _change(decay(one, measure), draws_of(one.counts), task=task, run=label, measure=measure)


def contrast_rows(run: str, count: TaskRun, echo: TaskRun, *, draws_of: DrawsOf) -> Iterator[ChangeRow]:
    """The difference in differences of a model: count minus echo."""
    for measure in MEASURES:
        differences = decay_differences(count, echo, measure)
        yield from _change(differences, draws_of(count.counts), task=BEYOND_ECHO, run=run, measure=measure)


def reliance_rows(task: str, taken: Mapping[str, TaskRun], *, draws_of: DrawsOf) -> Iterator[RelianceRow]:
    """The first and second digit of each run that recorded reliance; T and U where all counts are equally long."""
    for label, one in taken.items():
        draws = draws_of(one.counts)
        for digit in (1, 2):
            missing = np.full(one.counts.size, np.nan)
            changes = {name: one.reliance.get(f"{name}_{digit}", missing) for name in ("vr", "vrd", "dlogp")}
            shares = _shares(one, digit)
            if np.isnan([shares["u_plain"], *(mean_of(values) for values in changes.values())]).all():
                continue
            yield RelianceRow(
                task=task,
                run=label,
                digit=digit,
                n=one.reliance_status.get("measured", 0),
                other=sum(digit in digits for digits in one.mostly_other),
                **shares,
                vr=mean_of(changes["vr"]),
                vr_interval=interval_of(changes["vr"], draws),
                vrd=mean_of(changes["vrd"]),
                vrd_interval=interval_of(changes["vrd"], draws),
                dlogp=mean_of(changes["dlogp"]),
                dlogp_interval=interval_of(changes["dlogp"], draws),
            )


def association_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[AssociationRow]:
    """Each attention value of each run against correctness."""
    for label, one in taken.items():
        for key, values in one.attention.items():
            present = ~np.isnan(values)
            found = associate(values[present], one.correct[present], counts=one.counts[present])
            yield AssociationRow(
                task=task,
                run=label,
                key=key,
                n=found.n,
                right=found.right,
                wrong=found.wrong,
                r=found.r,
                r_interval=found.r_interval,
                auroc=found.auroc,
                auroc_interval=found.auroc_interval,
                p=found.p,
                p_adjusted=np.nan,
            )


def scatter_rows(task: str, taken: Mapping[str, TaskRun]) -> Iterator[ScatterRow]:
    """Accuracy against the mean of each attention value, where at least three models have both."""
    for key in ASSOCIATED_KEYS:
        points = [
            (one.correct.mean(), np.nanmean(one.attention[key])) for one in taken.values() if key in one.attention
        ]
        if len(points) >= LEAST_MODELS:
            found = model_scatter(*zip(*points, strict=True))
            yield ScatterRow(task=task, key=key, models=found.models, r=found.r, needed=found.needed)


def decay(one: TaskRun, measure: str) -> Floats:
    """Second minus first digit of a measure, (n,); NaN where either is missing, or an intervention missed the count."""
    missing = np.full(one.counts.size, np.nan)
    change = one.attention.get(f"{measure}_d2", missing) - one.attention.get(f"{measure}_d1", missing)
    return np.where(one.missed, np.nan, change)


def decay_differences(count: TaskRun, echo: TaskRun, measure: str) -> Floats:
    """Decay when counting minus decay when echoing, (n,) for the n documents of `count`.

    NaN where one is missing, and for all documents where the two tasks cannot be paired.
    """
    differences = np.full(count.counts.size, np.nan)
    if find_mispairing(count, echo):
        return differences
    mine, theirs = shared(count, echo)
    differences[mine] = decay(count, measure)[mine] - decay(echo, measure)[theirs]
    return differences


def _change(differences: Floats, draws: Floats, *, task: str, run: str, measure: str) -> Iterator[ChangeRow]:
    present = ~np.isnan(differences)
    if not present.any():
        return
    test = signed_rank(differences[present])
    yield ChangeRow(
        task=task,
        run=run,
        measure=measure,
        pairs=test.n,
        mean=test.mean,
        mean_interval=interval_of(differences, draws),
        shift=test.shift,
        r=test.r,
        p=test.p,
        p_adjusted=np.nan,
    )


def _shares(one: TaskRun, digit: int) -> dict[str, Any]:
    """T and the estimates of U of a digit; undefined where nothing was recorded, or the counts are not equally long."""
    if one.probabilities is None or one.probabilities.shape[1] < digit:
        undefined = dict.fromkeys(("t", "u_plain", "u_less_chance", "u_jackknife"), np.nan)
        return {**undefined, "t_interval": UNDEFINED}
    said = one.probabilities[:, digit - 1]
    agreement = digit_agreement(said, one.true_digits, digit=digit)
    use = digit_use(said, one.true_digits, digit=digit)
    return {
        "t": agreement.t,
        "t_interval": agreement.interval,
        "u_plain": use.plain,
        "u_less_chance": use.less_chance,
        "u_jackknife": use.jackknife,
    }
