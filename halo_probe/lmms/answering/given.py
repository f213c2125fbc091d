"""What was asked for, beside what reached the model: an option without effect is told of, and does not count.

A base model follows what its own code reads. So the options that a task, `--gen_kwargs`, `--system_instruction` and
`--model_args` ask for are looked for in what `generate` was given.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from halo_probe.archive.generation import Generation
from halo_probe.capture.decoding import is_neutral
from halo_probe.capture.recorder import Target
from halo_probe.lmms.options import most_new_tokens, stops

SYSTEM = "system_instruction"
_LENGTHS = ("max_new_tokens", "max_gen_toks", "max_length")
_DECIDED = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("num_beams", "num_beam_groups", "repetition_penalty", "encoder_repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "min_length", "min_new_tokens", "early_stopping", "use_cache", "guidance_scale"),
    *("max_time", "stop_strings", "prompt_lookup_num_tokens", "diversity_penalty"),
)
"""Options of `generate` itself, and none but its own."""


def what_was_followed(  # noqa: PLR0913 - all that was asked for, and all that came of it
    generation: Generation,
    *,
    options: Mapping[str, Any],
    arguments: Mapping[str, Any],
    system_instruction: str | None,
    target: Target,
    prompt: str,
    written: str,
    reply: Any,
) -> dict[str, bool]:
    """Find which of the things that were asked for one answer reached the model.

    Args:
        generation: Of the answer, the first.
        options: The task's generation options, `--gen_kwargs` among them.
        arguments: The base model's own, of `--model_args`.
        system_instruction: `--system_instruction`.
        target: What is recorded.
        prompt: The text of the prompt, without its image tokens.
        written: The text of the generated tokens.
        reply: What the base model made of it.

    Returns:
        By name; without those that this answer says nothing of, such as `until` where none of its strings came up, and
        those that `generate` does not see.
    """
    given = generation.given
    assert given is not None
    found = _options_followed(options, given.options)
    found |= _arguments_followed(arguments, target, generation, given.options)
    if system_instruction:
        found[SYSTEM] = _squeezed(system_instruction) in _squeezed(prompt)
    if (ends := [end for end in stops(options) if end and end in written]) and isinstance(reply, str):
        found["until"] = not any(end in reply for end in ends)
    return found


def _options_followed(asked: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    most = most_new_tokens(asked)
    for name in _LENGTHS:
        if asked.get(name) is not None:
            told = asked[name] if most is None else most
            found[name] = asked[name] == told == given.get("max_length" if most is None else "max_new_tokens")
    for name in _DECIDED:
        value = asked.get(name)
        if name == "temperature" and value == 0:
            found[name] = not given.get("do_sample")
        elif name == "do_sample" and value is not None:
            # A temperature of 0 is greedy search, and is what sampling comes down to.
            found[name] = bool(value) == bool(given.get("do_sample")) or asked.get("temperature") == 0
        elif not is_neutral(name, value):
            found[name] = given.get(name) == value
    return found


def _arguments_followed(
    asked: Mapping[str, Any], target: Target, generation: Generation, given: Mapping[str, Any]
) -> dict[str, bool]:
    """Of the arguments that say what a model or a picture should be, where that can be seen."""
    found = {}
    if asked.get("attn_implementation") is not None:
        found["attn_implementation"] = asked["attn_implementation"] == target.kernel
    for name in ("dtype", "torch_dtype"):
        if asked.get(name) not in {None, "auto"}:
            wanted = str(asked[name]).removeprefix("torch.")
            found[name] = getattr(torch, wanted, wanted) == target.model.dtype
    if isinstance(asked.get("use_cache"), bool):
        found["use_cache"] = asked["use_cache"] == given.get("use_cache", True)
    pixels = _pixels(target, generation)
    if pixels and isinstance(asked.get("max_pixels"), int) and max(pixels) > asked["max_pixels"]:
        found["max_pixels"] = False
    if pixels and isinstance(asked.get("min_pixels"), int) and min(pixels) < asked["min_pixels"]:
        found["min_pixels"] = False
    return found


def _pixels(target: Target, generation: Generation) -> list[int]:
    """How many pixels each view has, where the configuration says how many an image token has."""
    vision = getattr(target.model.config, "vision_config", None)
    patch, merge = getattr(vision, "patch_size", None), getattr(vision, "spatial_merge_size", None)
    if not isinstance(patch, int) or not isinstance(merge, int):
        return []
    return [view.height * view.width * (patch * merge) ** 2 for view in generation.views]


def told(name: str, *, task: str, asked: Any, given: Mapping[str, Any]) -> str:
    """A line about something that had no effect."""
    if name == SYSTEM:
        why = "is not in the prompt that the model was given"
    elif name == "until":
        why = "stands in a reply, which was not cut before it"
    elif name in _DECIDED or name in _LENGTHS:
        shown = [f"{one}={value}" for one, value in given.items() if one in {*_DECIDED, *_LENGTHS}]
        why = f"did not reach generate, which ran with {', '.join(shown) or 'none of its own'}"
    else:
        why = "is not what the model was given"
    return f"halo-probe: {task}: {name}={asked!r} has no effect: it {why}. Results are what they would be without it."


def given_of(generations: Sequence[Generation]) -> list[dict[str, Any]]:
    """What the samples show of what each `generate` call was given, ready for JSON."""
    return [
        {
            "prompt": hashlib.sha256(one.given.prompt.astype("<i8").tobytes()).hexdigest(),
            "pictures": one.given.pictures,
            "options": dict(one.given.options),
        }
        for one in generations
        if one.given is not None
    ]


def summarize_given(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What reached the model in each task, of all documents together.

    Args:
        rows: One for each recorded answer: `task`, `doc_id`, `repeat`, `given` and `followed`.

    Returns:
        For each task `prompts` and `pictures`, hashes over those of all answers; `options`, those in force; and
        `without_effect`, the names of what was asked for and reached no answer.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    return {task: _summary(sorted(found, key=_place)) for task, found in sorted(by_task.items())}


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["doc_id"], row["repeat"]


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    followed = [item for row in rows for item in row["followed"].items()]
    names = dict.fromkeys(name for name, _ in followed)
    options = {json.dumps(one["options"], sort_keys=True): one["options"] for row in rows for one in row["given"]}
    return {
        "prompts": _hash_of(rows, "prompt"),
        "pictures": _hash_of(rows, "pictures"),
        "options": [options[one] for one in sorted(options)],
        "without_effect": sorted(name for name in names if not any(value for one, value in followed if one == name)),
    }


def _hash_of(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Over one field of every call; None where a call does not say it."""
    values = [[*_place(row), *(one[name] for one in row["given"])] for row in rows]
    if any(None in one for one in values):
        return None
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _squeezed(text: str) -> str:
    """Without blanks, which a template may change."""
    return "".join(text.split())
