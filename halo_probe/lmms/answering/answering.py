"""Answering documents with the attention recorded: which answer belongs to which document, and what is kept of it."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

from lmms_eval.api.instance import unwrap_generation_output
from lmms_eval.api.model import lmms
from loguru import logger
from tqdm import tqdm
from transformers import PreTrainedModel

from halo_probe.archive.answers import Key
from halo_probe.archive.generation import Generation
from halo_probe.archive.size import bytes_per_token, require_room
from halo_probe.capture.check import Call, before_first_call, check_capture, record_once, require_sound
from halo_probe.capture.decoding import most_tokens
from halo_probe.capture.interventions import Intervention
from halo_probe.capture.recorder import recording_generate
from halo_probe.errors import CaptureError, HaloError, NoImageTokensError
from halo_probe.lmms.answering.batches import check_reply, logging_reads, match_rows
from halo_probe.lmms.answering.draws import Draws
from halo_probe.lmms.answering.ledger import OPENED, Ledger
from halo_probe.lmms.answering.random_states import States, drawing_nothing, random_states, restore_states
from halo_probe.lmms.answering.results import result_of
from halo_probe.lmms.boundary import stop
from halo_probe.lmms.emission import emitting
from halo_probe.lmms.options import most_new_tokens, stops
from halo_probe.lmms.passes.plain_pass import resolve_for
from halo_probe.lmms.passes.reliance import DigitVocabulary, digit_vocabulary, record_reliance
from halo_probe.lmms.probed import ProbedRun
from halo_probe.lmms.quiet import without_chatter
from halo_probe.lmms.requests import carries_image, keys_of, options_of, place_of
from halo_probe.lmms.thoughts import watching_prompts
from halo_probe.replacing import replaced
from lmms_eval_tasks.thoughts import outside_thoughts

METHODS = ("generate_until", "generate_until_multi_round")
"""Methods of a base model whose answers are recorded."""

TEXT_ONLY = "halo_text_only"
"""Key of a task's metadata: true where no document has an image by design."""

_NO_THOUGHT = (
    "Turn the thought off (enable_thinking=false where the base model takes it), or take an intervention that needs no "
    "digit, such as boost:2@all or knockout@prefill_last."
)

_Answer = Callable[[list[Any]], list[Any]]
_Slab = Sequence[tuple[Key, Any]]
"""Requests that go to the base model together, with their keys."""


