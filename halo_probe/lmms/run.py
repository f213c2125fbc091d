"""One evaluation with `--model halo`, from the tasks that lmms-eval loads to the results that it saves.

lmms-eval has no place for a model to meet its tasks, so two functions of its evaluator are replaced once a probed model
is created: the one that loads the tasks (which choose prompts by model name, and must see the base model's) and the one
that evaluates (which is where tasks, answers and results come together). For any other model they do what they did.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lmms_eval import evaluator
from lmms_eval.api.reasoning import parse_reasoning_tags_config
from loguru import logger

from halo_probe.archive.resume import finished_answers, own_folder
from halo_probe.archive.writing import MapWriter
from halo_probe.capture.recorder import Target
from halo_probe.errors import CaptureError, UsageError
from halo_probe.lmms.answering.answering import METHODS, Answering
from halo_probe.lmms.answering.given import summarize_given
from halo_probe.lmms.answering.ledger import Ledger
from halo_probe.lmms.arguments import Arguments
from halo_probe.lmms.boundary import ending_loudly, stop_after_results
from halo_probe.lmms.options import read_options
from halo_probe.lmms.probed import ProbedRun
from halo_probe.lmms.sealing import seal_when_saved
from halo_probe.lmms.signature import run_signature
from halo_probe.lmms.thoughts import thinking_of
from halo_probe.lmms.wandb_table import fit_for_loggers, log_heatmaps
from halo_probe.replacing import replace_for_good
from lmms_eval_tasks.digits import digit_mode

_RUN = "_halo_run"
_ORIGINAL = "_halo_original"


def attach(run: ProbedRun, *, name: str) -> None:
    """Take part in the evaluation of this model, whenever lmms-eval starts it.

    Args:
        run: What is to be recorded.
        name: The name under which lmms-eval created the model; tasks that are loaded for it get the base model's.
    """
    vars(run.lm)[_RUN] = run
    base = run.base
    original_get_task_dict = _original(evaluator.get_task_dict)
    original_evaluate = _original(evaluator.evaluate)

    def get_task_dict(tasks: Any, task_manager: Any = None, *args: Any) -> Any:
        if getattr(task_manager, "model_name", None) == name:
            replace_for_good(task_manager, "model_name", base)
        return original_get_task_dict(tasks, task_manager, *args)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        probed = vars(kwargs["lm"]).pop(_RUN, None) if "lm" in kwargs else None
        if probed is None:
            return original_evaluate(*args, **kwargs)
        return evaluate_probed(probed, original_evaluate, kwargs)

    setattr(get_task_dict, _ORIGINAL, original_get_task_dict)
    setattr(evaluate, _ORIGINAL, original_evaluate)
    replace_for_good(evaluator, "get_task_dict", get_task_dict)
    replace_for_good(evaluator, "evaluate", evaluate)


def _original(function: Any) -> Any:
    """Look behind the replacement that an earlier model made."""
    return getattr(function, _ORIGINAL, function)


def evaluate_probed(run: ProbedRun, evaluate: Callable[..., Any], kwargs: Mapping[str, Any]) -> Any:
    """Run lmms-eval's `evaluate` with its documents recorded.

    Raises:
        HaloError: If documents could not be recorded; on the command line the process ends non-zero instead, after
            lmms-eval has saved and printed its results.
    """
    assert run.target is not None
    tasks = {task.config.task: task for task in _leaves(kwargs["task_dict"]) if task.OUTPUT_TYPE in METHODS}
    rank = int(os.environ.get("RANK", "0"))
    batch = int(run.lm.batch_size) if run.arguments.batching == "batch" else 1
    with ending_loudly(), ExitStack() as stack:
        _warn_of_another_headline(run.target)
        _require_direct_digits(run.arguments, tasks)
        for task in tasks.values():
            _read_options(task)
        tags = _reasoning_tags(kwargs.get("cli_args"), tasks)
        signature = run_signature(
            run.target,
            base=run.base,
            arguments=run.arguments,
            batch=batch,
            tasks=tasks,
            call=kwargs,
            reasoning_tags=tags,
        )
        folder = _maps_folder(run.arguments, kwargs.get("cli_args"))
        finished, writer = {}, None
        if folder:
            stack.enter_context(own_folder(folder, rank=rank))
            finished = finished_answers(folder, signature=signature, resume=run.arguments.resume, rank=rank)
            writer = MapWriter(folder, signature=signature, max_gb=run.arguments.max_gb, rank=rank)
            stack.enter_context(writer)
        thinking = thinking_of(run.lm, tags=tags)
        asked = kwargs.get("system_instruction")
        ledger = Ledger(
            run=run, thinking=thinking, tasks=tasks, writer=writer, answers=finished, system_instruction=asked
        )
        with Answering(run=run, ledger=ledger, batch=batch).keeping(kwargs.get("response_cache")):
            results = evaluate(**kwargs)
    account = _gather(ledger.account())
    account["given"] = summarize_given(account["given"])
    if results is not None:
        results["halo"] = {"signature": signature, "maps": str(folder) if folder else None, **account}
        results["results"] = fit_for_loggers(results["results"])
        log_heatmaps(folder, tasks)
        seal_when_saved(results)
    if account["failures"]:
        stop_after_results(_shortfall(account), results)
    return results


def _read_options(task: Any) -> None:
    """Let a task have its generation options as their types: lmms-eval leaves lists of `--gen_kwargs` text."""
    try:
        read = read_options(task.config.generation_kwargs or {})
    except UsageError as error:
        raise UsageError(f"{task.config.task}: {error}") from error
    task.set_config(key="generation_kwargs", value=read)


def _leaves(task_dict: Mapping[Any, Any]) -> Iterator[Any]:
    """The tasks themselves, out of the groups that hold them."""
    for task in task_dict.values():
        if isinstance(task, Mapping):
            yield from _leaves(task)
        else:
            yield task


def _maps_folder(arguments: Arguments, cli_args: Any) -> Path | None:
    if arguments.maps:
        return Path(arguments.maps)
    if output := getattr(cli_args, "output_path", None):
        return Path(output) / "halo"
    logger.warning("The attention maps are not kept: give --output_path DIR to find them in DIR/halo.")
    return None


def _warn_of_another_headline(target: Target) -> None:
    shown = target.layers[-1].index
    if shown != target.last_layer:
        logger.warning(f"The table shows the attention of layer {shown}; the model's last is {target.last_layer}.")


def _require_direct_digits(arguments: Arguments, tasks: Mapping[str, Any]) -> None:
    """Refuse an intervention that counts the digits of replies which do not begin with their answer.

    Raises:
        UsageError: If a task reasons before it answers.
    """
    did = arguments.intervention
    reasoning = sorted(name for name, task in tasks.items() if digit_mode(task.config.metadata) == "final")
    if did and did.counts_digits and reasoning:
        raise UsageError(
            f"intervention={did.name} at {did.steps}: it counts digits from the first token of a reply on, and the "
            f"replies of {', '.join(reasoning)} reason before they answer. Leave the task out, or take an intervention "
            "that needs no digit, such as boost:2@all or knockout@prefill_last."
        )


def _reasoning_tags(cli_args: Any, tasks: Mapping[str, Any]) -> list[Any]:
    """The marks of thoughts that lmms-eval is told of, by its command or by a task."""
    given = [getattr(task.config, "reasoning_tags", None) for task in tasks.values()]
    told = [
        parse_reasoning_tags_config(cli_value=getattr(cli_args, "reasoning_tags", None), task_value=one)
        for one in given
    ]
    return [list(pair) for pair in dict.fromkeys(tuple(tags) for one in told for tags in one or ())]


def _gather(account: dict[str, Any]) -> dict[str, Any]:
    """Add up the accounts of all processes."""
    if not torch.distributed.is_initialized():
        return account
    accounts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(accounts, account)
    return {name: sum((one[name] for one in accounts[1:]), accounts[0][name]) for name in account}


def _shortfall(account: Mapping[str, Any]) -> CaptureError:
    """What to end a run with in which not every document was recorded."""
    failures = account["failures"]
    listed = "; ".join(f"{one['task']} {one['doc_id']} ({one['reason']})" for one in failures)
    return CaptureError(
        f"the attention of {len(failures)} answer(s) was not captured and is missing from the metrics: {listed}. "
        f"The {account['recorded']} others are kept; the same command tries these again."
    )
