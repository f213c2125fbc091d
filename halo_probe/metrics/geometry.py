"""The dots of an image on the grid of its image tokens: what each cell covers.

Conventions: a pixel is named by its column u and its row v, and covers [u, u+1) × [v, v+1). Dots are centres (x, y) in
pixels with one radius r; a pixel is dark where (u-x)² + (v-y)² <= r². Cell k of an h × w grid is token k, row by row.
Cells need not be whole pixels: a pixel cut by the border of two cells counts by its parts. Areas are in pixels.

Source: the measurement specification, section 6.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from dataset_builder.geometry import hull_indices
from halo_probe.errors import UsageError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST_SHARE = 0.05
"""A cell is a dot's own if it holds at least this share of the dot's dark pixels, or half of an even share."""
BAND = 64
"""The band of the hull is within this many pixels of its boundary."""

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """n dots on a grid of M = h · w image tokens: computed once, applied to many maps."""

    grid: tuple[int, int]
    """Rows h and columns w."""
    dot_areas: Floats
    """f, (n, M): dark pixels of dot j in cell k; a row of zeros is a dot out of view."""
    dot_cells: Flags
    """(n, M): whether cell k is dot j's own: it holds at least the share τ_j of the dot's dark pixels that are in view.

    τ_j is the smaller of .05 and 1 / (2 n_j), n_j the number of cells that the dot touches: every dot in view has cells
    of its own, however fine the grid is."""
    center_cells: NDArray[np.intp]
    """(n,): the cell of each centre, the nearest one where it is out of view."""
    hull_dots: Flags
    """(n,): whether the centre is a corner of the convex hull of all centres."""
    on_dots: Flags
    """D, (M,): the dots' own cells."""
    around: Flags
    """R, (M,): the cells next to D, also across a corner, that are not in D."""
    band: Floats
    """(M,): area within 64 px of the hull's boundary; zero in D and R, and everywhere where the hull has no area."""
    interior: Floats
    """(M,): area inside the hull and outside the band; zero in D and R."""
    cores: Floats
    """(M,): area within .5 r of a centre, added over the dots; zero unless r is at least a cell's longer side."""
    rims: Floats
    """(M,): area farther than .75 r and at most 1.25 r from a centre, added over the dots; zero as `cores` is."""
    frame: Flags
    """(M,): the outermost ring of cells."""

    @cached_property
    def near(self) -> Flags:
        """D ∪ R, (M,)."""
        return self.on_dots | self.around

    @cached_property
    def dot_shares(self) -> Floats:
        """q, (M,): the share of each cell in all dark pixels in view; all zero where none is."""
        dark = self.dot_areas.sum(axis=0)
        return np.asarray(dark / (dark.sum() or 1))

    @cached_property
    def dot_weights(self) -> Floats:
        """(n, M): 1 on a dot's own cells; cells of several dots are split among them in proportion to f."""
        own = np.where(self.dot_cells, self.dot_areas, 0.0)
        return own / np.where(self.on_dots, own.sum(axis=0), 1.0)


def lay_out(
    dots: ArrayLike,
    *,
    radius: float,
    image: tuple[int, int],
    grid: tuple[int, int],
    view: tuple[float, float, float, float] | None = None,
) -> Layout:
    """Put the dots of an image on the grid of its image tokens.

    A model that resizes the image, evenly or not, sees all of it: the grid alone says so. One that pads it or takes a
    crop sees another rectangle, the view.

    Args:
        dots: Centres (x, y) in pixels of the image, integers, (n, 2).
        radius: Radius of the dots in pixels of the image.
        image: Height and width of the image in pixels.
        grid: Rows and columns of image tokens.
        view: Left, top, right and bottom of the rectangle that the grid covers, in pixels of the image: beyond its
            borders for padding, within them for a crop. The whole image where None.

    Raises:
        UsageError: If there is no dot, a centre is not an integer or outside the image, or a size is not positive.

    >>> layout = lay_out([(70, 70), (300, 300)], radius=10, image=(1024, 1024), grid=(32, 32))
    >>> layout.dot_areas.sum(axis=1)
    array([317., 317.])
    >>> int(layout.on_dots.sum()), int(layout.around.sum())
    (4, 20)
    """
    centers = np.asarray(dots)
    left, top, right, bottom = view or (0, 0, image[1], image[0])
    if centers.ndim != 2 or centers.shape[1] != 2 or not len(centers) or centers.dtype.kind not in "iu":  # noqa: PLR2004
        raise UsageError(
            f"lay_out: dots of shape {centers.shape}, {centers.dtype}: give integer centres, (n, 2), n > 0"
        )
    if ((centers < 0) | (centers >= image[::-1])).any():
        raise UsageError(f"lay_out: a centre is outside the image of {image}: give x, y in pixels, and height, width")
    if min(radius, *image, *grid, right - left, bottom - top) <= 0:
        raise UsageError(
            f"lay_out: radius {radius}, image {image}, grid {grid}, view {view}: each size must be positive"
        )
    ruler = _Ruler(
        image=image, rows=np.linspace(top, bottom, grid[0] + 1), columns=np.linspace(left, right, grid[1] + 1)
    )
    sides = (right - left) / grid[1], (bottom - top) / grid[0]

    areas = _disc_areas(ruler, centers, radius=radius)
    # What rounding leaves on the other side of a border is not touched.
    touched = areas > _ROUNDING
    least = np.minimum(LEAST_SHARE, 0.5 / np.maximum(touched.sum(axis=1, keepdims=True), 1))
    cells = touched & (areas >= least * (1 - _ROUNDING) * areas.sum(axis=1, keepdims=True))
    on_dots = cells.any(axis=0)
    near = ndimage.binary_dilation(on_dots.reshape(grid), np.ones((3, 3))).ravel()
    cores = rims = np.zeros(areas.shape[1])
    if radius >= max(sides):
        cores = _disc_areas(ruler, centers, radius=0.5 * radius).sum(axis=0)
        rims = (
            _disc_areas(ruler, centers, radius=1.25 * radius) - _disc_areas(ruler, centers, radius=0.75 * radius)
        ).sum(axis=0)
    corners = hull_indices(tuple((x, y) for x, y in centers.tolist()))
    band, interior = _hull_areas(ruler, centers[corners])
    frame = np.ones(grid, dtype=np.bool_)
    frame[1:-1, 1:-1] = False
    return Layout(
        grid=grid,
        dot_areas=areas,
        dot_cells=cells,
        center_cells=_cells_of(ruler, centers + 0.5),
        hull_dots=np.isin(np.arange(len(centers)), corners),
        on_dots=on_dots,
        around=near & ~on_dots,
        band=np.where(near, 0.0, band),
        interior=np.where(near, 0.0, interior),
        cores=cores,
        rims=rims,
        frame=frame.ravel(),
    )


