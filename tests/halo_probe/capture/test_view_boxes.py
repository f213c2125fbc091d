"""Where the views of an image lie, through the real image processors: one patch of pixels is changed, and found again.

The picture whose pixels move most, and the place in it, tell where the processor put the patch. The box of that view has
to say the same place, within one cell, or that it is unknown.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.inkling2.image_processing_inkling2 import Inkling2ImageProcessor
from transformers.models.kimi_k25.image_processing_kimi_k25 import Kimi_K25ImageProcessor
from transformers.models.llama4.image_processing_llama4 import Llama4ImageProcessor
from transformers.models.mllama import MllamaImageProcessor

from halo_probe.capture import tiles
from halo_probe.capture.grids import UNKNOWN, Prompts
from halo_probe.metrics.views import WHOLE, find_whole_view

SIZES = [(1024, 1024), (640, 640), (1120, 1120), (560, 560), (40, 60), (1000, 300), (333, 777), (1120, 560)]
"""Width and height."""
PLACES = [(0.13, 0.21), (0.5, 0.5), (0.88, 0.88), (0.92, 0.15)]
"""Of the changed patch, in parts of the image."""
IMAGE, ACROSS, DOWN, TAG, START = 1, 2, 3, 4, 5


def picture(size, place=None, *, background=(128, 128, 128)):
    """An image of one colour with dots, with a bright patch at a place."""
    width, height = size
    pixels = np.full((height, width, 3), background, dtype=np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(12):
        x, y = (int(rng.integers(side // 8, side - side // 8)) for side in (width, height))
        pixels[y : y + max(2, height // 60), x : x + max(2, width // 60)] = 30
    if place:
        x, y = int(place[0] * width), int(place[1] * height)
        pixels[y - height // 120 - 1 : y + height // 120 + 1, x - width // 120 - 1 : x + width // 120 + 1] = 255
    return Image.fromarray(pixels)


def brightest(before, after):
    """Which of the pictures N × C × h × w moved most, and where the middle of the movement is, in parts of it."""
    moved = (after - before).abs().sum(dim=1)
    which = int(moved.amax(dim=(1, 2)).argmax()) if moved.sum() else 0
    weights = moved[which].numpy()
    y, x = (np.arange(side) + 0.5 for side in weights.shape)
    total = weights.sum()
    return which, (weights.sum(0) @ x / total / weights.shape[1], weights.sum(1) @ y / total / weights.shape[0])


def llama4(images):
    """The pictures that Llama 4's processor makes, and the views that are read of them."""
    made = Llama4ImageProcessor()(images=images, return_tensors="pt")
    ids = []
    for rows, columns in made["aspect_ratios"].tolist():
        ids += [START]
        if rows * columns > 1:
            for _ in range(rows):
                ids += [*[token for _ in range(columns) for token in (IMAGE, ACROSS)][:-1], DOWN]
        ids += [TAG, IMAGE]
    config = SimpleNamespace(vision_config=SimpleNamespace(image_size=16, patch_size=16, pixel_shuffle_ratio=1))
    tokens = np.array([ids])
    prompts = Prompts(tokens, (np.flatnonzero(tokens[0] == IMAGE),), {"pixel_values": made["pixel_values"]})
    return made["pixel_values"].float(), [block.views for block in tiles.LLAMA4.blocks(config, prompts)]


