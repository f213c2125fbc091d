"""Sample i of a set: a function of the generator's major version, the set, the seed and i, and of nothing else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from dataset_builder import sets
from dataset_builder.glyphs import GLYPH_HEIGHT, GLYPH_WIDTH, glyph_scale
from dataset_builder.placement import ATTEMPTS, Centers, Space, check_count, place_dots
from dataset_builder.sets import SetSpec
from dataset_builder.stream import below, random_words, shuffled, stream_key
from dataset_builder.version import GENERATOR_VERSION

T = TypeVar("T")

_DOT_LEVELS = 21
_NOISE_MEAN = 232
_WHITE = 255
_GREYS = (64, 192)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The published geometry of one image: all that its pixels depend on, beside the parameters of the set.

    Args:
        index: Place in the set, from 0.
        count: The number of dots, or the number to read.
        answer: The expected reply.
        centers: Pixel coordinates (x, y) of the dots, or of the middle of each digit to read.
        intensities: The grey value drawn for each centre, 0..255.
        background: The grey value of the background, its mean where it is noise.
        noise: Whether the background is noise.
    """

    index: int
    count: int
    answer: str
    centers: Centers
    intensities: tuple[int, ...]
    background: int
    noise: bool = False


def sample_key(spec: SetSpec, index: int, *, purpose: str) -> bytes:
    """The key of the random stream of one row, or of one block of rows, for one purpose."""
    return stream_key(GENERATOR_VERSION.split(".")[0], spec.name, spec.seed, index, purpose)


def draw_sample(spec: SetSpec, index: int) -> Sample:
    """Draw row `index` of a set.

    Raises:
        PlacementError: If the dots do not fit.
    """
    if spec.layout_of is not None:
        return _restyled(spec, draw_sample(replace(sets.get_set(spec.layout_of), seed=spec.seed), index))
    words = random_words(sample_key(spec, index, purpose="sample"))
    match spec.kind:
        case "dots":
            sample = _draw_dots(spec, index, words=words)
        case "number":
            sample = _draw_number(spec, index, words=words)
        case "relation":
            sample = _draw_relation(spec, index, words=words)
        case "blank":
            sample = _draw_blank(spec, index, words=words)
    return _restyled(spec, sample)


def check_fit(spec: SetSpec) -> None:
    """Place the greatest count of a set, so that a set of which a row might not fit fails before its first row.

    Raises:
        PlacementError: If one of 16 single attempts does not reach it; the message names the largest count that all do.
    """
    if spec.kind == "dots" and spec.layout_of is None:
        streams = (random_words(sample_key(spec, attempt, purpose="fit")) for attempt in range(ATTEMPTS))
        check_count(streams, spec.counts[1], space=_space(spec))


def _restyled(spec: SetSpec, sample: Sample) -> Sample:
    """The sample on the background of the set."""
    if spec.background == "black":
        return replace(sample, background=0, intensities=tuple(_WHITE - value for value in sample.intensities))
    if spec.background == "noise":
        return replace(sample, background=_NOISE_MEAN, noise=True)
    return sample


def _choose(spec: SetSpec, index: int, *, words: Iterator[int], values: Sequence[T]) -> T:
    """The value of row `index`: drawn on its own, or its place in a permutation that its block of rows shares."""
    if not spec.balanced:
        return values[below(words, len(values))]
    block, place = divmod(index, len(values))
    return shuffled(random_words(sample_key(spec, block, purpose="block")), values)[place]


def _choose_count(spec: SetSpec, index: int, *, words: Iterator[int]) -> int:
    low, high = spec.counts
    return _choose(spec, index, words=words, values=range(low, high + 1))


def _draw_intensities(words: Iterator[int], count: int) -> tuple[int, ...]:
    return tuple(below(words, _DOT_LEVELS) for _ in range(count))


def _space(spec: SetSpec) -> Space:
    return Space(spec.size, spec.radius, spec.gap, spec.layout)


def _draw_dots(spec: SetSpec, index: int, *, words: Iterator[int]) -> Sample:
    count = _choose_count(spec, index, words=words)
    intensities = _draw_intensities(words, count)
    centers = place_dots(words, count, space=_space(spec))
    return Sample(
        index=index,
        count=count,
        answer=str(count),
        centers=centers,
        intensities=intensities,
        background=_WHITE,
    )


def _draw_number(spec: SetSpec, index: int, *, words: Iterator[int]) -> Sample:
    number = str(_choose_count(spec, index, words=words))
    shade = below(words, _DOT_LEVELS)
    scale = glyph_scale(spec.size)
    pitch = (GLYPH_WIDTH + 1) * scale
    width, height = len(number) * pitch - scale, GLYPH_HEIGHT * scale
    left = below(words, spec.size - width + 1)
    top = below(words, spec.size - height + 1)
    x, y = left + GLYPH_WIDTH * scale // 2, top + height // 2
    return Sample(
        index=index,
        count=int(number),
        answer=number,
        centers=tuple((x + place * pitch, y) for place in range(len(number))),
        intensities=(shade,) * len(number),
        background=_WHITE,
    )


def _draw_relation(spec: SetSpec, index: int, *, words: Iterator[int]) -> Sample:
    """The black dot, then the red one: apart by .15 to .40 of the side one way, and by up to a quarter of it across."""
    relation = _choose(spec, index, words=words, values=sets.RELATIONS)
    intensities = _draw_intensities(words, 2)
    along = spec.size * 15 // 100 + below(words, spec.size // 4)
    across = below(words, 2 * (along // 4) + 1) - along // 4
    dx, dy = {
        "left": (-along, across),
        "right": (along, across),
        "above": (across, -along),
        "below": (across, along),
    }[relation]
    span = spec.size - 2 * spec.radius
    x = spec.radius + max(0, -dx) + below(words, span - abs(dx))
    y = spec.radius + max(0, -dy) + below(words, span - abs(dy))
    return Sample(
        index=index,
        count=2,
        answer=relation,
        centers=((x + dx, y + dy), (x, y)),
        intensities=intensities,
        background=_WHITE,
    )


def _draw_blank(spec: SetSpec, index: int, *, words: Iterator[int]) -> Sample:
    """A white image, one of any middle grey, or noise, in turn: nothing to count."""
    kind = _choose(spec, index, words=words, values=sets.BLANKS)
    low, high = _GREYS
    level = {"white": _WHITE, "grey": low + below(words, high - low), "noise": _NOISE_MEAN}[kind]
    return Sample(index=index, count=0, answer="0", centers=(), intensities=(), background=level, noise=kind == "noise")
