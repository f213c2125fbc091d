"""Where the dots of a run's documents are: the rows of the very sets that the run saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.load import SOURCE_VARIABLE, content_sha256, load_set
from halo_probe.errors import UsageError
from halo_probe.metrics.geometry import Layout, lay_out


@dataclass(frozen=True, kw_only=True)
class Dots:
    """The dots of one document."""

    centers: tuple[tuple[int, int], ...]
    """(x, y) in pixels; at least one."""
    radius: int
    """In pixels."""
    image: tuple[int, int]
    """Height and width in pixels."""


DotSet = tuple[Dots | None, ...]
"""The documents of a set in order; None where one has no dots."""


def find_dots(signature: Mapping[str, Any], configs: Mapping[str, Any]) -> dict[str, DotSet]:
    """The dots of the documents of each task that counts on a set of dots, by task.

    Args:
        signature: That of the run.
        configs: The tasks' configurations as lmms-eval wrote them; empty where the run did not come that far. A set of
            the study is then found by its content.

    Raises:
        UsageError: If the set at hand is not the one that the run saw.
        DatasetError: If the set cannot be loaded.
    """
    published = {content: name for name, content in CONTENT_SHA256.items()}
    sets: dict[tuple[str, str], DotSet] = {}
    found = {}
    for task, fields in signature["tasks"].items():
        content = fields["dataset_sha256"]
        name = published.get(content) or configs.get(task, {}).get("dataset_name")
        # The signature of rows that are no set of ours is a fingerprint of the library that loaded them.
        if name is None or content.startswith("fingerprint:"):
            continue
        if (name, content) not in sets:
            sets[name, content] = _load_dots(name, content)
        found[task] = sets[name, content]
    return found


def _load_dots(name: str, content: str) -> DotSet:
    rows = load_set(name)
    if content_sha256(rows) != content:
        raise UsageError(
            f"{name}: the run saw content {content}, what is here has {content_sha256(rows)}; "
            f"let {SOURCE_VARIABLE} name the folder or repository that the run had, or unset it if it had none."
        )
    return tuple(map(_dots_of, rows.select_columns(["centers", "radius", "width", "height"])))


def _dots_of(row: Mapping[str, Any]) -> Dots | None:
    # A number to read has places of its digits, but no radius.
    if not row["centers"] or not row["radius"]:
        return None
    return Dots(
        centers=tuple((x, y) for x, y in row["centers"]), radius=row["radius"], image=(row["height"], row["width"])
    )


@lru_cache(maxsize=512)
def layout_of(dots: Dots, grid: tuple[int, int]) -> Layout:
    """The dots on a grid that covers the whole image; kept, since a null needs those of most of the set each time."""
    return lay_out(dots.centers, radius=dots.radius, image=dots.image, grid=grid)
