"""Two values of each of a few models: a scatter, and how little its correlation says.

Source: the measurement specification, section 10.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from halo_probe.errors import UsageError

LEAST_MODELS = 3


@dataclass(frozen=True, kw_only=True)
class ModelScatter:
    """The correlation over models, beside what it needs to be at the least."""

    models: int
    r: float
    """Pearson correlation, -1..1; NaN where a side does not vary."""
    needed: float
    """|r| that this many models need to differ from 0 at the 5 % level, two-sided."""


def model_scatter(x: ArrayLike, y: ArrayLike) -> ModelScatter:
    """Correlate two values over models: five of them need |r| > .878.

    Args:
        x: One value per model, (m,), finite, m at least 3.
        y: The other.

    Raises:
        UsageError: If the lengths differ, there are fewer than three models, or a value is not finite.

    >>> round(model_scatter([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]).needed, 3)
    0.878
    """
    values = np.array([x, y], dtype=np.float64) if np.shape(x) == np.shape(y) else np.empty(0)
    if values.ndim != 2 or values.shape[1] < LEAST_MODELS or not np.isfinite(values).all():  # noqa: PLR2004 - two sides
        raise UsageError(f"model_scatter: {np.shape(x)} and {np.shape(y)}: give finite values of at least three models")
    models = values.shape[1]
    varies = (np.ptp(values, axis=1) > 0).all()
    t = stats.t.ppf(0.975, models - 2)
    return ModelScatter(
        models=models,
        r=float(stats.pearsonr(*values).statistic) if varies else np.nan,
        needed=float(t / np.sqrt(models - 2 + t**2)),
    )
