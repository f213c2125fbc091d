"""What the plugin adds to the start of `lmms-eval`: `python benchmarks/startup.py`.

Runs `lmms-eval models` and the indexing of all tasks with the plugin and without it, interleaved, each in a new
process, and prints the median times and their ratio.
"""

import statistics
import subprocess
import sys
import time

REPEATS = 7
WITHOUT = """
import importlib.metadata
every = importlib.metadata.entry_points
def without_ours(**chosen):
    return [entry for entry in every(**chosen) if entry.name != "halo"]
class Selection:
    select = staticmethod(without_ours)
importlib.metadata.entry_points = lambda **chosen: every(**chosen) if chosen else Selection()
"""
COMMANDS = {
    "lmms-eval models": (
        "import sys; from lmms_eval.cli.dispatch import main; sys.argv = ['lmms-eval', 'models']; main()",
        REPEATS,
    ),
    "index of all tasks": (
        "import lmms_eval.models; from lmms_eval.tasks import TaskManager; print(len(TaskManager().all_tasks))",
        3,
    ),
}


def seconds(code: str) -> float:
    """Time one new process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print a line for each command."""
    print(f"{'command':<20} {'without':>9} {'with':>9} {'ratio':>7}")
    for name, (code, repeats) in COMMANDS.items():
        pairs = [(seconds(WITHOUT + code), seconds(code)) for _ in range(repeats)]
        without, with_ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name:<20} {without:8.2f}s {with_ours:8.2f}s {with_ours / without:7.3f}")


if __name__ == "__main__":
    main()
