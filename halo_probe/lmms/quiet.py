"""How much lmms-eval's model classes print: nothing for each document, which would be a call of theirs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from lmms_eval.api.model import lmms
from loguru import logger

from halo_probe.replacing import replaced

_CHATTER = "lmms_eval.models.model_utils.gen_metrics"


@contextmanager
def without_chatter(lm: lmms) -> Iterator[None]:
    """Silence the progress bar and the summary that a base model makes for each call: it is called once a document."""
    modules = dict.fromkeys(sys.modules[cls.__module__] for cls in type(lm).__mro__)
    logger.disable(_CHATTER)
    try:
        with ExitStack() as stack:
            for module in modules:
                if hasattr(module, "tqdm"):
                    stack.enter_context(replaced(module, "tqdm", partial(_silenced, module.tqdm)))
            yield
    finally:
        logger.enable(_CHATTER)


def _silenced(bar: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return bar(*args, **{**kwargs, "disable": True})
