"""Where the image tokens of a prompt are, and the grid that they form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from halo_probe.errors import CaptureError, NoImageTokensError, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class ImageTokens:
    """The image tokens of one prompt, in the order of the prompt."""

    positions: np.ndarray
    """M, int64: positions in the prompt without its padding."""
    grids: tuple[tuple[int, int], ...]
    """Height and width in tokens of each image; the products sum to M. Tokens run row by row."""


def check_family(config: "PretrainedConfig") -> None:
    """Refuse a model whose image grid is not known.

    Raises:
        UnsupportedModelError: If the model type has no grid rule, with the list of those that have.
    """
    if config.model_type not in _GRID_RULES:
        raise UnsupportedModelError(
            f"model type {config.model_type!r}: no rule for the grid of its image tokens. "
            f"Supported: {', '.join(sorted(_GRID_RULES))}."
        )


def locate_image_tokens(
    config: "PretrainedConfig", input_ids: torch.Tensor, inputs: Mapping[str, Any]
) -> list[ImageTokens]:
    """Find the image tokens of each row of a batch of prompts.

    A token is an image token when its id is the model's image token id: never the start, end or newline tokens around.

    Args:
        config: The model's configuration.
        input_ids: B × P, left-padded.
        inputs: The other arguments of `generate` (attention mask, grid sizes).

    Raises:
        NoImageTokensError: If a row has none.
        CaptureError: If a row's number of tokens is not that of its grids.
    """
    attention_mask = inputs.get("attention_mask")
    ids = input_ids.cpu().numpy()
    lengths = ids.shape[1] if attention_mask is None else attention_mask.cpu().numpy().sum(axis=1)
    if attention_mask is not None and not bool(attention_mask[:, -1].all()):
        raise CaptureError("The prompts are padded on the right; generation needs padding_side='left'.")
    padding = np.broadcast_to(ids.shape[1] - lengths, ids.shape[:1])
    positions = [np.flatnonzero(row == config.image_token_id) for row in ids]
    for number, found in enumerate(positions):
        if not found.size:
            raise NoImageTokensError(
                f"Prompt {number} of {len(positions)} has no image token (id {config.image_token_id}): "
                "give it an image, or record only prompts that have one."
            )
    grids = _GRID_RULES[config.model_type](config, [found.size for found in positions], inputs)
    return [
        ImageTokens(positions=found - pad, grids=grid)
        for found, pad, grid in zip(positions, padding, grids, strict=True)
    ]


_Grids = list[tuple[tuple[int, int], ...]]


def _patch_grids(config: "PretrainedConfig", counts: list[int], inputs: Mapping[str, Any]) -> _Grids:
    """Qwen: `image_grid_thw` counts patches, of which merge × merge make a token; images follow the order of rows."""
    merge = config.vision_config.spatial_merge_size
    thw = inputs.get("image_grid_thw")
    if thw is None:
        raise CaptureError("generate() was called without `image_grid_thw`, so the grid of the image is unknown.")
    sizes = [(frames * height // merge, width // merge) for frames, height, width in thw.cpu().tolist()]
    remaining = iter(sizes)
    grids = [_take(remaining, count) for count in counts]
    if any(grid is None for grid in grids) or next(remaining, None) is not None:
        raise CaptureError(f"The prompts have {counts} image tokens, which the grids {sizes} do not add up to.")
    return [grid for grid in grids if grid is not None]


def _take(sizes: Any, count: int) -> tuple[tuple[int, int], ...] | None:
    taken: list[tuple[int, int]] = []
    while count > 0 and (size := next(sizes, None)) is not None:
        taken.append(size)
        count -= size[0] * size[1]
    return tuple(taken) if count == 0 else None


def _fixed_squares(config: "PretrainedConfig", counts: list[int], _: Mapping[str, Any]) -> _Grids:
    """Gemma 3: every image or crop is a square of `mm_tokens_per_image` tokens."""
    tokens = config.mm_tokens_per_image
    side = isqrt(tokens)
    if side * side != tokens or any(count % tokens for count in counts):
        raise CaptureError(f"The prompts have {counts} image tokens, not squares of {tokens} each.")
    return [((side, side),) * (count // tokens) for count in counts]


_GRID_RULES: Mapping[str, Callable[["PretrainedConfig", list[int], Mapping[str, Any]], _Grids]] = {
    "gemma3": _fixed_squares,
    "qwen3_vl": _patch_grids,
}
