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
from halo_probe.capture import canvas
from halo_probe.capture.canvas import UNKNOWN, in_image
from halo_probe.errors import CaptureError
from halo_probe.metrics.views import WHOLE, Box

if TYPE_CHECKING:
    from transformers import PretrainedConfig


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
        return self.either(name)

    def either(self, *names: str) -> Any:
        """The first of some arguments of `generate` that is there.

        Raises:
            CaptureError: If none is.
        """
        for name in names:
            if self.inputs.get(name) is not None:
                return self.inputs[name]
        raise CaptureError(f"generate() was called without `{names[0]}`, so the grid of the image is unknown.")

    def pictures(self) -> torch.Tensor:
        """N × C × h × w: the pictures of the batch in order, on the host."""
        pixels = self.given("pixel_values")
        if not isinstance(pixels, torch.Tensor):
            pixels = torch.cat([part.flatten(0, -4) for part in pixels])
        return pixels.flatten(0, -4).cpu()

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
    """

    def blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
        vertical, horizontal = _merged(config, merge)
        for frames, height, width in table(prompts.given("image_grid_thw")):
            yield Block((View(0, height // vertical, width // horizontal),) * frames)

    return Rule(f"`image_grid_thw[i, 1:]` // `{merge}`", blocks)


def _merged(config: Any, merge: str) -> tuple[int, int]:
    """Patches along the height and the width of a token."""
    sides = getattr(config.vision_config, merge) if merge else 1
    vertical, horizontal = (sides, sides) if isinstance(sides, int) else sides
    return vertical, horizontal


def padded_patches(
    merge: str,
    padding: Callable[[torch.Tensor], torch.Tensor],
    picture: Callable[[Any, torch.Tensor, int, int], torch.Tensor],
) -> Rule:
    """Qwen's rule, for a processor that pads the image at the right and the bottom to whole tokens.

    Args:
        merge: As in `patches`; empty where the grid is already in tokens.
        padding: Finds the pixels of the padding's colour in a picture.
        picture: Puts the patches of an image together: of the configuration, the patches, their rows and columns.
    """

    def blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
        vertical, horizontal = _merged(config, merge)
        pixels, seen = prompts.given("pixel_values"), 0
        for frames, height, width in table(prompts.given("image_grid_thw")):
            count = frames * height * width
            shown = picture(config, pixels[seen : seen + count].cpu(), height, width)
            seen += count
            rows, columns = height // vertical, width // horizontal
            token = shown.shape[1] // rows, shown.shape[2] // columns
            filled = canvas.filled_but_for_a_token(padding(shown), token=token)
            yield Block(in_image([View(0, rows, columns)] * frames, filled))

    says = f"`image_grid_thw[i, 1:]` // `{merge}`" if merge else "`image_grid_thw[i, 1:]`, in tokens"
    return Rule(f"{says}; padding is found by its colour", blocks)


def _row_by_row(_: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The first picture of N × C × h × w patches."""
    return canvas.mosaic(patches[: rows * columns], rows, columns)


