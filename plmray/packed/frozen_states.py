"""Hidden states below the lowest adapted layer: the same in every trial and epoch, so computed once."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plmray.data.encoded import EncodedSplit
from plmray.packed.encoder import Sequences, batches_of, prefix_states

PARTS_KEPT = 6  # of a task: training, validation and test proteins, under two draws of the split
MEMORY_LIMIT_BYTES = 4 * 2**30  # larger ones lie in a file


class PrefixCache:
    """What enters layer ``layers`` for every token of a split, (tokens, width); made at first use, kept by its tokens.

    In memory up to 4 GiB a split, then in a temporary file that ends with the process.
    """

    def __init__(self, encoder: nn.Module, layers: int, width: int, dtype: torch.dtype, tokens_at_once: int) -> None:
        self.encoder, self.layers, self.width = encoder, layers, width
        self.dtype, self.tokens_at_once = dtype, tokens_at_once
        self._made: OrderedDict[str, Tensor] = OrderedDict()

    def states(self, split: EncodedSplit, rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """(tokens, width) of some proteins of a split, end to end."""
        made = self._made.get(split.tokens_key)
        if made is None:
            while len(self._made) >= PARTS_KEPT:
                self._made.popitem(last=False)
            made = self._made[split.tokens_key] = self._make(split, device)
        self._made.move_to_end(split.tokens_key)
        return torch.cat([made[split.offsets[row] : split.offsets[row + 1]] for row in rows]).to(device)

    def _make(self, split: EncodedSplit, device: torch.device) -> Tensor:
        states = _room_for(len(split.tokens), self.width, self.dtype)
        rows = np.arange(len(split))
        for part in batches_of(split.lengths.tolist(), self.tokens_at_once):
            batch = sequences(split, rows[part], device)
            first = int(split.offsets[part.start])
            states[first : first + len(batch.tokens)] = prefix_states(self.encoder, batch, self.layers).to("cpu")
        return states


def sequences(split: EncodedSplit, rows: NDArray[np.int64], device: torch.device) -> Sequences:
    """Proteins ``rows`` of a split, end to end."""
    parts = [split.tokens[split.offsets[row] : split.offsets[row + 1]] for row in rows]
    tokens = torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)
    return Sequences(tokens, [len(part) for part in parts])


def _room_for(tokens: int, width: int, dtype: torch.dtype) -> Tensor:
    size = tokens * width * dtype.itemsize
    if size <= MEMORY_LIMIT_BYTES:
        return torch.empty(tokens, width, dtype=dtype)
    with tempfile.NamedTemporaryFile(prefix="plmray-prefix-", dir=Path(tempfile.gettempdir())) as file:
        file.truncate(size)
        return torch.from_file(file.name, shared=True, size=tokens * width, dtype=dtype).view(tokens, width)
