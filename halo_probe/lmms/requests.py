"""What a request of lmms-eval holds, and where: the one place that knows the order of its arguments.

A chat model gets `(context, doc_to_messages, generation_kwargs, doc_id, task, split)`, a simple one
`(context, generation_kwargs, doc_to_visual, doc_id, task, split)`.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from halo_probe.archive.answers import Key
from halo_probe.lmms.options import read_options
from halo_probe.replacing import replace_for_good

Place = tuple[str, str, int]
"""Task, split and index: where a document is read from."""
Messages = Sequence[Mapping[str, Any]]
"""A chat as tasks give it: turns with a `role`, and parts of a `type` under `content`."""

_CONTEXT = 0
_TO_MESSAGES, _CHAT_OPTIONS = 1, 2
_SIMPLE_OPTIONS, _TO_IMAGES = 1, 2
_TASK, _SPLIT = -2, -1


def keys_of(requests: Sequence[Instance]) -> list[Key]:
    """The key of each; a request that comes again is its next repeat."""
    seen: Counter[tuple[str, int]] = Counter()
    keys = []
    for request in requests:
        document = (request.task_name, request.doc_id)
        keys.append((*document, seen[document]))
        seen[document] += 1
    return keys


def place_of(request: Instance) -> Place:
    """Where its document is read from."""
    return request.args[_TASK], request.args[_SPLIT], request.doc_id


def options_of(request: Instance) -> dict[str, Any]:
    """Its generation options, read as their types.

    Raises:
        UsageError: If one has a value that is not of its type.
    """
    return read_options(given_options(request))


def given_options(request: Instance) -> Mapping[str, Any]:
    """Its generation options as lmms-eval hands them over; empty for a request without any."""
    if len(request.args) <= _CHAT_OPTIONS:
        return {}
    options = request.args[_CHAT_OPTIONS if _is_chat(request.args) else _SIMPLE_OPTIONS]
    return options if isinstance(options, Mapping) else {}


def context_of(request: Instance) -> Any:
    """What lmms-eval makes of the question and what it puts before it."""
    return request.args[_CONTEXT]


def messages_of(lm: lmms, request: Instance) -> Messages:
    """The chat of a request to a chat model."""
    messages: Messages = request.args[_TO_MESSAGES](_document(lm, request))
    return messages


def carries_image(lm: lmms, request: Instance) -> bool:
    """Whether the task gave the model an image for this document."""
    if _is_chat(request.args):
        return any(part["type"] == "image" for turn in messages_of(lm, request) for part in turn["content"])
    return bool(request.args[_TO_IMAGES](_document(lm, request)))


def with_images(request: Instance, change: Callable[[Any], Any]) -> Instance:
    """The request with other images: callables that change those that the task's own give."""
    changed = copy.copy(request)
    arguments: list[Any] = list(request.arguments)
    if _is_chat(arguments):
        to_messages = arguments[_TO_MESSAGES]
        arguments[_TO_MESSAGES] = lambda document: _with_images(to_messages(document), change)
    else:
        to_images = arguments[_TO_IMAGES]
        arguments[_TO_IMAGES] = lambda document: [change(image) for image in to_images(document)]
    replace_for_good(changed, "arguments", tuple(arguments))
    return changed


def _is_chat(arguments: Sequence[Any]) -> bool:
    return callable(arguments[_TO_MESSAGES])


def _document(lm: lmms, request: Instance) -> Any:
    task, split, index = place_of(request)
    return lm.task_dict[task][split][index]


def _with_images(messages: Messages, change: Callable[[Any], Any]) -> list[dict[str, Any]]:
    return [
        {
            **turn,
            "content": [
                {**part, "url": change(part["url"])} if part["type"] == "image" else part for part in turn["content"]
            ],
        }
        for turn in messages
    ]
