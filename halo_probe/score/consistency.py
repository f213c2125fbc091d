"""The consistency of the answers of a run, from the texts that its parts keep."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from halo_probe.archive.answers import Answer, Key
from halo_probe.metrics.consistency import consistency
from lmms_eval_tasks.digits import digit_mode


def consistencies(
    answers: Iterable[tuple[Key, Answer]], configs: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, int], dict[str, float]]:
    """The consistency of each document of a counting task that was answered several times, by task and document.

    Args:
        answers: Those of a run, in any order; those with a text for each of several rounds are passed over.
        configs: The tasks' configurations as lmms-eval wrote them: their metadata says how replies are parsed.
    """
    replies: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for (task, document, _), answer in answers:
        if isinstance(answer.text, str):
            replies[task, document].append(answer.text)
    modes = {task: digit_mode(configs.get(task, {}).get("metadata")) for task, _ in replies}
    return {
        (task, document): consistency(texts, mode=mode)
        for (task, document), texts in replies.items()
        if (mode := modes[task])
    }
