"""The report of a comparison as text, before any markup: what Markdown and the page show alike."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from halo_probe.compare.report import Report
from halo_probe.compare.verdicts import Demand

_INTERVAL = "_interval"
_SECTIONS = {
    "runs": (
        "Runs",
        (
            "Sparsity and entropy are not comparable across models without care: the size of the grid and the number "
            "of averaged heads move both."
        ),
    ),
    "scores": (
        "Scores",
        (
            "95 % intervals: Wilson for accuracy; for mbe and mae a t interval that is widened where errors are rare, "
            "none under 20. mbe is over the answered documents; its bounds count an unanswered one as 0 and as double."
        ),
    ),
    "pairs": (
        "Runs in pairs",
        (
            "Second minus first, on the documents that both answered: exact McNemar for accuracy, the widened t test "
            "for mbe and mae, neither on fewer than 20 documents or 80 % of the task. Exploratory: Benjamini-Hochberg "
            "over this table."
        ),
    ),
    "replies": (
        "Replies",
        (
            "The counts that are replied most often, as shares of all documents, the entropy of the replies in bits, "
            "and how the replies were read. On the images of halo_count_blank this is what the model says without "
            "anything to see: its prior."
        ),
    ),
    "attention": (
        "Attention",
        (
            "Means over the generated tokens and documents, with 95 % bootstrap intervals. Sparsity and entropy change "
            "with the number of image tokens and of averaged heads and with the type of the layer: between models, "
            "read sparsity g16, of maps pooled to 16 x 16 cells, and only among like layers."
        ),
    ),
    "digits": (
        "Digits",
        (
            "Documents by how the digits of the reply fall on tokens: only split ones have a second digit to measure. "
            "missed: an intervention acted on the digits of another number than the count; these are left out of what "
            "rests on it."
        ),
    ),
    "reliance": (
        "Visual reliance",
        (
            "For each digit, the true ones before it given: T, how far two images with the same digit agree on it "
            "(1 a perfect reader, about 0 where the image does not matter), which decides; three estimates of U, the "
            "share of what it can say that comes from the image, which describe; vr and vrd, how far its distribution "
            "moves when the image is blank or its keys are knocked out at that step (Jensen-Shannon, bits, 0 to 1); "
            "dlogp, what the image adds to the log-probability of the true digit (nats). 95 % intervals over "
            "documents. other: documents with more than half of the probability on OTHER with the image, which would "
            "say something else than a digit there."
        ),
    ),
    "masks": (
        "Image tokens hidden",
        (
            "Accuracy with 30 % of the image tokens knocked out: those with the most attention in the last layer at "
            "digit 1, random ones, those with the least. The first says nothing without the other two; – is a run that "
            "is missing."
        ),
    ),
    "decays": (
        "From digit 1 to digit 2",
        (
            "Second minus first: mean with bootstrap interval, Hodges-Lehmann shift, rank-biserial r, Wilcoxon "
            "signed-rank p. Primary are sparsity and entropy of halo_count: Holm over the two of each run, whatever "
            "else is compared; the others are exploratory: Benjamini-Hochberg. In 10..16 the first digit is always 1, "
            "so a change there is confounded with what a digit can say."
        ),
    ),
    "contrasts": (
        "Count minus echo",
        "The change from digit 1 to digit 2 when counting minus that when echoing the number; the rest as above.",
    ),
    "associations": (
        "Attention and correctness",
        (
            "Within documents of the same N: stratified rank-sum test, Benjamini-Hochberg over this table. Nothing "
            "but the numbers where fewer than ten are right or fewer than ten wrong."
        ),
    ),
    "scatters": (
        "Accuracy and attention over models",
        "A picture, no test: a few models correlate by chance. Five of them need |r| > .878.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table of a report, as it is to be read."""

    heading: str
    note: str
    """What the numbers are."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """At least one, as long as the header."""


def report_sections(report: Report) -> Iterator[Section]:
    """The tables that the verdicts rest on; one without rows is left out."""
    for name in _SECTIONS:
        if records := getattr(report, name):
            yield section_of(name, records)


def section_of(name: str, records: Sequence[Any]) -> Section:
    """The table of one kind of record, at least one; `name` is that of its field in a `Report`."""
    heading, note = _SECTIONS[name]
    header, rows = record_table(records)
    return Section(heading=heading, note=note, header=header, rows=rows)


def record_table(records: Sequence[Any]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and rows of records of one kind, at least one: a column for each field, an interval beside its value."""
    columns = [field.name for field in fields(records[0]) if not field.name.endswith(_INTERVAL)]
    header = tuple(column.replace("_", " ") for column in columns)
    return header, tuple(tuple(_with_interval(record, column) for column in columns) for record in records)


def demand_numbers(demand: Demand) -> str:
    """The numbers that an outcome rests on, in one line."""
    return ", ".join(f"{name} {_text(value)}" for name, value in demand.numbers.items())


def _with_interval(row: Any, name: str) -> str:
    text, interval = _text(getattr(row, name)), getattr(row, name + _INTERVAL, None)
    return text if interval is None or any(map(math.isnan, interval)) else f"{text} {_text(interval)}"


def _text(value: str | float | tuple[float, float]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, str | int):
        return str(value)
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.0e}"  # noqa: PLR2004 - three decimals
