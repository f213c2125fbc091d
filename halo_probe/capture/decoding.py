"""How `generate` was asked to decode: what can be followed, and which row of the batch each token came from."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig, StaticCache

from halo_probe.capture.pass_inputs import cache_of
from halo_probe.errors import CaptureError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SINGLE = ("greedy_search", "sample")
_BEAMS = ("beam_search", "beam_sample")
_FOLLOWED = (*_SINGLE, *_BEAMS, "assisted_generation")
_UNCOMPILED_CACHES = (None, "dynamic", "dynamic_full", "hybrid", "offloaded", "quantized")

_MOST_TOKENS = 20
"""Where nothing says it, in transformers."""
_PLAIN = (bool, int, float, str, list)

GREEDY = {
    "do_sample": False,
    **dict.fromkeys(("temperature", "top_p", "top_k", "typical_p", "min_p"), None),
    "num_beams": 1,
    "num_return_sequences": 1,
    **dict.fromkeys(("assistant_model", "prompt_lookup_num_tokens", "streamer", "stopping_criteria"), None),
    **dict.fromkeys(("stop_strings", "max_time", "min_new_tokens"), None),
}
"""Options of `generate` that take the place of any others, for a call `without_cache`."""


_SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    "renormalize_logits",
)
"""Options that mean something only where tokens are drawn."""
_NEUTRAL: Mapping[str, Any] = {
    **dict.fromkeys(("do_sample", "early_stopping", "renormalize_logits", "remove_invalid_values"), False),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), 1),
    **dict.fromkeys(("temperature", "top_p", "typical_p", "length_penalty"), 1.0),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length"), 0),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "diversity_penalty"), 0.0),
    "use_cache": True,
}
"""Values that leave everything as it would be without the option."""
_KEPT = {
    *("return_dict_in_generate", *GenerationConfig.extra_output_flags),  # what is returned beside the reply
    *("transformers_version", "compile_config", "disable_compile", "is_assistant"),
    *("sequence_bias", "bad_words_ids", "force_words_ids", "suppress_tokens", "begin_suppress_tokens"),  # ids of tokens
}
"""Options that change no reply, or that only a model's own vocabulary gives a meaning."""


def is_neutral(name: str, value: Any) -> bool:
    """Whether an option of `generate` asks for nothing."""
    return value is None or (name in _NEUTRAL and value == _NEUTRAL[name])


