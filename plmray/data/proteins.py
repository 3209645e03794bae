"""Proteins with their targets and splits, as every later room takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plmray.config.catalog.tasks import Level
from plmray.config.fields.task import SplitName
from plmray.metrics import Kind


@dataclass(frozen=True)
class Proteins:
    """One split of n proteins. ``targets`` of level protein: (n,) floats, or class numbers, or (n, labels) of 0 and 1.

    Of level residue: (residues,) of all proteins, end to end, and ``counted`` says which of them do.
    """

    ids: Sequence[str]
    sequences: Sequence[str]
    targets: NDArray[Any]
    counted: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True)
class ProteinData:
    """Checked data of a task. ``hash`` covers what training sees: sequences, targets, splits, classes."""

    name: str
    kind: Kind
    splits: dict[SplitName, Proteins]
    classes: tuple[str, ...]
    hash: str
    notes: tuple[str, ...] = field(default=())
    level: Level = "protein"
    window: tuple[int, int | None] = (0, None)  # residues kept of every protein: 0-based, end excluded
    families: Mapping[str, str] = field(default_factory=dict)  # by id, of test proteins that have kin among them

    @property
    def num_outputs(self) -> int:
        return len(self.classes) if self.kind in ("classification", "multilabel") else 1

    def counts(self) -> dict[str, int]:
        return {name: len(proteins) for name, proteins in self.splits.items()}
