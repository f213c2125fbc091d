"""`--model halo_transformers`: any image-text-to-text model of transformers, prompted by its own chat template.

lmms-eval has models of its own for the best-known families only, and its generic one (`huggingface`) does not work with
transformers 5: it loads no head.
"""

import inspect
from collections.abc import Mapping, Sequence
from itertools import groupby
from os import PathLike
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from loguru import logger
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from halo_probe.errors import UsageError
from halo_probe.lmms.arguments import batch_size as checked_batch_size
from halo_probe.lmms.arguments import given_arguments
from halo_probe.lmms.boundary import ending_loudly
from halo_probe.lmms.options import most_new_tokens, stops
from halo_probe.lmms.requests import context_of, given_options, messages_of, options_of
from halo_probe.lmms.thoughts import thinking_of

_MOST_TOKENS = 1024  # where a task says nothing
_OWN = ("until", "max_gen_toks")
"""Options of lmms-eval that are followed, and that have other names in transformers, or none."""
_IGNORED = ("image_aspect_ratio", "visual_cot", "seed", "stop_sequences", "skip_special_tokens")
"""Options that tasks of lmms-eval give for other models: they are told of, and have no effect."""
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Options that mean something only where tokens are drawn; transformers warns of them elsewhere."""
_REAL = ("temperature", "repetition_penalty", "encoder_repetition_penalty")
"""Options that transformers refuses as whole numbers, which the command line makes of 2."""
_NEUTRAL = {
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    **dict.fromkeys(GenerationConfig.extra_output_flags, False),
    "penalty_alpha": 0,
}
"""Options that cannot have another value: a document has one reply, as text, and transformers has no contrastive search
any more."""


class TransformersChat(lmms):
    """A checkpoint that `AutoModelForImageTextToText` and `AutoProcessor` load.

    Args:
        pretrained: A folder, or a name on the Hub.
        revision: Of the checkpoint on the Hub.
        device: Where the model runs if `device_map` does not say it.
        device_map: As in `from_pretrained`.
        dtype: As in `from_pretrained`.
        attn_implementation: As in `from_pretrained`.
        batch_size: How many documents are answered together, padded on the left.
    """

    is_simple = False

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str | Mapping[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "TransformersChat":
        """Create the model from `pretrained=PATH[,…]`, read as `--model halo` reads its own."""
        with ending_loudly():
            given = given_arguments(arg_string)
            settings = {name: one for name, one in (additional_config or {}).items() if one is not None}
            _check_names(given, settings, own=tuple(inspect.signature(cls).parameters))
        return cls(**given, **settings)

    def __init__(  # noqa: PLR0913 - the arguments of lmms-eval's other models
        self,
        *,
        pretrained: str,
        revision: str = "main",
        device: str = "cuda",
        device_map: str = "",
        dtype: str = "auto",
        attn_implementation: str | None = None,
        batch_size: int | str = 1,
    ) -> None:
        super().__init__()
        with ending_loudly():
            pretrained, revision = _text("pretrained", pretrained), _text("revision", revision)
            self.batch_size = checked_batch_size(batch_size)
        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            device_map = str(self.accelerator.device)
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.model = AutoModelForImageTextToText.from_pretrained(
            pretrained,
            revision=revision,
            device_map=device_map or device,
            dtype=dtype,
            attn_implementation=attn_implementation,
        ).eval()
        self.processor = AutoProcessor.from_pretrained(pretrained, revision=revision)
        self.tokenizer = self.processor.tokenizer
        self.thinking = thinking_of(self)
        self.config = self.model.config
        self.device = self.model.device
        self._told: set[str] = set()

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer the requests, those with the same options together.

        Raises:
            UsageError: If their options hold one that cannot be followed.
        """
        groups = [list(group) for _, group in groupby(requests, key=lambda request: repr(given_options(request)))]
        with ending_loudly():
            options = [options_of(group[0]) for group in groups]
            generations = [_generation(one) for one in options]
        self._tell_ignored({name for one in options for name in one if name in _IGNORED})
        answers = []
        for group, asked, generation in zip(groups, options, generations, strict=True):
            for first in range(0, len(group), self.batch_size):
                answers += self._answer(group[first : first + self.batch_size], generation, ends=stops(asked))
        return answers

    def _tell_ignored(self, names: set[str]) -> None:
        """Warn of options without effect, once each."""
        if new := names - self._told:
            self._told |= new
            logger.warning(
                f"halo_transformers does not follow the generation option(s) {', '.join(sorted(new))}: replies are "
                "what they would be without."
            )

    def _answer(
        self, requests: Sequence[Instance], generation: Mapping[str, Any], *, ends: Sequence[str]
    ) -> list[GenerationResult]:
        inputs = self.processor.apply_chat_template(
            [self._messages(request) for request in requests],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self.device, self.model.dtype)
        with torch.inference_mode():
            output = self.model.generate(**inputs, **generation, tokenizer=self.tokenizer)
        prompts = inputs["input_ids"]
        replies = output[:, prompts.shape[1] :]
        texts = [
            self.thinking.text(reply.tolist(), prompt=prompt.tolist(), tokenizer=self.tokenizer)
            for reply, prompt in zip(replies, prompts, strict=True)
        ]
        return [
            GenerationResult(text=_until(text, ends), token_counts=TokenCounts(output_tokens=len(reply)))
            for text, reply in zip(texts, replies, strict=True)
        ]

    def _messages(self, request: Instance) -> list[dict[str, Any]]:
        messages = _with_context(messages_of(self, request), context_of(request))
        return ChatMessages(messages=messages).to_hf_messages()  # type: ignore[no-any-return]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not there: the probe is about generation."""
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not there: rounds need a model of lmms-eval that has them."""
        raise NotImplementedError


def _check_names(given: Mapping[str, Any], settings: Mapping[str, Any], *, own: Sequence[str]) -> None:
    """Refuse arguments that the model does not have, and those that are given twice.

    Args:
        given: What `--model_args` says.
        settings: What lmms-eval's own options say.
        own: The names of the model's arguments.

    Raises:
        UsageError: If a name is unknown, given in both places, or `pretrained` is missing.
    """
    if "pretrained" not in given:
        raise UsageError("--model_args: halo_transformers needs a model; write pretrained=PATH.")
    for name, value in {**settings, **given}.items():
        if name not in own:
            raise UsageError(
                f"{name}={value}: halo_transformers takes {', '.join(own)}. A value with a "
                "comma before a word and = goes in quotes: pretrained='/data/a,b=c'."
            )
        if name in given and name in settings:
            raise UsageError(f"{name}={value}: leave it out of --model_args; --{name} says {settings[name]}.")


def _text(name: str, given: Any) -> str:
    """A name as text: of one that is all digits lmms-eval makes a number, which may begin with other digits."""
    if not isinstance(given, str | PathLike):
        raise UsageError(f"{name}={given}: lmms-eval reads this as a number or a flag; write {name}='\"{given}\"'.")
    return str(given).strip("\"'")


def _generation(options: Mapping[str, Any]) -> dict[str, Any]:
    """A task's options as those of `generate`; what they leave open is the checkpoint's own.

    Tokens are drawn where `do_sample` says so; where it is left out, if the temperature is above 0. A temperature of 0
    is greedy search in any case. Beams and `top_p` are off unless given, as in lmms-eval's own models, and a reply of
    which no length is given ends after 1024 tokens.

    Raises:
        UsageError: If an option is neither known to transformers' `GenerationConfig` nor one that lmms-eval's tasks
            give, or has a value that it cannot have here.
    """
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    given = {name: value for name, value in options.items() if name not in {*_OWN, *_IGNORED}}
    where = "leave it out of --gen_kwargs and of the task's generation_kwargs"
    if unknown := sorted(given.keys() - known):
        raise UsageError(
            f"generation option {unknown[0]}={given[unknown[0]]}: transformers' GenerationConfig has none of this "
            f"name; {where}, or correct its name."
        )
    for name, neutral in _NEUTRAL.items():
        if given.get(name) and given[name] != neutral:
            raise UsageError(f"generation option {name}={given[name]}: only {name}={neutral} works here; {where}.")
    do_sample, temperature = given.get("do_sample"), given.get("temperature")
    sampled = (temperature or 0) > 0 if do_sample is None else do_sample and temperature != 0
    most = most_new_tokens(options)
    if most is None and given.get("max_length") is None:
        most = _MOST_TOKENS
    generation = {
        "num_beams": 1,
        "top_p": None,
        **given,
        "max_new_tokens": most,
        "do_sample": sampled,
        **{name: float(given[name]) for name in _REAL if isinstance(given.get(name), int)},
    }
    if not sampled:
        generation |= dict.fromkeys(known.intersection(_SAMPLING))
    return generation


def _with_context(messages: Sequence[Mapping[str, Any]], context: Any) -> list[Mapping[str, Any]]:
    """A chat, after what lmms-eval puts before its question: `--system_instruction`, and the task's own description.

    lmms-eval gives them to models as the beginning of a text that ends in the question (`context`), and leaves them out
    of the chat. A chat that words the question otherwise does not tell them apart from it: there they are left out.
    """
    question = "".join(part["text"] for part in messages[-1]["content"] if part["type"] == "text")
    if not isinstance(context, str) or not question or not context.endswith(question) or context == question:
        return list(messages)
    said = {"type": "text", "text": context.removesuffix(question)}
    if messages[0]["role"] == "system":
        first, *rest = messages
        return [{**first, "content": [said, *first["content"]]}, *rest]
    return [{"role": "system", "content": [said]}, *messages]


def _until(text: str, ends: Sequence[str]) -> str:
    for end in ends:
        if end:
            text = text.partition(end)[0]
    return text
