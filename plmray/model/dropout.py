"""Dropout from the trial's own stream: the same mask whatever the micro-batch, worker or engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plmray.seeds import Streams


class DropoutSource:
    """Where all dropout layers of one model take their masks from.

    A mask is drawn for the whole effective batch from (seed, step, layer) and cut to the rows at hand.
    """

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.layers = 0
        self.select(step=0, batch_rows=1, batch_length=1, first_row=0)

    def select(self, *, step: int, batch_rows: int, batch_length: int, first_row: int) -> None:
        """Say which rows of which effective batch the next forward pass computes."""
        self.step, self.batch_rows, self.batch_length, self.first_row = step, batch_rows, batch_length, first_row

    def new_layer(self) -> int:
        self.layers += 1
        return self.layers - 1

    def mask(self, layer: int, probability: float, like: Tensor) -> Tensor:
        """Zeros and 1/(1-p) shaped as ``like``: (rows, width) or (rows, length, width)."""
        generator = torch.Generator().manual_seed(self.streams.integer("dropout", self.step, layer))
        whole = (self.batch_rows, self.batch_length, like.shape[-1]) if like.dim() == 3 else None
        uniform = torch.rand(whole or (self.batch_rows, like.shape[-1]), generator=generator)
        rows = uniform[self.first_row : self.first_row + like.shape[0]]
        cut = rows[:, : like.shape[1]] if like.dim() == 3 else rows
        return ((cut >= probability).to(like.dtype) / (1.0 - probability)).to(like.device)


class StreamDropout(nn.Module):
    """Drop-in for nn.Dropout whose masks come from a DropoutSource."""

    def __init__(self, probability: float, source: DropoutSource) -> None:
        super().__init__()
        self.probability = probability
        self.source = source
        self.layer = source.new_layer()

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return values
        return values * self.source.mask(self.layer, self.probability, values)
