"""A release: the files that a folder of sets becomes in a Hub repository."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset_builder.build import build_set
from dataset_builder.card import PublishedSet, card, eval_yaml, picture_path
from dataset_builder.errors import DatasetError, DatasetUsageError
from dataset_builder.load import read_set
from dataset_builder.manifest import MANIFEST_NAME, Manifest, read_manifests
from dataset_builder.rows import IMAGE
from dataset_builder.sets import get_set
from dataset_builder.shards import checked_batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Release:
    """What is published together.

    Attributes:
        files: Path or content of each file, by its path in the repository.
        manifests: Manifest of each set, by name.
        title: What the commit says; the names of the sets where empty.
    """

    files: Mapping[str, Path | bytes]
    manifests: Mapping[str, Manifest]
    title: str = ""


def make_release(folder: Path, names: Sequence[str], *, repo_id: str, progress: bool = False) -> Release:
    """Build the sets that a folder does not hold yet, check all of them, and describe them for the Hub.

    Args:
        folder: The folder of the sets; made where it is missing.
        names: The sets to publish, at least one, in the order to show them; a repeated one counts once.
        repo_id: `ORG/NAME` of the repository, for the card.
        progress: Whether to show a bar for each set that is built, on stderr.

    Raises:
        DatasetUsageError: If a name is of no set, or the folder holds a set that is not to be published.
        DatasetMismatchError: If a set in the folder is not what its manifest says.
        DatasetSourceError: If the folder cannot be read or written.
    """
    names = list(dict.fromkeys(names))
    present = read_manifests(folder) if (folder / MANIFEST_NAME).exists() else {}
    if extra := present.keys() - set(names):
        raise DatasetUsageError(
            f"{folder}: holds {', '.join(sorted(extra))} too; name it in --sets or use another folder"
        )
    missing = [get_set(name) for name in names if name not in present]
    for spec in missing:
        build_set(spec, folder, progress=progress)
    manifests = read_manifests(folder)
    files: dict[str, Path | bytes] = {MANIFEST_NAME: folder / MANIFEST_NAME}
    published = []
    for name in names:
        described, picture = _read_set(folder, manifests[name])
        published.append(described)
        files[picture_path(name)] = picture
        files.update({shard.file: folder / shard.file for shard in manifests[name].shards})
    files["README.md"] = card(published, repo_id=repo_id, generator=manifests[names[0]].generator).encode()
    files["eval.yaml"] = eval_yaml(published, repo_id=repo_id).encode()
    return Release(files, manifests)


def holds_same_rows(release: Release, path: str, other: Path) -> bool:
    """Whether a file holds the rows of a shard of the release, in whatever bytes its Parquet writer put them.

    Args:
        release: The release.
        path: Where in the repository the shard lies.
        other: The file.
    """
    for manifest in release.manifests.values():
        start = 0
        for shard in manifest.shards:
            if shard.file == path:
                return _rows_sha256(other, manifest, start=start) == shard.sha256
            start += shard.rows
    return False


def _rows_sha256(path: Path, manifest: Manifest, *, start: int) -> str | None:
    digest = hashlib.sha256()
    try:
        for _, lines in checked_batches(path, manifest.spec, start=start, generator=manifest.generator):
            digest.update(b"".join(lines))
    except DatasetError:
        return None
    return digest.hexdigest()


def _read_set(folder: Path, manifest: Manifest) -> tuple[PublishedSet, bytes]:
    """What the card says of a set, and the PNG file of its first row; checks every row on the way."""
    import pyarrow.compute as pc

    answers: list[str] = []
    picture = b""
    image_bytes = 0
    for batch in read_set(folder, manifest):
        images = batch.column(IMAGE).field("bytes")
        picture = picture or images[0].as_py()
        image_bytes += pc.sum(pc.binary_length(images)).as_py()
        answers += batch.column("answer").to_pylist()
    return PublishedSet(manifest.spec, image_bytes, answers, manifest.content_sha256), picture
