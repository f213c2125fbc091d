"""What the Weights & Biases run of `--wandb_args` gets: results that lmms-eval can log, and a table of heatmaps."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from PIL import Image

from halo_probe.archive.reading import open_maps
from halo_probe.errors import HaloError
from halo_probe.overlay import draw_answer

TABLE = "halo/heatmaps"
DOCUMENTS = 8
"""First documents of each task that the table holds."""

_TOKENS = 3
_COLUMNS = ("task", "doc_id", "reply", "attention")


def fit_for_loggers(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The metrics of each task as lmms-eval's loggers can write them: else they stop before their table of results.

    lmms-eval gives an empty list to every key of the samples that is no metric, and `None` to an undefined standard
    error; its loggers format both as numbers.

    Args:
        results: The metrics of each task, by name.
    """
    return {
        task: {
            key: "N/A" if value is None and "_stderr" in key else value
            for key, value in metrics.items()
            if not isinstance(value, list)
        }
        for task, metrics in results.items()
    }


def log_heatmaps(folder: Path | None, tasks: Mapping[str, Any]) -> None:
    """Add a table of the first documents of each task, their reply and attention, to the wandb run, if there is one.

    A picture shows the first three generated tokens at the last recorded layer. The run goes on if wandb refuses it.

    Args:
        folder: The maps; None where none were kept.
        tasks: lmms-eval task objects by name.
    """
    wandb = sys.modules.get("wandb")
    if folder is None or wandb is None or wandb.run is None:
        return
    try:
        table = wandb.Table(columns=list(_COLUMNS))
        for task, doc_id, reply, picture in _rows(folder, tasks):
            table.add_data(task, doc_id, reply, wandb.Image(picture))
        wandb.run.log({TABLE: table})
    except (wandb.Error, HaloError, OSError) as error:
        logger.warning(f"The table of heatmaps was not logged to wandb: {error}")


def _rows(folder: Path, tasks: Mapping[str, Any]) -> Iterator[tuple[str, int, str, Image.Image]]:
    """Task, document, reply and picture of each document whose one image has maps on one grid."""
    maps = open_maps(folder)
    recorded = sorted({key for part in maps.parts for key, answer in part.answers.items() if answer.recorded})
    for task, loaded in tasks.items():
        first = list(dict.fromkeys(document for name, document, _ in recorded if name == task))[:DOCUMENTS]
        for stored in sorted(maps.calls(task=task, documents=first), key=lambda stored: stored.key):
            document, generation = stored.key[1], stored.generation
            images = loaded.doc_to_visual(loaded.eval_docs[document])
            if len(images) == 1 == len(generation.views) and isinstance(images[0], Image.Image):
                steps = [step for step in generation.content_steps if np.isfinite(generation.eq1[step, -1]).all()]
                picture = draw_answer(images[0], stored, steps[:_TOKENS], title=f"{task}, document {document}")
                if picture:
                    yield task, document, "".join(stored.pieces[: generation.content_steps.stop]), picture
