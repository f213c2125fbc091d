"""A leaderboard as a dataset on the Hub: its rows, and the count of every document that they rest on."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.publish import describe, log_in, publish
from dataset_builder.release import Release
from halo_probe.archive.runs import Run
from halo_probe.compare.report import without_nan
from halo_probe.leaderboard.board import Entry, Leaderboard
from halo_probe.leaderboard.render import render_markdown

_BOARD, _DOCUMENTS = "leaderboard", "documents"
_CARD = """\
---
{metadata}
---

# {title}

Made by `halo-probe leaderboard` {version}. The config `{board}` has a row per run, `{documents}` the true and the
predicted count of every document of those runs; `run` names the run in both. Replies and attention are not in it.

```python
from datasets import load_dataset

rows = load_dataset("{repo_id}", "{board}", split="test", revision="<40-hex commit SHA>")
```

{tables}"""
_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_ENTRIES = pa.schema(
    [
        *(("task", pa.string()), ("version", pa.string()), ("board", pa.int64())),
        *(
            column
            for field in fields(Entry)
            for column in (
                ((field.name, _TYPES[field.type]),)
                if field.type in _TYPES
                else ((f"{field.name}_low", pa.float64()), (f"{field.name}_high", pa.float64()))
            )
        ),
    ]
)
_COUNTS = pa.schema(
    [
        *(("run", pa.string()), ("id", pa.string())),
        *(("count", pa.int64()), ("predicted", pa.int64()), ("correct", pa.bool_())),
    ]
)


def push_results(repo_id: str, results: Release, *, private: bool, tag: str | None, dry_run: bool) -> str:
    """Publish the files of a leaderboard in one commit, then the tag.

    What is there already makes no second commit. A repository that holds sets is refused.

    Args:
        repo_id: `ORG/NAME`.
        results: From `make_results`.
        private: Make a new repository private; an existing public one is refused.
        tag: Name of the tag to put on the commit.
        dry_run: Say what would be published instead, without network.

    Returns:
        The commit's SHA, or with `dry_run` all that would be published.

    Raises:
        PublishError: If a step fails.
    """
    if dry_run:
        return describe(repo_id, results, private=private, tag=tag)
    return publish(repo_id, results, api=log_in(repo_id), private=private, tag=tag)


def make_results(board: Leaderboard, runs: Sequence[Run], *, repo_id: str) -> Release:
    """The files of the dataset. Folders of this machine are not in them: runs are numbered in the order of the ranking.

    Args:
        board: The leaderboard.
        runs: Those it is of.
        repo_id: `ORG/NAME` of the repository, for the card.
    """
    names = {
        entry.run: f"run-{place + 1}"
        for place, entry in enumerate(entry for one in board.boards for entry in one.entries)
    }
    shown = _renamed(board, names)
    rows = [
        {"task": board.task, "version": one.version, "board": place + 1, **_flat(asdict(entry))}
        for place, one in enumerate(shown.boards)
        for entry in one.entries
    ]
    return Release(
        {
            "README.md": _card(shown, repo_id=repo_id).encode(),
            f"data/{_BOARD}/test-00000-of-00001.parquet": _parquet(rows, _ENTRIES),
            f"data/{_DOCUMENTS}/test-00000-of-00001.parquet": _parquet(_documents(board.task, runs, names), _COUNTS),
        },
        {},
        title=f"leaderboard of {board.task}",
    )


def _renamed(board: Leaderboard, names: dict[str, str]) -> Leaderboard:
    return replace(
        board,
        boards=tuple(
            replace(
                one,
                reasons=tuple(_without_folders(reason, names) for reason in one.reasons),
                entries=tuple(replace(entry, run=names[entry.run]) for entry in one.entries),
            )
            for one in board.boards
        ),
        left_out=(),
    )


def _without_folders(text: str, names: dict[str, str]) -> str:
    # The longest first: one folder may be the beginning of another.
    for label in sorted(names, key=len, reverse=True):
        text = text.replace(f" in {label}", f" in {names[label]}")
    return text


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """An interval as two columns."""
    flat: dict[str, Any] = {}
    for name, value in without_nan(entry).items():
        flat |= (
            dict(zip((f"{name}_low", f"{name}_high"), value, strict=True)) if isinstance(value, list) else {name: value}
        )
    return flat


def _documents(task: str, runs: Sequence[Run], names: dict[str, str]) -> list[dict[str, Any]]:
    def rows(run: Run) -> Iterator[dict[str, Any]]:
        one = run.tasks[task]
        for name, count, predicted, correct in zip(one.ids, one.counts, one.predicted, one.correct, strict=True):
            value = None if np.isnan(predicted) else int(predicted)
            yield {
                "run": names[run.label],
                "id": name,
                "count": int(count),
                "predicted": value,
                "correct": bool(correct),
            }

    ranked = sorted((run for run in runs if run.label in names), key=lambda run: list(names).index(run.label))
    return [row for run in ranked for row in rows(run)]


def _parquet(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> bytes:
    content = BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), content, compression="zstd")
    return content.getvalue()


def _card(board: Leaderboard, *, repo_id: str) -> str:
    from huggingface_hub import DatasetCardData

    from halo_probe._version import __version__

    title = f"Leaderboard of {board.task}"
    configs = [
        {"config_name": name, "data_files": [{"split": "test", "path": f"data/{name}/test-*.parquet"}]}
        for name in (_BOARD, _DOCUMENTS)
    ]
    metadata = DatasetCardData(
        language=["en"],
        license="mit",
        pretty_name=title,
        task_categories=["visual-question-answering"],
        size_categories=["n<1K"],
        annotations_creators=["machine-generated"],
        source_datasets=["original"],
        tags=["counting", "leaderboard", "vision-language-models"],
        configs=[{**configs[0], "default": True}, configs[1]],
    )
    tables = render_markdown(board).partition("\n\n")[2]
    return _CARD.format(
        metadata=metadata.to_yaml(), title=title, version=__version__, repo_id=repo_id, tables=tables,
        board=_BOARD, documents=_DOCUMENTS,
    )  # fmt: skip
