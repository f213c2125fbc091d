"""All figures of runs, written into one folder; what cannot be drawn is named with the reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd

from halo_probe.archive.runs import Run, open_runs
from halo_probe.compare.comparability import find_differences
from halo_probe.compare.evidence import COUNT
from halo_probe.errors import HaloError, NothingToDrawError, UsageError
from halo_probe.figures.correctness import draw_accuracy_against_sparsity
from halo_probe.figures.counts import draw_accuracy_and_bias, draw_predicted_and_true
from halo_probe.figures.digits import draw_digit_sparsity, draw_entropy_over_steps
from halo_probe.figures.frames import Frames, make_frames, name_runs
from halo_probe.figures.halo import draw_halo, radial_profile
from halo_probe.figures.heatmaps import MOST_CONDITIONS, draw_change, draw_layers_and_tokens
from halo_probe.figures.layers import draw_layers
from halo_probe.figures.maps import Picture, StoredMap, read_dots, read_maps, read_picture
from halo_probe.figures.style import Drawing, plain_text, save

_ENHANCED = "halo_enhance_"
# The layouts of the enhanced sets, with nothing added.
_BASE = "halo_enhance_base"
_LONGEST = 120  # characters of what was done to a run


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure that was written."""

    path_png: Path
    path_svg: Path
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of runs."""

    drawn: tuple[Figure, ...]
    left_out: tuple[tuple[str, str], ...]
    """Title and reason of those that these runs hold too little for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Subject:
    """What the figures are of: one task of comparable runs."""

    runs: Mapping[str, Run]
    """By name, those that have the task; at least one."""
    others: Sequence[Run]
    """All runs that were given."""
    task: str
    frames: Frames
    """Of `runs`, that task alone."""
    about: str
    document: int | None


def draw_figures(runs: Sequence[Path], out: Path, *, document: int | None = None, task: str | None = None) -> Figures:
    """Draw every figure that the runs hold enough for, as PNG and SVG.

    Args:
        runs: `--output_path`s of lmms-eval, of comparable runs.
        out: Folder for the figures; made if needed.
        document: The `doc_id` to show maps of; where None, the one whose sparsity is the median.
        task: The task to draw; where None, `halo_count` if a run has it, else the first.

    Raises:
        UsageError: If a run cannot be read, they are not comparable, or none has the task or the document.
        HaloError: If a figure cannot be written.
    """
    subject = _subject(open_runs(runs), task=task, document=document)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HaloError(f"{out}: cannot be made ({error.strerror}); choose another --out.") from error
    drawn, left_out = [], []
    for name, (title, draw) in _FIGURES.items():
        try:
            drawing = draw(subject)
        except NothingToDrawError as error:
            left_out.append((title, str(error)))
            continue
        png, svg = save(drawing, out / name)
        drawn.append(Figure(path_png=png, path_svg=svg, title=drawing.title, caption=drawing.caption))
    return Figures(drawn=tuple(drawn), left_out=tuple(left_out))


def _subject(runs: Sequence[Run], *, task: str | None, document: int | None) -> _Subject:
    tasks = list(dict.fromkeys(name for run in runs for name in run.tasks))
    chosen = task or (COUNT if COUNT in tasks else next(iter(tasks), None))
    if chosen not in tasks:
        what = f"no run has the task {task}" if task else "no run has a counting task"
        raise UsageError(f"{', '.join(run.label for run in runs)}: {what}; name runs and a --task of theirs.")
    taken = [run for run in runs if chosen in run.tasks]
    if differences := [line for line in find_differences(taken) if line.startswith(f"{chosen}: ")]:
        raise UsageError(f"{differences[0]}; draw only comparable runs.")
    frames = make_frames(taken)
    ids = set(frames.documents["doc_id"])
    if document is not None and document not in ids:
        raise UsageError(f"--document {document}: {chosen} has {min(ids)} to {max(ids)} in these runs; choose one.")
    return _Subject(
        runs=dict(zip(name_runs(taken), taken, strict=True)),
        others=runs,
        task=chosen,
        frames=Frames(
            **{key: table[table["task"] == chosen] for key, table in vars(frames).items()},
        ),
        about=f"{chosen} version {taken[0].tasks[chosen].fields['task version']}",
        document=document,
    )


