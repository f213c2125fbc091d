"""One evaluation with `--model halo`: which answer belongs to which document, and what is kept of it.

lmms-eval has no place for a model to meet its tasks, so two functions of its evaluator are replaced once a probed model
is created: the one that loads the tasks (which choose prompts by model name, and must see the base model's) and the one
that evaluates (which is where tasks, answers and results come together). For any other model they do what they did.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lmms_eval import evaluator
from lmms_eval.api.instance import GenerationResult, TokenCounts, unwrap_generation_output
from lmms_eval.api.model import lmms
from loguru import logger
from tqdm import tqdm

from halo_probe.capture import Generation
from halo_probe.capture.recorder import Target, recording_generate
from halo_probe.errors import CaptureError, NoImageTokensError, UsageError
from halo_probe.harness.boundary import ending_loudly, in_command_line, stop
from halo_probe.harness.emission import Numbers, emitting
from halo_probe.harness.maps import MapWriter
from halo_probe.harness.signature import run_signature
from halo_probe.harness.values import DIGIT_KEYS, SUMMARY_KEYS, TokenValues, digit_values, summarize, token_values
from lmms_eval_tasks.digits import digit_steps
from lmms_eval_tasks.parsing import Mode

_METHODS = ("generate_until", "generate_until_multi_round")
_RUN = "_halo_run"
_ORIGINAL = "_halo_original"


@dataclass
class ProbedRun:
    """A base model that is about to be evaluated, and what to record of it."""

    lm: lmms
    base: str
    target: Target | None
    """The recorded model; let go when lmms-eval cleans up, before it scores."""
    arguments: Mapping[str, Any]
    """The base model's own `--model_args`."""
    maps: str | None
    """Folder for the maps instead of `OUTPUT/halo`."""


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
            task_manager.model_name = base
        return original_get_task_dict(tasks, task_manager, *args)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        probed = vars(kwargs["lm"]).pop(_RUN, None) if "lm" in kwargs else None
        if probed is None:
            return original_evaluate(*args, **kwargs)
        return evaluate_probed(probed, original_evaluate, kwargs)

    setattr(get_task_dict, _ORIGINAL, original_get_task_dict)
    setattr(evaluate, _ORIGINAL, original_evaluate)
    evaluator.get_task_dict, evaluator.evaluate = get_task_dict, evaluate


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
    tasks = {task.config.task: task for task in _leaves(kwargs["task_dict"]) if task.OUTPUT_TYPE in _METHODS}
    with ending_loudly():
        folder = _maps_folder(run, kwargs.get("cli_args"))
        _refuse_unsupported(kwargs)
        _warn_of_another_headline(run.target)
        signature = run_signature(run.target, base=run.base, arguments=run.arguments, tasks=tasks, call=kwargs)
        writer = MapWriter(folder, signature=signature) if folder else None
        with writer or nullcontext():
            ledger = _Ledger(run=run, tasks=tasks, writer=writer)
            with ledger.keeping():
                results = evaluate(**kwargs)
    if results is not None:
        results["halo"] = {"signature": signature, "maps": str(folder) if folder else None, **ledger.account()}
    if shortfall := ledger.error():
        _stop_after_results(shortfall, results)
    return results


def _leaves(task_dict: Mapping[Any, Any]) -> Iterator[Any]:
    """The tasks themselves, out of the groups that hold them."""
    for task in task_dict.values():
        if isinstance(task, Mapping):
            yield from _leaves(task)
        else:
            yield task


def _maps_folder(run: ProbedRun, cli_args: Any) -> Path | None:
    if run.maps:
        return Path(run.maps)
    if output := getattr(cli_args, "output_path", None):
        return Path(output) / "halo"
    logger.warning("The attention maps are not kept: give --output_path DIR to find them in DIR/halo.")
    return None


def _warn_of_another_headline(target: Target) -> None:
    shown = target.layers[-1].index
    if shown != target.last_layer:
        logger.warning(f"The table shows the attention of layer {shown}; the model's last is {target.last_layer}.")


