"""MANIFEST.json: what a folder of sets holds, and the hashes by which to tell."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dataset_builder.errors import DatasetMismatchError, DatasetSourceError, DatasetUsageError
from dataset_builder.sets import SetSpec, spec_from_parameters
from dataset_builder.version import GENERATOR_VERSION

MANIFEST_NAME = "MANIFEST.json"

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One file of a set.

    Args:
        file: Path relative to the folder, with forward slashes.
        rows: Number of rows.
        sha256: Content hash of these rows, as `Manifest.content_sha256` is of all.
    """

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What one set of a folder is.

    Args:
        generator: Version of the generator that built it.
        name: Name of the set.
        seed: Seed of the set.
        n: Number of rows.
        parameters: What rows record of their set, see `sets.parameters_of`.
        content_sha256: SHA-256 of the ordered canonical lines of the rows, each of which holds the hash of its PNG.
            It does not depend on how the rows are cut into files, or on the version of the Parquet writer.
        shards: The files, in order.
    """

    generator: str
    name: str
    seed: int
    n: int
    parameters: Mapping[str, Any]
    content_sha256: str
    shards: tuple[Shard, ...]

    @property
    def spec(self) -> SetSpec:
        """The specification that the set was built from.

        Raises:
            DatasetMismatchError: If the parameters describe no set that this version knows, or another one than the
                entry.
        """
        try:
            spec = spec_from_parameters(self.parameters, n=self.n)
        except DatasetUsageError as error:
            raise DatasetMismatchError(
                f"the entry of {self.name} in the manifest describes no set ({error}); it is of generator "
                f"{self.generator}, this is {GENERATOR_VERSION}: use that version, or build the set again"
            ) from error
        if (spec.name, spec.seed) != (self.name, self.seed):
            raise DatasetMismatchError(
                f"the parameters of {self.name} in the manifest are of {spec.name} with seed {spec.seed}, "
                f"the entry says seed {self.seed}; build the set again"
            )
        return spec


def read_manifests(folder: Path) -> dict[str, Manifest]:
    """The manifest of each set of a folder, by name.

    Raises:
        DatasetSourceError: If the folder or its MANIFEST.json is missing or cannot be read.
        DatasetMismatchError: If MANIFEST.json does not say what it has to.
    """
    path = folder / MANIFEST_NAME
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        missing = f"holds no {MANIFEST_NAME}" if folder.is_dir() else "is not a folder"
        raise DatasetSourceError(
            f"{folder}: {missing}; build a set there with: halo-dataset build NAME --out {folder}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetSourceError(f"{path}: cannot be read ({error}); build the folder again") from error
    try:
        content = json.loads(text)
        generator = _field(content, "generator", str)
        return {name: _read_entry(generator, name, entry) for name, entry in content["sets"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetMismatchError(
            f"{path}: is not a manifest ({type(error).__name__}: {error}); build the folder again"
        ) from error


def write_manifests(folder: Path, manifests: Iterable[Manifest]) -> None:
    """Write the MANIFEST.json of a folder in one step.

    Args:
        folder: The folder.
        manifests: The sets that it holds, of one version of the generator.
    """
    ordered = sorted(manifests, key=lambda manifest: manifest.name)
    content = {
        "generator": ordered[0].generator if ordered else GENERATOR_VERSION,
        "sets": {manifest.name: _entry(manifest) for manifest in ordered},
    }
    path = folder / MANIFEST_NAME
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    temporary.replace(path)


def _entry(manifest: Manifest) -> dict[str, Any]:
    entry = asdict(manifest)
    return {key: entry[key] for key in ("seed", "n", "parameters", "content_sha256", "shards")}


def _read_entry(generator: str, name: str, entry: Mapping[str, Any]) -> Manifest:
    shards = tuple(
        Shard(file=_file(shard, name), rows=_field(shard, "rows", int), sha256=_hash(shard, "sha256"))
        for shard in entry["shards"]
    )
    return Manifest(
        generator=generator,
        name=name,
        seed=_field(entry, "seed", int),
        n=_field(entry, "n", int),
        parameters=_field(entry, "parameters", dict),
        content_sha256=_hash(entry, "content_sha256"),
        shards=shards,
    )


def _field(entry: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = entry[key]
    # Not isinstance: true is no number.
    if type(value) is not kind:
        raise TypeError(f"{key} is {value!r:.80}, not of type {kind.__name__}")
    return value


def _hash(entry: Mapping[str, Any], key: str) -> str:
    value = _field(entry, key, str)
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{key} is {value!r:.80}, not a SHA-256")
    return value


def _file(shard: Mapping[str, Any], name: str) -> str:
    value = _field(shard, "file", str)
    if not re.fullmatch(rf"data/{re.escape(name)}/[\w.-]+\.parquet", value):
        raise ValueError(f"file is {value!r:.80}, not data/{name}/….parquet")
    return value