class Decoding:
    """The decoding of one `generate` call.

    Args:
        model: The model.
        given: The `generation_config` argument.
        arguments: The keyword arguments.

    Raises:
        CaptureError: If it cannot be followed.
    """

    def __init__(self, model: "PreTrainedModel", given: GenerationConfig | None, arguments: Mapping[str, Any]) -> None:
        self._config = _effective_config(model, given, arguments)
        mode = self._config.get_generation_mode(arguments.get("assistant_model"))
        self._mode = str(getattr(mode, "value", mode))
        self._beams = self._mode in _BEAMS
        self._stops = bool(arguments.get("stopping_criteria") or self._config.stop_strings)
        self._check(model, arguments)

    @property
    def options(self) -> dict[str, Any]:
        """The options in force that are not neutral and decide on the reply, ready for JSON; ids of tokens left out."""
        found = {
            name: value
            for name, value in vars(self._config).items()
            if not name.startswith("_") and not name.endswith("_token_id") and name not in _KEPT
        }
        if found.get("max_new_tokens") is not None:
            found["max_length"] = None  # which the other overrules
        if not found.get("do_sample"):
            found |= dict.fromkeys(_SAMPLING)
        kept = {name: value for name, value in found.items() if not is_neutral(name, value)}
        return {name: value if isinstance(value, _PLAIN) else str(value) for name, value in sorted(kept.items())}

    @property
    def copies(self) -> int:
        """Rows of the batch that the model runs for each prompt."""
        return int((self._config.num_beams if self._beams else self._config.num_return_sequences) or 1)

    @property
    def keeps_rows(self) -> bool:
        """Whether each row of the batch is one sequence from its beginning to its end, one step after the other."""
        return self._mode in _SINGLE

    @property
    def keeps_cache(self) -> bool:
        """Whether a step reads the keys and values that the steps before it left."""
        return self._config.use_cache is not False

    @property
    def keeps_keys(self) -> bool:
        """Whether the keys of a step are still on the device, as they were, at later steps."""
        return self.keeps_rows and not str(self._config.cache_implementation).startswith(("offloaded", "quantized"))

    @property
    def needs_dict(self) -> bool:
        """Whether the sequences alone do not tell which row each token came from."""
        return self._beams

    @property
    def returns_dict(self) -> bool:
        """Whether the caller asked for more than the sequences."""
        return bool(self._config.return_dict_in_generate)

    @property
    def guesses(self) -> bool:
        """Whether a pass may hold tokens that are not part of the reply yet."""
        return self._mode == "assisted_generation"

    def attention_mask(self, input_ids: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor | None:
        """The attention mask: that which was given, or the one that `generate` itself infers from the padding.

        Args:
            input_ids: B × P.
            given: B × P or None.

        Returns:
            B × P, bool; None where every token is attended to.
        """
        pad: int | None = self._config.pad_token_id
        if given is not None or pad is None or pad in self._ends or not bool((input_ids == pad).any()):
            return None if given is None else given.bool()
        return input_ids != pad

    def beams(self, output: Any) -> list[torch.Tensor]:
        """What `sources` needs of what `generate` returned, where it is."""
        return [output.beam_indices] if self._beams else []

    def sources(self, beams: Sequence[torch.Tensor], *, shape: tuple[int, ...]) -> np.ndarray:
        """The row of the batch that each token was generated in.

        Args:
            beams: That of `beams`, on the host.
            shape: S and T, the numbers of returned sequences and of generated tokens.

        Returns:
            S × T, int64.
        """
        if beams:
            rows: np.ndarray = np.maximum(beams[0].numpy(), 0)  # -1 after the end of a sequence
            return rows
        return np.repeat(np.arange(shape[0])[:, None], shape[1], axis=1)

    def replies(self, tokens: np.ndarray) -> list[tuple[np.ndarray, bool]]:
        """Cut each sequence after its first end-of-sequence token, or before the padding that follows another stop.

        Padding follows where a stop string or a stopping criterion ended a sequence and others went on; elsewhere the
        pad token is a token like others.

        Args:
            tokens: S × T, int64.

        Returns:
            The tokens of each, and whether the last ends the sequence.
        """
        pad = self._config.pad_token_id if self._stops and len(tokens) > 1 else None
        replies = []
        for row in tokens:
            stops = np.flatnonzero(np.isin(row, self._ends))
            if stops.size:
                replies.append((row[: stops[0] + 1], True))
                continue
            content = np.flatnonzero(row != pad) if pad is not None else np.arange(row.size)
            replies.append((row[: content[-1] + 1 if content.size else 0], False))
        return replies

    def prompt_of(self, sequence: int) -> int:
        """Which prompt a returned sequence answers."""
        return sequence // int(self._config.num_return_sequences or 1)

    @property
    def _ends(self) -> np.ndarray:
        """The end-of-sequence tokens."""
        eos = self._config.eos_token_id
        return np.atleast_1d([] if eos is None else eos)

    def _check(self, model: "PreTrainedModel", arguments: Mapping[str, Any]) -> None:
        config = self._config
        custom = arguments.get("custom_generate") is not None
        if custom or self._mode not in _FOLLOWED or getattr(config, "assistant_early_exit", None):
            name = "custom generation" if custom else self._mode.replace("_", " ")
            raise CaptureError(
                f"Recording {name} is not supported: use greedy search, sampling, beam search or assisted generation "
                "with a prompt lookup or another model."
            )
        assistant = arguments.get("assistant_model")
        if assistant is not None and model.get_decoder() in {*assistant.modules()}:
            raise CaptureError("The assistant has the layers of the recorded model itself: load it a second time.")
        if _is_compiled(model):
            raise CaptureError("A compiled model cannot be recorded: record it without torch.compile.")
        if self._compiles(model, arguments) and not config.disable_compile:
            raise CaptureError("A compiled decode step cannot be recorded: pass disable_compile=True to generate().")

    def _compiles(self, model: "PreTrainedModel", arguments: Mapping[str, Any]) -> bool:
        static = self._config.cache_implementation not in _UNCOMPILED_CACHES or isinstance(
            cache_of((), arguments), StaticCache
        )
        return self._config.compile_config is not None or (static and model.device.type != "cpu")


def most_tokens(
    model: "PreTrainedModel", positional: Sequence[Any], arguments: Mapping[str, Any], *, prompt: int
) -> int:
    """How many tokens a reply of a `generate` call may have.

    Args:
        model: The model.
        positional: The arguments of the call.
        arguments: Its keyword arguments.
        prompt: The length of the prompt.
    """
    config = _effective_config(model, given_config(positional, arguments), arguments)
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    return _MOST_TOKENS if config.max_length is None else max(int(config.max_length) - prompt, 0)


def given_config(positional: Sequence[Any], arguments: Mapping[str, Any]) -> GenerationConfig | None:
    """The configuration in the arguments of a `generate` call; None where there is none."""
    configs = (*positional[1:2], arguments.get("generation_config"))
    return next((one for one in configs if isinstance(one, GenerationConfig)), None)


def _effective_config(
    model: "PreTrainedModel", given: GenerationConfig | None, arguments: Mapping[str, Any]
) -> GenerationConfig:
    """Merge the options as `generate` does: arguments, then the given configuration, then the model's own."""
    config = copy.deepcopy(given or GenerationConfig())
    config.update(**model.generation_config.to_dict(), defaults_only=True, allow_custom_entries=True)
    config.update(**copy.copy(dict(arguments)))
    return config


def _is_compiled(model: "PreTrainedModel") -> bool:
    """Whether torch.compile holds the decoder or what is around or inside it; a compiled vision tower does no harm."""
    decoder = model.get_decoder()
    return any(decoder in module.modules() for module in model.modules() if _has_compiled_call(module)) or any(
        _has_compiled_call(module) for module in decoder.modules()
    )


def _has_compiled_call(module: Any) -> bool:
    own = vars(module)
    return (
        "_orig_mod" in own.get("_modules", ())
        or own.get("_compiled_call_impl") is not None
        or hasattr(own.get("forward"), "_torchdynamo_orig_callable")
    )