def _refuse_unsupported(kwargs: Mapping[str, Any]) -> None:
    if kwargs.get("response_cache") is not None:
        raise UsageError(
            "--use_cache answers documents without running the model, so there is no attention to record; leave it out."
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("several processes cannot record together yet; run without torchrun or accelerate launch.")


@dataclass(frozen=True)
class _Kept:
    """One recorded answer."""

    values: list[TokenValues]
    counts: "_RecordedTokenCounts"


@dataclass
class _Ledger:
    """Keeps what was recorded of each request until lmms-eval asks for it."""

    run: ProbedRun
    tasks: Mapping[str, Any]
    writer: MapWriter | None
    kept: dict[int, list[_Kept | None]] = field(default_factory=lambda: defaultdict(list))
    """By identity of the request; one entry per repeat, None where its attention is missing."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    recorded: int = 0
    without_image: int = 0

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Record the model's answers and add their numbers to the tasks."""
        lm = self.run.lm
        own = vars(lm)
        with ExitStack() as stack:
            for task in self.tasks.values():
                keys = (*SUMMARY_KEYS, *(DIGIT_KEYS if _digit_mode(task) else ()))
                stack.enter_context(emitting(task, keys, self._numbers_of))
            for name in _METHODS:
                own[name] = partial(self._answer, getattr(lm, name))
                stack.callback(own.pop, name)
            own["clean"] = partial(self._clean, lm.clean)
            stack.callback(own.pop, "clean")
            yield

    def _answer(self, answer: Callable[[list[Any]], list[Any]], requests: list[Any]) -> list[Any]:
        """Answer one request at a time, so that each `generate` call belongs to a known document."""
        lm, target = self.run.lm, self.run.target
        assert target is not None
        self._require_images(requests)
        answers = []
        for request in tqdm(requests, desc="Answering, attention recorded"):
            if request.task_name not in self.tasks:  # a round of an agentic task, which the evaluator plays itself
                answers += answer([request])
                continue
            generations: list[Generation] = []
            failed: list[CaptureError] = []
            on_error = partial(self._note_error, request, failed)
            with (
                recording_generate(target, deliver=generations.extend, on_error=on_error),
                _without_chatter(lm),
            ):
                (answered,) = answer([request])
            if not generations and not failed:
                self._fail(request, "its answer came without a call of the model's generate()")
            if failed or not generations:
                self.kept[id(request)].append(None)
                answers.append(answered)
            else:
                answers.append(self._keep(request, answered, generations))
        return answers

    def _require_images(self, requests: list[Any]) -> None:
        """Refuse documents that all lack an image, before the first is answered."""
        ours = [request for request in requests if request.task_name in self.tasks]
        if ours and not any(_carries_image(self.run.lm, request) for request in ours):
            names = ", ".join(sorted({request.task_name for request in ours}))
            raise NoImageTokensError(
                f"{names}: none of {len(ours)} documents has an image: there is nothing to record."
            )

    def _note_error(self, request: Any, failed: list[CaptureError], error: CaptureError) -> None:
        failed.append(error)
        if isinstance(error, NoImageTokensError) and not _carries_image(self.run.lm, request):
            self.without_image += 1
            return
        self._fail(request, str(error))
        if not self.recorded:  # nothing is spent yet, and the next documents would fare no better
            stop(type(error)(f"{request.task_name}, document {request.doc_id}: {error}"))

    def _fail(self, request: Any, reason: str) -> None:
        logger.error(f"halo-probe: {request.task_name}, document {request.doc_id}: {reason}")
        self.failures.append({"task": request.task_name, "doc_id": request.doc_id, "reason": reason})

    def _keep(self, request: Any, answered: Any, generations: list[Generation]) -> GenerationResult:
        text, counts = unwrap_generation_output(answered)
        tokenizer = self.run.lm.tokenizer
        pieces = [[tokenizer.decode([int(token)]) for token in one.token_ids] for one in generations]
        values = [token_values(one, texts) for one, texts in zip(generations, pieces, strict=True)]
        kept = self.kept[id(request)]
        if self.writer:
            self.writer.add(
                list(zip(generations, pieces, strict=True)),
                task=request.task_name,
                doc_id=request.doc_id,
                repeat=len(kept),
            )
        recorded = _RecordedTokenCounts.extending(counts, values)
        kept.append(_Kept(values, recorded))
        self.recorded += 1
        return GenerationResult(text=text, token_counts=recorded)

    def _numbers_of(self, request: Any, scored: Mapping[str, Any]) -> Numbers:
        """Numbers of a request's first answer, beside what the task made of it."""
        kept = next(iter(self.kept.get(id(request), ())), None)
        if kept is None:
            return {}
        numbers = summarize(kept.values)
        mode = _digit_mode(self.tasks[request.task_name])
        if mode is None:
            return numbers
        values = kept.values[0]
        content = [values.tokens[step] for step in values.content]
        digits = digit_steps(content, scored.get("predicted"), mode=mode)
        kept.counts.halo |= {"digit_status": digits.status, "digit_steps": digits.steps}
        return numbers | digit_values(values, digits)

    def _clean(self, clean: Callable[[], None]) -> None:
        self.run.target = None
        clean()

    def account(self) -> dict[str, Any]:
        """How many answers were recorded, had no image, or failed."""
        return {"recorded": self.recorded, "without_image": self.without_image, "failures": self.failures}

    def error(self) -> CaptureError | None:
        """What to end the run with, if not every document was recorded."""
        if self.failures:
            listed = "; ".join(f"{one['task']} {one['doc_id']} ({one['reason']})" for one in self.failures)
            return CaptureError(
                f"the attention of {len(self.failures)} answer(s) was not captured and is missing from the metrics: "
                f"{listed}. The {self.recorded} others are kept."
            )
        return None


@dataclass
class _RecordedTokenCounts(TokenCounts):
    """Token counts that carry the per-token values into lmms-eval's samples file."""

    halo: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def extending(cls, counts: TokenCounts | None, values: list[TokenValues]) -> "_RecordedTokenCounts":
        generations = [
            {"layer": one.layer, "layer_type": one.layer_type, "tokens": one.tokens, **one.columns} for one in values
        ]
        return cls(**(vars(counts) if counts else {}), halo={"generations": generations})

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "halo": self.halo}


