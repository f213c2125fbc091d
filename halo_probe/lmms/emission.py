"""Bringing the probe's numbers into lmms-eval's own table, results file and samples, for any task.

lmms-eval scores a document from strings alone. So the task *instance* is extended: `apply_filters` leaves responses
that remember which request they belong to when they are read, and `process_results` takes the thoughts out of replies
to our own tasks and adds the request's numbers to the task's own metrics. Aggregation, standard errors and files are
then lmms-eval's.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from halo_probe.replacing import replace_for_good, replaced
from lmms_eval_tasks.aggregation import mean_of_present

Numbers = Mapping[str, float | None]


class _NotedResponses(dict[str, Any]):
    """Responses of one request; reading one notes, for the reading thread, whose it was."""

    def __init__(self, responses: Mapping[str, Any], note: Callable[[], None]) -> None:
        super().__init__(responses)
        self._note = note

    def __getitem__(self, key: str) -> Any:
        self._note()
        return super().__getitem__(key)


@contextmanager
def emitting(
    task: Any,
    keys: Sequence[str],
    numbers_of: Callable[[Any, Mapping[str, Any], Any], Numbers],
    *,
    spoken_of: Callable[[Any, Any], Any],
) -> Iterator[None]:
    """Add metrics to a task for the time of the context.

    Args:
        task: An lmms-eval task.
        keys: Names of the added metrics; each document carries all of them, None where undefined.
        numbers_of: Looks up the numbers of a request (an lmms-eval `Instance`), given what the task scored it and the
            reply that it scored.
        spoken_of: Takes out of a request's reply what the task must not score: its thoughts.
    """
    current = threading.local()  # lmms-eval scores documents in a pool of threads
    apply_filters, process_results = task.apply_filters, task.process_results
    aggregation, higher_is_better = task.aggregation, task.higher_is_better

    def apply_filters_and_note() -> Any:
        filtered = apply_filters()
        for request in task.instances:
            note = _noter(current, request)
            replace_for_good(request, "filtered_resps", _NotedResponses(request.filtered_resps, note))
        return filtered

    def process_results_and_add(doc: Any, results: Sequence[Any], **kwargs: Any) -> dict[str, Any]:
        request = current.request
        spoken = [spoken_of(request, reply) for reply in results]
        scored = process_results(doc, spoken, **kwargs)
        numbers = numbers_of(request, scored, results[0] if results else None)
        return {**scored, **{key: numbers.get(key) for key in keys}}

    # On the instance, where lmms-eval's --predict_only sets methods too.
    with (
        replaced(task, "apply_filters", apply_filters_and_note),
        replaced(task, "process_results", process_results_and_add),
        replaced(task, "aggregation", lambda: {**aggregation(), **dict.fromkeys(keys, mean_of_present)}),
        replaced(task, "higher_is_better", lambda: {**higher_is_better(), **dict.fromkeys(keys)}),
    ):
        yield


def _noter(current: threading.local, request: Any) -> Callable[[], None]:
    def note() -> None:
        current.request = request

    return note
