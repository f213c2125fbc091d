"""What lmms-eval's model classes have in common: how requests reach them, and how much they print."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from lmms_eval.api.model import lmms
from loguru import logger

from halo_probe.lmms.options import read_options


def carries_image(lm: lmms, request: Any) -> bool:
    """Whether the task gave the model an image for this document."""
    task, split = request.args[-2:]
    document = lm.task_dict[task][split][request.doc_id]
    if callable(request.args[1]):  # chat: doc_to_messages
        return any(part["type"] == "image" for turn in request.args[1](document) for part in turn["content"])
    return bool(request.args[2](document))  # simple: doc_to_visual


@contextmanager
def without_chatter(lm: lmms) -> Iterator[None]:
    """Silence the progress bar and the summary that a base model makes for each call: it is called once a document."""
    modules: list[Any] = [sys.modules[cls.__module__] for cls in type(lm).__mro__]
    noisy = [module for module in modules if hasattr(module, "tqdm")]
    bars = [module.tqdm for module in noisy]
    logger.disable("lmms_eval.models.model_utils.gen_metrics")
    try:
        for module, bar in zip(noisy, bars, strict=True):
            module.tqdm = partial(_silenced, bar)
        yield
    finally:
        for module, bar in zip(noisy, bars, strict=True):
            module.tqdm = bar
        logger.enable("lmms_eval.models.model_utils.gen_metrics")


def _silenced(bar: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return bar(*args, **{**kwargs, "disable": True})


def options_of(request: Any) -> dict[str, Any]:
    """The generation options of a request, read as their types."""
    return read_options(next((one for one in request.args if isinstance(one, Mapping)), {}))
