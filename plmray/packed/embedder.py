"""Embeddings of a frozen encoder; of ESM2 and T5 without padding, by the pack's own forward pass without adapters."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plmray.config.catalog.families import FAMILIES, Family
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.model.assemble import encoder_width
from plmray.packed.adapter_pack import residue_means
from plmray.packed.encoder import Unadapted, first_token_states, hidden_states
from plmray.packed.frozen_states import sequences
from plmray.train.embeddings import RESIDUES, Embedder, Padded


def embedder_of(encoder: nn.Module, family: Family, read: str, precision: str, device: torch.device) -> Embedder:
    """The quickest embedder that gives a family's states; ``read``: a pooling, or RESIDUES."""
    unpadded = FAMILIES[family].packs and read != "padded_mean" and precision != "bf16"
    return (Unpadded if unpadded else Padded)(encoder, precision, device)


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
