"""The command `halo-dataset`: build, verify, list and publish sets."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from dataset_builder import publish
from dataset_builder.build import SHARD_ROWS, build_set
from dataset_builder.errors import DatasetError, DatasetUsageError
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.placement import Layout
from dataset_builder.sets import SETS, SetSpec
from dataset_builder.verify import verify
from dataset_builder.version import GENERATOR_VERSION

DONE, FAILED, BAD_USAGE = 0, 1, 2

_GEOMETRY = ("counts", "radius", "gap", "size", "layout", "balanced")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments, those of the process where None.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad usage.
    """
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except DatasetUsageError as error:
        print(f"halo-dataset: {error}", file=sys.stderr)
        return BAD_USAGE
    except DatasetError as error:
        print(f"halo-dataset: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("halo-dataset: interrupted; run the same command again to go on", file=sys.stderr)
        return FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="halo-dataset", description="Synthetic counting sets, the same everywhere.")
    parser.add_argument("--version", action="version", version=f"generator {GENERATOR_VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser(
        "build",
        help="build a set into a folder",
        description="Build a set of the study, or a new one from parameters; an interrupted build goes on.",
    )
    build.add_argument("name", metavar="NAME", help="a set of the study, see `halo-dataset list`, or a new name")
    build.add_argument("--out", type=Path, metavar="DIR", help="the folder to build into (./NAME)")
    build.add_argument("--n", type=int, help="number of images (a new set: 256)")
    build.add_argument("--seed", type=int, help="another seed makes a fresh, held-out set (0)")
    build.add_argument(
        "--shard-rows", type=int, default=SHARD_ROWS, metavar="ROWS", help="images per file (%(default)s)"
    )
    new = build.add_argument_group("parameters of a new set")
    new.add_argument("--counts", type=_counts, metavar="LOW:HIGH", help="least and greatest number of dots (10:16)")
    new.add_argument("--radius", type=int, metavar="PX", help="radius of a dot (10)")
    new.add_argument("--gap", type=int, metavar="PX", help="least distance between the edges of two dots (20)")
    new.add_argument("--size", type=int, metavar="PX", help="side of the image (1024)")
    new.add_argument("--layout", choices=get_args(Layout), help="spread of the dots (uniform)")
    new.add_argument("--balanced", action="store_true", default=None, help="every count equally often")
    build.set_defaults(run=_build)

    check = commands.add_parser("verify", help="render every row again and say what differs")
    check.add_argument("source", metavar="FOLDER|REPO[@REV]", help="a folder, or a dataset repository on the Hub")
    check.set_defaults(run=_verify)

    commands.add_parser("list", help="list the sets of the study").set_defaults(run=_list)
    publish.add_parser(commands)
    return parser


def _counts(text: str) -> tuple[int, int]:
    low, separator, high = text.partition(":")
    if not (separator and low.isdecimal() and high.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW:HIGH, such as 20:40")
    return int(low), int(high)


def _build(arguments: argparse.Namespace) -> int:
    given = {name: value for name in (*_GEOMETRY, "seed", "n") if (value := getattr(arguments, name)) is not None}
    out = arguments.out or Path(arguments.name)
    manifest = build_set(_spec(arguments.name, given), out, shard_rows=arguments.shard_rows, progress=True)
    print(f"{manifest.name}: {manifest.n} rows, content sha256 {manifest.content_sha256}")
    return DONE


def _spec(name: str, given: dict[str, Any]) -> SetSpec:
    """The set of the study or the new set that the arguments describe."""
    if name not in SETS:
        return SetSpec(name=name, **given)
    changed = [f"--{parameter}" for parameter in _GEOMETRY if parameter in given]
    if changed:
        raise DatasetUsageError(f"{name} is a set of the study; leave out {', '.join(changed)} or give it a new name")
    return replace(SETS[name], **given)


def _verify(arguments: argparse.Namespace) -> int:
    differences = verify(arguments.source, progress=True)
    for difference in differences:
        print(difference)
    print(f"halo-dataset: differences found in {arguments.source}: {len(differences)}", file=sys.stderr)
    return FAILED if differences else DONE


def _list(_: argparse.Namespace) -> int:
    print(f"{'name':24} {'n':>4} {'counts':>8} {'radius':>6} {'gap':>4} content sha256")
    for spec in SETS.values():
        counts = f"{spec.counts[0]}:{spec.counts[1]}"
        print(f"{spec.name:24} {spec.n:4} {counts:>8} {spec.radius:6} {spec.gap:4} {CONTENT_SHA256[spec.name]}")
    return DONE
