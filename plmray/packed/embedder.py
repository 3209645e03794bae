"""Embeddings of a frozen ESM2 or T5 encoder without padding: the pack's own forward pass, without adapters."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.model.assemble import encoder_width
from plmray.packed.adapter_pack import residue_means
from plmray.packed.encoder import Unadapted, first_token_states, hidden_states
from plmray.packed.frozen_states import sequences
from plmray.train.embeddings import RESIDUES


class Unpadded:
    """An Embedder in float32 or float64, for families whose ``packs`` is true."""

    def __init__(self, encoder: nn.Module, precision: str, device: torch.device) -> None:
        self.encoder = encoder.to(device=device, dtype=torch.float64 if precision == "fp64" else torch.float32).eval()
        self.device, self.width = device, encoder_width(encoder)

    def __call__(self, data: EncodedData, split: EncodedSplit, rows: NDArray[np.int64], pooling: str) -> Tensor:
        batch = sequences(split, rows, self.device)
        if pooling == "cls":
            return first_token_states(self.encoder, batch, Unadapted(), None, 0)
        hidden = hidden_states(self.encoder, batch, Unadapted(), None, 0)
        if pooling != RESIDUES:
            return residue_means(hidden, batch.lengths, data)
        parts = torch.split(hidden, batch.lengths)
        return torch.cat([part[data.front : len(part) - data.back] for part in parts])
