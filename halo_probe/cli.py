"""The command `halo-probe`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from halo_probe._version import __version__
from halo_probe.errors import HaloError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; exit codes are 0 done, 1 failed, 2 bad usage."""
    arguments = _parser().parse_args(argv)
    try:
        for path in arguments.run(arguments):
            print(path)
    except HaloError as error:
        print(f"halo-probe: {error}", file=sys.stderr)
        return 1
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
    return parser


def _demo(arguments: argparse.Namespace) -> list[Path]:
    from halo_probe.demo import run_demo

    return run_demo(arguments.out, limit=arguments.limit)
