"""Names made from content: equal work has an equal id, on any machine and in any order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Raised when numbers change under an old id. 1: version 0.1.0, which read D, T and I of ESM2 as one another.
SCHEMA_VERSION = 2
_ID_LENGTH = 12


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


def candidate_id(
    *,
    settings: Mapping[str, Any],
    task: Mapping[str, Any],
    data_hash: str,
    weights_hash: str,
    precision: str,
) -> str:
    """Id of one hyperparameter setting: 'c' and 12 hex digits.

    ``settings`` are the train settings that differ from their defaults and take part in the
    computation. Phase, device, engine, world size and versions stay outside: they are provenance.
    """
    parts = {
        "schema": SCHEMA_VERSION,
        "settings": dict(settings),
        "task": dict(task),
        "data": data_hash,
        "weights": weights_hash,
        "precision": precision,
    }
    return "c" + content_hash(parts)[:_ID_LENGTH]


def trial_id(candidate: str, seed: int, varied: str | None = None, held: int | None = None) -> str:
    """Id of a trial: a candidate with a seed; where ``seed`` moves one stream alone, with that stream and the seed at
    which the others are held."""
    return f"{candidate}-s{seed}" if varied is None else f"{candidate}-s{held}-{varied}{seed}"
