"""Generation options as lmms-eval hands them over: those of a task, and those of `--gen_kwargs`.

lmms-eval reads a value of its command line as a flag, a number or else as text, whatever the option is. Here each
option has the values of its type, or is refused in one line.
"""

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from halo_probe.errors import UsageError

_WHOLE = (
    *("max_new_tokens", "max_gen_toks", "max_length", "min_new_tokens", "min_length", "num_beams", "num_beam_groups"),
    *("num_return_sequences", "top_k", "no_repeat_ngram_size", "prompt_lookup_num_tokens", "seed"),
)
_NUMBERS = (
    *("temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty"),
    *("encoder_repetition_penalty", "length_penalty", "diversity_penalty", "guidance_scale", "max_time"),
    "penalty_alpha",
)
_FLAGS = ("do_sample", "use_cache", "renormalize_logits", "return_dict_in_generate", "disable_compile")
_TEXTS = ("until", "stop_strings", "stop_sequences")
_QUOTES = ('"', "'")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_NOTHING = ("None", "none", "null")


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options of a task.

    Raises:
        UsageError: If one has a value that is not of its type.

    >>> read_options({"until": '["END", "STOP"]', "temperature": "None", "max_new_tokens": 16.0})
    {'until': ['END', 'STOP'], 'temperature': None, 'max_new_tokens': 16}
    """
    return {name: _read(name, value) for name, value in given.items()}


def most_new_tokens(options: Mapping[str, Any], *, prompt: int | None = None) -> int | None:
    """How many tokens a reply may have by the options of a task; None where they do not say it.

    Args:
        options: From `read_options`.
        prompt: The length of the prompt, which `max_length` counts too; None leaves that to `generate`.
    """
    for name in ("max_new_tokens", "max_gen_toks"):
        if (most := options.get(name)) is not None:
            return int(most)
    longest = options.get("max_length")
    return None if longest is None or prompt is None else max(int(longest) - prompt, 0)


def stops(options: Mapping[str, Any]) -> Sequence[str]:
    """The strings before which a reply ends."""
    until = options.get("until") or ()
    return (until,) if isinstance(until, str) else tuple(until)


def _read(name: str, given: Any) -> Any:
    value = _literal(name, given) if isinstance(given, str) else given
    kinds: Mapping[tuple[str, ...], tuple[Callable[[Any], bool], str]] = {
        _WHOLE: (_is_whole, f"a whole number, such as {name}=16"),
        _NUMBERS: (_is_number, f"a number, such as {name}=0.7"),
        _FLAGS: (_is_flag, f"{name}=True or {name}=False"),
        _TEXTS: (_is_texts, f'text, or several in brackets and quotes, such as {name}=["END","7"]'),
    }
    for names, (fits, form) in kinds.items():
        if name in names and value is not None:
            if not fits(value):
                raise UsageError(f"generation option {name}={given}: use {form}.")
            return int(value) if names is _WHOLE else bool(value) if names is _FLAGS else value
    return value


def _literal(name: str, text: str) -> Any:
    """What text that is written as a list, a mapping, nothing or with quotes means; other text as it is."""
    bare = text.strip()
    if bare in _NOTHING:
        return None
    first, last = bare[:1], bare[-1:]
    if first not in {*_QUOTES, *_BRACKETS} or last != _BRACKETS.get(first, first) or len(bare) == 1:
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(bare)
        except (ValueError, SyntaxError):
            continue
        return list(value) if isinstance(value, tuple) else value
    raise UsageError(
        f'generation option {name}={text}: cannot be read; put each text of a list in quotes, such as {name}=["END"].'
    )


def _is_whole(value: Any) -> bool:
    return _is_number(value) and float(value).is_integer()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (_is_number(value) and value in {0, 1})


def _is_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
