"""The seal of a run's signature: a hash over its fields, by which a damaged copy is told from the signature itself."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

SEAL = "sha256"
"""The field that holds the hash of all others."""


def hash_of(fields: Any) -> str:
    """SHA-256 of anything that JSON can hold, whatever the order of keys; other values by their text."""
    return sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with their hash, whatever hash they had."""
    bare = {name: value for name, value in fields.items() if name != SEAL}
    return {**bare, SEAL: hash_of(bare)}


def is_whole(signature: Mapping[str, Any]) -> bool:
    """Whether the fields are those that the hash is of."""
    return signature == seal(signature)
