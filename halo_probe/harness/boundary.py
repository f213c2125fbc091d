"""How an error leaves the probe inside lmms-eval.

lmms-eval's command line catches every `Exception`, prints a traceback and exits 0; inside a task it retries five times
first. `SystemExit` passes all of that, prints one line to stderr and exits 1. From Python the error itself is raised.
"""

import sys
import traceback
from types import TracebackType
from typing import NoReturn

from halo_probe.errors import HaloError


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
            first_line = str(error).strip().partition("\n")[0]
            raise SystemExit(f"halo-probe: the evaluation failed ({type(error).__name__}: {first_line})") from error


def in_command_line() -> bool:
    """Whether this process is an `lmms-eval` command."""
    return "lmms_eval.__main__" in sys.modules