@dataclass(frozen=True, kw_only=True)
class _Ruler:
    """The borders of the cells, in pixels of the image."""

    image: tuple[int, int]
    rows: Floats
    columns: Floats


def _areas(ruler: _Ruler, *, rows: Floats, starts: Floats, stops: Floats) -> Floats:
    """Area in each cell, (..., M), of a shape with one run [start, stop) of pixels in each of its rows, (..., rows).

    What lies outside the image does not count. This is what an integral image with bilinear edges gives, without one.
    """
    height, width = ruler.image
    starts, stops = np.clip(starts, 0, width), np.where((rows >= 0) & (rows < height), np.clip(stops, 0, width), 0)
    cells = _overlaps(rows, rows + 1, ruler.rows).swapaxes(-1, -2) @ _overlaps(starts, stops, ruler.columns)
    return np.asarray(cells.reshape(*cells.shape[:-2], -1))


def _overlaps(starts: Floats, stops: Floats, borders: Floats) -> Floats:
    """Length of each [start, stop) in each part between two borders, (..., parts)."""
    ends = np.minimum(stops[..., np.newaxis], borders[1:])
    return np.asarray(np.maximum(ends - np.maximum(starts[..., np.newaxis], borders[:-1]), 0))


def _disc_areas(ruler: _Ruler, centers: NDArray[np.integer], *, radius: float) -> Floats:
    offsets = np.arange(-int(radius), int(radius) + 1)
    reach = np.floor(np.sqrt(radius**2 - offsets**2))
    x, y = centers.T[..., np.newaxis].astype(np.float64)
    return _areas(ruler, rows=y + offsets, starts=x - reach, stops=x + reach + 1)


def _hull_areas(ruler: _Ruler, corners: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Areas of the band and of the interior of a convex polygon, given by its corners in any order.

    Both its outer and its inner border are borders of convex sets, which meet each row of pixels in one run.
    """
    if len(corners) < 3:  # noqa: PLR2004 - a point or a line has no inside
        return (np.zeros((len(ruler.rows) - 1) * (len(ruler.columns) - 1)),) * 2
    rows = np.arange(ruler.image[0], dtype=np.float64)
    x, y = _turning(corners).T
    # The edge from each corner to the next, and its normal of unit length that points inwards.
    dx, dy = np.roll(x, -1) - x, np.roll(y, -1) - y
    nx, ny = -dy / np.hypot(dx, dy), dx / np.hypot(dx, dy)

    down = rows[:, np.newaxis] - y
    with np.errstate(divide="ignore", invalid="ignore"):
        # The outer border is made of arcs around the corners and of the edges pushed outwards, NaN in other rows.
        arc = np.sqrt(BAND**2 - down**2)
        along = (down + BAND * ny) / dy
        pushed = np.where((along >= 0) & (along <= 1), x - BAND * nx + along * dx, np.nan)
        # The interior is farther than the band from every edge: nx (u - x) + ny (v - y) > 64.
        bound = x + (BAND - ny * down) / nx
    left = np.fmin.reduce(np.hstack([x - arc, pushed]), axis=1, initial=np.inf)
    right = np.fmax.reduce(np.hstack([x + arc, pushed]), axis=1, initial=-np.inf)
    lower = bound.max(axis=1, where=nx > 0, initial=-np.inf)
    upper = bound.min(axis=1, where=nx < 0, initial=np.inf)
    upper = np.where((ny * down > BAND + _ROUNDING).all(axis=1, where=nx == 0), upper, -np.inf)

    # A pixel at 64 px exactly is in the band.
    outer = _areas(ruler, rows=rows, starts=np.ceil(left - _ROUNDING), stops=np.floor(right + _ROUNDING) + 1)
    inner = _areas(ruler, rows=rows, starts=np.floor(lower + _ROUNDING) + 1, stops=np.ceil(upper - _ROUNDING))
    return outer - inner, inner


def _turning(corners: NDArray[np.integer]) -> Floats:
    """The corners in the order in which the boundary meets them, towards growing angles."""
    x, y = (corners - corners.mean(axis=0)).T
    return corners[np.argsort(np.arctan2(y, x))].astype(np.float64)


def _cells_of(ruler: _Ruler, points: Floats) -> NDArray[np.intp]:
    x, y = points.T
    columns = np.clip(np.searchsorted(ruler.columns, x, side="right") - 1, 0, len(ruler.columns) - 2)
    rows = np.clip(np.searchsorted(ruler.rows, y, side="right") - 1, 0, len(ruler.rows) - 2)
    return np.asarray(rows * (len(ruler.columns) - 1) + columns)
