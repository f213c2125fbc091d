"""How an error leaves the probe inside lmms-eval.

lmms-eval's command line catches every `Exception`, prints a traceback and exits 0; inside a task it retries five times
first. `SystemExit` passes all of that, prints one line to stderr and exits 1. From Python the error itself is raised.
"""

import sys
import traceback
from types import TracebackType
from typing import Any, NoReturn

from halo_probe.errors import HaloError, first_line
from halo_probe.replacing import replace_for_good


def stop(error: Exception) -> NoReturn:
    """End the evaluation with this error."""
    if in_command_line():
        raise SystemExit(f"halo-probe: {error}") from error
    raise error


class ending_loudly:  # noqa: N801 - a context manager, read as one
    """Let no error that leaves the context end in exit code 0: ours as one line, any other after its traceback."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, HaloError):
            stop(error)
        if isinstance(error, Exception) and in_command_line():
            traceback.print_exception(error)
            raise SystemExit(
                f"halo-probe: the evaluation failed ({type(error).__name__}: {first_line(error)})"
            ) from error


def in_command_line() -> bool:
    """Whether this process is an `lmms-eval` command."""
    return "lmms_eval.__main__" in sys.modules


def stop_after_results(error: Exception, results: Any) -> None:
    """Fail, but not before lmms-eval's command has saved its results: printing the table is the last thing it does.

    Args:
        error: What to end with.
        results: lmms-eval's; None in a process that saves none, which leaves the failing to the one that does.
    """
    if results is None:
        return
    if not in_command_line():
        stop(error)
    main: Any = sys.modules["lmms_eval.__main__"]
    make_table = main.make_table

    def print_and_stop(shown: Any) -> None:
        replace_for_good(main, "make_table", make_table)
        sys.stdout.write(make_table(shown) + "\n")
        if "groups" in shown:
            sys.stdout.write(make_table(shown, "groups") + "\n")
        stop(error)

    replace_for_good(main, "make_table", print_and_stop)
