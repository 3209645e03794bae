"""Dropout masks of many slots, each as its trial draws it alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plmray.model.dropout import block_steps, uniform_block
from plmray.packed.pack import Member, Ticks


@dataclass(frozen=True)
class PooledMasks:
    """Dropout masks of layers that see pooled embeddings, each trial's from its own stream."""

    widths: list[int]
    device: torch.device
    dtype: torch.dtype

    def draw(self, members: list[Member], ticks: Ticks) -> list[Tensor | None]:
        """For every layer (ticks, slots, batch, width), or None where no member drops anything."""
        if all(member.training.settings.head.dropout_rate == 0 for member in members):
            return [None] * len(self.widths)
        return [self._layer(layer, width, members, ticks) for layer, width in enumerate(self.widths)]

    def _layer(self, layer: int, width: int, members: list[Member], ticks: Ticks) -> Tensor:
        masks = torch.ones(*ticks.rows.shape, width, dtype=self.dtype)
        for slot, member in enumerate(members):
            settings = member.training.settings
            if settings.head.dropout_rate > 0:
                uniform = self._uniform(layer, width, member, int(ticks.first_steps[slot]), len(ticks))
                masks[:, slot, : settings.batch_size].copy_(uniform >= settings.head.dropout_rate)
        keep = torch.tensor([1.0 - member.training.settings.head.dropout_rate for member in members], dtype=self.dtype)
        return masks.div_(keep[None, :, None, None]).to(self.device)

    def _uniform(self, layer: int, width: int, member: Member, first: int, count: int) -> Tensor:
        """(count, batch, width) uniform numbers of steps ``first`` and on."""
        size = member.training.settings.batch_size
        steps = block_steps(size, width)
        parts = [self._block(layer, width, member, b) for b in range(first // steps, (first + count - 1) // steps + 1)]
        start = first % steps
        return torch.cat(parts)[start : start + count]

    def _block(self, layer: int, width: int, member: Member, block: int) -> Tensor:
        kept = member.drawn.get(layer)
        if kept is None or kept[0] != block:
            size = member.training.settings.batch_size
            kept = block, uniform_block(member.training.streams, layer, block, size, width)
            member.drawn[layer] = kept
        return kept[1]
