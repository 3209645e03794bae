"""Names made from content: equal work has an equal id, on any machine and in any order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

# Raised when numbers change under an old id. 1: version 0.1.0, which read D, T and I of ESM2 as one another.
SCHEMA_VERSION = 2


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; floats by their shortest exact text. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def content_hash(value: object) -> str:
    """SHA-256 (64 hex digits) of a JSON-like value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
