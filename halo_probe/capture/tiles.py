"""Grids of families that cut an image into tiles and show the model each tile, often with a thumbnail of the whole.

Where tiles lie is told by the tokens between them or, where there are none, by laying the tiles out in every way that
their number allows and comparing each with the thumbnail.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from halo_probe.archive.generation import View
from halo_probe.capture import canvas
from halo_probe.capture.canvas import UNKNOWN, in_image
from halo_probe.capture.grids import Block, Prompts, Rule, square_side, table, vision_patches
from halo_probe.errors import CaptureError

_CLEARLY = 0.25  # the best layout must miss the thumbnail by less than this part of what the next best misses it by
_RASTER = 32  # layouts are compared at this many pixels a side: what differs between them is coarse
_FAINT = (2 / 255) ** 2 / 10  # a mean square that rounding to 256 levels may leave, for pixels from -1 to 1
_GRAIN = 0.06  # the part of a picture's contrast that resizing may leave as a mean square: fine stripes leave most
_THREE_QUARTERS = 0.7  # less what resizing blurs
_BETWEEN_CROPS = 7  # tokens at most between crops of Gemma 3: an end, five characters of white space, a begin


def tile_views(rows: int, columns: int, height: int, width: int) -> tuple[View, ...]:
    """The tiles of an image, row by row, each height × width tokens."""
    return tuple(
        View(0, height, width, (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows))
        for row in range(rows)
        for column in range(columns)
    )


def arrangement(tiles: torch.Tensor, whole: torch.Tensor) -> tuple[int, int] | None:
    """Rows and columns in which tiles make up a picture.

    Args:
        tiles: N × C × h × w, row by row.
        whole: C × h' × w', the picture that they were cut from, in any size.

    Returns:
        None where no layout is clearly the best, as for a picture without any contents.
    """
    count = len(tiles)
    if count == 1:
        return 1, 1
    target = _coarse(whole)
    layouts = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    (best, layout), (second, _), *_ = sorted((_miss(tiles, *layout, target), layout) for layout in layouts)
    return layout if best < _CLEARLY * second else None


def _coarse(picture: torch.Tensor) -> torch.Tensor:
    return adaptive_avg_pool2d(picture.float(), _RASTER)


def _contrast(picture: torch.Tensor) -> float:
    return float(picture.float().var(dim=(1, 2), correction=0).mean())


def _miss(tiles: torch.Tensor, rows: int, columns: int, target: torch.Tensor) -> float:
    """Mean square of what the tiles, laid out in so many rows and columns, differ by from a coarse picture."""
    return float((_coarse(canvas.mosaic(tiles, rows, columns)) - target).square().mean())


def _placed(tiles: torch.Tensor, whole: torch.Tensor, height: int, width: int) -> tuple[View, ...]:
    layout = arrangement(tiles, whole)
    return (View(0, height, width, UNKNOWN),) * len(tiles) if layout is None else tile_views(*layout, height, width)


def _by_tag(prompts: Prompts, row: int) -> Iterator[list[np.ndarray]]:
    """The tiles of each image of a row, where the last view of every image has the same tag token before it."""
    runs = prompts.runs(row)
    tag = prompts.ids[row, runs[-1][0] - 1]
    image: list[np.ndarray] = []
    for run in runs:
        image.append(run)
        if prompts.ids[row, run[0] - 1] == tag:
            yield image
            image = []


def _by_first_tag(prompts: Prompts, row: int) -> Iterator[list[np.ndarray]]:
    """The views of each image of a row, where the first view of every image has the same tag token before it."""
    runs = prompts.runs(row)
    tag = prompts.ids[row, runs[0][0] - 1]
    firsts = [index for index, run in enumerate(runs) if prompts.ids[row, run[0] - 1] == tag]
    for first, end in pairwise([*firsts, len(runs)]):
        yield runs[first:end]


def _row_ends(runs: Sequence[np.ndarray], gap: int) -> tuple[int, int]:
    """Rows and columns of tiles between which `gap` tokens stand within a row and more between rows."""
    ends = [index for index in range(1, len(runs)) if runs[index][0] - runs[index - 1][-1] - 1 > gap]
    columns = ends[0] if ends else len(runs)
    if len(runs) % columns or ends != list(range(columns, len(runs), columns)):
        raise CaptureError(f"The tokens between the {len(runs)} tiles of an image do not make rows of equal length.")
    return len(runs) // columns, columns


def _matched(prompts: Prompts, side: int, counts: Iterable[int]) -> Iterator[Block]:
    """Images of `counts` pictures each, tiles and then a thumbnail, where `pixel_values` has the pictures in order."""
    pixels, seen = prompts.pictures(), 0
    for count in counts:
        pictures = pixels[seen : seen + count]
        seen += count
        if len(pictures) != count:
            raise CaptureError(f"The prompts have tokens of {seen} tiles, `pixel_values` has {len(pixels)} pictures.")
        tiles = _placed(pictures[:-1], pictures[-1], side, side) if count > 1 else ()
        yield Block((*tiles, View(0, side, side)))


def _rows(prompts: Prompts) -> range:
    return range(len(prompts.columns))


def _one_run(prompts: Prompts, side: int) -> Iterator[Block]:
    """One run of tokens holds all the tiles of an image."""
    counts = (run.size // (side * side) for row in _rows(prompts) for run in prompts.runs(row))
    return _matched(prompts, side, counts)


def _internvl_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    return _one_run(prompts, square_side(config.image_seq_length))


def _got_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    return _one_run(prompts, square_side(vision_patches(config)) // 4)  # two convolutions of stride 2


def _aya_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    side = square_side(vision_patches(config)) // config.downsample_factor
    return _matched(prompts, side, (len(image) for row in _rows(prompts) for image in _by_tag(prompts, row)))


def _cohere_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    side = square_side(vision_patches(config)) // config.downsample_factor
    return _matched(prompts, side, (count for row in _rows(prompts) for count in _by_gap(prompts.runs(row), 1)))


def _by_gap(runs: Sequence[np.ndarray], gap: int) -> Iterator[int]:
    """How many runs follow one another with at most `gap` tokens between them."""
    count = 1
    for run, following in pairwise(runs):
        if following[0] - run[-1] - 1 > gap:
            yield count
            count = 0
        count += 1
    yield count


def _fenced(runs: Sequence[np.ndarray], *, side: int, whole: int) -> Block:
    """Tiles, and then the whole image, which is alone where the image was not cut; squares of so many tokens a side."""
    # Between tiles of a row stand two tokens, such as a fence and a tag; a line break more between rows.
    tiles = tile_views(*_row_ends(runs[:-1], 2), side, side) if len(runs) > 1 else ()
    return Block((*tiles, View(0, whole, whole)))


def _idefics3_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    side = square_side(vision_patches(config)) // config.scale_factor
    for row in _rows(prompts):
        for runs in _by_tag(prompts, row):
            yield _fenced(runs, side=side, whole=side)


def _docling_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    fine = prompts.inputs.get("tile_fine_mask") is not None
    side = square_side(vision_patches(config)) // (config.vision_config.scale_factor // (2 if fine else 1))
    for row in _rows(prompts):
        for runs in _by_first_tag(prompts, row):
            yield _fenced(runs, side=side, whole=side)


def _step_blocks(_: Any, prompts: Prompts) -> Iterator[Block]:
    """An image over four times as long as it is thin may be padded to a square before it is cut."""
    pictures = iter(prompts.pictures())
    for row in _rows(prompts):
        for runs in _by_tag(prompts, row):
            block = _fenced(runs, side=square_side(runs[0].size), whole=square_side(runs[-1].size))
            picture = next(pictures, None)
            if picture is None:
                raise CaptureError("The prompts have tokens of more images than `pixel_values` has.")
            filled = canvas.filled_from_corner(canvas.black(picture), least=_THREE_QUARTERS)
            yield Block(in_image(block.views, filled))


def _llama4_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    """The tiles are of an image padded at the right and the bottom; the last picture is the image stretched.

    An image of a single tile is shown as that, padded, and has no other picture.
    """
    side = square_side(int(vision_patches(config) * config.vision_config.pixel_shuffle_ratio**2))
    pictures, seen = prompts.pictures(), 0
    for row in _rows(prompts):
        for runs in _by_tag(prompts, row):
            # The token before the global view's tag ends the last row of tiles.
            ends = int(prompts.ids[row, runs[-1][0] - 2])
            rows = sum(int(prompts.ids[row, run[-1] + 1]) == ends for run in runs[:-1])
            if len(runs) > 1 and (not rows or (len(runs) - 1) % rows):
                raise CaptureError(f"The tokens between the {len(runs) - 1} tiles of an image do not make a rectangle.")
            shown = pictures[seen : seen + len(runs)]
            seen += len(runs)
            if len(shown) != len(runs):
                raise CaptureError(f"The prompts have {seen} tiles, `pixel_values` has {len(pictures)} pictures.")
            if not rows:
                yield Block(in_image([View(0, side, side)], canvas.filled_from_corner(canvas.black(shown[0]))))
                continue
            columns = (len(runs) - 1) // rows
            whole = canvas.mosaic(shown[:-1], rows, columns)
            filled = canvas.filled_as_shown(whole, canvas.black(whole), shown[-1], grid=(rows * side, columns * side))
            yield Block((*in_image(tile_views(rows, columns, side, side), filled), View(0, side, side)))


def _ovis_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    side = square_side(vision_patches(config)) // config.vision_config.hidden_stride
    start, *_ = config.visual_indicator_token_ids
    row_break = config.visual_indicator_token_ids[3]
    for row in _rows(prompts):
        runs = prompts.runs(row)
        firsts = [index for index, run in enumerate(runs) if prompts.ids[row, run[0] - 1] == start]
        for first, last in zip(firsts, [*firsts[1:], len(runs)], strict=True):
            tiles = runs[first + 1 : last]
            rows = 1 + sum(int(prompts.ids[row, run[-1] + 1]) == row_break for run in tiles)
            if len(tiles) % rows:
                raise CaptureError(f"The tokens between the {len(tiles)} tiles of an image do not make a rectangle.")
            yield Block((View(0, side, side), *(tile_views(rows, len(tiles) // rows, side, side) if tiles else ())))


def _thumbnail_first_blocks(_: Any, prompts: Prompts) -> Iterator[Block]:
    images = iter(prompts.given("pixel_values"))
    for row in _rows(prompts):
        for run in prompts.runs(row):
            pictures = next(images, None)
            if pictures is None:
                raise CaptureError("The prompts have more runs of image tokens than `pixel_values` has images.")
            side = square_side(run.size // len(pictures))
            tiles = _placed(pictures[1:].cpu(), pictures[0].cpu(), side, side) if len(pictures) > 1 else ()
            yield Block((View(0, side, side), *tiles))


def _panned_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    """Gemma 3's processor writes an image that it crops, a sentence, and its crops with white space between them."""
    tokens, seen = config.mm_tokens_per_image, 0
    side = square_side(tokens)
    for row, columns in enumerate(prompts.columns):
        firsts = columns[::tokens]
        gaps = [prompts.ids[row, first + tokens : following].tolist() for first, following in pairwise(firsts)]
        place = 0
        while place < firsts.size:
            views = (View(0, side, side), *_crops(prompts, seen, _followers(gaps[place:]), side))
            yield Block(views)
            place += len(views)
            seen += len(views)


