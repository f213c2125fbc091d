"""The command `halo-probe`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import DatasetError
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
        description="Evaluate the embedded model on halo_count with lmms-eval, offline, and draw its attention to the "
        "first image. Prints the paths of what it wrote.",
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
    return parser


def _demo(arguments: argparse.Namespace) -> list[Path]:
    from halo_probe.demo import run_demo

    return run_demo(arguments.out, limit=arguments.limit)


def _compare(arguments: argparse.Namespace) -> list[str]:
    from halo_probe.compare.comparability import require_comparable
    from halo_probe.compare.markdown import render_markdown
    from halo_probe.compare.report import compare, write_json
    from halo_probe.compare.runs import read_run

    runs = [read_run(path) for path in arguments.runs]
    if not arguments.force:
        require_comparable(runs)
    report = compare(runs)
    if arguments.json:
        write_json(report, arguments.json)
    return [render_markdown(report)]


def _score(arguments: argparse.Namespace) -> list[Path]:
    from halo_probe.score.run import score_run

    return score_run(arguments.folder, layers=arguments.layers, null=arguments.null, workers=arguments.workers)
