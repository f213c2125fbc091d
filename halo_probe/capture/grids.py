"""The grids that image tokens form, from the configuration and from what `generate` was given.

A rule yields one `Block` for each image, in the order of the prompts: the views that the model was shown of it, and
which of its tokens belong to them. Nothing is guessed: a rule that does not fit the prompt raises `CaptureError`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from halo_probe.archive.generation import View
from halo_probe.errors import CaptureError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a view that shows the whole image."""
UNKNOWN = (float("nan"),) * 4
"""The box of a tile whose place cannot be told from what `generate` was given."""


@dataclass(frozen=True)
class Block:
    """What the tokens of one image are."""

    views: tuple[View, ...]
    """In the order of the tokens, each row by row; `image` is filled in by who knows the prompt."""
    kept: np.ndarray | None = None
    """Bool, for each token with the image token id: False for newlines and other tokens outside the grids."""

    @property
    def size(self) -> int:
        """Number of tokens that carry the image token id."""
        return sum(view.height * view.width for view in self.views) if self.kept is None else self.kept.size


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts and the rest of what `generate` was given."""

    ids: np.ndarray
    """B × P, int64, left-padded."""
    columns: tuple[np.ndarray, ...]
    """For each row: where the image token id stands, int64."""
    inputs: Mapping[str, Any]

    def given(self, name: str) -> Any:
        """An argument of `generate`.

        Raises:
            CaptureError: If it is not there.
        """
        value = self.inputs.get(name)
        if value is None:
            raise CaptureError(f"generate() was called without `{name}`, so the grid of the image is unknown.")
        return value

    def runs(self, row: int) -> list[np.ndarray]:
        """The columns of one row, cut where other tokens stand between them."""
        columns = self.columns[row]
        return np.split(columns, np.flatnonzero(np.diff(columns) != 1) + 1)


@dataclass(frozen=True)
class Rule:
    """How the grid of a family is found."""

    says: str
    """The rule in words, for the table in the documentation."""
    blocks: Callable[["PretrainedConfig", Prompts], Iterator[Block]]
    """Yields the blocks of the images in order."""
    endless: bool = False
    """Whether every image has the same block, which is yielded for ever."""


def table(values: Any) -> list[list[int]]:
    """A tensor, array or list of per-image sizes as lists of integers, with one transfer."""
    sizes = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values, dtype=int)
    return sizes.reshape(len(values), -1).tolist()


def with_newlines(height: int, width: int) -> np.ndarray:
    """Bool, height × (width + 1), flat: False for the newline token that ends each row."""
    kept = np.ones((height, width + 1), dtype=bool)
    kept[:, -1] = False
    return kept.ravel()


def square_side(tokens: int) -> int:
    """Side of a square of tokens.

    Raises:
        CaptureError: If it is none.
    """
    side = isqrt(tokens)
    if side * side != tokens:
        raise CaptureError(f"{tokens} tokens per image are no square, so their grid is unknown.")
    return side


def patches(merge: str = "spatial_merge_size") -> Rule:
    """Qwen's rule: time, height and width in patches, of which merge × merge make a token.

    Args:
        merge: Where the vision configuration has the number of patches along a token's sides: one, or one for each.
            Empty where the grid is already in tokens.
    """

    def blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
        sides = getattr(config.vision_config, merge) if merge else 1
        vertical, horizontal = (sides, sides) if isinstance(sides, int) else sides
        for frames, height, width in table(prompts.given("image_grid_thw")):
            yield Block((View(0, height // vertical, width // horizontal),) * frames)

    return Rule("`image_grid_thw[i, 1:]`" + (f" // `{merge}`" if merge else ", in tokens"), blocks)


def squares(says: str, tokens: Callable[[Any], int]) -> Rule:
    """Every image or crop is a square of the same number of tokens; `tokens` reads it from the configuration."""

    def blocks(config: "PretrainedConfig", _: Prompts) -> Iterator[Block]:
        side = square_side(tokens(config))
        while True:
            yield Block((View(0, side, side),))

    return Rule(says, blocks, endless=True)


def vision_patches(config: Any) -> int:
    """Patches of a vision tower that always sees the same size."""
    vision = config.vision_config
    size, patch = vision.image_size, vision.patch_size
    side: int = (size if isinstance(size, int) else size[0]) // (patch if isinstance(patch, int) else patch[0])
    return side**2


def code_square(config: Any) -> int:
    """Codes of an image in a tokenizer that halves the picture between its levels."""
    reduction: int = 2 ** (len(config.vq_config.channel_multiplier) - 1)
    return int((config.vq_config.resolution // reduction) ** 2)


def read(config: Any, path: str) -> Any:
    """The value at a dotted path of a configuration.

    >>> from types import SimpleNamespace
    >>> read(SimpleNamespace(vision_config=SimpleNamespace(patch_size=14)), "vision_config.patch_size")
    14
    """
    for name in path.split("."):
        config = config[name] if isinstance(config, Mapping) else getattr(config, name)
    return config


def _sized_blocks(merge: str, config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    cell = config.vision_config.patch_size * (read(config, merge) if merge else 1)
    for height, width in table(prompts.given("image_sizes")):
        yield Block((View(0, height // cell, width // cell),))


def sized(merge: str = "") -> Rule:
    """Pixtral's rule: the size in pixels over the pixels of a token; row breaks have an id of their own."""
    return Rule("`image_sizes` // (`patch_size`" + (f" × `{merge}`)" if merge else ")"), partial(_sized_blocks, merge))


