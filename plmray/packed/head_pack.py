"""Frozen trials in a pack: heads on cached embeddings, trained as batched matrix products."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.data.batches import EncodedData, EncodedSplit
from plmray.model.assemble import build_head_model, trainable_parameters
from plmray.model.dropout import block_steps, uniform_block
from plmray.packed.heads import Masks, Weights, backward, dropout_widths, forward
from plmray.packed.optimizer import SlotAdamW
from plmray.packed.pack import Member, Pack, Ticks
from plmray.packed.slots import SlotStore
from plmray.seeds import Streams
from plmray.spec.sweep import HeadSpec, SplitName, TrainSpec
from plmray.train.losses import loss_and_gradient


class HeadPack(Pack):
    """Trials with heads of one kind and width on embeddings of one backbone, ``data`` holding them.

    Free inside the pack: seed, rate, schedule, decay, clip, dropout, epochs, batch size.
    """

    def __init__(
        self,
        data: EncodedData,
        settings: TrainSpec,
        metric: str,
        *,
        capacity: int,
        precision: str,
        device: torch.device,
    ) -> None:
        self.head: HeadSpec = settings.head
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        model = build_head_model(settings, _width(data), data.num_outputs, Streams(0))
        shapes = {name: tuple(parameter.shape) for name, parameter in trainable_parameters(model).items()}
        super().__init__(data, metric, SlotStore(shapes, capacity, self.dtype, device), device)
        self.embeddings: dict[SplitName, Tensor] = {
            name: _as_tensor(split).to(device, self.dtype) for name, split in data.splits.items()
        }
        self.targets = torch.from_numpy(data.splits["train"].targets).to(device)
        self._buffer = torch.empty(0, 0, 0)
        self.masks = PooledMasks(dropout_widths(self.head, _width(data)), device, self.dtype)

    def start(self, settings: TrainSpec, streams: Streams) -> Member:
        """Let a trial in, as it would start alone."""
        model = build_head_model(settings, _width(self.data), self.data.num_outputs, streams)
        state = {name: parameter.detach() for name, parameter in trainable_parameters(model).items()}
        return self.join(settings, streams, state)

    def run_ticks(self, ticks: Ticks) -> NDArray[np.float64]:
        rows = torch.from_numpy(ticks.rows).to(self.device)
        shares = torch.from_numpy(ticks.shares).to(self.device, self.dtype)
        masks = self.masks.draw(self.members, ticks)
        weights = self.store.live(len(self.members))
        adamw = SlotAdamW(self.store, ticks.rates)
        losses = torch.zeros(len(ticks), len(self.members), dtype=self.dtype, device=self.device)
        for tick in range(len(ticks)):
            own = [mask if mask is None else mask[tick] for mask in masks]
            losses[tick] = self._gradients(rows[tick], shares[tick], weights, own)
            adamw.step(tick)
        return losses.T.double().cpu().numpy()

    def _gradients(self, rows: Tensor, shares: Tensor, weights: Weights, masks: Masks) -> Tensor:
        """(slots,) losses of one tick; the gradients go into the store."""
        # Into the same memory every tick: fresh pages would cost more than the copy.
        pooled = self._pooled(rows.shape)
        torch.index_select(self.embeddings["train"], 0, rows.flatten(), out=pooled.flatten(0, 1))
        outputs, done = forward(self.head, pooled, weights, masks)
        targets = self.targets.index_select(0, rows.flatten())
        losses, grads = loss_and_gradient(self.data.kind, outputs.flatten(0, 1), targets)
        backward(self.head, grads.view_as(outputs) * shares.unsqueeze(2), done, weights)
        return (losses.view_as(shares) * shares).sum(1)

    def _pooled(self, shape: torch.Size) -> Tensor:
        if self._buffer.shape[:2] != shape:
            self._buffer = torch.empty(*shape, _width(self.data), dtype=self.dtype, device=self.device)
        return self._buffer

    @torch.no_grad()
    def predict(self, slot: int, split: EncodedSplit) -> NDArray[np.float64]:
        name = next(name for name, own in self.data.splits.items() if own is split)
        masks = [None] * len(self.masks.widths)
        outputs, _ = forward(self.head, self.embeddings[name][None], self.store.only(slot), masks)
        return outputs[0].double().cpu().numpy()


@dataclass
class PooledMasks:
    """Dropout masks of layers that see pooled embeddings, each trial's from its own stream."""

    widths: list[int]
    device: torch.device
    dtype: torch.dtype
    _blocks: dict[tuple[int, int], tuple[int, Tensor]] = field(default_factory=dict)

    def draw(self, members: list[Member], ticks: Ticks) -> list[Tensor | None]:
        """For every layer (ticks, slots, batch, width), or None where no member drops anything."""
        if all(member.training.settings.head.dropout == 0 for member in members):
            return [None] * len(self.widths)
        return [self._layer(layer, width, members, ticks) for layer, width in enumerate(self.widths)]

    def _layer(self, layer: int, width: int, members: list[Member], ticks: Ticks) -> Tensor:
        masks = torch.ones(*ticks.rows.shape, width, dtype=self.dtype)
        for slot, member in enumerate(members):
            settings = member.training.settings
            if settings.head.dropout > 0:
                uniform = self._uniform(layer, width, member, int(ticks.first_steps[slot]), len(ticks))
                masks[:, slot, : settings.batch_size].copy_(uniform >= settings.head.dropout)
        keep = torch.tensor([1.0 - member.training.settings.head.dropout for member in members], dtype=self.dtype)
        return masks.div_(keep[None, :, None, None]).to(self.device)

    def _uniform(self, layer: int, width: int, member: Member, first: int, count: int) -> Tensor:
        """(count, batch, width) uniform numbers of steps ``first`` and on."""
        size = member.training.settings.batch_size
        steps = block_steps(size, width)
        parts = [self._block(layer, width, member, b) for b in range(first // steps, (first + count - 1) // steps + 1)]
        start = first % steps
        return torch.cat(parts)[start : start + count]

    def _block(self, layer: int, width: int, member: Member, block: int) -> Tensor:
        key = (id(member), layer)
        kept = self._blocks.get(key)
        if kept is None or kept[0] != block:
            size = member.training.settings.batch_size
            kept = block, uniform_block(member.training.streams, layer, block, size, width)
            self._blocks[key] = kept
        return kept[1]


def _width(data: EncodedData) -> int:
    embeddings = data.splits["train"].embeddings
    assert embeddings is not None
    return int(embeddings.shape[1])


def _as_tensor(split: EncodedSplit) -> Tensor:
    assert split.embeddings is not None
    return torch.from_numpy(np.array(split.embeddings))  # a copy: what is mapped from disk cannot be written to
