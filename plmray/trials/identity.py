"""The ids of candidates and trials: hashes of what makes their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plmray.hashing import SCHEMA_VERSION, content_hash

_ID_LENGTH = 12


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