def _digit_mode(task: Any) -> Mode | None:
    """How the digits of a task's `predicted` are found; None where its replies are no digits. Its metadata says."""
    metadata = task.config.metadata
    mode: Mode | bool | None = metadata.get("halo_digits") if isinstance(metadata, Mapping) else None
    return "first" if mode is True else mode or None


def _carries_image(lm: lmms, request: Any) -> bool:
    """Whether the task gave the model an image for this document."""
    task, split = request.args[-2:]
    document = lm.task_dict[task][split][request.doc_id]
    if callable(request.args[1]):  # chat: doc_to_messages
        return any(part["type"] == "image" for turn in request.args[1](document) for part in turn["content"])
    return bool(request.args[2](document))  # simple: doc_to_visual


@contextmanager
def _without_chatter(lm: lmms) -> Iterator[None]:
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


def _stop_after_results(error: CaptureError, results: Any) -> None:
    """Fail, but not before lmms-eval's command has saved its results: printing the table is the last thing it does."""
    if not in_command_line() or results is None:
        stop(error)
    main: Any = sys.modules["lmms_eval.__main__"]
    make_table = main.make_table

    def print_and_stop(shown: Any) -> None:
        main.make_table = make_table
        sys.stdout.write(make_table(shown) + "\n")
        if "groups" in shown:
            sys.stdout.write(make_table(shown, "groups") + "\n")
        stop(error)

    main.make_table = print_and_stop
