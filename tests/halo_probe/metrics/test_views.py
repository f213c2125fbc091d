import math

import pytest

from halo_probe.archive.generation import View
from halo_probe.capture.canvas import UNKNOWN
from halo_probe.metrics.dots import Dots, dots_of, layout_of
from halo_probe.metrics.geometry import lay_out
from halo_probe.metrics.views import WHOLE, WholeView, find_whole_view

LEFT, PADDED = (0.0, 0.0, 0.5, 1.0), (0.0, -0.5, 1.0, 1.5)


@pytest.mark.parametrize(
    ("views", "tokens", "expected"),
    [
        ([View(0, 4, 6)], 24, (slice(0, 24), (4, 6), WHOLE)),
        ([View(0, 2, 2, LEFT), View(0, 4, 6), View(0, 2, 2, UNKNOWN)], 32, (slice(4, 28), (4, 6), WHOLE)),
        ([View(0, 2, 2), View(0, 4, 6)], 28, (slice(4, 28), (4, 6), WHOLE)),
        ([View(0, 4, 4, PADDED)], 16, (slice(0, 16), (4, 4), PADDED)),
        ([], 16, "the image tokens form no grid"),
        ([View(0, 4, 4), View(1, 4, 4)], 32, "2 images"),
        ([View(0, 4, 4)], 17, "17 image tokens are no 4 x 4 grid"),
        ([View(0, 4, 4), View(0, 2, 2, LEFT)], 16, "16 image tokens are no 4 x 4 and 2 x 2 grid"),
        ([View(0, 4, 4, LEFT)], 16, "none of 1 views shows the whole image"),
        ([View(0, 4, 2, UNKNOWN)] * 2, 16, "which part of the image the model was shown is unknown"),
        ([View(0, 4, 2, LEFT), View(0, 4, 4, UNKNOWN)], 24, "none of 2 views shows the whole image"),
    ],
)
def test_the_finest_view_of_all_of_the_only_image_is_found_or_why_there_is_none(views, tokens, expected):
    if isinstance(expected, str):
        assert find_whole_view(views, tokens=tokens) == (None, expected)
    else:
        place, grid, box = expected
        assert find_whole_view(views, tokens=tokens) == (WholeView(tokens=place, grid=grid, box=box), "")


def test_the_only_view_has_a_grid_where_its_place_is_unknown():
    only = WholeView(tokens=slice(0, 16), grid=(4, 4), box=None)
    assert find_whole_view([View(0, 4, 4, UNKNOWN)], tokens=16) == (
        only,
        "which part of the image the model was shown is unknown",
    )


def test_dots_are_laid_out_on_the_part_of_the_image_that_the_grid_covers():
    row = {"centers": [[40, 30], [100, 80]], "radius": 5, "width": 200, "height": 100}
    dots = dots_of(row)
    assert dots == Dots(centers=((40, 30), (100, 80)), radius=5, image=(100, 200))
    whole, padded = layout_of(dots, (10, 20)), layout_of(dots, (20, 20), PADDED)
    for layout, view, grid in ((whole, None, (10, 20)), (padded, (0, -50, 200, 150), (20, 20))):
        expected = lay_out(row["centers"], radius=5, image=(100, 200), grid=grid, view=view)
        assert (layout.dot_areas == expected.dot_areas).all()
    assert math.isclose(whole.dot_areas.sum(), padded.dot_areas.sum())
    assert dots_of({**row, "centers": []}) is None
    assert dots_of({**row, "radius": 0}) is None
