"""Whether there is a model by a name: no model stack is imported to find out."""

from pathlib import Path

from huggingface_hub import model_info, try_to_load_from_cache
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from halo_probe.errors import UsageError, first_line

_SECONDS = 10  # to wait for the Hub


def require_found(model: str) -> None:
    """Ask the Hub once: transformers asks it for file after file, each time until it gives up waiting.

    Raises:
        UsageError: If the model is no folder, no file of it is in the cache, and the Hub does not have it, or is not
            there.
    """
    if Path(model).is_dir() or isinstance(try_to_load_from_cache(model, "config.json"), str):
        return
    try:
        model_info(model, timeout=_SECONDS)
    except (OSError, ValueError, HTTPError) as error:
        reason = first_line(error).rstrip(".")
        raise UsageError(
            f"{model}: cannot be loaded: it is no folder, and the Hub does not give it ({reason}). Give a folder with "
            "config.json and weights, or the name of a model on the Hub."
        ) from error
