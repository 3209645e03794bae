"""Dropout from the trial's own stream: the same mask whatever the micro-batch, worker, engine or neighbour."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plmray.seeds import Streams

BLOCK_NUMBERS = 2**18


def block_steps(batch_size: int, width: int) -> int:
    """For how many steps at a time the masks of pooled embeddings are drawn: seeding a generator costs
    more than the few numbers of one step."""
    return max(1, min(64, BLOCK_NUMBERS // (batch_size * width)))


def uniform_block(streams: Streams, layer: int, block: int, batch_size: int, width: int) -> Tensor:
    """(steps of a block, batch_size, width) uniform numbers behind the masks of one dropout layer."""
    generator = torch.Generator().manual_seed(streams.integer("dropout", block, layer))
    return torch.rand((block_steps(batch_size, width), batch_size, width), generator=generator)


def uniform_tokens(streams: Streams, layer: int, step: int, shape: tuple[int, int, int]) -> Tensor:
    """(batch, length, width) uniform numbers of one step, for layers that see every token."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(streams.integer("dropout", step, layer)))


def keep_mask(uniform: Tensor, probability: float, dtype: torch.dtype) -> Tensor:
    """Zeros and 1/(1-p)."""
    return (uniform >= probability).to(dtype) / (1.0 - probability)


class DropoutSource:
    """Where all dropout layers of one model take their masks from.

    A mask is drawn for the whole effective batch from (seed, step, layer) and cut to the rows at hand.
    """

    def __init__(self, streams: Streams, batch_size: int) -> None:
        self.streams, self.batch_size = streams, batch_size
        self.layers = 0
        self._blocks: dict[int, tuple[int, Tensor]] = {}
        self.select(step=0, batch_rows=1, batch_length=1, first_row=0)

    def select(self, *, step: int, batch_rows: int, batch_length: int, first_row: int) -> None:
        """Say which rows of which effective batch the next forward pass computes."""
        self.step, self.batch_rows, self.batch_length, self.first_row = step, batch_rows, batch_length, first_row

    def new_layer(self) -> int:
        self.layers += 1
        return self.layers - 1

    def mask(self, layer: int, probability: float, like: Tensor) -> Tensor:
        """Zeros and 1/(1-p) shaped as ``like``: (rows, width) or (rows, length, width)."""
        whole = self._pooled(layer, like.shape[-1]) if like.dim() == 2 else self._tokens(layer, like.shape[-1])
        rows = whole[self.first_row : self.first_row + like.shape[0]]
        cut = rows[:, : like.shape[1]] if like.dim() == 3 else rows
        return keep_mask(cut, probability, like.dtype).to(like.device)

    def _pooled(self, layer: int, width: int) -> Tensor:
        block, number = divmod(self.step, block_steps(self.batch_size, width))
        if self._blocks.get(layer, (-1,))[0] != block:
            self._blocks[layer] = block, uniform_block(self.streams, layer, block, self.batch_size, width)
        return self._blocks[layer][1][number]

    def _tokens(self, layer: int, width: int) -> Tensor:
        return uniform_tokens(self.streams, layer, self.step, (self.batch_rows, self.batch_length, width))


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
