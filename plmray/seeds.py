"""Named random streams from one seed: no stream can disturb another, and none is carried along.

A stream is addressed by (seed, name, indices), so the order of epoch 7 is the same whether epochs
0-6 were drawn in this process or before a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

StreamName = Literal["init", "order", "dropout", "split"]


def derived_rng(seed: int, name: str, *indices: int) -> np.random.Generator:
    """Generator for ``name`` under ``seed``; different names or indices give independent streams.

    Source: numpy.random.SeedSequence, whose ``spawn_key`` separates children of one entropy.
    """
    return np.random.default_rng(_sequence(seed, name, indices))


def derived_seed(seed: int, name: str, *indices: int) -> int:
    """A 63-bit integer for libraries that take a seed instead of a generator."""
    words = _sequence(seed, name, indices).generate_state(2, np.uint64)
    return int(words[0]) >> 1


def _sequence(seed: int, name: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return np.random.SeedSequence(seed, spawn_key=(key, *indices))


@dataclass(frozen=True)
class Streams:
    """The random streams of one trial. ``held`` fixes single streams at a seed of their own."""

    seed: int
    held: Mapping[StreamName, int] = field(default_factory=dict)

    def rng(self, name: StreamName, *indices: int) -> np.random.Generator:
        return derived_rng(self.held.get(name, self.seed), name, *indices)

    def integer(self, name: StreamName, *indices: int) -> int:
        return derived_seed(self.held.get(name, self.seed), name, *indices)
