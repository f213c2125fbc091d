"""Where sets come from: a folder, or a dataset repository on the Hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import DatasetSourceError
from dataset_builder.hub_errors import message_of
from dataset_builder.manifest import MANIFEST_NAME

_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def find_source(source: str, *, names: Sequence[str] = ("*",)) -> Path:
    """The folder of a source, downloaded where it is a repository.

    Args:
        source: A folder, or `ORG/NAME` or `ORG/NAME@REVISION`. What names a folder that exists is that folder.
        names: The sets to download; patterns are allowed.

    Returns:
        A folder with a MANIFEST.json and the shards of these sets.

    Raises:
        DatasetSourceError: If there is neither such a folder nor such a repository, or it cannot be reached.
    """
    try:
        folder = Path(source).expanduser()
        if folder.exists():
            return folder
    except (OSError, RuntimeError) as error:
        raise DatasetSourceError(
            f"{source}: cannot be looked for ({error}); name a folder that can be read, or ORG/NAME@REVISION"
        ) from error
    repository = _REPOSITORY.fullmatch(source)
    if repository is None:
        raise DatasetSourceError(
            f"{source}: there is no such folder, and it is not ORG/NAME@REVISION; "
            f"build a set there with: halo-dataset build NAME --out {source}"
        )
    return _download(repository["repository"], repository["revision"], names=names)


def _download(repository: str, revision: str | None, *, names: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    where = f"{repository}@{revision or 'main'}"
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[MANIFEST_NAME, *(f"data/{name}/*" for name in names)],
        )
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DatasetSourceError(
            f"{where}: there is no such folder, and the Hub gives no such dataset ({type(error).__name__}: "
            f"{message_of(error)}); "
            "check name, revision, login and connection"
        ) from error
    return Path(folder)
