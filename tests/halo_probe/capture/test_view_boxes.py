"""Where a view says that it shows a part of an image, the model sees that part: through the processors of the families.

One small patch of an image is changed, and the token of each view whose embedding moves most is compared with the token
that the view's box gives for the patch.
"""

import math
from functools import cache

import pytest
import real_processors
import tiny_families
import torch
from real_processors import CASES

from halo_probe.archive.generation import View
from halo_probe.capture import canvas
from halo_probe.capture.families import FAMILIES
from halo_probe.capture.image_tokens import locate_image_tokens
from halo_probe.metrics.views import WHOLE

SIZES = [(40, 60), (1120, 1120), (1024, 1024), (640, 640), (300, 900), (700, 333)]
PLACES = [(0.06, 0.08), (0.93, 0.9), (0.55, 0.4)]
CUT = {"llava", "vipllava", "video_llava", "fast_vlm", "chameleon"}
CENTRED = {"deepseek_vl", "deepseek_vl_hybrid", "janus"}
BY_PIXELS = {"chameleon", "emu3", "fast_vlm", "gemma3n"}
"""Families whose tokens are codes, or see far beyond their cells: the pixels themselves are looked at."""
FAINT = 0.1


def unknown_views(name, size):
    """Which views of an image of some size have no known place: none, all, or the tiles."""
    square = size[0] == size[1]
    if name in CUT or (name in CENTRED and not square):
        return "all"
    if name == "mllama" and size != (1120, 1120):
        return "all"
    small = size == (40, 60)
    return "all" if small and name in {"llama4", "unlimited_ocr"} else ""


class Seen(Exception):
    """Raised where the language model begins, with what it was given."""


@cache
def family(name):
    return real_processors.model_of(name), real_processors.processor_of(name)


def embeddings(name, model, inputs, found):
    """M × D: what the language model is given at each image token."""
    if name in BY_PIXELS:
        return pooled(name, inputs, found.views)

    def stop(_, __, arguments):
        raise Seen(arguments)

    hook = model.get_decoder().register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            model(**inputs)
    except Seen as seen:
        (given,) = seen.args
    finally:
        hook.remove()
    if name == "mllama":
        return given["cross_attention_states"].flatten(0, -2)[found.positions]
    embeds = given["inputs_embeds"]
    if later := given.get("deepstack_features"):
        embeds = embeds.masked_scatter(given["vision_mask"], torch.stack([*later.values()]).sum(0))
    return embeds[0][found.positions]


def pooled(name, inputs, views):
    """M × 3: the mean colour of the pixels of each token."""
    cells = []
    for view in views:
        picture = torch.as_tensor(inputs["pixel_values"][view.image]).float()
        if name == "emu3":  # the pictures of a batch are padded to the largest
            height, width = inputs["image_sizes"][view.image]
            picture = picture[:, :height, :width]
        cells.append(torch.nn.functional.adaptive_avg_pool2d(picture, (view.height, view.width)).flatten(1).T)
    return torch.cat(cells)


def pictures_of(sizes):
    return [(tiny_families.a_picture(*size, seed=7 + number) * 255).byte() for number, size in enumerate(sizes)]


def located(model, given):
    (found,) = locate_image_tokens(model.config, given["input_ids"], given)
    return found


def with_patch(picture, place):
    """A copy with a small patch as light or dark as it was not, and where the middle of the patch is."""
    u, v = place
    _, height, width = picture.shape
    down, along = max(1, height / 40), max(1, width / 40)
    top, bottom = max(0, round(v * height - down)), min(height, round(v * height + down))
    left, right = max(0, round(u * width - along)), min(width, round(u * width + along))
    changed = picture.clone()
    patch = changed[:, top:bottom, left:right]
    patch.copy_(torch.where(patch < 128, 255, 0).byte())
    return changed, ((left + right) / 2 / width, (top + bottom) / 2 / height)


def misses(name, pictures, places=PLACES):
    """By how many rows or columns each view errs about each patch; None where it does not say where it lies.

    Yields the image, the view and the error. Views that say that they do not show the patch are left out.
    """
    model, processor = family(name)
    given = real_processors.process(name, processor, model.config, pictures).inputs
    found = located(model, given)
    before = embeddings(name, model, given, found)
    ends = [sum(view.height * view.width for view in found.views[:end]) for end in range(len(found.views) + 1)]
    assert len(before) == ends[-1]
    for number, picture in enumerate(pictures):
        for place in places:
            changed, (u, v) = with_patch(picture, place)
            shown = [*pictures[:number], changed, *pictures[number + 1 :]]
            inputs = real_processors.process(name, processor, model.config, shown).inputs
            moved = (embeddings(name, model, inputs, found) - before).norm(dim=-1)
            own = [index for index, view in enumerate(found.views) if view.image == number]
            most = max(float(moved[ends[index] : ends[index + 1]].max()) for index in own)
            says = 0
            for index in own:
                view = found.views[index]
                x0, y0, x1, y1 = view.box
                if math.isnan(x0):
                    yield number, view, None
                    continue
                column, row = (u - x0) / (x1 - x0) * view.width, (v - y0) / (y1 - y0) * view.height
                if not (0 <= column < view.width and 0 <= row < view.height):
                    continue
                says += 1
                part = moved[ends[index] : ends[index + 1]]
                assert float(part.max()) > FAINT * most, f"{view} does not show the patch at {u:.2f}, {v:.2f}"
                there = divmod(int(part.argmax()), view.width)
                yield number, view, max(abs(there[0] - int(row)), abs(there[1] - int(column)))
            assert says or any(math.isnan(found.views[index].box[0]) for index in own)


