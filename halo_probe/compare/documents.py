"""What the tables of a comparison have in common: values of documents, some undefined, their means and intervals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from halo_probe.compare.runs import TaskRun
from halo_probe.statistics.intervals import Floats, Interval, drawn_means, percentile_interval

UNDEFINED: Interval = (np.nan, np.nan)
"""The interval of a value that is undefined, or has none."""

Row = TypeVar("Row", bound=Any)


def shared(a: TaskRun, b: TaskRun) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the documents that both have, in a and in b, in the order of a."""
    places = {name: place for place, name in enumerate(b.ids)}
    mine = [place for place, name in enumerate(a.ids) if name in places]
    theirs = [places[a.ids[place]] for place in mine]
    return np.array(mine, dtype=np.intp), np.array(theirs, dtype=np.intp)


def find_mispairing(a: TaskRun, b: TaskRun) -> str:
    """What keeps two tasks from being paired by the ids of their documents; empty where nothing does.

    It is the name of a field that differs, of those that do not depend on the question: the true counts, the data and
    the system prompt. A field that one of the two does not state is passed over.
    """
    mine, theirs = shared(a, b)
    if (a.counts[mine] != b.counts[theirs]).any():
        return "true count of a document"
    for field in ("data hash", "system prompt"):
        stated = [one.fields[field] for one in (a, b) if one.fields[field] is not None]
        if len(stated) > 1 and stated[0] != stated[1]:
            return field
    return ""


def adjusted(rows: Sequence[Row], method: Callable[[Sequence[float]], NDArray[np.float64]]) -> tuple[Row, ...]:
    """The rows with the p-values of all of them adjusted as one family; an undefined one is no member of it."""
    values = iter(method([row.p for row in rows if not np.isnan(row.p)]).tolist())
    return tuple(row if np.isnan(row.p) else replace(row, p_adjusted=next(values)) for row in rows)


def interval_of(values: Floats, draws: Floats) -> Interval:
    """Bootstrap interval of the mean of values, (n,), by draws of documents; undefined where all are."""
    return UNDEFINED if np.isnan(values).all() else percentile_interval(drawn_means(values, draws))


def mean_of(values: Floats) -> float:
    """Mean of the values that are defined; NaN where none is."""
    return np.nan if np.isnan(values).all() else float(np.nanmean(values))
