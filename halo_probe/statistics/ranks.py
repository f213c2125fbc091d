"""Ranks of models by accuracy, no finer than a test tells them apart.

Source: the measurement specification, section 10.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from halo_probe.errors import UsageError
from halo_probe.statistics.multiplicity import holm
from halo_probe.statistics.paired import mcnemar

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The place of one of m models."""

    rank: int
    """From 1: 1 + the number of models that are surely better, and no less than that of any model more accurate."""
    best: int
    """The best place that it may have: 1 + the number of models that are surely better."""
    worst: int
    """The worst: m less the number of models that are surely worse."""


def rank_models(accuracies: ArrayLike, wins: ArrayLike) -> list[Rank]:
    """Rank models by accuracy; one is surely better than another by the exact McNemar test, p <= .05.

    The tests are Holm-corrected over all pairs. Models may share a rank, whatever lies between their accuracies.

    Args:
        accuracies: (m,).
        wins: (m, m), the number of documents on which only the first of each two models is right.

    Raises:
        UsageError: If the shapes do not fit.

    >>> [one.rank for one in rank_models([0.9, 0.5, 0.4], [[0, 40, 50], [0, 0, 12], [0, 2, 0]])]
    [1, 2, 3]
    """
    accuracy, won = np.asarray(accuracies, dtype=np.float64), np.asarray(wins)
    m = accuracy.size
    if accuracy.shape != (m,) or won.shape != (m, m):
        raise UsageError(f"rank_models: accuracies {accuracy.shape}, wins {won.shape}: give (m,) and (m, m)")
    first, second = np.triu_indices(m, 1)
    adjusted = holm([mcnemar(int(won[pair]), int(won[pair[::-1]])) for pair in zip(first, second, strict=True)])
    surely = np.zeros((m, m), dtype=np.bool_)
    surely[first, second] = surely[second, first] = adjusted <= LEVEL
    better = surely & (won > won.T)
    best = 1 + better.sum(axis=0)
    return [
        Rank(
            rank=int(max(best[place], *best[accuracy > accuracy[place]], 1)),
            best=int(best[place]),
            worst=int(m - better[place].sum()),
        )
        for place in range(m)
    ]
