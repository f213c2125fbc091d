"""Aggregations for lmms-eval of values that are undefined for some documents.

Conventions: a task emits one item per document and metric, None where the metric is undefined there, never NaN. An
aggregation may have an attribute `standard_error`, a function of the same items: the harness gives one to its own
`mean` only, so the plugin hands it the one named here.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def mean_of_present(items: Sequence[float | None]) -> float | None:
    """Mean over the documents that have a value; None where none has.

    >>> mean_of_present([1.0, None, 2.0])
    1.5
    """
    present = _present(items)
    return fmean(present) if present else None


def standard_error_of_present(items: Sequence[float | None]) -> float | None:
    """Standard error of `mean_of_present`: sample standard deviation / sqrt(n) of the documents that have a value.

    None, which the harness shows as N/A, for fewer than two of them.
    """
    present = _present(items)
    return stdev(present) / math.sqrt(len(present)) if len(present) > 1 else None


def _present(items: Sequence[float | None]) -> list[float]:
    return [item for item in items if item is not None]


mean_of_present.standard_error = standard_error_of_present  # type: ignore[attr-defined]
