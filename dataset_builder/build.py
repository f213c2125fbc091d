"""Build a set into a folder: Parquet shards and a manifest, the same bytes however often it was interrupted."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

from dataset_builder.errors import DatasetError, DatasetMismatchError, DatasetSourceError, DatasetUsageError
from dataset_builder.manifest import MANIFEST_NAME, Manifest, Shard, read_manifests, write_manifests
from dataset_builder.rows import make_row
from dataset_builder.samples import check_fit, draw_sample
from dataset_builder.sets import SetSpec, parameters_of
from dataset_builder.shards import checked_batches, is_shard_of, write_shard
from dataset_builder.version import GENERATOR_VERSION

SHARD_ROWS = 2000


def build_set(
    spec: SetSpec, out: Path, *, n: int | None = None, shard_rows: int = SHARD_ROWS, progress: bool = False
) -> Manifest:
    """Build a set as `out/data/NAME/test-00000-of-0000N.parquet`, and enter it in `out/MANIFEST.json`.

    Every file is written under a temporary name and renamed when it is whole, and the manifest comes last. The whole
    shards of an interrupted build of the same rows are checked and kept; a finished build is built anew. Time grows
    linearly with n, memory does not grow.

    Args:
        spec: The set.
        out: The folder; made where it is missing, and left alone but for this set.
        n: Number of rows; `spec.n` where None.
        shard_rows: Rows of each file but the last.
        progress: Whether to show a bar with rate and time left on stderr.

    Returns:
        The manifest of the set.

    Raises:
        DatasetUsageError: If `n` or `shard_rows` is less than 1.
        PlacementError: If the dots do not fit.
        DatasetMismatchError: If the folder holds sets of another version of the generator.
        DatasetSourceError: If the folder cannot be written, or another build is writing it.
    """
    from filelock import FileLock, Timeout

    rows = spec.n if n is None else n
    for name, value in (("n", rows), ("shard_rows", shard_rows)):
        if value < 1:
            raise DatasetUsageError(f"{spec.name}: {name} is {value}; use at least 1")
    check_fit(spec)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".halo-dataset.lock", timeout=0):
            return _build(spec, out, n=rows, shard_rows=shard_rows, progress=progress)
    except Timeout as error:
        raise DatasetSourceError(f"{out}: another build is writing here; wait for it, or use another folder") from error
    except DatasetError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise DatasetSourceError(f"{out}: cannot be written ({reason}); free space or use another folder") from error


def _build(spec: SetSpec, out: Path, *, n: int, shard_rows: int, progress: bool) -> Manifest:
    from tqdm import tqdm

    folder = out / "data" / spec.name
    starts = range(0, n, shard_rows)
    paths = [folder / f"test-{number:05d}-of-{len(starts):05d}.parquet" for number in range(len(starts))]
    entered = read_manifests(out) if (out / MANIFEST_NAME).exists() else {}
    others = [manifest for manifest in entered.values() if manifest.name != spec.name]
    for other in others:
        if other.generator != GENERATOR_VERSION:
            raise DatasetMismatchError(
                f"{out}: holds {other.name} of generator {other.generator}, this is {GENERATOR_VERSION}; "
                "build into a new folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    # A set that is entered was finished, and is built anew: its files may have been changed since.
    _remove_but(folder, keep=() if spec.name in entered else paths)
    if spec.name in entered:
        write_manifests(out, others)

    content = hashlib.sha256()
    shards = []
    with tqdm(total=n, desc=spec.name, unit="image", disable=not progress) as bar:
        for path, start in zip(paths, starts, strict=True):
            stop = min(start + shard_rows, n)
            digest = hashlib.sha256()
            for line in _lines(spec, path, start=start, stop=stop):
                content.update(line)
                digest.update(line)
                bar.update()
            shards.append(Shard(path.relative_to(out).as_posix(), stop - start, digest.hexdigest()))
    manifest = Manifest(
        generator=GENERATOR_VERSION,
        name=spec.name,
        seed=spec.seed,
        n=n,
        parameters=parameters_of(spec),
        content_sha256=content.hexdigest(),
        shards=tuple(shards),
    )
    write_manifests(out, [*others, manifest])
    return manifest


def _lines(spec: SetSpec, path: Path, *, start: int, stop: int) -> Iterator[bytes]:
    """The canonical lines of one shard, which is kept if it is whole and of these rows, and else written."""
    if is_shard_of(path, spec, start=start, stop=stop):
        return (line for _, lines in checked_batches(path, spec, start=start) for line in lines)
    return write_shard(path, (make_row(spec, draw_sample(spec, index)) for index in range(start, stop)), spec=spec)


def _remove_but(folder: Path, *, keep: Collection[Path]) -> None:
    for path in folder.iterdir():
        if path not in keep:
            path.unlink()
