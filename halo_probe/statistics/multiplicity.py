"""p-values of a family of tests, adjusted so that the family is judged as a whole.

Source: the measurement specification, section 10.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from halo_probe.errors import UsageError


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust for the chance of any false finding in the family (Holm 1979), in the order given.

    Args:
        p_values: (m,), each 0..1; an empty family stays empty.

    Raises:
        UsageError: If a value is outside 0..1.

    >>> holm([0.001, 0.01, 0.02, 0.04, 0.3]).round(6).tolist()
    [0.005, 0.04, 0.06, 0.08, 0.3]
    """
    p = _checked(p_values)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1)
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust for the share of false findings among the findings (Benjamini and Hochberg 1995), in the order given.

    Args:
        p_values: (m,), each 0..1; an empty family stays empty.

    Raises:
        UsageError: If a value is outside 0..1.

    >>> benjamini_hochberg([0.001, 0.01, 0.02, 0.04, 0.3]).round(6).tolist()
    [0.005, 0.025, 0.033333, 0.05, 0.3]
    """
    p = _checked(p_values)
    return np.asarray(stats.false_discovery_control(p)) if p.size else p


def _checked(p_values: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise UsageError(f"p-values of shape {p.shape}: give a list of numbers from 0 to 1")
    return p