def _followers(gaps: Sequence[list[int]]) -> int:
    """How many of the pictures after one may be its crops, by the tokens that follow each picture."""
    if len(gaps) < 2 or len(gaps[0]) <= _BETWEEN_CROPS or len(gaps[1]) > _BETWEEN_CROPS:  # noqa: PLR2004 - two crops
        return 0
    return next((number for number, gap in enumerate(gaps) if number > 1 and gap != gaps[1]), len(gaps))


def _crops(prompts: Prompts, place: int, followers: int, side: int) -> tuple[View, ...]:
    """The crops of a picture, side by side or one above the other, two at least; none where others follow it.

    Raises:
        CaptureError: If the pixels do not tell, as those of empty pictures.
    """
    if not followers:
        return ()
    pictures = prompts.pictures()[place : place + 1 + followers]
    if len(pictures) <= followers:
        raise CaptureError(f"`pixel_values` has {place + len(pictures)} pictures, fewer than the prompts have.")
    target, rest = _coarse(pictures[0]), pictures[1:]
    layouts = [layout for count in range(2, followers + 1) for layout in [(1, count), (count, 1)]]
    (best, layout), *others = sorted((_miss(rest[: max(layout)], *layout, target), layout) for layout in layouts)
    contrast = _contrast(target)
    if best > max(_CLEARLY * contrast, _GRAIN * _contrast(pictures[0]), _FAINT):
        return ()
    same = sum(_miss(picture[None], 1, 1, target) for picture in rest[: max(layout)]) / max(layout)
    if best < _CLEARLY * min(contrast, same, *(miss for miss, _ in others)):
        return tile_views(*layout, side, side)
    raise CaptureError(
        f"Whether {followers} pictures after another are its pan-and-scan crops or images of their own cannot be told "
        "from their pixels: give the processor do_pan_and_scan=False, or one image."
    )


