"""The entry point of lmms-eval's plugin group: registers our models and makes our tasks known.

Nothing heavy is imported here, and nothing raises: `lmms-eval models` takes a fraction of a second, and an entry point
that fails silently drops every plugin after it.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from halo_probe.replacing import replace_for_good

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmms_eval.models.registry_v2 import ModelManifest

_TASKS = "lmms_eval.tasks"
_MODELS: dict[str, tuple[str, str | None]] = {
    "halo": ("halo_probe.lmms.model.HaloChat", "halo_probe.lmms.model.HaloSimple"),
    "halo_transformers": ("halo_probe.lmms.transformers_chat.TransformersChat", None),
    "halo_tiny": ("halo_probe.lmms.model.HaloTinyChat", "halo_probe.lmms.model.HaloTinySimple"),
}


def manifests() -> "list[ModelManifest]":
    """Register the tasks and return the models: called by lmms-eval while `lmms_eval.models` is imported."""
    from lmms_eval.models.registry_v2 import ModelManifest

    _announce_models()
    if hasattr(sys.modules.get(_TASKS), "TaskManager"):
        _extend(sys.modules[_TASKS])
    else:
        sys.meta_path.insert(0, _TasksFinder())
    return [
        ModelManifest(model_id=name, chat_class_path=chat, simple_class_path=simple)
        for name, (chat, simple) in _MODELS.items()
    ]


def _announce_models() -> None:
    """`lmms-eval models` lists these two tables and not its registry."""
    tables = vars(sys.modules["lmms_eval.models"])
    for name, (chat, simple) in _MODELS.items():
        tables.get("AVAILABLE_CHAT_TEMPLATE_MODELS", {})[name] = chat
        if simple is not None:
            tables.get("AVAILABLE_SIMPLE_MODELS", {})[name] = simple


class _TasksFinder(MetaPathFinder):
    """Extends `lmms_eval.tasks` right after its import, then leaves the path."""

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None", target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TASKS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_extend(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:  # to look for a module is not yet to import it
                    sys.meta_path.remove(self)
                    _extend(module)

            replace_for_good(spec.loader, "exec_module", execute_and_extend)
        return spec


def _extend(tasks: ModuleType) -> None:
    try:
        _add_task_folder(tasks.TaskManager)
        _give_standard_errors(sys.modules["lmms_eval.evaluator_utils"])
    except (AttributeError, KeyError) as error:
        from loguru import logger

        logger.warning(f"halo-probe does not fit this version of lmms-eval ({error!r}): its tasks may be missing.")


def _add_task_folder(task_manager: Any) -> None:
    """Look for tasks in our folder too, last: built-in tasks and `--include_path` win a clash of names."""
    initialize_tasks = task_manager.initialize_tasks
    # Beside this package, and not looked up: a user's folder of that name may come first on the path.
    folder = str(Path(__file__).parents[2] / "lmms_eval_tasks" / "tasks")

    def initialize_tasks_with_ours(
        self: Any,
        include_path: str | list[str] | None = None,
        include_defaults: bool = True,  # noqa: FBT001, FBT002 - lmms-eval's signature
    ) -> dict[str, Any]:
        index: dict[str, Any] = initialize_tasks(self, include_path=include_path, include_defaults=include_defaults)
        return {**self._get_task_and_group(folder), **index} if include_defaults else index

    replace_for_good(task_manager, "initialize_tasks", initialize_tasks_with_ours)


def _give_standard_errors(evaluator_utils: Any) -> None:
    """Let an aggregation bring its standard error: lmms-eval has one only for its own mean."""
    stderr_for_metric = evaluator_utils.stderr_for_metric

    def stderr_for_metric_of_ours(metric: Any, bootstrap_iters: int) -> Any:
        own = getattr(metric, "standard_error", None)
        return own if own and bootstrap_iters > 0 else stderr_for_metric(metric, bootstrap_iters)

    replace_for_good(evaluator_utils, "stderr_for_metric", stderr_for_metric_of_ours)
