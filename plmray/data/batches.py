"""Proteins as padded tensors. The only file of this folder that knows torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.data.datasets import ProteinData
from plmray.spec.sweep import SplitName

Encode = Callable[[Sequence[str]], list[NDArray[np.int16]]]


@dataclass(frozen=True)
class EncodedSplit:
    """Token ids of one split, end to end. ``offsets``: (n + 1,), ``targets``: (n,)."""

    tokens: NDArray[np.int16]
    offsets: NDArray[np.int64]
    targets: NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per protein, marks included."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class EncodedData:
    """A task ready for a model. ``front`` and ``back`` count the marks around each sequence."""

    splits: dict[SplitName, EncodedSplit]
    kind: str
    classes: tuple[str, ...]
    num_outputs: int
    pad_id: int
    front: int
    back: int


@dataclass(frozen=True)
class Batch:
    """Padded proteins. ``residues`` is true where a token is a residue: neither mark nor padding."""

    tokens: Tensor  # (n, length) int64
    attention: Tensor  # (n, length) int64, 1 = token
    residues: Tensor  # (n, length) bool
    targets: Tensor  # (n,) float32 or int64

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        parts = (part.to(device, non_blocking=True) for part in self._parts())
        return Batch(*parts)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.tokens, self.attention, self.residues, self.targets


def encode_data(data: ProteinData, encode: Encode, *, pad_id: int, front: int, back: int) -> EncodedData:
    """Turn sequences into token ids with the backbone's own ``encode`` (marks included)."""
    splits: dict[SplitName, EncodedSplit] = {}
    for name, proteins in data.splits.items():
        rows = encode(proteins.sequences)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        tokens = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int16)
        splits[name] = EncodedSplit(tokens, offsets, proteins.targets)
    return EncodedData(splits, data.kind, data.classes, data.num_outputs, pad_id, front, back)


def collate(data: EncodedData, split: EncodedSplit, rows: NDArray[np.int64]) -> Batch:
    """Proteins ``rows`` of a split, padded to the longest of them."""
    lengths = split.lengths[rows]
    columns = np.arange(lengths.max())[None, :]
    is_token = columns < lengths[:, None]
    tokens = np.full(is_token.shape, data.pad_id, dtype=np.int64)
    tokens[is_token] = np.concatenate([split.tokens[split.offsets[row] : split.offsets[row + 1]] for row in rows])
    is_residue = is_token & (columns >= data.front) & (columns < (lengths - data.back)[:, None])
    targets = split.targets[rows]
    return Batch(
        torch.from_numpy(tokens),
        torch.from_numpy(is_token.astype(np.int64)),
        torch.from_numpy(is_residue),
        torch.from_numpy(targets if data.kind == "classification" else targets.astype(np.float64)),
    )


def sorted_batches(split: EncodedSplit, token_budget: int) -> Iterator[NDArray[np.int64]]:
    """All rows of a split in batches of similar length, each at most ``token_budget`` padded tokens (or one row)."""
    by_length = np.argsort(split.lengths, kind="stable")
    start = 0
    while start < len(by_length):
        end = start + 1
        while end < len(by_length) and (end + 1 - start) * split.lengths[by_length[end]] <= token_budget:
            end += 1
        yield by_length[start:end]
        start = end