def _typical(subject: _Subject, run: str) -> int:
    """The chosen document; else that of the run whose sparsity is the median, the lower one of two."""
    if subject.document is not None:
        return subject.document
    rows = subject.frames.documents[subject.frames.documents["run"] == run]
    ranked = rows.dropna(subset=["vision_sparsity"]).sort_values(["vision_sparsity", "doc_id"], kind="stable")
    if ranked.empty:
        raise NothingToDrawError(f"{run}: no reply has a token whose attention was recorded; evaluate other documents")
    return int(ranked["doc_id"].iloc[(len(ranked) - 1) // 2])


def _probed(subject: _Subject) -> str:
    """The first run with attention, a plain one if there is any."""
    having = [name for name, run in subject.runs.items() if run.layers]
    plain = [name for name in having if subject.runs[name].intervention is None]
    if not having:
        raise NothingToDrawError("no run has attention; evaluate with --model halo")
    return (plain or having)[0]


def _layers_and_tokens(subject: _Subject) -> Drawing:
    name = _probed(subject)
    run, document = subject.runs[name], _typical(subject, name)
    row = _document_row(run, subject.task, document)
    return draw_layers_and_tokens(
        read_picture(run, subject.task, document),
        read_maps(run, subject.task, documents=[document]),
        about=f"{subject.about}, document {document}, {name}: {row}",
    )


def _document_row(run: Run, task: str, document: int) -> str:
    """What was counted, in words."""
    one = run.tasks[task]
    place = [sample["doc_id"] for sample in one.samples].index(document)
    predicted = one.predicted[place]
    return f"counted {'nothing' if np.isnan(predicted) else int(predicted)} of {one.counts[place]}"


def _accuracy_and_bias(subject: _Subject) -> Drawing:
    return draw_accuracy_and_bias(subject.frames.summary, about=subject.about)


def _digit_sparsity(subject: _Subject) -> Drawing:
    return draw_digit_sparsity(subject.frames.documents, about=subject.about)


def _change(subject: _Subject) -> Drawing:
    name = _probed(subject)
    plain, document = subject.runs[name], _typical(subject, name)
    conditions = {_condition(plain): (plain, subject.task)}
    for run in subject.others:
        if run.model != plain.model:
            continue
        if run.intervention is None:
            enhanced = [task for task in run.tasks if task.startswith(_ENHANCED) and subject.task == _BASE]
            conditions |= {task.removeprefix(_ENHANCED): (run, task) for task in enhanced if task != _BASE}
        elif subject.task in run.tasks and run is not plain:
            conditions[_condition(run)] = (run, subject.task)
    if len(conditions) == 1:
        raise NothingToDrawError(
            f"no second run of {name} is enhanced; evaluate with an intervention, or {_BASE} and "
            f"halo_enhance_outline or another, and draw with --task {_BASE}"
        )
    shown: dict[str, tuple[Picture, list[StoredMap]]] = {}
    unseen = list(conditions)[MOST_CONDITIONS:]
    for label, (run, task) in list(conditions.items())[:MOST_CONDITIONS]:
        try:
            picture, maps = read_picture(run, task, document), _at_digits(run, task, document)
        except NothingToDrawError:  # the run has fewer documents, or image tokens were hidden
            if not shown:
                raise
            unseen.append(label)
            continue
        accuracy = run.tasks[task].correct.mean()
        shown[f"{fill(label, 24)}\n{_document_row(run, task, document)}\naccuracy {accuracy:.2f}"] = picture, maps
    not_shown = f"not shown: {', '.join(unseen)}"
    if len(shown) == 1:
        raise NothingToDrawError(f"no second run of {name} has a map of document {document}; {not_shown}")
    about = f"{subject.about} and its changes, document {document}, {name}"
    return draw_change(shown, about=f"{about}; {not_shown}" if unseen else about)


def _condition(run: Run) -> str:
    did = run.intervention or {"name": "plain"}
    return plain_text(" ".join(map(str, did.values())), longest=_LONGEST)


def _at_digits(run: Run, task: str, document: int) -> list[StoredMap]:
    """The maps of the last layer at the digits of the reply; at its first two tokens where it has none."""
    sample = next((one for one in run.tasks[task].samples if one["doc_id"] == document), None)
    if sample is None:
        raise NothingToDrawError(f"{run.label}, {task}: has no document {document}")
    counts = (sample.get("token_counts") or [None])[0] or {}
    steps = counts.get("halo", {}).get("digit_steps") or [0, 1]
    last = max(layer["index"] for layer in run.layers)
    return read_maps(run, task, documents=[document], layers=[last], steps=list(dict.fromkeys(steps[:2])))


def _entropy_over_steps(subject: _Subject) -> Drawing:
    return draw_entropy_over_steps(subject.frames.tokens, about=subject.about)


def _accuracy_against_sparsity(subject: _Subject) -> Drawing:
    return draw_accuracy_against_sparsity(subject.frames.documents, about=subject.about)


def _predicted_and_true(subject: _Subject) -> Drawing:
    return draw_predicted_and_true(subject.frames.documents, about=subject.about)


def _halo(subject: _Subject) -> Drawing:
    scores = _first_digit_scores(subject)
    if not scores.empty:
        scores = scores[scores["layer"] == scores.groupby("run")["layer"].transform("max")]
    if scores.empty or scores["halo_index_ns_z"].isna().all():
        raise NothingToDrawError("no run has z-scores at the first digit; run halo-probe score RUN --null")
    profiles = []
    for name in dict.fromkeys(scores["run"]):
        run, rows = subject.runs[name], scores[scores["run"] == name]
        steps = dict(zip(rows["doc_id"].astype(int), rows["step"].astype(int), strict=True))
        maps = read_maps(
            run,
            subject.task,
            documents=list(steps),
            layers=[int(rows["layer"].iloc[0])],
            steps=sorted(set(steps.values())),
        )
        dots = read_dots(run, subject.task)
        profiles.append(radial_profile([one for one in maps if steps[one.doc_id] == one.step], dots).assign(run=name))
    radius = next(one.radius for one in dots if one)
    return draw_halo(pd.concat(profiles, ignore_index=True), scores, radius=radius, about=subject.about)


def _layers(subject: _Subject) -> Drawing:
    return draw_layers(_first_digit_scores(subject), about=subject.about)


def _first_digit_scores(subject: _Subject) -> pd.DataFrame:
    """The scores at the step of the first digit of the reply, with the true count."""
    scores, documents = subject.frames.scores, subject.frames.documents
    if scores.empty:
        raise NothingToDrawError("no run has scores; run halo-probe score RUN --null")
    first = documents[["run", "doc_id", "count", "d1_step"]].rename(columns={"d1_step": "step"}).dropna()
    return scores.merge(first, on=["run", "doc_id", "step"], how="inner")


_FIGURES: Mapping[str, tuple[str, Callable[[_Subject], Drawing]]] = {
    "1-layers-and-tokens": ("Where the model looks, by layer and generated token", _layers_and_tokens),
    "2-accuracy-and-bias": ("Accuracy and bias", _accuracy_and_bias),
    "3-digit-sparsity": ("Sparsity at the first and the second digit", _digit_sparsity),
    "4-before-and-after": ("The same image before and after a change", _change),
    "5-entropy-over-tokens": ("Entropy over the generated tokens", _entropy_over_steps),
    "6-accuracy-against-sparsity": ("Accuracy against sparsity", _accuracy_against_sparsity),
    "7-predicted-and-true": ("Predicted and true counts", _predicted_and_true),
    "8-halo": ("The halo against its null", _halo),
    "9-layers": ("Mass, entropy and its change, layer by layer", _layers),
}
