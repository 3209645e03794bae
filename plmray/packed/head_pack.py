"""Frozen trials in a pack: heads on cached embeddings, trained as batched matrix products."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.config.fields.task import SplitName
from plmray.config.fields.train import HeadSpec, TrainSpec
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.model.assemble import build_head_model, trainable_parameters
from plmray.packed.heads import Masks, Weights, backward, dropout_widths, forward
from plmray.packed.masks import PooledMasks
from plmray.packed.optimizer import SlotAdamW
from plmray.packed.pack import Member, Pack, Ticks
from plmray.packed.slots import SlotStore
from plmray.seeds import Streams
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
        model = build_head_model(settings, data.width, data.num_outputs, Streams(0))
        shapes = {name: tuple(parameter.shape) for name, parameter in trainable_parameters(model).items()}
        super().__init__(data, metric, SlotStore(shapes, capacity, self.dtype, device), device)
        self.embeddings: dict[SplitName, Tensor] = {
            name: torch.from_numpy(split.embeddings).to(device, self.dtype)
            for name, split in data.splits.items()
            if split.embeddings is not None
        }
        self.targets = torch.from_numpy(data.splits["train"].targets).to(device)
        self._buffer = torch.empty(0, 0, 0)
        self.masks = PooledMasks(dropout_widths(self.head, data.width), device, self.dtype)

    def start(self, settings: TrainSpec, streams: Streams) -> Member:
        """Let a trial in, as it would start alone."""
        model = build_head_model(settings, self.data.width, self.data.num_outputs, streams)
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
        backward(self.head, grads.view_as(outputs) * shares.unsqueeze(2), done, weights, add=False)
        return (losses.view_as(shares) * shares).sum(1)

    def _pooled(self, shape: torch.Size) -> Tensor:
        if self._buffer.shape[:2] != shape:
            self._buffer = torch.empty(*shape, self.data.width, dtype=self.dtype, device=self.device)
        return self._buffer

    @torch.no_grad()
    def predict(self, slot: int, split: EncodedSplit) -> NDArray[np.float64]:
        name = next(name for name, own in self.data.splits.items() if own is split)
        masks = [None] * len(self.masks.widths)
        outputs, _ = forward(self.head, self.embeddings[name][None], self.store.only(slot), masks)
        return outputs[0].double().cpu().numpy()