def _llava_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    if config.vision_config.model_type == "pixtral":
        yield from _sized_blocks("", config, prompts)
        return
    side = square_side(vision_patches(config))
    with_class = (
        config.vision_feature_select_strategy == "full" and config.vision_config.model_type == "clip_vision_model"
    )
    kept = np.arange(side * side + 1) > 0 if with_class else None
    while True:
        yield Block((View(0, side, side),), kept)


def _unpadded(config: "PretrainedConfig", size: list[int], side: int) -> tuple[int, int]:
    """Height and width in tokens of the high-resolution features that LLaVA-NeXT keeps of an image."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    rows, columns = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
    _, height, width = unpad_image(torch.empty(1, rows * side, columns * side, device="meta"), size).shape
    return height, width


def _anyres_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    cells = getattr(config, "downsample_rate", None)
    side = square_side(vision_patches(config))
    if cells:  # Granite: a window of the vision tower's patches makes fewer tokens
        numerator, denominator = (int(part) for part in cells.split("/"))
        side = side * numerator // denominator
    for size in table(prompts.given("image_sizes")):
        height, width = _unpadded(config, size, side)
        if aspect := getattr(config, "vision_aspect_ratio", None):
            height, width = _limited(height, width, side * side * int(aspect.removeprefix("anyres_max_")))
        base, detail = View(0, side, side), View(0, height, width)
        if _one_patch(config, size):
            yield Block((base,), np.arange(side * side + 1) < side * side)
        else:
            kept = np.concatenate([np.ones(side * side, dtype=bool), with_newlines(height, width)])
            yield Block((base, detail), kept)


def _onevision_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    """LLaVA-OneVision pads the images of a prompt that has several to squares and shows each at its base size alone."""
    side = square_side(vision_patches(config))
    sizes, counts = table(prompts.given("image_sizes")), prompts.inputs.get("batch_num_images")
    alone = [True] * len(sizes) if counts is None else [n == 1 for (n,) in table(counts) for _ in range(n)]
    for size, block, cut in zip(sizes, _anyres_blocks(config, prompts), alone, strict=True):
        yield block if cut else Block((View(0, side, side, _squared_box(*size)),), np.arange(side**2 + 1) < side**2)


def _squared_box(height: int, width: int) -> tuple[float, float, float, float]:
    """The box of an image of so many pixels that was padded to a square at both ends of its shorter side."""
    longer = max(height, width)
    left, top = (longer - width) // 2, (longer - height) // 2
    return -left / width, -top / height, (longer - left) / width, (longer - top) / height


def _one_patch(config: "PretrainedConfig", size: list[int]) -> bool:
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    return bool(image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size) == 1)


def _limited(height: int, width: int, most: int) -> tuple[int, int]:
    """LLaVA-OneVision shrinks features above its limit; the formula is that of `pack_image_features`."""
    ratio = (height * width / most) ** 0.5
    return (int(height // ratio), int(width // ratio)) if ratio > 1.1 else (height, width)  # noqa: PLR2004 - theirs


def _placed_blocks(pooling: str, config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    pool = read(config, pooling) if pooling else 1
    positions = prompts.given("image_position_ids")
    for width, height in table(positions.amax(dim=1) + 1):
        yield Block((View(0, height // pool, width // pool),))


def _framed_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    merge = config.vision_config.spatial_merge_size
    for _, rows, columns in table(prompts.given("image_grid_thw")):
        height, width = rows // merge, columns // merge
        kept = np.concatenate([[False], with_newlines(height, width), [False]])
        yield Block((View(0, height, width),), kept)


def _two_grid_blocks(_: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    for low_height, low_width, height, width in table(prompts.given("image_grids")):
        yield Block((View(0, low_height, low_width), View(0, height, width)))


def _merged_blocks(_: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    merges = np.asarray(prompts.given("image_merge_sizes").cpu()).tolist()
    for (frames, height, width), merge in zip(table(prompts.given("image_grid_thw")), merges, strict=True):
        yield Block((View(0, height // merge, width // merge),) * frames)


def _shuffled_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    merge = round(1 / config.downsample_ratio)
    for height, width in table(prompts.given("image_grid_hw")):
        yield Block((View(0, height // merge, width // merge),))


def _line_blocks(_: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    """Each run of image tokens is a row of patches; one newline token stands between the rows of an image."""
    for row in range(len(prompts.columns)):
        lines = prompts.runs(row)
        ends = [
            line + 1
            for line, (run, following) in enumerate(pairwise(lines))
            if following[0] != run[-1] + 2 or following.size != run.size
        ]
        for first, end in pairwise([0, *ends, len(lines)]):
            yield Block((View(0, end - first, lines[first].size),))


def _line_ended_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    cell = 2 ** (len(config.vq_config.channel_multiplier) - 1)
    for pixels_high, pixels_wide in table(prompts.given("image_sizes")):
        height, width = pixels_high // cell, pixels_wide // cell
        yield Block((View(0, height, width),), with_newlines(height, width))


def _convolved(config: Any, pictures: torch.Tensor) -> int:
    """Tokens along a side of square pictures: patches of SAM's encoder, then two convolutions of stride 2."""
    patch: int = config.vision_config.sam_config.patch_size
    return -(-(pictures.shape[-1] // patch) // 4)


def _padded_box(picture: torch.Tensor) -> tuple[float, float, float, float]:
    """The box of a picture whose image was padded to a square with bars of the grey 127 at both ends of one side.

    Args:
        picture: C × S × S, normalised with mean and deviation ½, so that 127 is -1/255 and 128 is 1/255.

    Returns:
        `WHOLE` where no edge is grey; `UNKNOWN` where edges are grey otherwise, or the picture is normalised otherwise.
    """
    if picture.abs().max() > 1.01:  # noqa: PLR2004 - one, but for rounding
        return UNKNOWN
    grey = ((picture > -1.5 / 255) & (picture < 0)).all(dim=0)
    ends = []
    for plain in np.stack([grey.all(dim=0).cpu().numpy(), grey.all(dim=1).cpu().numpy()]):
        shown = np.flatnonzero(~plain)
        if not shown.size:
            return UNKNOWN
        ends.append((int(shown[0]), plain.size - 1 - int(shown[-1]), shown[-1] + 1 - shown[0]))
    (left, right, width), (top, bottom, height) = ends
    if min(left + right, top + bottom) or not {right - left, bottom - top} <= {0, 1}:
        return UNKNOWN
    return float(-left / width), float(-top / height), float(1 + right / width), float(1 + bottom / height)


def _stitched_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    pictures = prompts.given("pixel_values")
    counts, layouts = table(prompts.given("num_local_patches")), table(prompts.given("patches_grid"))
    side = _convolved(config, pictures)
    for picture, (count,), (columns, rows) in zip(pictures, counts, layouts, strict=True):
        views = [View(0, side, side, _padded_box(picture))]
        if count:
            tile = _convolved(config, prompts.given("pixel_values_local"))
            views.insert(0, View(0, rows * tile, columns * tile))
        kept = [with_newlines(view.height, view.width) for view in views]
        yield Block(tuple(views), np.concatenate([*kept, [False]]))


def _queried_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    """One learned query a token, 144 or 256 for each picture, and a separator after the pictures of an image."""
    whole = _queries(config, prompts.given("pixel_values"))
    for (count,) in table(prompts.given("num_local_patches")):
        tiles = count * _queries(config, prompts.given("pixel_values_local")) if count else 0
        yield Block((), np.arange(tiles + whole + 1) < tiles + whole)


def _queries(config: Any, pictures: torch.Tensor) -> int:
    few, many = 144, 256  # the model has no others
    return few if _convolved(config, pictures) ** 2 <= few else many


LLAVA = Rule(
    "fixed square: `image_size` // `patch_size`; with a Pixtral tower `image_sizes` // `patch_size`",
    _llava_blocks,
    endless=True,
)
ANYRES = Rule("base square, then the unpadded high-resolution grid, whose newline column is left out", _anyres_blocks)
ONEVISION = Rule(
    f"{ANYRES.says}; where `batch_num_images` has several for a prompt, each image padded to a base square",
    _onevision_blocks,
)
POOLED = Rule(
    "(largest `image_position_ids` + 1) // `pooling_kernel_size`: not always a square",
    partial(_placed_blocks, "vision_config.pooling_kernel_size"),
)
PLACED = Rule("largest `image_position_ids` + 1: not always a square", partial(_placed_blocks, ""))
FRAMED = Rule("`image_grid_thw` // `spatial_merge_size`; begin, end and newline tokens are left out", _framed_blocks)
TWO_GRIDS = Rule("`image_grids`: low resolution, then high; both show the whole image", _two_grid_blocks)
MERGED = Rule("`image_grid_thw` // `image_merge_sizes`", _merged_blocks)
SHUFFLED = Rule("`image_grid_hw` × `downsample_ratio`", _shuffled_blocks)
LINES = Rule("one run of image tokens is one row of patches", _line_blocks)
LINE_ENDED = Rule(
    "`image_sizes` // the reduction of the tokenizer; the end-of-line column is left out", _line_ended_blocks
)
STITCHED = Rule(
    "one raster of the tiles of `patches_grid`, then the whole, padded with grey; newlines and separator are left out",
    _stitched_blocks,
)
QUERIED = Rule("none; the separator after each image is left out", _queried_blocks)
