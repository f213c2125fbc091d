"""What is recorded of one reply: its maps, the layers that they are of, and what the image tokens show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from halo_probe.metrics.views import WHOLE


@dataclass(frozen=True)
class Layer:
    """One recorded decoder layer."""

    index: int
    """Position in the language model, from 0."""
    type: str
    """The configuration's layer type: `full_attention`, `sliding_attention`, `chunked_attention` or another of its own,
    or `cross_attention` where the keys of the layer are those of the image and not of the prompt."""

    @property
    def crosses(self) -> bool:
        """Whether its keys are the image's own instead of the prompt's."""
        return self.type == "cross_attention"


@dataclass(frozen=True)
class View:
    """One picture that the model was shown of an image: the image itself, a tile, a crop or a thumbnail."""

    image: int
    """Which image of the prompt, from 0."""
    height: int
    """Rows of the grid, in tokens."""
    width: int
    """Columns of the grid, in tokens."""
    box: tuple[float, float, float, float] = WHOLE
    """The part of the image that the view covers, x0, y0, x1, y1 as fractions of its width and height."""


@dataclass(frozen=True, eq=False)
class Given:
    """What `generate` was given for one reply, whatever was asked for."""

    prompt: np.ndarray
    """int64: the tokens of the prompt, without padding."""
    image_positions: np.ndarray
    """M, int64: positions of the image tokens in the prompt."""
    pictures: str | None
    """SHA-256 over the tensors beside the prompt, the pixels among them; None where several prompts share them."""
    options: Mapping[str, Any]
    """Options of decoding that are in force and not neutral, ready for JSON."""


@dataclass(frozen=True, eq=False)
class Generation:
    """Attention to the image tokens while one reply was generated.

    Shapes: T generation steps, L recorded layers, M image tokens, H heads. Step t is the query position whose output
    predicts generated token t (spec §1), so there are as many steps as tokens, the end-of-sequence token included.
    """

    token_ids: np.ndarray
    """T, int64: generated tokens, up to and including the end-of-sequence token."""
    ended: bool
    """Whether the last token is an end-of-sequence token; means over generated tokens leave that step out."""
    views: tuple[View, ...]
    """What the model was shown of each image, row by row, view after view; heights times widths sum to M. Empty where
    the image tokens form no raster."""
    layers: tuple[Layer, ...]
    """The L layers, in the order of the maps."""
    eq1: np.ndarray
    """T × L × M, float32: `A_eq1`, sums to 1; the mean over the heads that see an image token, NaN where none does."""
    raw: np.ndarray
    """T × L × M, float32: `A_raw`, sums to `visual_mass`."""
    visual_mass: np.ndarray
    """T × L, float32 in [0, 1]: share of the attention that falls on the image."""
    first_mass: np.ndarray
    """T × L, float32 in [0, 1]: share of the attention that falls on the first token of the prompt; NaN in layers that
    attend to the image alone."""
    visible: np.ndarray
    """T × L, int32: image tokens that some head of the layer can attend to; less than M once a sliding window has left
    some behind, or where the layer itself selects keys."""
    heads: np.ndarray | None = field(default=None, repr=False)
    """T × L × H × M, float32: attention of each head before the mean, only with `heads="all"`."""
    sink_tokens: np.ndarray | None = None
    """M, bool: image tokens that are visual sinks, with a massive activation after some layer from layer 2 on (φ > 20
    over all dimensions, spec §7); only with `sinks=True`."""
    given: Given | None = field(default=None, repr=False)
    """What the reply is one to; None of a generation that is read from its maps."""

    @property
    def image_tokens(self) -> int:
        """M, the number of image tokens."""
        return int(self.eq1.shape[-1])

    @property
    def prompt_length(self) -> int:
        """Number of prompt tokens, padding left out.

        Raises:
            LookupError: If the generation was read from its maps, which do not hold the prompt.
        """
        return int(self._prompt.prompt.size)

    @property
    def image_positions(self) -> np.ndarray:
        """M, int64: positions of the image tokens in the prompt.

        Raises:
            LookupError: If the generation was read from its maps, which do not hold the prompt.
        """
        return self._prompt.image_positions

    @property
    def _prompt(self) -> Given:
        if self.given is None:
            raise LookupError("the prompt is not stored with the maps; record the reply anew to have it")
        return self.given

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Height and width in tokens of each view."""
        return tuple((view.height, view.width) for view in self.views)

    @property
    def rn(self) -> np.ndarray:
        """T × L × M, float32: `A_rn`, the head average, then renormalised; NaN where the mass is 0."""
        mass = np.where(self.visual_mass > 0, self.visual_mass, np.nan)[..., None]
        return self.raw / mass

    @property
    def content_steps(self) -> range:
        """The steps of the reply itself: all but the end-of-sequence token."""
        return range(len(self.token_ids) - self.ended)
