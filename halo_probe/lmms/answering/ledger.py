"""What is kept of the answers of one run: their maps, their numbers for lmms-eval's table, and what went wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lmms_eval.api.instance import GenerationResult, unwrap_generation_output
from loguru import logger

from halo_probe.archive.answers import Answer, Key
from halo_probe.archive.generation import Generation
from halo_probe.archive.writing import MapWriter
from halo_probe.lmms.answering.given import SYSTEM, given_of, told, what_was_followed
from halo_probe.lmms.answering.hearing import Heard, hear
from halo_probe.lmms.answering.results import result_of, token_counts
from halo_probe.lmms.emission import Numbers
from halo_probe.lmms.measures import Measures, measures_of
from halo_probe.lmms.probed import ProbedRun
from halo_probe.lmms.thoughts import Thinking, special_tokens
from halo_probe.metrics.consistency import consistency
from halo_probe.score.values import digit_values, summarize, token_values
from halo_probe.statistics.reliance import mostly_other, reliance_values
from lmms_eval_tasks.digits import DigitSteps, decode_pieces, digit_steps
from lmms_eval_tasks.parsing import Mode, parse_count

OPENED = "prompt_opens_thought"
"""Key of a sample: with what the prompt has opened a thought, where it has."""


@dataclass
class Ledger:
    """The answers of one run, until lmms-eval asks for them."""

    run: ProbedRun
    thinking: Thinking
    """How the model marks its thoughts."""
    tasks: Mapping[str, Any]
    """The tasks that are recorded, by name."""
    writer: MapWriter | None
    answers: dict[Key, Answer] = field(default_factory=dict)
    """What is answered; at the start, by an earlier run."""
    failures: dict[Key, str] = field(default_factory=dict)
    """Why the attention of an answer is missing."""
    asked: set[Key] = field(default_factory=set)
    """What this process was asked for."""
    system_instruction: str | None = None
    """What `--system_instruction` asks for."""
    told_of: set[str] = field(default_factory=set)
    """Lines about what has no effect that were written."""
    earlier: frozenset[Key] = field(init=False)
    """What was answered by an earlier run, by other processes too."""
    measures: Mapping[str, Measures] = field(init=False)
    """What is measured of each task."""
    special: frozenset[str] = field(init=False)
    """The special tokens, which base models leave out of a reply."""

    def __post_init__(self) -> None:
        target, reliance = self.run.target, self.run.arguments.reliance
        assert target is not None
        self.earlier = frozenset(self.answers)
        self.special = special_tokens(self.run.lm.tokenizer)
        self.measures = {name: measures_of(task, target, reliance=reliance) for name, task in self.tasks.items()}

    def keep(  # noqa: PLR0913 - all that there is of an answer
        self,
        key: Key,
        answered: Any,
        generations: list[Generation],
        cached: Mapping[Key, Any],
        *,
        drawn: dict[str, Any],
        halo: dict[str, Any] | None = None,
    ) -> GenerationResult:
        """Take an answer in.

        Args:
            key: Of the answer.
            answered: What the base model returned for it.
            generations: What was recorded of it, in the order of its `generate` calls.
            cached: Replies that the answers must be equal to.
            drawn: What it says of random numbers.
            halo: What else the samples show of it.

        Returns:
            What lmms-eval gets: the cached reply where the model now says another, which is a failure.
        """
        text, counts = unwrap_generation_output(answered)
        if key in cached and cached[key] != text:
            self.fail(key, f"the cached reply is {cached[key]!r}, and the model now says {text!r}")
            return GenerationResult(text=cached[key])
        decode = self.run.lm.tokenizer.decode
        shown = [(one, decode_pieces(one.token_ids.tolist(), decode=decode)) for one in generations]
        measures = self.measures[key[0]]
        dots = measures.dots_of(key[1])
        values = tuple(
            token_values(one, pieces, middle=measures.middle, dots=dots, spatial=measures.spatial)
            for one, pieces in shown
        )
        given = self._given(key[0], text, generations) if generations else {}
        answer = self.answers[key] = Answer(
            text=text, counts=token_counts(counts), values=values, halo={**(halo or {}), **given}, drawn=drawn
        )
        if self.writer:
            self.writer.add(key, answer, shown)
        return result_of(answer)

    def _given(self, task: str, reply: Any, generations: Sequence[Generation]) -> dict[str, Any]:
        """What the model was given for an answer, and which of what was asked for that follows; the rest is told of."""
        first, target = generations[0], self.run.target
        assert target is not None
        assert first.given is not None
        options: Mapping[str, Any] = self.tasks[task].config.generation_kwargs or {}
        decode = self.run.lm.tokenizer.decode
        arguments = self.run.arguments.model
        followed = what_was_followed(
            first,
            options=options,
            arguments=arguments,
            system_instruction=self.system_instruction,
            target=target,
            prompt=decode(_words(first).tolist()),
            written=decode(first.token_ids.tolist()),
            reply=reply,
        )
        for name in (name for name, reached in followed.items() if not reached):
            asked = {**arguments, **options, SYSTEM: self.system_instruction}[name]
            line = told(name, task=task, asked=asked, given=first.given.options)
            if line not in self.told_of:
                self.told_of.add(line)
                logger.warning(line)
        return {"given": given_of(generations), "followed": followed}

    def fail(self, key: Key, reason: str) -> None:
        """Note that the attention of an answer is missing, and why."""
        task, document, _ = key
        logger.error(f"halo-probe: {task}, document {document}: {reason}")
        self.failures[key] = reason

    def hear(self, answer: Answer, reply: str) -> Heard:
        """A reply that is scored, laid on the tokens of an answer."""
        values = answer.values[0]
        return hear(
            reply,
            values.tokens[: values.content.stop],
            marks=self.thinking.marks,
            opened=answer.halo.get(OPENED, ""),
            special=self.special,
        )

    def spoken_of(self, request: Any, reply: Any) -> Any:
        """A reply of one of our tasks without what the model thought: its tokens say more of that than its text."""
        answer = self.answers.get((request.task_name, request.doc_id, 0))
        if answer is None or not answer.recorded or not isinstance(reply, str):
            return reply
        return self.hear(answer, reply).text if self.measures[request.task_name].ours else reply

    def numbers_of(self, request: Any, scored: Mapping[str, Any], reply: Any) -> Numbers:
        """Numbers of a request's first answer, beside what the task made of its reply."""
        answer = self.answers.get((request.task_name, request.doc_id, 0))
        if answer is None or not answer.recorded:
            return {}
        numbers = summarize(answer.values)
        mode = self.measures[request.task_name].digits
        if mode is None:
            return numbers
        digits = self._digits(answer, reply, mode=mode, predicted=scored.get("predicted"))
        answer.halo |= {"digit_status": digits.status, "digit_steps": digits.steps}
        if self._missed(answer, digits):
            answer.halo["intervention_missed"] = True
        agreed = consistency(self._replies(request), mode=mode)
        return {**numbers, **digit_values(answer.values[0], digits), **agreed, **reliance_values(answer.halo)}

    def _missed(self, answer: Answer, digits: DigitSteps) -> bool:
        """Whether an intervention has counted the digits of another number than the count of the reply."""
        did = self.run.arguments.intervention
        if did is None or not did.counts_digits or digits.steps is None:
            return False
        written = (step for step, piece in enumerate(answer.values[0].tokens) if piece.strip().isdecimal())
        return next(written, None) != digits.steps[0]

    def _digits(self, answer: Answer, reply: Any, *, mode: Mode, predicted: Any) -> DigitSteps:
        """The digits of a count where the parser read it; not found where the task made another number of the reply."""
        heard = self.hear(answer, str(reply))
        parsed = parse_count(heard.text, mode=mode)
        span = heard.span(parsed.span) if parsed.value == predicted else None
        values = answer.values[0]
        return digit_steps([values.tokens[step] for step in values.content], parsed.value, span, mode=mode)

    def _replies(self, request: Any) -> list[str]:
        """All answers to the document of a request that are one text, in order, without their thoughts."""
        repeats = range(self.tasks[request.task_name].config.repeats or 1)
        found = (self.answers.get((request.task_name, request.doc_id, repeat)) for repeat in repeats)
        return [
            self.hear(answer, answer.text).text if answer.recorded else answer.text
            for answer in found
            if answer and isinstance(answer.text, str)
        ]

    def account(self) -> dict[str, Any]:
        """How many answers were recorded, by an earlier run too, had no image, or failed."""
        answers = {key: self.answers[key] for key in sorted(self.asked & self.answers.keys())}
        recorded = sum(answer.recorded for answer in answers.values())
        lost = sorted(self.asked - self.answers.keys() - self.failures.keys())
        failures = {**self.failures, **dict.fromkeys(lost, "it was asked for, and no answer was recorded")}
        reliance = Counter(answer.halo["reliance"] for answer in answers.values() if "reliance" in answer.halo)
        statuses = (
            f"{task} {answer.halo['digit_status']}"
            for (task, _, _), answer in answers.items()
            if "digit_status" in answer.halo
        )
        others = Counter(f"digit {place}" for answer in answers.values() for place in mostly_other(answer.halo))
        missed = sum(bool(answer.halo.get("intervention_missed")) for answer in answers.values())
        given = [
            {
                "task": task,
                "doc_id": document,
                "repeat": repeat,
                "given": answer.halo.get("given", []),
                "followed": answer.halo.get("followed", {}),
            }
            for (task, document, repeat), answer in answers.items()
            if answer.recorded
        ]
        return {
            "given": given,
            "recorded": recorded,
            "resumed": len(answers.keys() & self.earlier),
            "without_image": len(answers) - recorded,
            "failures": [
                {"task": task, "doc_id": document, "reason": reason} for (task, document, _), reason in failures.items()
            ],
            "digits": Counter(statuses),
            **({"reliance": reliance, "reliance_other": others} if self.run.arguments.reliance else {}),
            **({"intervention_missed": missed} if self.run.arguments.intervention else {}),
        }


def _words(generation: Generation) -> np.ndarray:
    """The tokens of a prompt that are no image tokens; where the image is attended to across, all are."""
    assert generation.given is not None
    prompt = generation.given.prompt
    crosses = any(layer.crosses for layer in generation.layers)
    return prompt if crosses else np.delete(prompt, generation.image_positions)