def _lfm2_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    sizes = table(prompts.given("spatial_shapes"))
    factor = config.downsample_factor
    pixels, patch = prompts.given("pixel_values").cpu(), config.vision_config.patch_size
    pictures = [
        flat[: height * width].view(height, width, patch, patch, -1).permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
        for flat, (height, width) in zip(pixels, sizes, strict=True)
    ]
    seen = 0
    for row in _rows(prompts):
        for count in _by_gap(prompts.runs(row), 1):  # between the views of an image stands a tag alone
            grids = [(-(-height // factor), -(-width // factor)) for height, width in sizes[seen : seen + count]]
            shown = pictures[seen : seen + count]
            seen += count
            tiles = _placed(torch.stack(shown[:-1]), shown[-1], *grids[0]) if count > 1 else ()
            # There may be no thumbnail, which an image that was cut, into two tiles at least, has after them.
            cut = count == 2 or any(tile.box is UNKNOWN for tile in tiles)  # noqa: PLR2004 - as the comment says
            if cut and any(_contrast(picture) > _FAINT for picture in shown):
                yield Block(tuple(View(0, *grid, UNKNOWN) for grid in grids))
            else:
                yield Block((*tiles, View(0, *grids[-1])))


def _slice_blocks(_: Any, prompts: Prompts) -> Iterator[Block]:
    sizes = iter(table(prompts.given("target_sizes")))
    for row in _rows(prompts):
        for runs in _by_first_tag(prompts, row):
            grids = []
            for run in runs:
                height, width = next(sizes, (0, 0))
                divisor = round((height * width / run.size) ** 0.5)
                grids.append((height // divisor, width // divisor))
            tiles: tuple[View, ...] = ()
            if len(runs) > 1:
                places = tile_views(*_row_ends(runs[1:], 2), 0, 0)
                tiles = tuple(View(0, *grid, place.box) for grid, place in zip(grids[1:], places, strict=True))
            yield Block((View(0, *grids[0]), *tiles))


def _mllama_blocks(config: Any, prompts: Prompts) -> Iterator[Block]:
    """Every key of a cross layer: images × tiles × (class token, patches), the tiles that an image has not masked."""
    vision = config.vision_config
    side = square_side(vision_patches(config))
    pictures = prompts.given("pixel_values")
    for row, shown in zip(table(prompts.given("aspect_ratio_ids")), pictures, strict=True):
        views: list[View] = []
        kept = np.zeros((len(row), vision.max_num_tiles, side * side + 1), dtype=bool)
        for image, aspect in enumerate(row):
            if aspect:  # 0 stands for no image
                rows, columns = vision.supported_aspect_ratios[aspect - 1]
                kept[image, : rows * columns, 1:] = True
                whole = canvas.mosaic(shown[image, : rows * columns].cpu(), rows, columns)
                filled = canvas.filled_from_corner(canvas.black(whole))
                tiles = in_image(tile_views(rows, columns, side, side), filled)
                views += [replace(view, image=image) for view in tiles]
        yield Block(tuple(views), kept.ravel())


_COMPARED = "tiles, placed by comparison with the thumbnail that follows them"
INTERNVL = Rule(f"{_COMPARED}; squares of `image_seq_length` tokens", _internvl_blocks)
GOT = Rule(f"{_COMPARED}; squares of `image_size` // `patch_size` // 4 a side", _got_blocks)
AYA = Rule(f"{_COMPARED}; squares of `image_size` // `patch_size` // `downsample_factor` a side", _aya_blocks)
COHERE = Rule(f"{_COMPARED}; squares of `image_size` // `patch_size` // `downsample_factor` a side", _cohere_blocks)
IDEFICS3 = Rule("tiles row by row, the gap longer between rows, then the whole image", _idefics3_blocks)
DOCLING = Rule(
    "tiles row by row, the gap longer between rows, then the whole image where there are several; each `image_size` // "
    "`patch_size` // `scale_factor` a side, twice that with `tile_fine_mask`",
    _docling_blocks,
)
STEP = Rule("tiles row by row, a newline token between rows, then the whole image, of more tokens", _step_blocks)
LLAMA4 = Rule("tiles row by row, a separator token after each row, then the whole image", _llama4_blocks)
OVIS = Rule("the whole image, then tiles row by row, a separator token between rows", _ovis_blocks)
PERCEPTION = Rule("a thumbnail, then tiles, placed by comparison with it", _thumbnail_first_blocks)
PANNED = Rule(
    "a square of `mm_tokens_per_image` tokens; pan-and-scan crops are told from other images by comparison with the "
    "image before them",
    _panned_blocks,
)
LFM2 = Rule(f"{_COMPARED}; each `spatial_shapes` // `downsample_factor`", _lfm2_blocks)
SLICES = Rule("the whole image, then slices row by row; each `target_sizes` over the reduction", _slice_blocks)
MLLAMA = Rule("tiles of `aspect_ratio_ids`, squares of `image_size` // `patch_size` a side", _mllama_blocks)
