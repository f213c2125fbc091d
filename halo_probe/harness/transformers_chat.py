"""`--model halo_transformers`: any image-text-to-text model of transformers, prompted by its own chat template.

lmms-eval has models of its own for the best-known families only, and its generic one (`huggingface`) does not work with
transformers 5: it loads no head.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from transformers import AutoModelForImageTextToText, AutoProcessor

_MOST_TOKENS = 1024  # where a task says nothing


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
        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            device_map = str(self.accelerator.device)
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.batch_size = int(batch_size)
        self.model = AutoModelForImageTextToText.from_pretrained(
            pretrained,
            revision=revision,
            device_map=device_map or device,
            dtype=dtype,
            attn_implementation=attn_implementation,
        ).eval()
        self.processor = AutoProcessor.from_pretrained(pretrained, revision=revision)
        self.tokenizer = self.processor.tokenizer
        self.config = self.model.config
        self.device = self.model.device

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer the requests, those with the same options together."""
        answers = []
        for _, group in groupby(requests, key=lambda request: repr(request.args[2])):
            alike = list(group)
            for first in range(0, len(alike), self.batch_size):
                answers += self._answer(alike[first : first + self.batch_size])
        return answers

    def _answer(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        inputs = self.processor.apply_chat_template(
            [self._messages(request) for request in requests],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self.device, self.model.dtype)
        options = requests[0].args[2]
        with torch.inference_mode():
            output = self.model.generate(**inputs, **_generation(options))
        replies = output[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(replies, skip_special_tokens=True)
        return [
            GenerationResult(
                text=_until(text, options.get("until")), token_counts=TokenCounts(output_tokens=len(reply))
            )
            for text, reply in zip(texts, replies, strict=True)
        ]

    def _messages(self, request: Instance) -> list[dict[str, Any]]:
        _, to_messages, _, document, task, split = request.args
        messages = to_messages(self.task_dict[task][split][document])
        return ChatMessages(messages=messages).to_hf_messages()  # type: ignore[no-any-return]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not there: the probe is about generation."""
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not there: rounds need a model of lmms-eval that has them."""
        raise NotImplementedError


def _generation(options: dict[str, Any]) -> dict[str, Any]:
    """A task's options as those of `generate`: greedy unless it names a temperature."""
    sampled = (options.get("temperature") or 0) > 0
    return {
        "max_new_tokens": options.get("max_new_tokens", _MOST_TOKENS),
        "num_beams": options.get("num_beams", 1),
        "do_sample": sampled,
        "temperature": options["temperature"] if sampled else None,
        "top_p": options.get("top_p") if sampled else None,
    }


def _until(text: str, stops: str | Sequence[str] | None) -> str:
    for stop in [stops] if isinstance(stops, str) else stops or []:
        if stop:
            text = text.partition(stop)[0]
    return text
