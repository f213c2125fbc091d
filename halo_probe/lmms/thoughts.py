r"""How a model marks its thoughts: what its chat template and tokenizer say, and whether a prompt has opened one.

A template may open the thought for the model (`<|im_start|>assistant\n<think>\n`), so that the reply has no mark but
the closing one, and none where the token limit cuts it off. So the prompts themselves are looked at, as `generate` gets
them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedModel

from halo_probe.replacing import replaced
from lmms_eval_tasks.thoughts import THOUGHTS, Marks

_WORD = r"([A-Za-z_:]*(?:think|thought|reason|analysis)[A-Za-z_:]*)"
_FORMS = (
    (rf"<{_WORD}>", "<{0}>", "</{0}>"),
    (rf"\[{_WORD}\]", "[{0}]", "[/{0}]"),
    (rf"◁{_WORD}▷", "◁{0}▷", "◁/{0}▷"),
    (rf"<\|START_{_WORD}\|>", "<|START_{0}|>", "<|END_{0}|>"),
    (rf"<\|begin_of_{_WORD}\|>", "<|begin_of_{0}|>", "<|end_of_{0}|>"),
    (rf"<\|{_WORD}_start\|>", "<|{0}_start|>", "<|{0}_end|>"),
    (rf"<\|{_WORD}\|>", "<|{0}|>", "<|/{0}|>"),
)
"""How the marks of a thought are written: what finds the word, the opening mark and the closing one."""
_TAIL = 32  # tokens at the end of a prompt, in which a template opens a thought
_SWITCHES: tuple[dict[str, Any], ...] = (
    {},
    {"enable_thinking": True},
    {"enable_thinking": False},
    {"thinking": True},
    {"thinking": False},
)
"""Arguments by which templates open a thought or close it."""
_THOUGHT, _SPOKEN = "what it thinks", "what it says"
# Of a template that cannot render what it is given: its own error, and those of the objects that it looks into.
_UNRENDERED = (TemplateError, TypeError, ValueError, KeyError, AttributeError)


@dataclass(frozen=True)
class Thinking:
    """The thoughts of one model."""

    marks: tuple[Marks, ...]
    """What opens and closes them."""
    speakers: tuple[Any, ...] = ()
    """Its processor and tokenizer, as far as they have a chat template."""

    def opened(self, prompt: str) -> str:
        """The end of a prompt from the mark on with which it opens a thought; empty where it opens none."""
        bare = prompt.rstrip()
        for opening, _ in self.marks:
            if bare.endswith(opening):
                return prompt[len(bare) - len(opening) :]
        return ""

    def closing(self, opened: str) -> str | None:
        """What the chat template writes between an opened thought with nothing in it and the answer.

        Args:
            opened: From `opened`.

        Returns:
            The text, with the closing mark; None where the template does not say.
        """
        opening, mark = next(pair for pair in self.marks if opened.startswith(pair[0]))
        rest = opened.removeprefix(opening)
        for text in self._closed_prompts:
            _, found, after = text.rpartition(opening)
            if found and mark in after:
                return after.removeprefix(rest) if after.startswith(rest) else after.lstrip()
        for text in self._answers:
            between = text.partition(_THOUGHT)[2].partition(_SPOKEN)[0]
            if mark in between:
                return between
        return None

    def text(self, tokens: Sequence[int], *, prompt: Sequence[int], tokenizer: Any) -> str:
        """A reply without special tokens, but with the marks of its thoughts, that which its prompt has opened too.

        Args:
            tokens: The reply.
            prompt: The tokens before it.
            tokenizer: Theirs.
        """
        marks = "\n".join(mark for pair in self.marks for mark in pair)  # one may be several tokens
        unmarked = sorted(token for token in special_tokens(tokenizer) if token not in marks)
        left_out = set(tokenizer.convert_tokens_to_ids(unmarked))
        text: str = tokenizer.decode([token for token in tokens if token not in left_out], skip_special_tokens=False)
        opened = self.opened(tokenizer.decode(prompt[-_TAIL:], skip_special_tokens=False))
        return f"{opened}{text}"

    @cached_property
    def _closed_prompts(self) -> list[str]:
        """Prompts that end in a thought that is closed."""
        return [text for text in self._rendered(_asked, add_generation_prompt=True) if not self.opened(text)]

    @cached_property
    def _answers(self) -> list[str]:
        """Answers as they stand in a conversation that goes on."""
        return [text for text in self._rendered(_answered, add_generation_prompt=False) if _SPOKEN in text]

    def _rendered(self, messages: Callable[[Any], list[dict[str, Any]]], **options: Any) -> Iterator[str]:
        for speaker in self.speakers:
            known = "\n".join(_templates(speaker.chat_template))
            switches = [switch for switch in _SWITCHES if all(name in known for name in switch)]
            # As a text first: a template that takes nothing else would write a list of parts as it is in Python.
            for content in (str, _parts):
                for switch in switches:
                    try:
                        text = speaker.apply_chat_template(messages(content), tokenize=False, **options, **switch)
                    except _UNRENDERED:
                        continue
                    if isinstance(text, str):
                        yield text


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _asked(content: Callable[[str], Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content("?")}]


def _answered(content: Callable[[str], Any]) -> list[dict[str, Any]]:
    thought = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), _THOUGHT)
    return [*_asked(content), {"role": "assistant", "content": content(_SPOKEN), **thought}]


def thinking_of(lm: Any, *, tags: Sequence[Sequence[str]] = ()) -> Thinking:
    """What a model of lmms-eval says of its thoughts.

    Args:
        lm: The model, with its `processor` or `tokenizer`.
        tags: Further marks, as lmms-eval's `--reasoning_tags` has them.
    """
    speakers = [getattr(lm, name, None) for name in ("processor", "_processor", "tokenizer", "_tokenizer")]
    speaking = {id(one): one for one in speakers if one is not None and getattr(one, "chat_template", None)}
    tokenizers = [one for one in speakers if one is not None and hasattr(one, "get_added_vocab")]
    known = "\n".join(
        [
            *(text for one in speaking.values() for text in _templates(one.chat_template)),
            *(token for one in tokenizers for token in one.get_added_vocab()),
        ]
    )
    given = [(opening, closing) for opening, closing in tags]
    return Thinking(
        marks=tuple(dict.fromkeys([*given, *marks_in(known), *THOUGHTS])), speakers=tuple(speaking.values())
    )


def special_tokens(tokenizer: Any) -> frozenset[str]:
    """The tokens that base models leave out of a reply: they decode it without special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return frozenset([*getattr(tokenizer, "all_special_tokens", ()), *(str(one) for one in added if one.special)])


