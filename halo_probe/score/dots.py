"""Where the dots of a run's documents are: the rows of the very sets that the run saw."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.load import SOURCE_VARIABLE, content_sha256, load_set
from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
from halo_probe.errors import UsageError
from halo_probe.metrics.dots import DOTS_COLUMNS, Dots, dots_of

if TYPE_CHECKING:
    from datasets import Dataset


class SetSeen(NamedTuple):
    """A set as a run saw it."""

    name: str
    content_sha256: str


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
    sets: dict[SetSeen, DotSet] = {}
    found = {}
    for task in signature["tasks"]:
        if seen := find_set(task, signature, configs):
            if seen not in sets:
                sets[seen] = tuple(map(dots_of, _described(seen)))
            found[task] = sets[seen]
    return found


def _described(seen: SetSeen) -> Iterable[Mapping[str, Any]]:
    """The `DOTS_COLUMNS` of the rows of a set; those of a released set are drawn, faster than they load."""
    if seen.content_sha256 != CONTENT_SHA256.get(seen.name):
        loaded: Iterable[Mapping[str, Any]] = load_seen(seen).select_columns(list(DOTS_COLUMNS))
        return loaded
    spec = SETS[seen.name]
    same = {"radius": spec.radius, "width": spec.size, "height": spec.size}
    return ({"centers": draw_sample(spec, index).centers, **same} for index in range(spec.n))


def find_set(task: str, signature: Mapping[str, Any], configs: Mapping[str, Any]) -> SetSeen | None:
    """The set that a task of a run saw; None where it is no set of ours. The arguments are those of `find_dots`."""
    content = signature["tasks"][task]["dataset_sha256"]
    published = {content: name for name, content in CONTENT_SHA256.items()}
    name = published.get(content) or configs.get(task, {}).get("dataset_name")
    # The signature of rows that are no set of ours is a fingerprint of the library that loaded them.
    return None if name is None or content.startswith("fingerprint:") else SetSeen(name, content)


def load_seen(seen: SetSeen) -> "Dataset":
    """The rows of a set that a run saw, in the order of its documents.

    Raises:
        UsageError: If the set at hand is not the one that the run saw.
        DatasetError: If the set cannot be loaded.
    """
    rows = load_set(seen.name)
    if content_sha256(rows) != seen.content_sha256:
        raise UsageError(
            f"{seen.name}: the run saw content {seen.content_sha256}, what is here has {content_sha256(rows)}; "
            f"let {SOURCE_VARIABLE} name the folder or repository that the run had, or unset it if it had none."
        )
    return rows
