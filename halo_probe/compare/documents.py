"""What the tables of a comparison have in common: values of documents, some undefined, their means and intervals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from halo_probe.archive.tasks import TaskRun
from halo_probe.statistics.intervals import LEAST_STRATUM, Floats, Interval, drawn_means, percentile_interval
from halo_probe.statistics.multiplicity import benjamini_hochberg, holm

UNDEFINED: Interval = (np.nan, np.nan)
"""The interval of a value that is undefined, or has none."""

LEAST_DOCUMENTS = LEAST_STRATUM
"""What rests on fewer documents with a value is open."""
LEAST_SHARE = 0.8
"""So is what rests on a smaller share of the documents of the task."""

ALIKE = (
    *("data hash", "system prompt", "generation configuration"),
    *("number of examples in the prompt", "marks of thoughts"),
)
"""The fields in which two questions on the same images are alike."""

Row = TypeVar("Row", bound=Any)


def enough(n: int, documents: int) -> bool:
    """Whether n documents with a value decide anything about a task of so many documents."""
    return n >= LEAST_DOCUMENTS and n >= LEAST_SHARE * documents


def shared(a: TaskRun, b: TaskRun) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the documents that both have, in a and in b, in the order of a."""
    places = {name: place for place, name in enumerate(b.ids)}
    mine = [place for place, name in enumerate(a.ids) if name in places]
    theirs = [places[a.ids[place]] for place in mine]
    return np.array(mine, dtype=np.intp), np.array(theirs, dtype=np.intp)


def find_mispairing(a: TaskRun, b: TaskRun) -> str:
    """What keeps two runs or tasks from being paired by the ids of their documents; empty where nothing does.

    It is the name of a field that differs: of two tasks, those that do not depend on the question; of one task that was
    run twice, all. A field that one of the two does not state is passed over.
    """
    mine, theirs = shared(a, b)
    if (a.counts[mine] != b.counts[theirs]).any():
        return "true count of a document"
    for field in ALIKE if a.name != b.name else a.fields:
        stated = [one.fields[field] for one in (a, b) if one.fields[field] is not None]
        if len(stated) > 1 and stated[0] != stated[1]:
            return field
    return ""


def adjusted(rows: Sequence[Row], primary: Callable[[Row], bool] = lambda _: False) -> tuple[Row, ...]:
    """The rows with their p-values adjusted; an undefined one is no member of a family.

    The primary tests, those of the paper's claims, are a family of their own for each run, judged by Holm: other runs
    and tasks never change them. All others are exploratory, one family, by Benjamini and Hochberg.

    Args:
        rows: Of one table.
        primary: Which of them are primary tests.
    """
    families: dict[str | None, list[int]] = {}
    for place, row in enumerate(rows):
        if not np.isnan(row.p):
            families.setdefault(row.run if primary(row) else None, []).append(place)
    found = list(rows)
    for run, places in families.items():
        method = benjamini_hochberg if run is None else holm
        for place, p in zip(places, method([rows[place].p for place in places]).tolist(), strict=True):
            found[place] = replace(rows[place], p_adjusted=p)
    return tuple(found)


def interval_of(values: Floats, draws: Floats) -> Interval:
    """Bootstrap interval of the mean of values, (n,), by draws of documents; undefined where all are."""
    return UNDEFINED if np.isnan(values).all() else percentile_interval(drawn_means(values, draws))


def mean_of(values: Floats) -> float:
    """Mean of the values that are defined; NaN where none is."""
    return np.nan if np.isnan(values).all() else float(np.nanmean(values))
