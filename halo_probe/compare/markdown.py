"""The report of a comparison to read: Markdown, a table for each kind of record."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from halo_probe.compare.report import Report
from halo_probe.compare.verdicts import Verdict

_INTERVAL = "_interval"
_SECTIONS = {
    "runs": """## Runs

Sparsity and entropy are not comparable across models without care: the size of the grid and the number of averaged
heads move both.""",
    "scores": """## Scores

95 % intervals: Wilson for accuracy, the bootstrap stratified by N for the others. mbe is over the answered documents;
its bounds count an unanswered one as 0 and as double.""",
    "pairs": """## Runs in pairs

Second minus first, on the documents of both: exact McNemar for accuracy, the paired bootstrap for mbe and mae; Holm
over this table.""",
    "digits": """## Digits

Documents by how the digits of the reply fall on tokens: only split ones have a second digit to measure.""",
    "decays": """## From digit 1 to digit 2

Second minus first: mean with bootstrap interval, Hodges-Lehmann shift, rank-biserial r, Wilcoxon signed-rank p; Holm
over this table. In 10..16 the first digit is always 1, so a change there is confounded with what a digit can say.""",
    "contrasts": """## Count minus echo

The change from digit 1 to digit 2 when counting minus that when echoing the number; the rest as above.""",
    "associations": """## Attention and correctness

Within documents of the same N; Benjamini-Hochberg over this table.""",
    "scatters": """## Accuracy and attention over models

A picture, no test: a few models correlate by chance. Five of them need |r| > .878.""",
}


def render_markdown(report: Report) -> str:
    """The whole report: verdicts first, then the tables they rest on; one without rows is left out."""
    runs = len(report.runs)
    parts = [f"# Comparison of {runs} run{'s' if runs > 1 else ''}"]
    if report.differences:
        lines = "\n".join(f"- {_cell(line)}" for line in report.differences)
        parts += ["**Forced: these runs are not comparable.**", lines]
    if report.left_out:
        parts.append(f"Left out, being no counting tasks: {_cell(', '.join(report.left_out))}.")
    parts += ["## Verdicts", *map(_verdict, report.verdicts)]
    for name, heading in _SECTIONS.items():
        if rows := getattr(report, name):
            parts += [heading, _records(rows)]
    return "\n\n".join(parts)


def _verdict(verdict: Verdict) -> str:
    needs = f": needs {'; '.join(verdict.needs)}" if verdict.needs else ""
    line = f"**{verdict.rule}** ({_cell(verdict.subject)}): **{verdict.conclusion}**{needs}"
    rows = [
        (demand.text, demand.outcome, ", ".join(f"{name} {_text(value)}" for name, value in demand.numbers.items()))
        for demand in verdict.demands
    ]
    return f"{line}\n\n{_table(('demand', 'outcome', 'numbers'), rows)}" if rows else line


def _records(rows: Sequence[Any]) -> str:
    """A column for each field; an interval stands with the value whose it is."""
    names = [field.name for field in fields(rows[0]) if not field.name.endswith(_INTERVAL)]
    lines = [[_with_interval(row, name) for name in names] for row in rows]
    return _table([name.replace("_", " ") for name in names], lines)


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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Names come from outside: they may break neither a table nor the page."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
