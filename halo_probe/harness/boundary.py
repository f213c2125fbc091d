"""How an error leaves the probe inside lmms-eval.

lmms-eval's command line catches every `Exception`, prints a traceback and exits 0; inside a task it retries five times
first. `SystemExit` passes all of that, prints one line to stderr and exits 1. From Python the error itself is raised.
"""

import sys
from typing import NoReturn


def stop(error: Exception) -> NoReturn:
    """End the evaluation with this error."""
    if in_command_line():
        raise SystemExit(f"halo-probe: {error}") from error
    raise error


def in_command_line() -> bool:
    """Whether this process is an `lmms-eval` command."""
    return "lmms_eval.__main__" in sys.modules
