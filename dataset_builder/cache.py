"""The user's cache of the sets of the study, each in a folder named by its content hash."""

import os
import tempfile
from pathlib import Path

from dataset_builder.build import build_set
from dataset_builder.errors import DatasetError, DatasetMismatchError, DatasetSourceError
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.sets import get_set


def cached_set(name: str) -> Path:
    """The folder of a set of the study in the user's cache; built there at first use.

    It is built under a temporary name and renamed, so that processes that start at once each see a whole set.

    Args:
        name: Name of the set.

    Raises:
        DatasetUsageError: If there is no such set.
        DatasetMismatchError: If this machine builds other content than the published.
        DatasetSourceError: If the cache cannot be written.
    """
    spec = get_set(name)
    folder = _cache_root() / CONTENT_SHA256[name]
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
            built = Path(temporary, "set")
            manifest = build_set(spec, built, progress=True)
            if manifest.content_sha256 != CONTENT_SHA256[name]:
                raise DatasetMismatchError(
                    f"{name}: this machine builds content {manifest.content_sha256} where {CONTENT_SHA256[name]} is "
                    "published; report it with the versions of Python and numpy"
                )
            _rename(built, folder)
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetSourceError(
            f"{folder.parent}: the cache cannot be written ({error.strerror or error}); "
            "set XDG_CACHE_HOME to a folder that can, or HALO_DATASET to a folder with the set"
        ) from error
    return folder


def _cache_root() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "halo-probe", "datasets")


def _rename(built: Path, folder: Path) -> None:
    try:
        built.rename(folder)
    except OSError:
        # Another process was faster; a folder of this name has this content.
        if not folder.exists():
            raise