def marks_in(text: str) -> list[Marks]:
    """The pairs of marks that a chat template or a vocabulary holds, both of them.

    >>> marks_in("{{- '<|START_THINKING|>' + thought + '<|END_THINKING|>' }}")
    [('<|START_THINKING|>', '<|END_THINKING|>')]
    """
    found = []
    for pattern, opening, closing in _FORMS:
        for word in dict.fromkeys(re.findall(pattern, text, flags=re.IGNORECASE)):
            pair = (opening.format(word), closing.format(word))
            if all(mark in text for mark in pair):
                found.append(pair)
    return found


def _templates(template: Any) -> list[str]:
    return [str(one) for one in template.values()] if isinstance(template, Mapping) else [str(template)]


@contextmanager
def watching_prompts(model: PreTrainedModel, decode: Callable[[Any], str]) -> Iterator[list[str]]:
    """Note the end of every prompt that `generate` gets, row by row.

    Args:
        model: What the base model runs.
        decode: Text of tokens, special ones too.
    """
    ends, generate = list[str](), model.generate

    def generate_and_note(*args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
        if isinstance(given, torch.Tensor):
            ends.extend(decode(row) for row in given[:, -_TAIL:].tolist())
        return generate(*args, **kwargs)

    with replaced(model, "generate", generate_and_note):
        yield ends