def mllama(images):
    """The tiles that Mllama's processor makes of one prompt's images, the empty ones left out, and their views."""
    looks = MllamaImageProcessor(size={"height": 560, "width": 560}, max_image_tiles=4)
    made = looks(images=[images], return_tensors="pt")
    ratios = [[rows, columns] for rows in range(1, 5) for columns in range(1, 5) if rows * columns <= 4]
    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=560, patch_size=560, max_num_tiles=4, supported_aspect_ratios=ratios)
    )
    prompts = Prompts(np.zeros((1, 1)), (np.zeros(0),), dict(made))
    (block,) = tiles.MLLAMA.blocks(config, prompts)
    views = [tuple(view for view in block.views if view.image == place) for place in range(len(images))]
    shown = [made["pixel_values"][0, place, : len(one)] for place, one in enumerate(views)]
    return torch.cat(shown).float(), views


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("family", "side"), [(llama4, 336), (mllama, 560)], ids=["llama4", "mllama"])
def test_a_changed_patch_is_where_the_box_of_its_view_says(family, side, size, place):
    before, (views,) = family([picture(size)])
    after, (again,) = family([picture(size, place)])
    assert [view.box for view in views] == [view.box for view in again]
    which, inside = brightest(before[: len(views)], after[: len(views)])
    left, top, right, bottom = views[which].box
    found = (left + inside[0] * (right - left), top + inside[1] * (bottom - top))
    cell = 14 / side  # of a view, in tokens of 14 pixels
    assert found[0] == pytest.approx(place[0], abs=max(cell * (right - left), 0.02))
    assert found[1] == pytest.approx(place[1], abs=max(cell * (bottom - top), 0.02))


@pytest.mark.parametrize(("family", "side"), [(llama4, 336), (mllama, 560)], ids=["llama4", "mllama"])
def test_each_of_several_images_has_its_own_padding(family, side):
    sizes = [(1024, 1024), (300, 900), (640, 480)]
    _, together = family([picture(size) for size in sizes])
    alone = [family([picture(size)])[1][0] for size in sizes]
    for one, other in zip(together, alone, strict=True):
        assert [view.box for view in one] == [view.box for view in other]


@pytest.mark.parametrize("family", [llama4, mllama])
def test_an_image_with_black_edges_of_its_own_has_unknown_tiles_where_it_is_padded(family):
    _, (views,) = family([picture((1024, 1024), background=(0, 0, 0))])
    tiles_of = [view for view in views if view.box != WHOLE]
    assert tiles_of
    assert all(np.isnan(view.box).all() for view in tiles_of)


def test_a_canvas_that_is_all_of_one_colour_or_normalised_otherwise_is_not_guessed_at():
    assert tiles._filled(torch.full((3, 8, 8), -1.0)) is None
    strange = torch.full((3, 8, 8), 3.0)
    strange[:, 4:] = -0.4
    assert tiles._filled(strange) is None
    whole = torch.full((3, 8, 8), 1.0)
    whole[:, 2, 3] = -1
    assert tiles._filled(whole) == (1, 1)
    padded = torch.full((3, 8, 10), -1.0)
    padded[:, :6, :5] = 0.3
    assert tiles._filled(padded) == (0.5, 0.75)


def test_the_view_of_a_padded_picture_is_still_that_of_the_whole_image():
    """A single tile that reaches beyond the image shows all of it."""
    _, (views,) = mllama([picture((300, 560))])
    assert len(views) == 1
    assert views[0].box[2] > 1
    found, fault = find_whole_view([replace(views[0], height=4, width=4)], tokens=16)
    assert not fault
    assert found.box == views[0].box
    assert views[0].box != UNKNOWN


PADDED_TO_A_CELL = {"inkling2": (Inkling2ImageProcessor, 40, 1), "kimi_k25": (Kimi_K25ImageProcessor, 14, 2)}
"""Families that pad an image to whole cells at the right and at the bottom: pixels of a patch, patches of a token."""


@pytest.mark.parametrize("size", [(1024, 1024), (640, 480), (333, 777)], ids=str)
@pytest.mark.parametrize("name", PADDED_TO_A_CELL)
def test_padding_to_whole_cells_moves_no_place_by_a_cell(name, size):
    looks, pixels, merge = PADDED_TO_A_CELL[name]
    grids = looks()(picture(size), return_tensors="pt")["image_grid_thw"]
    rows, columns = (int(side) // merge for side in grids[0, 1:])
    width, height = size
    scale = min(1.0, columns * pixels * merge / width, rows * pixels * merge / height)
    for filled, cells in ((width * scale, columns), (height * scale, rows)):
        assert (cells - 1) * pixels * merge < filled + 1 <= cells * pixels * merge + 1
