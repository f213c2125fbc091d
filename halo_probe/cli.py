"""The command `halo-probe`."""

import argparse
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dataset_builder.errors import DatasetError
from dataset_builder.publish import repository_name, tag_name
from halo_probe._version import __version__
from halo_probe.errors import HaloError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; exit codes are 0 done, 1 failed, 2 bad usage."""
    arguments = _parser().parse_args(argv)
    try:
        for line in arguments.run(arguments):
            print(line)
    except (HaloError, DatasetError) as error:
        print(f"halo-probe: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="halo-probe", description="Where a vision-language model looks as it counts.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="evaluate the embedded model offline",
        description="Evaluate the embedded model, which counts, on halo_count with lmms-eval, offline, write a report, "
        "and draw the attention to the first image. Prints the paths; on a terminal the report opens.",
    )
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results (default: %(default)s)")
    demo.add_argument("--limit", type=int, help="evaluate only the first LIMIT images")
    demo.set_defaults(run=_demo)
    compare = commands.add_parser(
        "compare",
        help="compare runs and judge the claims of the study",
        description="Read runs of lmms-eval, of any model, and print a report in Markdown: scores, attention changes "
        "and differences between runs, with their uncertainty, and a verdict for each decision rule of the study.",
    )
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="an --output_path of lmms-eval")
    compare.add_argument("--json", type=Path, metavar="FILE", help="write the same numbers there too")
    compare.add_argument("--force", action="store_true", help="compare incomparable runs, and say so in the report")
    compare.set_defaults(run=_compare)
    score = commands.add_parser(
        "score",
        help="score the stored maps of a run",
        description="Compute every metric of the maps of a run, one row for each document, generation step and layer, "
        "as RUN/scores.parquet and RUN/scores.csv. Prints their paths.",
    )
    score.add_argument("folder", type=Path, metavar="RUN", help="an --output_path of lmms-eval with --model halo")
    score.add_argument("--null", action="store_true", help="compare spatial metrics with those on 200 other images")
    score.add_argument(
        "--layers", choices=("last", "all"), default="all", help="recorded layers (default: %(default)s)"
    )
    score.add_argument("--workers", type=int, default=2, help="number of processes (default: %(default)s)")
    score.set_defaults(run=_score)
    _add_doctor(commands)
    _add_figures(commands)
    _add_leaderboard(commands)
    _add_report(commands)
    return parser


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check that a model can be probed",
        description="Load a model and prove on one image that what is recorded of it is what it does: the recording "
        "changes nothing, rows sum to one, image tokens fit their grid, the rows are those of eager attention, and the "
        "model uses them. Prints the family, each check, and what a run would take.",
    )
    doctor.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a folder with a checkpoint, or the name of a model on the Hub; left "
        "out, the installed versions are held against those that this was proven with",
    )
    doctor.add_argument("--image", type=Path, metavar="FILE", help="default: the first image of halo_count")
    doctor.set_defaults(run=_doctor)


def _add_figures(commands: Any) -> None:
    figures = commands.add_parser(
        "figures",
        help="draw figures of runs",
        description="Draw every figure that comparable runs hold enough for, as PNG and SVG. Prints their paths, and "
        "on stderr which were left out and why.",
    )
    figures.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="an --output_path of lmms-eval")
    figures.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the figures")
    figures.add_argument("--task", help="task to draw (default: halo_count where a run has it, else the first)")
    figures.add_argument("--document", type=int, metavar="N", help="doc_id to show maps of (default: a typical one)")
    figures.set_defaults(run=_figures)


def _add_leaderboard(commands: Any) -> None:
    leaderboard = commands.add_parser(
        "leaderboard",
        help="rank runs of many models",
        description="Rank runs of lmms-eval, of any model, by accuracy, with ties, and write the ranking as Markdown, "
        "CSV, JSON and HTML. Prints the paths; with --push the SHA of the commit too.",
    )
    leaderboard.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="an --output_path of lmms-eval")
    leaderboard.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    leaderboard.add_argument("--task", default="halo_count", help="what to rank by (default: %(default)s)")
    leaderboard.add_argument("--model-index", action="store_true", help="write a snippet for each run's model card too")
    leaderboard.add_argument("--push", type=repository_name, metavar="ORG/NAME", help="publish it on the Hub")
    leaderboard.add_argument("--private", action="store_true", help="make a new repository private")
    leaderboard.add_argument("--tag", type=tag_name, help="tag to put on the commit, such as v1.0.0")
    leaderboard.add_argument("--dry-run", action="store_true", help="show what --push would publish, without network")
    leaderboard.set_defaults(run=_leaderboard)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write a page that shows runs",
        description="Write one folder that opens from disk, with no server and no network: verdicts, leaderboard, "
        "figures, and an explorer of documents with their attention. Prints the path of the page.",
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="an --output_path of lmms-eval")
    report.add_argument("--out", type=Path, default=Path("site"), help="folder to write (default: %(default)s)")
    report.add_argument("--tasks", type=_names, metavar="A,B", help="the explorer holds these tasks alone")
    report.add_argument(
        "--layers", type=_layers, default="all", help="the explorer holds all recorded layers, the last, or 0,17,35"
    )
    report.add_argument("--documents", type=int, help="the explorer holds the first DOCUMENTS of each task alone")
    report.add_argument("--force", action="store_true", help="replace an earlier report")
    report.set_defaults(run=_report)


def _demo(arguments: argparse.Namespace) -> list[Path]:
    from halo_probe.demo import run_demo

    written = run_demo(arguments.out, limit=arguments.limit)
    if sys.stdout.isatty():
        webbrowser.open(written[-1].resolve().as_uri())
    return written


def _doctor(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.model is None:
        from halo_probe.doctor.versions import report_versions

        if arguments.image:
            raise UsageError("--image says what to show a model: give the MODEL too.")
        return report_versions()
    from halo_probe.doctor.presence import require_found

    require_found(arguments.model)  # before the model stack is imported, which takes longer
    from halo_probe.doctor.diagnosis import diagnose

    return diagnose(arguments.model, image=arguments.image)


def _compare(arguments: argparse.Namespace) -> list[str]:
    from halo_probe.archive.runs import open_runs
    from halo_probe.compare.comparability import require_comparable
    from halo_probe.compare.markdown import render_markdown
    from halo_probe.compare.report import compare, write_json

    runs = open_runs(arguments.runs)
    if not arguments.force:
        require_comparable(runs)
    report = compare(runs)
    if arguments.json:
        write_json(report, arguments.json)
    return [render_markdown(report)]


def _score(arguments: argparse.Namespace) -> list[Path]:
    from halo_probe.score.run import score_run

    return score_run(arguments.folder, layers=arguments.layers, null=arguments.null, workers=arguments.workers)


def _figures(arguments: argparse.Namespace) -> list[Path]:
    from halo_probe.figures import draw_figures

    figures = draw_figures(arguments.runs, arguments.out, document=arguments.document, task=arguments.task)
    for title, reason in figures.left_out:
        print(f"halo-probe: left out: {title}: {reason}", file=sys.stderr)
    return [path for figure in figures.drawn for path in (figure.path_png, figure.path_svg)]


def _leaderboard(arguments: argparse.Namespace) -> list[str]:
    from halo_probe.archive.runs import open_runs
    from halo_probe.leaderboard.board import rank_runs
    from halo_probe.leaderboard.push import make_results, push_results
    from halo_probe.leaderboard.write import write_leaderboard

    if not arguments.push and (arguments.private or arguments.tag or arguments.dry_run):
        raise UsageError("--private, --tag and --dry-run belong to --push; give --push ORG/NAME too.")
    runs = open_runs(arguments.runs)
    board = rank_runs(runs, task=arguments.task)
    done = list(map(str, write_leaderboard(board, arguments.out, model_index=arguments.model_index)))
    if arguments.push:
        results = make_results(board, runs, repo_id=arguments.push)
        how = {"private": arguments.private, "tag": arguments.tag, "dry_run": arguments.dry_run}
        done.append(push_results(arguments.push, results, **how))
    return done


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _layers(text: str) -> tuple[int, ...] | Literal["all", "last"]:
    if text == "all":
        return "all"
    if text == "last":
        return "last"
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither all, nor last, nor numbers such as 0,17,35") from None


def _report(arguments: argparse.Namespace) -> list[Path]:
    from halo_probe.page.explorer import Selection
    from halo_probe.page.write import write_report

    selection = Selection(tasks=arguments.tasks, layers=arguments.layers, documents=arguments.documents)
    return [write_report(arguments.runs, arguments.out, selection=selection, force=arguments.force)]
