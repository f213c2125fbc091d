"""The sets of the study: one declarative specification per set."""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from dataset_builder.errors import DatasetUsageError
from dataset_builder.placement import Layout
from dataset_builder.questions import COUNT_QUESTION, NUMBER_QUESTION, RELATION_QUESTION

Kind = Literal["dots", "blank", "number", "relation"]
Background = Literal["white", "black", "noise"]
Marks = Literal["none", "outline", "grid", "crosshair"]

RELATIONS = ("left", "right", "above", "below")
BLANKS = ("white", "grey", "noise")

_TYPES = MappingProxyType(
    {
        **dict.fromkeys(("least count", "greatest count", "seed", "size", "radius", "gap"), int),
        "question": str,
        "balanced": bool,
    }
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class SetSpec:
    """Everything that decides the rows of a set, and the number of rows it has unless told otherwise.

    Args:
        name: Lower-case letters, digits and underscores; a part of every row's id and of its random stream.
        n: Number of rows of the published set. Row i does not depend on it.
        seed: A new one makes a fresh, held-out set.
        kind: `dots` to count; `blank` images with none; `number`, two digits to read; `relation` of two dots.
        question: The prompt, to the byte.
        counts: Least and greatest number of dots, or number to read.
        balanced: Whether every stretch of as many rows as there are counts holds each count once, in random order.
            Otherwise each row's count is drawn uniformly.
        size: Side of the image in pixels.
        radius: Radius of a drawn dot in pixels: a pixel is dark iff its distance to the centre is ≤ radius.
        gap: Least distance between the edges of two drawn dots in pixels.
        layout: How the centres are spread, see `placement.place_dots`.
        layout_of: The name of the set whose centres, counts and intensities this one draws again, row by row. That
            set's margin and gaps are wide enough for the dots of this one.
        background: `white` (255); `black` (0), where intensities are mirrored; `noise` of mean 232 and deviation 8.
        marks: What is drawn besides the dots: a ring or four ticks around each, or a grid that is the same everywhere.
    """

    name: str
    n: int = 256
    seed: int = 0
    kind: Kind = "dots"
    question: str = COUNT_QUESTION
    counts: tuple[int, int] = (10, 16)
    balanced: bool = False
    size: int = 1024
    radius: int = 10
    gap: int = 20
    layout: Layout = "uniform"
    layout_of: str | None = None
    background: Background = "white"
    marks: Marks = "none"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DatasetUsageError(
                f"set name {self.name!r}: use up to 64 lower-case letters, digits and underscores, a letter first"
            )
        low, high = self.counts
        for fault, what in (
            (self.kind not in get_args(Kind), f"kind {self.kind!r}: use one of {get_args(Kind)}"),
            (self.layout not in get_args(Layout), f"layout {self.layout!r}: use one of {get_args(Layout)}"),
            (
                self.background not in get_args(Background),
                f"background {self.background!r}: use one of {get_args(Background)}",
            ),
            (self.marks not in get_args(Marks), f"marks {self.marks!r}: use one of {get_args(Marks)}"),
            (self.n < 1, f"n {self.n}: a set has at least one row"),
            (self.seed < 0, f"seed {self.seed}: use a number from 0 up"),
            (not 0 <= low <= high, f"counts {low}:{high}: give LOW:HIGH with 0 <= LOW <= HIGH"),
            (self.radius < 0, f"radius {self.radius}: use a number of pixels from 0 up"),
            (self.gap < 0, f"gap {self.gap}: use a number of pixels from 0 up"),
            (not 1 <= self.size <= 16384, f"size {self.size}: use a number of pixels from 1 to 16384"),  # noqa: PLR2004 - 1 GiB of pixels in RGB
        ):
            if fault:
                raise DatasetUsageError(f"{self.name}: {what}")


def get_set(name: str) -> SetSpec:
    """The named set of the study.

    Raises:
        DatasetUsageError: If there is no such set; the message lists those there are.
    """
    if name not in SETS:
        raise DatasetUsageError(f"no set is named {name!r}; there are {', '.join(SETS)}")
    return SETS[name]


def parameters_of(spec: SetSpec) -> dict[str, Any]:
    """What rows record of their set: every field but `n`, on which no row depends."""
    fields = asdict(spec)
    del fields["n"]
    return {**fields, "counts": list(spec.counts)}


@functools.cache
def parameters_text(spec: SetSpec) -> str:
    """The parameters as canonical JSON: sorted keys, no blanks."""
    return json.dumps(parameters_of(spec), sort_keys=True, separators=(",", ":"))


def spec_from_parameters(parameters: Mapping[str, Any], *, n: int) -> SetSpec:
    """The set that `parameters_of` described.

    Raises:
        DatasetUsageError: If a parameter is unknown, missing or out of range.
    """
    try:
        low, high = parameters["counts"]
        _check_types({**parameters, "least count": low, "greatest count": high})
        if parameters["layout_of"] is not None:
            get_set(parameters["layout_of"])
        return SetSpec(**{**parameters, "counts": (low, high), "n": n})
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetUsageError(f"set parameters: {type(error).__name__}: {error}") from error


def _check_types(values: Mapping[str, object]) -> None:
    for name, kind in _TYPES.items():
        # Not isinstance: true is no number.
        if type(values[name]) is not kind:
            raise TypeError(f"{name} is {values[name]!r:.80}, not of type {kind.__name__}")


def _enhanced(name: str, **changes: Any) -> SetSpec:
    return replace(_BASE, **{"name": f"halo_enhance_{name}", "layout_of": _BASE.name, **changes})


_PAPER = SetSpec(name="halo_count")
# So far apart and from the edges that dots of radius 32 are whole too.
_BASE = SetSpec(name="halo_enhance_base", layout="inset", gap=60)

_ALL = (
    _PAPER,
    SetSpec(name="halo_count_balanced", n=700, balanced=True),
    SetSpec(name="halo_count_single", n=360, balanced=True, counts=(1, 9)),
    SetSpec(name="halo_count_wide", n=360, balanced=True, counts=(10, 99)),
    SetSpec(name="halo_count_three", n=400, balanced=True, counts=(100, 499), radius=5, gap=10),
    SetSpec(name="halo_count_blank", n=32, balanced=True, kind="blank", counts=(0, 0), radius=0, gap=0),
    SetSpec(name="halo_count_large", counts=(4, 10), radius=64, gap=32),
    SetSpec(name="halo_layout_annulus", layout="annulus"),
    SetSpec(name="halo_layout_center", layout="center"),
    SetSpec(name="halo_layout_grid", layout="grid"),
    _BASE,
    _enhanced("outline", marks="outline"),
    _enhanced("r20", radius=20, gap=40),
    _enhanced("r32", radius=32, gap=16),
    _enhanced("grid", marks="grid"),
    _enhanced("crosshair", marks="crosshair"),
    _enhanced("invert", background="black"),
    replace(_PAPER, name="halo_count_noise", layout_of=_PAPER.name, background="noise"),
    SetSpec(
        name="halo_ocr", n=360, balanced=True, kind="number", question=NUMBER_QUESTION, counts=(10, 99), radius=0, gap=0
    ),
    SetSpec(name="halo_relate", balanced=True, kind="relation", question=RELATION_QUESTION, counts=(2, 2), radius=20),
)

SETS: Mapping[str, SetSpec] = MappingProxyType({spec.name: spec for spec in _ALL})
"""Every set of the study by name; the first is the paper's."""
