"""The errors of the builder: each says where, what, and how to fix it, in one line."""


class DatasetError(Exception):
    """Base of every error that the builder raises on purpose."""


class DatasetUsageError(DatasetError, ValueError):
    """A name or a parameter that the user has to change."""


class PlacementError(DatasetError, ValueError):
    """More dots than the layout holds; the message names the largest count that fits."""


class DatasetSourceError(DatasetError, OSError):
    """A folder, a file or a repository that is missing, or cannot be read or written."""


class DatasetMismatchError(DatasetError, ValueError):
    """Data that is not what its manifest, or the caller, says it is."""
