"""The images of the documents, small enough for a page, and where their dots are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dataset_builder.errors import DatasetError
from dataset_builder.load import load_set
from dataset_builder.sets import SETS
from halo_probe.archive.runs import Run
from halo_probe.errors import UsageError
from halo_probe.metrics.dots import dots_of
from halo_probe.score.dots import SetSeen, find_set, load_seen

if TYPE_CHECKING:
    from datasets import Dataset

FOLDER = "images"
_LONGER_SIDE = 512
_QUALITY = 80

Picture = dict[str, Any]
"""What the page is told of an image, ready for JSON: `src`, `width` and `height` in pixels of the set, `centers` as
[x, y] and `radius` in the same pixels (none where it shows no dots); or `reason`, why there is none."""


class PictureWriter:
    """Writes each image once, however many runs saw it.

    Args:
        site: The folder of the page.
    """

    def __init__(self, site: Path) -> None:
        self._site = site
        self._sets: dict[SetSeen, Dataset | str] = {}  # in the place of a set that is not at hand stands the reason
        self._written: dict[tuple[int, int], Picture] = {}

    def add(self, run: Run, task: str, samples: Sequence[Mapping[str, Any]]) -> list[Picture]:
        """Write the images of documents of a task, as far as they are at hand: one entry for each sample."""
        seen = _find_set(run, task)
        if seen is None:
            return [
                {"reason": "lmms-eval keeps no images, and this task is on no set of halo-dataset"} for _ in samples
            ]
        if seen not in self._sets:
            self._sets[seen] = _load(seen)
        rows = self._sets[seen]
        if isinstance(rows, str):
            return [{"reason": rows} for _ in samples]
        number = list(self._sets).index(seen)
        places = {name: place for place, name in enumerate(rows["id"])}
        return [
            self._write(number, rows, places[sample["id"]])
            if sample.get("id") in places
            else {"reason": f"{seen.name} has no document of this id"}
            for sample in samples
        ]

    def _write(self, number: int, rows: "Dataset", place: int) -> Picture:
        if (number, place) not in self._written:
            row = rows[place]
            src = f"{FOLDER}/{number}/{place}.webp"
            path = self._site / src
            path.parent.mkdir(parents=True, exist_ok=True)
            image = row["image"].convert("RGB")
            image.thumbnail((_LONGER_SIDE, _LONGER_SIDE), Image.Resampling.LANCZOS)
            image.save(path, quality=_QUALITY, method=2)
            dots = dots_of(row)
            self._written[number, place] = {
                "src": src,
                "width": row["width"],
                "height": row["height"],
                "centers": dots.centers if dots else (),
                "radius": dots.radius if dots else 0,
            }
        return self._written[number, place]


def _find_set(run: Run, task: str) -> SetSeen | None:
    configs, signature = run.results["configs"], run.signature
    if task in signature.get("tasks", {}):
        return find_set(task, signature, configs)
    # A run without the probe states no content: its documents are known by their ids alone.
    name = configs[task].get("dataset_name")
    return SetSeen(name, "") if name in SETS else None


def _load(seen: SetSeen) -> "Dataset | str":
    """The rows of a set, or why they are not at hand."""
    try:
        return load_seen(seen) if seen.content_sha256 else load_set(seen.name)
    except (UsageError, DatasetError) as error:
        return str(error)
