"""Only like is compared with like: which fields have to agree between two runs of a task."""

from collections.abc import Iterator, Sequence

from halo_probe.archive.runs import Run
from halo_probe.compare.documents import find_mispairing
from halo_probe.compare.evidence import PAIRED_TASKS, group_models
from halo_probe.errors import UsageError


def find_differences(runs: Sequence[Run]) -> tuple[str, ...]:
    """What makes the runs incomparable, a line for each field of a task that differs from the first run with that task.

    Another line for what keeps two tasks of a model from being paired. A field that one of the two does not state, as a
    run without the probe states no hashes, is passed over.
    """
    return tuple(_differences(runs))


def require_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that are not comparable.

    Raises:
        UsageError: Naming the first field that differs, and how many more do.
    """
    differences = find_differences(runs)
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise UsageError(f"{differences[0]}{more}; compare runs of the same task and data, or label it with --force.")


def _differences(runs: Sequence[Run]) -> Iterator[str]:
    for task in dict.fromkeys(task for run in runs for task in run.tasks):
        first, *others = [run for run in runs if task in run.tasks]
        for other in others:
            for field, expected in first.tasks[task].fields.items():
                value = other.tasks[task].fields[field]
                if value is not None and expected is not None and value != expected:
                    yield f"{task}: the {field} differs: {expected} in {first.label}, {value} in {other.label}"
    for label, tasks in group_models(runs).items():
        for one, two in PAIRED_TASKS:
            if {one, two} <= tasks.keys() and (field := find_mispairing(tasks[one], tasks[two])):
                yield f"{one} and {two} of the model of {label}: the {field} differs, so they are not paired"