def _channel_last(_: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The first picture of N × h × w × C patches."""
    return canvas.mosaic(patches[: rows * columns].permute(0, 3, 1, 2), rows, columns)


def _token_by_token(config: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The first picture of flat patches in the order of the tokens that they make: channel, time, height, width."""
    vision = config.vision_config
    side, merge = vision.patch_size, vision.spatial_merge_size
    shape = rows // merge, columns // merge, merge, merge, 3, -1, side, side
    laid = patches[: rows * columns].reshape(shape)[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6)
    return laid.reshape(3, rows * side, columns * side)


def squares(says: str, tokens: Callable[[Any], int], *, box: Box = WHOLE) -> Rule:
    """Every image is a square of the same number of tokens, which shows the same part of it.

    Args:
        says: The rule in words.
        tokens: Reads the number of tokens from the configuration.
        box: The part of the image.
    """

    def blocks(config: "PretrainedConfig", _: Prompts) -> Iterator[Block]:
        side = square_side(tokens(config))
        while True:
            yield Block((View(0, side, side, box),))

    return Rule(says, blocks, endless=True)


def _centred_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    """Each picture shows an image that may be padded to a square with the mean colour at both ends of a side."""
    side = square_side(vision_patches(config))
    for picture in prompts.pictures():
        filled = canvas.filled_in_the_middle(canvas.mean_colour(picture))
        yield Block(in_image([View(0, side, side)], filled))


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
        rows, columns = height // cell, width // cell
        yield Block((View(0, rows, columns, (0, 0, columns * cell / width, rows * cell / height)),))


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
        yield Block((View(0, side, side, UNKNOWN),), kept)


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
    """Two by two patches a token, or fewer at the edges of a picture with an odd number of them."""
    pooled = (prompts.given("image_token_pooling") >= 0).cpu().numpy()
    seen = 0
    for low_height, low_width, height, width in table(prompts.given("image_grids")):
        views: list[View] = []
        for rows, columns in [(low_height, low_width), (height, width)]:
            patches = pooled[seen : seen + rows * columns].reshape(rows, columns, -1)
            seen += rows * columns
            views += in_image([View(0, rows, columns)], _pooled_part(patches))
        yield Block(tuple(views))


def _pooled_part(patches: np.ndarray) -> Box:
    """The part of a grid that has patches: where their number is odd, tokens at an edge pool fewer.

    Args:
        patches: Rows × columns × K, bool: which of the K places of each token hold a patch.
    """
    counts = patches.sum(axis=-1) / patches.sum(axis=-1).max()
    rows, columns = counts.shape
    across, down = counts.max(axis=0), counts.max(axis=1)
    left, top = 1 - across[0] if columns > 1 else 0.0, 1 - down[0] if rows > 1 else 0.0
    return (
        float(left / columns),
        float(top / rows),
        float(1 - (1 - across[-1]) / columns),
        float(1 - (1 - down[-1]) / rows),
    )


def _merged_blocks(_: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    merges = np.asarray(prompts.given("image_merge_sizes").cpu()).tolist()
    for (frames, height, width), merge in zip(table(prompts.given("image_grid_thw")), merges, strict=True):
        yield Block((View(0, height // merge, width // merge),) * frames)


def _shuffled_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    merge = round(1 / config.downsample_ratio)
    for height, width in table(prompts.given("image_grid_hw")):
        yield Block((View(0, height // merge, width // merge),))


def _line_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    """Each run of image tokens is a row of patches; one newline token stands between the rows of an image.

    Fuyu's processor pads to whole patches at the right and the bottom, with 1 of 255 levels.
    """
    pixels, seen = prompts.either("pixel_values", "image_patches"), 0
    flat = torch.cat([part.flatten(0, -2) for part in pixels]) if isinstance(pixels, list) else pixels.flatten(0, -2)
    side = config.patch_size
    for row in range(len(prompts.columns)):
        lines = prompts.runs(row)
        ends = [
            line + 1
            for line, (run, following) in enumerate(pairwise(lines))
            if following[0] != run[-1] + 2 or following.size != run.size
        ]
        for first, end in pairwise([0, *ends, len(lines)]):
            rows, columns = end - first, lines[first].size
            patches = flat[seen : seen + rows * columns].cpu().view(-1, side, side, 3)
            seen += rows * columns
            padding = canvas.almost_black(_channel_last(config, patches, rows, columns))
            filled = canvas.filled_but_for_a_token(padding, token=(side, side))
            yield Block(in_image([View(0, rows, columns)], filled))


def _line_ended_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    cell = 2 ** (len(config.vq_config.channel_multiplier) - 1)
    for pixels_high, pixels_wide in table(prompts.given("image_sizes")):
        height, width = pixels_high // cell, pixels_wide // cell
        yield Block((View(0, height, width),), with_newlines(height, width))


def _convolved(config: Any, pictures: torch.Tensor) -> int:
    """Tokens along a side of square pictures: patches of SAM's encoder, then two convolutions of stride 2."""
    patch: int = config.vision_config.sam_config.patch_size
    return -(-(pictures.shape[-1] // patch) // 4)


def _stitched_blocks(config: "PretrainedConfig", prompts: Prompts) -> Iterator[Block]:
    pictures = prompts.given("pixel_values")
    counts, layouts = table(prompts.given("num_local_patches")), table(prompts.given("patches_grid"))
    side = _convolved(config, pictures)
    seen = 0
    for picture, (count,), (columns, rows) in zip(pictures.cpu(), counts, layouts, strict=True):
        padding = canvas.grey(picture)
        raster: tuple[View, ...] = ()
        filled = canvas.filled_in_the_middle(padding)
        if count:
            local = prompts.given("pixel_values_local")
            shown = canvas.mosaic(local[seen : seen + count].cpu(), rows, columns)
            seen += count
            tile = _convolved(config, local)
            raster = (View(0, rows * tile, columns * tile),)
            filled = canvas.filled_as_shown(picture, padding, shown, grid=(side, side), middle=True)
        views = [*raster, *in_image([View(0, side, side)], filled)]
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


NOT_TOLD = "which part of the image the processor cut out is unknown"
"""Of processors that cut a square out of the middle, and give the model nothing but that."""
LLAVA = Rule(
    f"fixed square: `image_size` // `patch_size`; {NOT_TOLD}; with a Pixtral tower `image_sizes` // `patch_size`",
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
LINES = Rule("one run of image tokens is one row of patches; padding is found by its colour", _line_blocks)
KIMI = padded_patches("merge_kernel_size", canvas.black, _row_by_row)
INKLING = padded_patches("", canvas.blacker_than_black, _channel_last)
GLM5 = padded_patches("spatial_merge_size", canvas.black, _token_by_token)
CENTRED = Rule(
    "a square of `image_size` // `patch_size` a side; where it may be padded to a square, its place is unknown",
    _centred_blocks,
)
LINE_ENDED = Rule(
    "`image_sizes` // the reduction of the tokenizer; the end-of-line column is left out", _line_ended_blocks
)
STITCHED = Rule(
    "one raster of the tiles of `patches_grid`, then the whole, padded with grey; newlines and separator are left out",
    _stitched_blocks,
)
QUERIED = Rule("none; the separator after each image is left out", _queried_blocks)
