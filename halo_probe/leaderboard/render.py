"""A leaderboard as Markdown, CSV, JSON and HTML: whatever names hold, it is text in all of them."""

import csv
import io
import json
import math
from dataclasses import asdict, fields
from typing import Any

from jinja2 import Environment

from halo_probe.compare.markdown import markdown_table, markdown_text
from halo_probe.compare.report import without_nan
from halo_probe.compare.sections import record_table
from halo_probe.leaderboard.board import Entry, Leaderboard

NOTE = (
    "Ranked by accuracy, never by attention. A rank is 1 + the number of runs that are surely better by the exact "
    "McNemar test (p <= .05, Holm-corrected over all pairs of a table), beside the ranks that the test leaves open. "
    "95 % intervals: Wilson for accuracy, "
    "widened t for mbe, else bootstrap. mbe is in dots, of the answered. t 2: how far two images with the same "
    "second digit agree on it, 0 where the image tells nothing, with its jackknife. decay beyond echo: change of "
    "the sparsity from digit 1 to digit 2 when counting, minus that when repeating a number. –: not measured, or "
    "undefined."
)
"""How to read the tables."""

_INTERVAL = "_interval"

_FRAGMENT = """\
<section class="leaderboard">
<h2>Leaderboard of {{ board.task }}</h2>
<p class="note">{{ note }}</p>
{%- for one in tables %}
<h3>{{ one.heading }}</h3>
{%- if one.reasons %}
<ul class="reasons">
{%- for reason in one.reasons %}
<li>{{ reason }}</li>
{%- endfor %}
</ul>
{%- endif %}
<p class="question">Question: <q>{{ one.question }}</q></p>
{%- for name, (header, rows) in one.tables %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ name }}, {{ one.heading }}">
<table class="ranking">
<thead><tr>{% for cell in header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- endfor %}
{%- endfor %}
{%- if board.left_out %}
<p class="left-out">Without {{ board.task }}: {{ board.left_out | join(", ") }}.</p>
{%- endif %}
</section>
"""
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leaderboard of {{ board.task }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: .3rem .7rem; text-align: left; white-space: nowrap; }
.note { max-width: 60rem; }
</style>
</head>
<body>
{{ fragment }}</body>
</html>
"""


def render_markdown(board: Leaderboard) -> str:
    """A heading, how to read it, and a table for each group of comparable runs."""
    parts = [f"# Leaderboard of {markdown_text(board.task)}", NOTE]
    for place, one in enumerate(board.boards):
        parts.append(f"## {markdown_text(_heading(board, place))}")
        if one.reasons:
            parts.append("\n".join(f"- {markdown_text(reason)}" for reason in one.reasons))
        parts.append(f"Question: {markdown_text(one.question)}")
        parts += [markdown_table(*record_table(records)) for records in (one.entries, one.constants)]
    if board.left_out:
        parts.append(f"Without {markdown_text(board.task)}: {markdown_text(', '.join(board.left_out))}.")
    return "\n\n".join(parts) + "\n"


def render_html(board: Leaderboard) -> str:
    """The same as an HTML fragment without script or style; a table scrolls inside an element of class `scroll`."""
    tables = [
        {
            "heading": _heading(board, place),
            "reasons": one.reasons,
            "question": one.question,
            "tables": [("Runs", record_table(one.entries)), ("Constant answers", record_table(one.constants))],
        }
        for place, one in enumerate(board.boards)
    ]
    return _environment().from_string(_FRAGMENT).render(board=board, tables=tables, note=NOTE)


def render_page(board: Leaderboard) -> str:
    """The fragment as a page of its own, which loads nothing and runs no script."""
    from markupsafe import Markup

    # The fragment is escaped already.
    return _environment().from_string(_PAGE).render(board=board, fragment=Markup(render_html(board)))  # noqa: S704


def render_csv(board: Leaderboard) -> str:
    """One line per run, bounds of intervals as two columns; `board` is 1 for the first table; empty where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Entry)]
    header = [part for name in names for part in ((f"{name}_low", f"{name}_high") if _is_pair(name) else (name,))]
    writer.writerow(["task", "version", "board", *header])
    for place, one in enumerate(board.boards):
        for entry in one.entries:
            values = [getattr(entry, name) for name in names]
            flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
            writer.writerow([board.task, one.version, place + 1, *map(_csv_value, flat)])
    return text.getvalue()


def render_json(board: Leaderboard) -> str:
    """All records, null where a value is undefined."""
    return json.dumps(without_nan(asdict(board)), indent=1, allow_nan=False) + "\n"


def _heading(board: Leaderboard, place: int) -> str:
    one = board.boards[place]
    what = f"{board.task} version {one.version}, n = {one.entries[0].n}"
    return f"Not comparable with the first table: {what}" if place else what


def _is_pair(name: str) -> bool:
    return name.endswith(_INTERVAL)


def _csv_value(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _environment() -> Environment:
    return Environment(autoescape=True)
