"""Parquet shards: one file of rows written in one step, and read back with every hash checked."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dataset_builder.errors import DatasetMismatchError, DatasetSourceError
from dataset_builder.rows import IMAGE, Row, canonical_line, features_of, row_id
from dataset_builder.sets import SetSpec, parameters_text
from dataset_builder.version import GENERATOR_VERSION

_GROUP_ROWS = 100
_GROUP_BYTES = 8 << 20


def shard_schema(spec: SetSpec, *, generator: str = GENERATOR_VERSION) -> Any:
    """The Arrow schema of a shard; its metadata has the features for `datasets` and the version of the generator."""
    import pyarrow as pa

    features = features_of(spec)
    metadata = {
        b"huggingface": json.dumps({"info": {"features": features}}).encode(),
        b"halo_generator": generator.encode(),
    }
    return pa.schema([(name, _arrow_type(feature)) for name, feature in features.items()], metadata)


def _arrow_type(feature: dict[str, Any]) -> Any:
    import pyarrow as pa

    match feature["_type"]:
        case "Image":
            return pa.struct({"bytes": pa.binary(), "path": pa.string()})
        case "Sequence":
            return pa.list_(_arrow_type(feature["feature"]))
        case _:
            return pa.type_for_alias(feature["dtype"])


def write_shard(path: Path, rows: Iterable[Row], *, spec: SetSpec) -> Iterator[bytes]:
    """Write a shard to a temporary name and rename it when whole; yield the canonical line of each row on the way.

    At most a row group, 100 rows or 8 MiB of images, is held in memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = shard_schema(spec)
    temporary = path.with_suffix(".parquet.tmp")
    described = [name for name in schema.names if name != IMAGE]
    # Statistics of the images would repeat whole files in the page index.
    with pq.ParquetWriter(
        temporary,
        schema,
        compression="zstd",
        write_page_index=True,
        use_dictionary=described,
        write_statistics=described,
    ) as writer:
        group: list[Row] = []
        size = 0
        for row in rows:
            group.append(row)
            size += len(row[IMAGE]["bytes"])
            if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
                writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema))
                group, size = [], 0
            yield canonical_line(row)
        if group:
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema))
    temporary.replace(path)


def read_batches(path: Path, spec: SetSpec, *, generator: str) -> Iterator[Any]:
    """The rows of a shard as Arrow record batches of up to 100.

    Args:
        path: The file.
        spec: The set that it should belong to.
        generator: The version of the generator that should have built it.

    Raises:
        DatasetSourceError: If the file is missing or cannot be read, or holds text that is not UTF-8.
        DatasetMismatchError: If its columns, their features or its generator are not those of the set, or a cell holds
            what no row may.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = shard_schema(spec, generator=generator)
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema, check_metadata=False):
                raise DatasetMismatchError(f"{path}: has other columns than {spec.name}; build the set again")
            if not schema.metadata.items() <= (file.schema_arrow.metadata or {}).items():
                raise DatasetMismatchError(
                    f"{path}: declares other features than {spec.name} of generator {generator}, or another generator; "
                    "build or download the set again"
                )
            for batch in file.iter_batches(_GROUP_ROWS):
                batch.validate(full=True)
                fault = _cell_fault(batch)
                if fault:
                    raise DatasetMismatchError(f"{path}: has {fault}; build the set again")
                yield batch
    except FileNotFoundError as error:
        raise DatasetSourceError(f"{path}: the shard is missing; build or download the set again") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetSourceError(f"{path}: cannot be read ({reason}); build or download the set again") from error


def _cell_fault(batch: Any) -> str | None:
    """What is in the first column with empty cells, paths of images or infinite numbers where there must be none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        cells = column
        if name == IMAGE:
            cells, paths = column.flatten()
            if paths.null_count < len(paths):
                return f"paths in {name}"
        while pa.types.is_list(cells.type) and not cells.null_count:
            cells = cells.flatten()
        # Only a dot that is alone has no distance to the nearest other.
        if cells.null_count and name != "nearest_distance":
            return f"empty cells in {name}"
        if pa.types.is_floating(cells.type) and pc.any(pc.invert(pc.is_finite(cells))).as_py():
            return f"cells that are no numbers in {name}"
    return None


def checked_batches(
    path: Path, spec: SetSpec, *, start: int, generator: str = GENERATOR_VERSION
) -> Iterator[tuple[Any, list[bytes]]]:
    """The rows of a shard as record batches, with their canonical lines, after each row was checked.

    Args:
        path: The file.
        spec: The set that it should belong to.
        start: Index of the first row.
        generator: The version of the generator that should have built it.

    Raises:
        DatasetSourceError: If the file is missing or cannot be read.
        DatasetMismatchError: If the columns or the generator are not those of the set, a row is not the one that should
            be there, or its image not the one that it describes.
    """
    for batch in read_batches(path, spec, generator=generator):
        rows = batch.to_pylist()
        for index, row in enumerate(rows, start):
            fault = _row_fault(row, spec, index=index)
            if fault:
                raise DatasetMismatchError(f"{path}: {fault}; build or download the set again")
        yield batch, [canonical_line(row) for row in rows]
        start += len(rows)


def _row_fault(row: Row, spec: SetSpec, *, index: int) -> str | None:
    expected = row_id(spec.name, index)
    if (row["id"], row["index"]) != (expected, index):
        return f"row {index} is {row['id']} with index {row['index']} where {expected} should be"
    if row["parameters"] != parameters_text(spec):
        return f"{expected} has other parameters than the manifest: {row['parameters']}"
    if hashlib.sha256(row[IMAGE]["bytes"]).hexdigest() != row["png_sha256"]:
        return f"the image of {expected} is not the one of its png_sha256"
    return None


def is_shard_of(path: Path, spec: SetSpec, *, start: int, stop: int) -> bool:
    """Whether a file is whole and holds the rows `start` to `stop - 1` of a set as this version builds them."""
    try:
        rows = sum(batch.num_rows for batch, _ in checked_batches(path, spec, start=start))
    except (DatasetSourceError, DatasetMismatchError):
        return False
    return bool(rows == stop - start)