def test_every_family_with_a_grid_has_its_processor_here():
    assert set(CASES) == {family.model_type for family in FAMILIES if family.grid and not family.refusal} - {
        "deepseek_ocr2"  # no raster: latents
    }


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", list(CASES))
def test_the_token_that_a_box_gives_for_a_patch_moves_most_to_within_one_token(name, size):
    errors = list(misses(name, pictures_of([size])))
    assert errors
    assert [view for _, view, error in errors if error is not None and error > 1] == []
    expected = unknown_views(name, size)
    assert {error is None for _, _, error in errors} == {expected == "all"}


@pytest.mark.parametrize("name", list(CASES))
def test_each_of_two_images_of_a_prompt_is_where_its_boxes_say(name):
    sizes = [(640, 640), (300, 500)]
    if name == "perception_lm":  # its processor stacks images of as many tiles alone
        sizes = [(640, 640)] * 2
    errors = list(misses(name, pictures_of(sizes)))
    assert {number for number, *_ in errors} == {0, 1}
    assert [view for _, view, error in errors if error is not None and error > 1] == []
    for number, size in enumerate(sizes):
        expected = unknown_views(name, size)
        assert {error is None for image, _, error in errors if image == number} == {expected == "all"}


BORDERS = {
    "frame": (1, 1, 1, 1),
    "below": (0, 0, 0, 1),
    "right": (0, 0, 1, 0),
    "above and below": (0, 1, 0, 1),
    "left and right": (1, 0, 1, 0),
}
BLACK, ALMOST_BLACK, GREY, MEAN, WHITE = (0, 0, 0), (1, 1, 1), (127, 127, 127), (122, 116, 104), (255, 255, 255)
PADDED = [
    *((name, MEAN) for name in ("deepseek_vl", "deepseek_vl_hybrid", "llava_onevision")),
    *((name, BLACK) for name in ("fuyu", "glm5_next", "inkling2", "kimi_k25", "llama4", "mllama", "step3p7")),
    ("fuyu", ALMOST_BLACK),
    *((name, GREY) for name in ("janus", "unlimited_ocr")),
    ("unlimited_ocr", WHITE),
]
"""Families that pad, and the colour of the padding, or one that may be taken for it."""


def bordered(size, border, colour):
    """An image with bars of one colour, an eighth of it wide."""
    (picture,) = pictures_of([size])
    height, width = size
    left, top, right, bottom = BORDERS[border]
    inner = torch.zeros(size, dtype=torch.bool)
    inner[top * height // 8 : height - bottom * height // 8, left * width // 8 : width - right * width // 8] = True
    return torch.where(inner, picture, torch.tensor(colour, dtype=torch.uint8)[:, None, None])


@pytest.mark.parametrize("border", list(BORDERS))
@pytest.mark.parametrize(("name", "colour"), PADDED)
def test_an_image_with_a_border_of_the_paddings_colour_is_where_its_box_says_or_nowhere(name, colour, border):
    for size in [(1024, 1024), (300, 900)]:
        errors = list(misses(name, [bordered(size, border, colour)], places=[(0.22, 0.2), (0.8, 0.82)]))
        assert errors
        assert [view for _, view, error in errors if error is not None and error > 1] == []


@pytest.mark.parametrize("name", sorted({name for name, _ in PADDED}))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_boxes_are_those_of_full_precision_where_the_pixels_are_given_in_half(name, dtype):
    model, processor = family(name)
    for size in [(40, 60), (1024, 1024), (300, 900)]:
        given = real_processors.process(name, processor, model.config, pictures_of([size])).inputs
        half = {
            key: value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value
            for key, value in given.items()
        }
        pairs = zip(located(model, given).views, located(model, half).views, strict=True)
        for view, other in pairs:
            assert (other.height, other.width) == (view.height, view.width)
            assert other.box == pytest.approx(view.box, nan_ok=True)


def test_an_image_that_is_thin_enough_to_be_padded_to_a_square_has_no_known_place():
    model, processor = family("step3p7")
    for size, known in [((20, 120), False), ((120, 20), False), ((20, 60), True), ((64, 300), True)]:
        given = real_processors.process("step3p7", processor, model.config, pictures_of([size])).inputs
        views = located(model, given).views
        assert {math.isnan(view.box[0]) for view in views} == {not known}


def test_views_of_a_canvas_are_shown_as_parts_of_the_image_that_fills_a_part_of_it():
    halves = [View(0, 4, 4, (0, 0, 0.5, 1)), View(0, 4, 4, (0.5, 0, 1, 1))]
    left, right = canvas.in_image(halves, (0, 0, 0.8, 0.5))
    assert left.box == pytest.approx((0, 0, 0.625, 2))
    assert right.box == pytest.approx((0.625, 0, 1.25, 2))
    assert [view.box for view in canvas.in_image(halves, WHOLE)] == [view.box for view in halves]
    assert all(math.isnan(edge) for view in canvas.in_image(halves, None) for edge in view.box)
