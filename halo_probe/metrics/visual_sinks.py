"""Visual sinks: image tokens with a massive activation in a few dimensions of the hidden state.

Source: Kang et al., arXiv 2503.03321; the measurement specification, section 7.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from halo_probe.errors import UsageError
from halo_probe.metrics.distributions import Values, plain

SINK_SCORE = 20
"""A token is a visual sink if its score is above this; look from layer 2 on."""


def sink_score(hidden: ArrayLike, *, dimensions: Sequence[int] | None = None) -> Values:
    """Score φ of each token: its largest |x_d| over the sink dimensions in units of its root mean square.

    Range 0..√D, at least 1 where all dimensions are looked at.

    Args:
        hidden: Hidden states of image tokens, (..., D), arrays or torch tensors on the CPU.
        dimensions: The sink dimensions of the model; all of them where None.

    Raises:
        UsageError: If a hidden state is not finite or all zero, or there is no dimension.

    >>> round(sink_score([30.0] + [1.0] * 999), 8)
    21.77001721
    """
    source: Any = hidden
    # numpy has no bfloat16; torch has it, and float() there is float32.
    bfloat16 = str(getattr(hidden, "dtype", "")) == "torch.bfloat16"
    x = np.abs(np.asarray(source.float() if bfloat16 else source, dtype=np.float64))
    if x.ndim == 0 or x.size == 0 or not np.isfinite(x).all() or not x.any(axis=-1).all():
        raise UsageError(
            f"sink_score: hidden states of shape {x.shape}: give finite ones that are not all zero, (..., dimensions)"
        )
    chosen = x if dimensions is None else x[..., list(dimensions)]
    return plain(chosen.max(axis=-1) / np.sqrt((x**2).mean(axis=-1)))


def is_visual_sink(hidden: ArrayLike, *, dimensions: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Whether each token is a visual sink, (...): whether its `sink_score` is above 20.

    Args:
        hidden: Hidden states of image tokens, (..., D), arrays or torch tensors on the CPU.
        dimensions: The sink dimensions of the model; all of them where None.

    Raises:
        UsageError: If a hidden state is not finite or all zero, or there is no dimension.
    """
    return np.asarray(np.asarray(sink_score(hidden, dimensions=dimensions)) > SINK_SCORE)