@dataclass
class Answering:
    """Answers the requests of one run, and keeps what was recorded of each until lmms-eval asks for it."""

    run: ProbedRun
    ledger: Ledger
    """Where answers to the tasks that are recorded go; those to others pass through."""
    batch: int = 1
    """How many documents the base model is given at a time."""
    tried: bool = False
    """Whether the first call was tried: it bounds the size of the maps, and proves the capture where that is asked."""
    waiting: Sequence[Any] = ()
    """The requests that are to be recorded."""
    draws: Draws = field(init=False)

    def __post_init__(self) -> None:
        self.draws = Draws(self.run)

    @contextmanager
    def keeping(self, response_cache: Any = None) -> Iterator[None]:
        """Record the model's answers and add their numbers to the tasks.

        Args:
            response_cache: lmms-eval's, if it has one: what it answers is recorded too.
        """
        lm = self.run.lm
        methods = {name: getattr(lm, name) for name in METHODS}
        with ExitStack() as stack:
            for name, task in self.ledger.tasks.items():
                stack.enter_context(
                    emitting(
                        task,
                        self.ledger.measures[name].keys,
                        self.ledger.numbers_of,
                        spoken_of=self.ledger.spoken_of,
                    )
                )
            generate_until, multi_round = (partial(self._answer, answer) for answer in methods.values())
            stack.enter_context(replaced(lm, "generate_until", generate_until))
            stack.enter_context(replaced(lm, "generate_until_multi_round", multi_round))
            if response_cache is not None:
                beside = partial(self._answer_beside_cache, methods, response_cache.execute)
                stack.enter_context(replaced(response_cache, "execute", beside))
            stack.enter_context(replaced(lm, "clean", partial(self._clean, lm.clean)))
            yield

    def _answer(
        self,
        answer: _Answer,
        requests: list[Any],
        *,
        keys: Sequence[Key] | None = None,
        cached: Mapping[Key, Any] | None = None,
    ) -> list[Any]:
        """Answer requests in the order that keeps `generate` calls and documents together.

        They are grouped as if none were stored, and each answer is drawn after the one before it, stored or not: so a
        run that goes on draws and pads as an unbroken one.

        Args:
            answer: The base model's own method.
            requests: lmms-eval's, each as often as its repeats.
            keys: Of the requests, where they are some of those that were asked for; left out, they are all.
            cached: Replies that the answers must be equal to.
        """
        keys = self._keys(requests) if keys is None else keys
        asked = list(zip(keys, requests, strict=True))
        waiting = [(key, request) for key, request in asked if not self._is_stored(key, request)]
        self.waiting = [request for _, request in waiting if self._records(request)]
        if waiting:
            self.draws.require_same(self.ledger.answers.values())
        with drawing_nothing():
            self._require_images()
        results: dict[Key, Any] = {}
        stored = len(asked) - len(waiting)
        with tqdm(desc="Answering, attention recorded", total=len(asked), initial=stored) as progress:
            for slab in self._slabs(asked):
                anew = sum(not self._is_stored(key, request) for key, request in slab)
                results |= self._answer_slab(answer, slab, cached or {})
                progress.update(anew)
        self.draws.go_on()
        if self.ledger.writer:
            self.ledger.writer.flush()
        return [results[key] for key in keys]

    def _is_stored(self, key: Key, request: Any) -> bool:
        return key in self.ledger.answers and self._records(request)

    def _keys(self, requests: Sequence[Any]) -> list[Key]:
        """The key of each request; those whose attention is asked for are noted."""
        keys = keys_of(requests)
        self.ledger.asked.update(key for key, request in zip(keys, requests, strict=True) if self._records(request))
        return keys

    def _slabs(self, waiting: _Slab) -> list[_Slab]:
        """Requests that may go to the base model together: of one task, with no document twice."""
        if self.batch == 1:
            return [[one] for one in waiting]
        alike: dict[Any, list[tuple[Key, Any]]] = defaultdict(list)
        for key, request in waiting:
            task, _, repeat = key
            one_call = request.request_type == METHODS[0] and self._records(request)
            alike[task, repeat, None if one_call else key].append((key, request))
        return [
            group[start : start + self.batch] for group in alike.values() for start in range(0, len(group), self.batch)
        ]

    def _records(self, request: Any) -> bool:
        """Whether the attention of a request is recorded: not of agentic rounds, nor of what only fills up a rank."""
        return request.task_name in self.ledger.tasks and not (request.metadata or {}).get("__padding_only__")

    def _answer_slab(self, answer: _Answer, slab: _Slab, cached: Mapping[Key, Any]) -> dict[Key, Any]:
        after: States = {}
        if len(slab) > 1 and not all(self._is_stored(*one) for one in slab):
            self.draws.go_on()
            before = random_states()
            if results := self._answer_together(answer, slab, cached, before=before):
                return results
            after = random_states()  # which the next batch begins with, as it would without the probe
            restore_states(before)
        results = {}
        for key, request in slab:
            if self._is_stored(key, request):
                stored = self.ledger.answers[key]
                self.draws.pass_over(stored)
                results[key] = result_of(stored)
            else:
                self.draws.go_on()
                last = key == slab[-1][0]
                results[key] = self._answer_one(answer, key, request, cached, after=after if last else {})
        return results

    def _answer_together(
        self, answer: _Answer, slab: _Slab, cached: Mapping[Key, Any], *, before: States
    ) -> dict[Key, Any]:
        """Answer several documents at once, those that are stored for the sake of the others.

        Args:
            answer: The base model's own method.
            slab: The documents.
            cached: Replies that answers must be equal to.
            before: Where generators of random numbers are.

        Returns:
            Their answers; nothing where not all of them could be recorded.
        """
        failed: list[CaptureError] = []
        with logging_reads(self.run.lm) as reads:
            answered, generations, opened = self._generate(
                answer,
                [request for _, request in slab],
                on_error=failed.append,
                intervention=self._intervention(),
            )
        if failed:
            return {}
        thinking, marks = bool(getattr(self.run.lm, "enable_thinking", False)), self.ledger.thinking.marks
        documents = [place_of(request) for _, request in slab]
        try:
            rows = match_rows(documents, reads=reads, rows=len(generations))
            for generation, index, opening in zip(generations, rows, opened, strict=True):
                reply, _ = unwrap_generation_output(answered[index])
                ends = stops(options_of(slab[index][1]))
                tokens = self._text(generation, marked=any(mark in str(reply) for mark in chain(*marks)))
                check_reply(str(reply).removeprefix(opening), tokens, until=ends, thinking=thinking)
        except CaptureError as error:
            stop(CaptureError(f"{slab[0][1].task_name}: {error}"))
        drawn = self.draws.since(before)
        results = {}
        for generation, index, opening in zip(generations, rows, opened, strict=True):
            key, request = slab[index]
            if self._is_stored(key, request):
                results[key] = result_of(self.ledger.answers[key])
                continue
            self._require_digits_in_place(partial(self._note_error, key, request, failed), generation, opening)
            halo = {OPENED: opening} if opening else {}
            if key not in self.ledger.failures:
                results[key] = self.ledger.keep(key, answered[index], [generation], cached, drawn=drawn, halo=halo)
            else:
                results[key] = answered[index]
        return results

    def _answer_one(self, answer: _Answer, key: Key, request: Any, cached: Mapping[Key, Any], *, after: States) -> Any:
        """Answer one document.

        Args:
            answer: The base model's own method.
            key: Of the request.
            request: lmms-eval's.
            cached: Replies that answers must be equal to.
            after: Where to leave generators of random numbers, if not where the answer leaves them.
        """
        if not self._records(request):
            (answered,) = answer([request])
            return answered
        before = random_states()
        failed: list[CaptureError] = []
        note_error = partial(self._note_error, key, request, failed)
        halo: dict[str, Any] = {}
        intervention = self._intervention()
        if intervention and intervention.needs_plain_pass:
            with self._passing(note_error) as model:
                intervention, halo["intervention"] = resolve_for(intervention, answer, request, model=model)
            if failed:  # there is nothing to intervene with: the answer is the model's own, and no evidence
                intervention = None
        (answered,), generations, opened = self._generate(
            answer, [request], on_error=note_error, intervention=intervention
        )
        restore_states(after)
        if not generations and not failed:
            self.ledger.fail(key, "its answer came without a call of the model's generate()")
        opening = next(iter(opened), "")
        if opening:
            halo[OPENED] = opening
        if generations and not failed:
            self._require_digits_in_place(note_error, generations[0], opening)
        digits = self.ledger.measures[key[0]].digits_of(key[1])
        if digits and generations and not failed and key[2] == 0:  # another repeat would give the same
            closing = self.ledger.thinking.closing(opening) if opening else ""
            with self._passing(note_error) as model:
                halo |= record_reliance(
                    answer, request, model=model, vocabulary=self._vocabulary, digits=digits, closing=closing
                )
        if key in self.ledger.failures:
            return answered
        drawn = self.draws.since(before)
        return self.ledger.keep(key, answered, [] if failed else generations, cached, drawn=drawn, halo=halo)

    @cached_property
    def _vocabulary(self) -> DigitVocabulary:
        assert self.run.target is not None
        return digit_vocabulary(self.run.lm.tokenizer, self.run.target.model)

    def _intervention(self) -> Intervention | None:
        """That of the run, with the digits that only a tokenizer knows."""
        asked = self.run.arguments.intervention
        return replace(asked, digit_token_ids=frozenset(self._vocabulary.digits)) if asked else None

    @contextmanager
    def _passing(self, on_error: Callable[[CaptureError], None]) -> Iterator[PreTrainedModel]:
        """Make passes beside an answer: what goes wrong there is told, and the answer stays what it is."""
        assert self.run.target is not None
        with drawing_nothing(), without_chatter(self.run.lm):
            try:
                yield self.run.target.model
            except CaptureError as error:
                on_error(error)

    def _generate(
        self,
        answer: _Answer,
        requests: list[Any],
        *,
        on_error: Callable[[CaptureError], None],
        intervention: Intervention | None,
    ) -> tuple[list[Any], list[Generation], list[str]]:
        """Let the base model answer.

        Returns:
            Its answers; what was recorded, row by row; and with what the prompt of each row has opened a thought.
        """
        assert self.run.target is not None
        generations: list[Generation] = []
        recording = recording_generate(
            self.run.target, deliver=generations.extend, on_error=on_error, intervention=intervention
        )
        trying = nullcontext() if self.tried else before_first_call(self.run.target, self._try)
        model, decode = self.run.target.model, self.run.lm.tokenizer.decode
        with recording, trying, watching_prompts(model, decode) as prompts, without_chatter(self.run.lm):
            answered = answer(requests)
        copies = len(generations) // max(len(prompts), 1)  # several replies to one prompt
        opened = [self.ledger.thinking.opened(prompt) for prompt in prompts for _ in range(copies)]
        return answered, generations, opened or [""] * len(generations)

    def _text(self, generation: Generation, *, marked: bool) -> str:
        """The text of a reply's tokens, without special ones; the marks of thoughts stay where they are asked for."""
        tokens, tokenizer = generation.token_ids.tolist(), self.run.lm.tokenizer
        if marked:
            return self.ledger.thinking.text(tokens, prompt=(), tokenizer=tokenizer)
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    def _require_digits_in_place(
        self, on_error: Callable[[CaptureError], None], generation: Generation, opened: str
    ) -> None:
        """Refuse an answer with a thought where the intervention counts digits: it has counted those of the thought."""
        intervention = self.run.arguments.intervention
        if intervention is None or not intervention.counts_digits:
            return
        text = self.run.lm.tokenizer.decode(generation.token_ids)
        spoken = outside_thoughts(text, self.ledger.thinking.marks, opened=bool(opened))
        if sum(end - start for start, end in spoken) < len(text):
            where = f"the prompt opens a thought ({opened.strip()})" if opened else "the reply holds a thought"
            on_error(
                CaptureError(
                    f"{where}, and {intervention.name} at {intervention.steps} counts digits from the first token on: "
                    f"it finds those of the thought. {_NO_THOUGHT}"
                )
            )

    def _try(self, call: Call) -> None:
        """Prove the capture on the first document that has an image, and bound the size of the maps."""
        target, arguments = self.run.target, self.run.arguments
        assert target is not None
        try:
            with drawing_nothing():
                findings, generation = (
                    check_capture(target, call) if arguments.check else ([], record_once(target, call))
                )
        except CaptureError:  # the call itself will fail the same way, and say so
            return
        self.tried = True
        for one in findings:
            logger.log("INFO" if one.passed else "WARNING", f"halo-probe: {one.name}: {one.detail}.")
        at_most = bytes_per_token(generation) * self.run.lm.world_size * self._most_tokens(call, generation)
        logger.info(f"halo-probe: the maps of the answers to come take at most {at_most / 1e9:.3g} GB.")
        try:
            require_sound(findings)
            if self.ledger.writer:
                bounded = len(target.layers) == 1 and not target.keep_heads
                require_room(at_most, folder=self.ledger.writer.folder, max_gb=arguments.max_gb, bounded=bounded)
        except HaloError as error:
            stop(error)

    def _most_tokens(self, call: Call, generation: Generation) -> int:
        """How many tokens all replies to come may have: where options are those of the first call, as it has it."""
        assert self.run.target is not None
        prompt = generation.prompt_length
        first = most_tokens(self.run.target.model, *call, prompt=prompt)
        options = [options_of(request) for request in self.waiting]
        asked = (None if one == options[0] else most_new_tokens(one, prompt=prompt) for one in options)
        return sum(first if most is None else most for most in asked)

    def _answer_beside_cache(
        self,
        answers: Mapping[str, _Answer],
        execute: Callable[..., list[Any]],
        lm: lmms,
        reqtype: str,
        requests: list[Any],
    ) -> list[Any]:
        """Let lmms-eval's cache answer what it can; the model says the same again, for its attention alone."""
        if reqtype not in METHODS:
            return execute(lm, reqtype, requests)
        keys = self._keys(requests)
        requests = [copy(request) for request in requests]  # repeats are one object: a copy of each has its own key
        key_of = {id(request): key for request, key in zip(requests, keys, strict=True)}

        def answer(some: list[Any], cached: Mapping[Key, Any] | None = None) -> list[Any]:
            return self._answer(answers[reqtype], some, keys=[key_of[id(one)] for one in some], cached=cached)

        responses = execute(SimpleNamespace(**{reqtype: answer}), reqtype, requests)  # asks it what the cache lacks
        hits = {
            key: (request, unwrap_generation_output(response)[0])
            for request, key, response in zip(requests, keys, responses, strict=True)
            if key not in self.ledger.answers and key not in self.ledger.failures and self._records(request)
        }
        if hits:
            answer([request for request, _ in hits.values()], {key: reply for key, (_, reply) in hits.items()})
        return [
            result_of(self.ledger.answers[key]) if key in self.ledger.answers else response
            for key, response in zip(keys, responses, strict=True)
        ]

    def _require_images(self) -> None:
        """Refuse documents that all lack an image, before the first is answered; warn where they do by design."""
        if (
            self.ledger.answers
            or not self.waiting
            or any(carries_image(self.run.lm, request) for request in self.waiting)
        ):
            return
        names = {request.task_name for request in self.waiting}
        lacking = {name for name in names if not _is_text_only(self.ledger.tasks[name])}
        documents = sum(request.task_name in (lacking or names) for request in self.waiting)
        shown = ", ".join(sorted(lacking or names))
        message = f"{shown}: none of {documents} documents has an image: there is nothing to record"
        if lacking:
            raise NoImageTokensError(f"{message}. Evaluate without the probe: --model {self.run.base}.")
        logger.warning(f"halo-probe: {message}, and they are scored alone.")

    def _note_error(self, key: Key, request: Any, failed: list[CaptureError], error: CaptureError) -> None:
        failed.append(error)
        if isinstance(error, NoImageTokensError) and not carries_image(self.run.lm, request):
            return
        self.ledger.fail(key, str(error))
        if not any(answer.recorded for answer in self.ledger.answers.values()):
            # Nothing is spent yet, and the next documents would fare no better.
            stop(type(error)(f"{request.task_name}, document {request.doc_id}: {error}"))

    def _clean(self, clean: Callable[[], None]) -> None:
        self.run.target = None  # what lmms-eval cleans up must not be held here
        clean()


def _is_text_only(task: Any) -> bool:
    """Whether a task shows no image by design, as its metadata say."""
    metadata = task.config.metadata
    return isinstance(metadata, Mapping) and metadata.get(TEXT_ONLY) is True
