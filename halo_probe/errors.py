"""The errors of the probe: each says where, what, and how to fix it."""

import errno


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


_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room: the quota is used up",
    errno.EFBIG: "make room: files of this size are not allowed here",
    errno.ENOENT: "the folder is gone: make it again",
    errno.ENOTDIR: "a file is in the place of a folder: move it away",
    errno.EISDIR: "a folder is in the place of the file: move it away",
    errno.EACCES: "you may not write there: change its permissions or choose another folder",
    errno.EPERM: "you may not write there: change its permissions or choose another folder",
    errno.EROFS: "the disk can only be read: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


def remedy(error: OSError) -> str:
    """What to do about an error of the disk or its folders."""
    return _REMEDIES.get(error.errno or 0, "look at the disk and the folder")


def first_line(error: BaseException | str) -> str:
    """What an error of a library, or its text, says, without the lines that may follow; empty where it says nothing."""
    return str(error).strip().partition("\n")[0]
