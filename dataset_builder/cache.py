"""The user's cache of the sets of the study, each in a folder named by its content hash."""

import os
from pathlib import Path

from dataset_builder.build import build_set
from dataset_builder.errors import DatasetError, DatasetMismatchError, DatasetSourceError
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.sets import SetSpec, get_set


def cached_set(name: str) -> Path:
    """The folder of a set of the study in the user's cache; built there at first use.

    It is built under a fixed name and renamed when whole: of processes that start at once one builds and the others
    wait, and a build that was stopped goes on where it was.

    Args:
        name: Name of the set.

    Raises:
        DatasetUsageError: If there is no such set.
        DatasetMismatchError: If this machine builds other content than the published.
        DatasetSourceError: If the cache cannot be written.
    """
    from filelock import FileLock

    spec = get_set(name)
    folder = _cache_root() / CONTENT_SHA256[name]
    if folder.exists():
        return folder
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not folder.exists():
                _build_as(folder, spec)
            # Whoever still waits for it, or makes it anew, finds the folder.
            lock.unlink(missing_ok=True)
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


def _build_as(folder: Path, spec: SetSpec) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    manifest = build_set(spec, partial, progress=True)
    if manifest.content_sha256 != folder.name:
        raise DatasetMismatchError(
            f"{spec.name}: this machine builds content {manifest.content_sha256} where {folder.name} is published; "
            f"report it with the versions of Python and numpy, and remove {partial}"
        )
    partial.rename(folder)
