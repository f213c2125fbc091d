"""Runs as data frames (pandas): what every figure is drawn from, and a notebook can be.

A run is named by its model, with the intervention if there was one, and with its folder where two would be the same.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from halo_probe.archive.runs import Run, open_runs
from halo_probe.compare.answer_tables import score_rows
from halo_probe.compare.evidence import plain_runs
from halo_probe.figures.style import plain_text
from halo_probe.metrics.keys import ASSOCIATED_KEYS

DOCUMENT_COLUMNS = (
    *("run", "model", "task", "version", "doc_id", "id", "count", "predicted", "correct"),
    *("digit_status", "d1_step", "d2_step", "layer", "layer_type", *ASSOCIATED_KEYS),
)
TOKEN_COLUMNS = (
    *("run", "task", "version", "doc_id", "count", "step", "token", "layer", "layer_type"),
    *("sparsity", "entropy", "visual_mass"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Runs, as tables; a value is NaN where it is undefined or was not recorded."""

    summary: pd.DataFrame
    """A row per task and run, then two constants: the columns of `halo_probe.compare.answer_tables.ScoreRow`."""
    documents: pd.DataFrame
    """A row per document: `DOCUMENT_COLUMNS`. `d1_step` and `d2_step` are the steps of the digits of the reply, the
    second one only where it is a token of its own; `layer` is the last one recorded, whose attention the keys hold.
    `model` names the first plain run of the same model; null with an intervention, which tells nothing of models."""
    tokens: pd.DataFrame
    """A row per generated token of the first call, end-of-sequence left out: `TOKEN_COLUMNS`."""
    scores: pd.DataFrame
    """The columns of `scores.parquet` and `run`, first repeat and call; without rows unless runs were scored."""


def read_frames(paths: Sequence[Path]) -> Frames:
    """Read runs as data frames.

    Args:
        paths: `--output_path`s of lmms-eval, of comparable runs.

    Raises:
        UsageError: If there is no run, or half of one.
    """
    return make_frames(open_runs(paths))


def make_frames(runs: Sequence[Run]) -> Frames:
    """The data frames of runs that are read already.

    Raises:
        UsageError: If the scores of a run cannot be read.
    """
    names = name_runs(runs)
    return Frames(
        summary=pd.DataFrame(_summary(runs, names)),
        documents=pd.DataFrame(_documents(runs, names), columns=list(DOCUMENT_COLUMNS)),
        tokens=pd.DataFrame(_tokens(runs, names), columns=list(TOKEN_COLUMNS)),
        scores=_scores(runs, names),
    )


def name_runs(runs: Sequence[Run]) -> list[str]:
    """A short name for each run, no two the same."""
    names = [_name(run) for run in runs]
    often = Counter(names)
    folders = [f"{name} ({plain_text(run.folder.name)})" for name, run in zip(names, runs, strict=True)]
    names = [name if often[name] == 1 else longer for name, longer in zip(names, folders, strict=True)]
    often = Counter(names)
    return [name if often[name] == 1 else f"{name} #{place + 1}" for place, name in enumerate(names)]


def _name(run: Run) -> str:
    model = plain_text(run.model_name.rstrip("/").rsplit("/", 1)[-1])
    did = run.intervention
    return f"{model} + {plain_text(str(did.get('name', 'intervention')))}" if did else model


def _summary(runs: Sequence[Run], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for task in dict.fromkeys(task for run in runs for task in run.tasks):
        taken = {name: run.tasks[task] for name, run in zip(names, runs, strict=True) if task in run.tasks}
        yield from map(asdict, score_rows(task, taken))


def _documents(runs: Sequence[Run], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    named = {run.label: name for name, run in zip(names, runs, strict=True)}
    models = {run.label: named[group[0].label] for group in plain_runs(runs) for run in group}
    for name, run in zip(names, runs, strict=True):
        for task, one in run.tasks.items():
            for place, sample in enumerate(one.samples):
                halo = _halo(sample)
                steps = halo.get("digit_steps") or []
                last: dict[str, Any] = next(iter(halo.get("generations", ())), {})
                yield {
                    "run": name,
                    "model": models.get(run.label),
                    "task": task,
                    "version": one.fields["task version"],
                    "doc_id": sample["doc_id"],
                    "id": one.ids[place],
                    "count": int(one.counts[place]),
                    "predicted": one.predicted[place],
                    "correct": bool(one.correct[place]),
                    "digit_status": halo.get("digit_status"),
                    "d1_step": steps[0] if steps else np.nan,
                    "d2_step": steps[1] if len(steps) > 1 and halo["digit_status"] == "split" else np.nan,
                    "layer": last.get("layer", np.nan),
                    "layer_type": last.get("layer_type"),
                    **{key: one.attention[key][place] if key in one.attention else np.nan for key in ASSOCIATED_KEYS},
                }


def _tokens(runs: Sequence[Run], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name, run in zip(names, runs, strict=True):
        for task, one in run.tasks.items():
            for place, sample in enumerate(one.samples):
                for call in _halo(sample).get("generations", ())[:1]:
                    for step, token in enumerate(call["tokens"][: call.get("content")]):
                        yield {
                            "run": name,
                            "task": task,
                            "version": one.fields["task version"],
                            "doc_id": sample["doc_id"],
                            "count": int(one.counts[place]),
                            "step": step,
                            "token": token,
                            "layer": call["layer"],
                            "layer_type": call["layer_type"],
                            **{key: call[key][step] for key in ("sparsity", "entropy", "visual_mass")},
                        }


def _halo(sample: dict[str, Any] | Any) -> dict[str, Any]:
    """What the probe wrote of a document; empty without it."""
    found: dict[str, Any] = ((sample.get("token_counts") or [None])[0] or {}).get("halo", {})
    return found


def _scores(runs: Sequence[Run], names: Sequence[str]) -> pd.DataFrame:
    found = [(name, run.scores()) for name, run in zip(names, runs, strict=True)]
    tables = [table.to_pandas().assign(run=name) for name, table in found if table is not None]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run": [], "task": []})
