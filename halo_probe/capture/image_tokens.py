"""Where the image tokens of a prompt are, and the views that they form."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from halo_probe.archive.generation import View
from halo_probe.capture.families import Family, family_of, image_token_id
from halo_probe.capture.grids import Block, Prompts
from halo_probe.errors import CaptureError, NoImageTokensError, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class ImageTokens:
    """The image tokens of one prompt, in the order of the prompt."""

    positions: np.ndarray
    """M, int64: positions in the prompt without its padding; with `cross`, columns of the keys of a cross layer."""
    views: tuple[View, ...]
    """The views of all images; the products of height and width sum to M. Empty where the tokens have no raster."""
    cross: bool = False
    """Whether the model attends to the image through cross-attention: no key of the prompt belongs to the image."""

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Height and width in tokens of each view, row by row."""
        return tuple((view.height, view.width) for view in self.views)


def check_family(config: "PretrainedConfig") -> None:
    """Refuse a model whose attention to the image cannot be recorded.

    Raises:
        UnsupportedModelError: With the reason.
    """
    family = family_of(config)
    if family.refusal:
        raise UnsupportedModelError(f"model type {family.model_type!r} cannot be recorded: {family.refusal}.")
    if not family.mask and not family.cross:
        image_token_id(config, family)


def locate_image_tokens(
    config: "PretrainedConfig", input_ids: torch.Tensor, inputs: Mapping[str, Any]
) -> list[ImageTokens]:
    """Find the image tokens of each row of a batch of prompts.

    A token is an image token when its id is the model's image token id and it stands for a part of the image: never
    the start, end, row-break and newline tokens around.

    Args:
        config: The model's configuration.
        input_ids: B × P, left-padded.
        inputs: The other arguments of `generate` (attention mask, grid sizes).

    Raises:
        NoImageTokensError: If a row has none.
        CaptureError: If a row's number of tokens is not that of its grids.
    """
    family = family_of(config)
    attention_mask = inputs.get("attention_mask")
    ids = input_ids.cpu().numpy()
    lengths = ids.shape[1] if attention_mask is None else attention_mask.cpu().numpy().sum(axis=1)
    if attention_mask is not None and not bool(attention_mask[:, -1].all()):
        raise CaptureError("The prompts are padded on the right; generation needs padding_side='left'.")
    padding = np.zeros(len(ids), dtype=int) if family.cross else np.broadcast_to(ids.shape[1] - lengths, ids.shape[:1])
    prompts = Prompts(ids, _columns(config, family, ids, inputs), inputs)
    if family.grid is None:
        return [ImageTokens(found - pad, ()) for found, pad in zip(prompts.columns, padding, strict=True)]
    blocks = iter(family.grid.blocks(config, prompts))
    if family.cross:
        dealt = [_joined([block]) for block in blocks]
        if len(dealt) != len(ids):
            raise CaptureError(f"{len(ids)} prompts and images for {len(dealt)} of them: give every prompt its images.")
        return [ImageTokens(np.flatnonzero(kept), views, cross=True) for views, kept in dealt]
    dealt = [_joined(_take(blocks, found.size, row)) for row, found in enumerate(prompts.columns)]
    if not family.grid.endless and next(blocks, None) is not None:
        raise CaptureError("The prompts have fewer image tokens than the grids that generate() was given.")
    return [
        ImageTokens(found[kept] - pad, views)
        for found, pad, (views, kept) in zip(prompts.columns, padding, dealt, strict=True)
    ]


def _columns(
    config: "PretrainedConfig", family: Family, ids: np.ndarray, inputs: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    if family.cross:
        if inputs.get("pixel_values") is None:
            raise NoImageTokensError("generate() was called without `pixel_values`: there is no image to attend to.")
        return tuple(np.empty(0, dtype=np.int64) for _ in ids)
    if family.mask:
        given = inputs.get(family.mask)
        found = np.zeros_like(ids, dtype=bool) if given is None else given.cpu().numpy().astype(bool)
        sign = f"marked in `{family.mask}`"
    else:
        token = image_token_id(config, family)
        found, sign = ids == token, f"id {token}"
    columns = tuple(np.flatnonzero(row) for row in found)
    for number, row in enumerate(columns):
        if not row.size:
            raise NoImageTokensError(
                f"Prompt {number} of {len(columns)} has no image token ({sign}): "
                "give it an image, or record only prompts that have one."
            )
    return columns


def _take(blocks: Iterator[Block], count: int, row: int) -> list[Block]:
    """The blocks of the images of one prompt."""
    taken: list[Block] = []
    left = count
    while left > 0 and (block := next(blocks, None)) is not None:
        taken.append(block)
        left -= block.size
    if left:
        grids = [(view.height, view.width) for block in taken for view in block.views]
        raise CaptureError(f"Prompt {row} has {count} image tokens, which the grids {grids} do not add up to.")
    return taken


def _joined(blocks: list[Block]) -> tuple[tuple[View, ...], np.ndarray]:
    views = tuple(replace(view, image=view.image + image) for image, block in enumerate(blocks) for view in block.views)
    kept = [np.ones(block.size, dtype=bool) if block.kept is None else block.kept for block in blocks]
    return views, np.concatenate(kept)
