"""The results of one run as the `model-index` of a model card on the Hub."""

import re
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from halo_probe.leaderboard.board import Board, Entry, Leaderboard

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_METRICS = {"accuracy": "Accuracy", "answered": "Answered", "mbe": "Mean bias error in dots", "slope": "Count slope"}


def render_model_index(board: Leaderboard, one: Board, entry: Entry) -> str:
    """YAML to put at the top of the model's card, between its two lines of `---`.

    Args:
        board: The leaderboard.
        one: The table that the entry is in.
        entry: The run; a metric that it has no value of is left out.
    """
    from huggingface_hub import ModelCardData

    results = [_result(board, one, entry, metric=metric) for metric in _METRICS if not isnan(getattr(entry, metric))]
    return str(ModelCardData(model_name=entry.model.rpartition("/")[2], eval_results=results).to_yaml()) + "\n"


def write_model_indexes(board: Leaderboard, folder: Path) -> list[Path]:
    """Write one file per run of the leaderboard, named by its place and model; the paths."""
    paths = []
    entries = [(one, entry) for one in board.boards for entry in one.entries]
    for place, (one, entry) in enumerate(entries):
        name = re.sub(r"[^\w.-]+", "-", entry.model.rpartition("/")[2], flags=re.ASCII).strip("-.") or "model"
        paths.append(folder / f"model-index-{place + 1}-{name[:60]}.yaml")
        paths[-1].write_text(render_model_index(board, one, entry), encoding="utf-8")
    return paths


def _result(board: Leaderboard, one: Board, entry: Entry, *, metric: str) -> "EvalResult":
    from huggingface_hub import EvalResult

    conditions = {"n": entry.n, "dtype": entry.dtype, "intervention": entry.intervention, "signature": entry.signature}
    return EvalResult(
        task_type="visual-question-answering",
        task_name="Counting dots",
        dataset_type=board.task,
        dataset_name=f"{board.task} version {one.version}",
        dataset_split="test",
        metric_type=metric,
        metric_name=_METRICS[metric],
        metric_value=round(getattr(entry, metric), 6),
        metric_args={key: value for key, value in conditions.items() if value},
    )
