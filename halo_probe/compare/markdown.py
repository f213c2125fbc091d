"""The report of a comparison to read: Markdown, a table for each kind of record."""

import re
from collections.abc import Iterable, Sequence

from halo_probe.compare.report import Report
from halo_probe.compare.sections import demand_numbers, report_sections
from halo_probe.compare.verdicts import Verdict

# What could end a cell, start code or emphasis, or make a link.
_SPECIAL = re.compile(r"[\\`*|]|(?<=\])\(")


def render_markdown(report: Report) -> str:
    """The whole report: verdicts first, then the tables they rest on; one without rows is left out."""
    runs = len(report.runs)
    parts = [f"# Comparison of {runs} run{'s' if runs > 1 else ''}"]
    if report.differences:
        lines = "\n".join(f"- {markdown_text(line)}" for line in report.differences)
        parts += ["**Forced: these runs are not comparable.**", lines]
    if report.left_out:
        parts.append(f"Left out, being no counting tasks: {markdown_text(', '.join(report.left_out))}.")
    parts += ["## Verdicts", *map(_verdict, report.verdicts)]
    for section in report_sections(report):
        parts += [f"## {section.heading}\n\n{section.note}", markdown_table(section.header, section.rows)]
    return "\n\n".join(parts)


def _verdict(verdict: Verdict) -> str:
    needs = f": needs {'; '.join(verdict.needs)}" if verdict.needs else ""
    line = f"**{verdict.rule}** ({markdown_text(verdict.subject)}): **{verdict.conclusion}**{needs}"
    rows = [(demand.text, demand.outcome, demand_numbers(demand)) for demand in verdict.demands]
    return f"{line}\n\n{markdown_table(('demand', 'outcome', 'numbers'), rows)}" if rows else line


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's Markdown, whatever the cells hold."""
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)


def markdown_text(text: str) -> str:
    """Text on one line: names come from outside, they may break neither a table nor the page."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split())).replace("<", "&lt;")
