"""What the Weights & Biases run of `--wandb_args` gets: results that lmms-eval can log, and a table of heatmaps."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from loguru import logger
from PIL import Image

from halo_probe.errors import HaloError
from halo_probe.overlay import draw_overlay

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
    except (wandb.Error, HaloError, pa.ArrowException, OSError) as error:
        logger.warning(f"The table of heatmaps was not logged to wandb: {error}")


def _rows(folder: Path, tasks: Mapping[str, Any]) -> Iterator[tuple[str, int, str, Image.Image]]:
    """Task, document, reply and picture of each document whose one image has maps on one grid."""
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    stored = ds.dataset(
        sorted(folder.glob("part-*.parquet")), format=ds.ParquetFileFormat(default_fragment_scan_options=checked)
    )
    answer = (ds.field("repeat") == 0) & (ds.field("call") == 0) & ~ds.field("end")
    columns = ["doc_id", "step", "token_text", "layer", "layer_type", "grid", "map_eq1"]
    for task, loaded in tasks.items():
        of_task = (ds.field("task") == task) & answer
        found = stored.to_table(columns=["doc_id"], filter=of_task)["doc_id"].unique().to_pylist()
        first = sorted(found)[:DOCUMENTS]
        rows = stored.to_table(columns=columns, filter=of_task & ds.field("doc_id").isin(first)).to_pylist()
        for doc_id in first:
            steps = [row for row in rows if row["doc_id"] == doc_id]
            last = max(row["layer"] for row in steps)
            steps = sorted((row for row in steps if row["layer"] == last), key=lambda row: row["step"])
            reply = "".join(row["token_text"] for row in steps)
            # A step that sees no image token has no map.
            steps = [row for row in steps if np.isfinite(row["map_eq1"]).all()]
            images = loaded.doc_to_visual(loaded.eval_docs[doc_id])
            if steps and len(images) == 1 == len(steps[0]["grid"]) and isinstance(images[0], Image.Image):
                yield task, doc_id, reply, _draw(images[0], steps[:_TOKENS], title=f"{task}, document {doc_id}")


def _draw(image: Image.Image, steps: list[dict[str, Any]], *, title: str) -> Image.Image:
    return draw_overlay(
        image,
        [row["map_eq1"] for row in steps],
        grid=tuple(steps[0]["grid"][0]),
        titles=[f"token {row['step'] + 1}: {row['token_text']!r}" for row in steps],
        caption=f"{title}; layer {steps[0]['layer']} ({steps[0]['layer_type']}), A_eq1; n = 1",
    )
