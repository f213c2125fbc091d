"""The errors of the probe: each says where, what, and how to fix it."""


class HaloError(Exception):
    """Base of every error that the probe raises on purpose."""


class InvalidAttentionError(HaloError, ValueError):
    """An attention map that no metric is defined on: negative, not finite, all zero or in float16."""


class UnsupportedModelError(HaloError, TypeError):
    """A model whose attention cannot be captured; the message says why."""


class CaptureError(HaloError, RuntimeError):
    """A capture that is missing or does not fit what was generated."""


class NoImageTokensError(CaptureError):
    """An input without image tokens: there is no attention to an image to record."""


class UsageError(HaloError, ValueError):
    """An argument or a folder that the user has to change."""


class NothingToDrawError(HaloError, LookupError):
    """Runs that hold too little for a figure; the message says what is missing and what would bring it."""


def first_line(error: BaseException | str) -> str:
    """What an error of a library, or its text, says, without the lines that may follow; empty where it says nothing."""
    return str(error).strip().partition("\n")[0]
