"""Load a set, from the user's cache, a folder or the Hub, and check every row on the way."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder.cache import cached_set
from dataset_builder.errors import DatasetMismatchError, DatasetSourceError
from dataset_builder.manifest import Manifest, read_manifests
from dataset_builder.rows import features_of
from dataset_builder.shards import checked_batches
from dataset_builder.sources import find_source

if TYPE_CHECKING:
    import datasets

SOURCE_VARIABLE = "HALO_DATASET"

_DESCRIPTION = re.compile(r"content sha256 ([0-9a-f]{64})")


def load_set(name: str, *, source: str | None = None, expected_sha256: str | None = None) -> "datasets.Dataset":
    """Load a set and check its row count, the hash of every image, and the content hash against its manifest.

    Files are read anew on every call: what `datasets` keeps of an earlier folder of the same name is never used.

    Args:
        name: Name of the set.
        source: A folder, or `ORG/NAME@REVISION` on the Hub. Where None, the one that the environment variable
            `HALO_DATASET` names, and else the user's cache, where the set is built at first use.
        expected_sha256: The content hash that the set must have. A set that `HALO_DATASET` names is checked against its
            own manifest alone, since that variable is there to put another set in its place.

    Returns:
        The rows, in memory; `content_sha256` of them gives the hash.

    Raises:
        DatasetUsageError: If no set has this name.
        DatasetSourceError: If the source is missing or cannot be read.
        DatasetMismatchError: If what is there is not what the manifest or the caller says; the message names the row
            or the shard.
    """
    if source is None and (replacement := os.environ.get(SOURCE_VARIABLE)):
        source, expected_sha256 = replacement, None
    if source is not None:
        return _load_folder(find_source(source, names=(name,)), name, expected_sha256=expected_sha256)
    folder = cached_set(name)
    try:
        return _load_folder(folder, name, expected_sha256=expected_sha256 or folder.name)
    except (DatasetSourceError, DatasetMismatchError) as error:
        raise type(error)(f"{error}; this is the cache: remove {folder} and run again") from error


def content_sha256(dataset: "datasets.Dataset") -> str | None:
    """The checked content hash of the whole set that these rows were loaded from; None for any other dataset."""
    described = _DESCRIPTION.search(dataset.info.description or "")
    return described and described[1]


def _find_manifest(folder: Path, name: str) -> Manifest:
    """The manifest of one set of a folder.

    Raises:
        DatasetSourceError: If the folder does not hold it; the message lists the sets that it does.
        DatasetMismatchError: If MANIFEST.json does not say what it has to.
    """
    manifests = read_manifests(folder)
    if name not in manifests:
        raise DatasetSourceError(
            f"{folder}: holds no set {name}, only {', '.join(manifests) or 'none at all'}; "
            f"build it there with: halo-dataset build {name} --out {folder}"
        )
    return manifests[name]


def read_set(folder: Path, manifest: Manifest) -> Iterator[Any]:
    """The rows of a set as record batches, in order, each checked before it is handed out.

    Args:
        folder: The folder of the set.
        manifest: Its manifest.

    Raises:
        DatasetSourceError: If a shard is missing or cannot be read.
        DatasetMismatchError: If a row is wrong, at once; if a shard or the whole set is, at its end.
    """
    content = hashlib.sha256()
    start = 0
    for shard in manifest.shards:
        path = folder / shard.file
        digest = hashlib.sha256()
        stop = start
        for batch, lines in checked_batches(path, manifest.spec, start=start, generator=manifest.generator):
            digest.update(b"".join(lines))
            content.update(b"".join(lines))
            stop += batch.num_rows
            yield batch
        if (stop - start, digest.hexdigest()) != (shard.rows, shard.sha256):
            raise DatasetMismatchError(
                f"{path}: holds {stop - start} rows of content {digest.hexdigest()} where the manifest says "
                f"{shard.rows} of {shard.sha256}; see which rows differ with: halo-dataset verify {folder}"
            )
        start = stop
    if (start, content.hexdigest()) != (manifest.n, manifest.content_sha256):
        raise DatasetMismatchError(
            f"{folder}: {manifest.name} has {start} rows of content {content.hexdigest()} where the manifest says "
            f"{manifest.n} of {manifest.content_sha256}; build or download the set again"
        )


def _load_folder(folder: Path, name: str, *, expected_sha256: str | None) -> "datasets.Dataset":
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    manifest = _find_manifest(folder, name)
    content = manifest.content_sha256
    if expected_sha256 not in (None, content):
        raise DatasetMismatchError(
            f"{folder}: {name} has content {content} where {expected_sha256} is expected; "
            "name another source, or expect the content of this one"
        )
    table = pa.Table.from_batches(read_set(folder, manifest))
    return datasets.Dataset(
        InMemoryTable(table),
        info=datasets.DatasetInfo(
            description=f"{name}, generator {manifest.generator}, seed {manifest.seed}, content sha256 {content}",
            features=datasets.Features.from_dict(features_of(manifest.spec)),
        ),
        split=datasets.Split.TEST,
        fingerprint=content[:16],
    )
