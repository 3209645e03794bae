"""Proteins as padded tensors, or as their embeddings. The only file of this folder that knows torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.data.encoded import EncodedData, EncodedSplit


@dataclass(frozen=True)
class Batch:
    """Padded proteins. ``residues`` is true where a token is a residue: neither mark nor padding.

    ``embedded``: what stands in the place of tokens, (n, width), or (n, length, width) with zeros where no residue is.
    """

    tokens: Tensor  # (n, length) int64
    attention: Tensor  # (n, length) int64, 1 = token
    residues: Tensor  # (n, length) bool
    targets: Tensor  # (units,) or (units, labels), float64 or int64
    embedded: Tensor | None = None
    counted: Tensor | None = None  # (units,) bool: of residues, which have a label

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        parts = (self.tokens, self.attention, self.residues, self.targets, self.embedded, self.counted)
        moved = (None if part is None else part.to(device, non_blocking=True) for part in parts)
        return Batch(*moved)  # type: ignore[arg-type]


def collate(data: EncodedData, split: EncodedSplit, rows: NDArray[np.int64]) -> Batch:
    """Proteins ``rows`` of a split, padded to the longest of them; or their embeddings, where it has some."""
    units = split.units(rows)
    targets = torch.from_numpy(split.targets[units])
    counted = None if split.counted is None else torch.from_numpy(split.counted[units])
    if split.embeddings is not None and not split.by_residue:
        nothing = torch.zeros((len(rows), 0), dtype=torch.int64)
        return Batch(nothing, nothing, nothing.bool(), targets, torch.from_numpy(split.embeddings[rows]), counted)
    lengths = split.lengths[rows]
    columns = np.arange(lengths.max())[None, :]
    is_token = columns < lengths[:, None]
    tokens = np.full(is_token.shape, data.pad_id, dtype=np.int64)
    tokens[is_token] = np.concatenate([split.tokens[split.offsets[row] : split.offsets[row + 1]] for row in rows])
    is_residue = is_token & (columns >= data.front) & (columns < (lengths - data.back)[:, None])
    return Batch(
        torch.from_numpy(tokens),
        torch.from_numpy(is_token.astype(np.int64)),
        torch.from_numpy(is_residue),
        targets,
        None if split.embeddings is None else _states(split.embeddings[split.residues(rows)], is_residue),
        counted,
    )


def _states(rows: NDArray[np.floating[Any]], is_residue: NDArray[np.bool_]) -> Tensor:
    """(residues, width) embeddings in their places of (n, length, width)."""
    states = np.zeros((*is_residue.shape, rows.shape[1]), rows.dtype)
    states[is_residue] = rows
    return torch.from_numpy(states)


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
