"""Adapter trials in a pack: one frozen encoder, one pass over the tokens of all slots, no padding."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plmray.config.catalog.families import Family
from plmray.config.fields.train import TrainSpec
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.model.adapters import encoder_layers, lowest_layer
from plmray.model.assemble import ProteinModel, build_model, encoder_width, trainable_parameters
from plmray.model.dropout import StreamDropout, keep_mask, uniform_tokens
from plmray.packed.adapters import Adapters
from plmray.packed.encoder import batches_of, first_token_states, hidden_states
from plmray.packed.frozen_states import PrefixCache, sequences
from plmray.packed.heads import Masks, Weights, backward, dropout_widths, forward, input_gradient
from plmray.packed.masks import PooledMasks
from plmray.packed.optimizer import SlotAdamW
from plmray.packed.pack import Member, Pack, Ticks
from plmray.packed.slots import SlotStore
from plmray.plan.packing import rank_bucket
from plmray.seeds import Streams
from plmray.train.losses import loss_and_gradient

TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 65536}


@dataclass(frozen=True)
class Item:
    """One protein of one slot's batch: its row in the data and its place in the batch."""

    slot: int
    place: int
    row: int
    length: int


class AdapterPack(Pack):
    """Trials with adapters of one kind on one backbone. Free inside the pack: seed, rate, schedule, decay, clip,
    alpha, dropout, epochs, batch size, and rank up to the next of 4, 8, 16, 64.
    """

    def __init__(
        self,
        data: EncodedData,
        settings: TrainSpec,
        encoder: nn.Module,
        family: Family,
        metric: str,
        *,
        capacity: int,
        precision: str,
        device: torch.device,
    ) -> None:
        self.settings, self.family, self.frozen = settings, family, encoder
        self.dtype = torch.float64 if precision == "fp64" else torch.float32
        self.compute_dtype = torch.bfloat16 if precision == "bf16" else self.dtype
        self.encoder = computing_copy(encoder, self.dtype, self.compute_dtype, device)
        self.width = encoder_width(encoder)
        self.first_layer = lowest_layer(settings.adapter, encoder_layers(encoder))
        bucket = settings.adapter.model_copy(update={"rank": rank_bucket(settings.adapter.rank)})
        widest = self._model(settings.model_copy(update={"adapter": bucket}), data.num_outputs, Streams(0))
        shapes = {name: tuple(parameter.shape) for name, parameter in trainable_parameters(widest).items()}
        super().__init__(data, metric, SlotStore(shapes, capacity, self.dtype, device), device)
        self.targets = torch.from_numpy(data.splits["train"].targets).to(device)
        self.masks = PooledMasks(dropout_widths(settings.head, self.width), device, self.dtype)
        self.tokens_at_once = TOKENS_AT_ONCE[device.type]
        self.out_of_memory_halvings = 0
        self.prefix = self.new_prefix() if self.first_layer > 0 else None

    def new_prefix(self) -> PrefixCache:
        """Cached states below the first adapted layer; packs of one encoder and one such layer may share them."""
        return PrefixCache(self.encoder, self.first_layer, self.width, self.dtype, self.tokens_at_once)

    def start(self, settings: TrainSpec, streams: Streams) -> Member:
        """Let a trial in as peft starts it alone."""
        model = self._model(settings, self.data.num_outputs, streams)
        state = {name: parameter.detach() for name, parameter in trainable_parameters(model).items()}
        return self.join(settings, streams, state)

    def _model(self, settings: TrainSpec, outputs: int, streams: Streams) -> ProteinModel:
        return build_model(settings, self.frozen, self.family, outputs, streams)

    def run_ticks(self, ticks: Ticks) -> NDArray[np.float64]:
        masks = self.masks.draw(self.members, ticks)
        adamw = SlotAdamW(self.store, ticks.rates)
        losses = torch.zeros(len(ticks), len(self.members), dtype=torch.float64)
        for tick in range(len(ticks)):
            own = [mask if mask is None else mask[tick] for mask in masks]
            losses[tick] = self._with_enough_memory(ticks, tick, own)
            adamw.step(tick)
        return losses.T.numpy()

    def _with_enough_memory(self, ticks: Ticks, tick: int, masks: Masks) -> Tensor:
        """One tick's gradients. Out of memory: forget them, halve the tokens at once, and do it again."""
        while True:
            self.store.grads[: len(self.members)].zero_()
            try:
                return self._gradients(ticks, tick, masks)
            except torch.OutOfMemoryError:
                if self.tokens_at_once <= int(self.data.splits["train"].lengths.max()):
                    raise
                self.tokens_at_once //= 2
                self.out_of_memory_halvings += 1
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _gradients(self, ticks: Ticks, tick: int, masks: Masks) -> Tensor:
        """(slots,) losses; the gradients are added up in the store, micro-batch by micro-batch."""
        weights = self.store.live(len(self.members))
        losses = torch.zeros(len(self.members), dtype=torch.float64)
        for items in self._micro_batches(ticks, tick):
            losses += self._micro_batch(items, ticks, tick, weights, masks)
        return losses

    def _micro_batches(self, ticks: Ticks, tick: int) -> Iterator[list[Item]]:
        """The proteins of all slots by slot and length: equal lengths side by side share one attention call."""
        lengths = self.data.splits["train"].lengths
        rows, shares = ticks.rows[tick], ticks.shares[tick]
        items = [
            Item(int(slot), int(place), int(rows[slot, place]), int(lengths[rows[slot, place]]))
            for slot, place in np.argwhere(shares > 0)
        ]
        items.sort(key=lambda item: (item.slot, item.length))
        for part in batches_of([item.length for item in items], self.tokens_at_once):
            yield items[part]

    def _micro_batch(self, items: list[Item], ticks: Ticks, tick: int, weights: Weights, masks: Masks) -> Tensor:
        adapters = self._adapters(weights, items, ticks, tick)
        pooled = self._pooled(self.data.splits["train"], np.array([item.row for item in items]), adapters)
        slots, places = (torch.tensor([getattr(i, n) for i in items], device=self.device) for n in ("slot", "place"))
        shape = ticks.shares[tick].shape
        table = torch.zeros(*shape, self.width, dtype=self.dtype, device=self.device)
        table[slots, places] = pooled.detach()
        shares = torch.zeros(shape, dtype=self.dtype, device=self.device)
        shares[slots, places] = torch.from_numpy(ticks.shares[tick]).to(self.device, self.dtype)[slots, places]
        outputs, done = forward(self.settings.head, table, weights, masks)
        rows = torch.from_numpy(ticks.rows[tick]).to(self.device).flatten()
        losses, grads = loss_and_gradient(self.data.kind, outputs.flatten(0, 1), self.targets[rows])
        inner = backward(self.settings.head, grads.view_as(outputs) * shares.unsqueeze(2), done, weights, add=True)
        pooled.backward(input_gradient(self.settings.head, inner, done, weights)[slots, places])  # type: ignore[no-untyped-call]
        return (losses.view(shape) * shares).sum(1).double().cpu()

    def _pooled(self, split: EncodedSplit, rows: NDArray[np.int64], adapters: Adapters) -> Tensor:
        """(proteins, width) embeddings of some proteins of a split."""
        batch = sequences(split, rows, self.device)
        start = self.prefix.states(split, rows, self.device) if self.prefix else None
        if self.settings.pooling == "cls":
            pooled = first_token_states(self.encoder, batch, adapters, start, self.first_layer)
        else:
            hidden = hidden_states(self.encoder, batch, adapters, start, self.first_layer)
            pooled = residue_means(hidden, batch.lengths, self.data)
        return pooled.to(self.dtype)

    def _adapters(self, weights: Weights, items: list[Item], ticks: Ticks, tick: int) -> Adapters:
        slots, lengths = [item.slot for item in items], [item.length for item in items]
        dropout = _TokenMasks(self, items, ticks, tick)
        return Adapters(weights, slots, lengths, self._scales(), self.compute_dtype, dropout)

    def _scales(self) -> list[float]:
        adapters = [member.training.settings.adapter for member in self.members]
        return [adapter.alpha / adapter.rank for adapter in adapters]

    @cached_property
    def dropout_layers(self) -> dict[str, int]:
        """Which number a lone trial gives the dropout layer of each adapted layer."""
        dropping = self.settings.adapter.model_copy(update={"dropout": 0.5})
        model = self._model(self.settings.model_copy(update={"adapter": dropping}), 1, Streams(0))
        found = {name: module.layer for name, module in model.named_modules() if isinstance(module, StreamDropout)}
        return {name.removesuffix(".lora_dropout.default"): layer for name, layer in found.items()}

    @torch.no_grad()
    def predict(self, slot: int, split: EncodedSplit) -> NDArray[np.float64]:
        outputs = np.zeros((len(split), self.data.num_outputs))
        order = np.argsort(split.lengths, kind="stable")
        weights, scale = self.store.only(slot), self._scales()[slot]
        for part in batches_of(split.lengths[order].tolist(), self.tokens_at_once):
            lengths = split.lengths[order[part]].tolist()
            adapters = Adapters(weights, [0] * len(lengths), lengths, [scale], self.compute_dtype)
            pooled = self._pooled(split, order[part], adapters)
            predicted, _ = forward(self.settings.head, pooled[None], weights, [None] * len(self.masks.widths))
            outputs[order[part]] = predicted[0].double().cpu().numpy()
        return outputs

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"out_of_memory_halvings": self.out_of_memory_halvings, "padding_ratio": 1.0}


@dataclass(frozen=True)
class _TokenMasks:
    """LoRA dropout of one micro-batch: each slot's mask as it draws it alone, cut to the tokens at hand."""

    pack: AdapterPack
    items: list[Item]
    ticks: Ticks
    tick: int

    def __call__(self, name: str, width: int) -> Tensor | None:
        members = self.pack.members
        if all(member.training.settings.adapter.dropout == 0 for member in members):
            return None
        parts = []
        for slot in sorted({item.slot for item in self.items}):
            own = [item for item in self.items if item.slot == slot]
            parts.append(self._of_slot(members[slot], own, self.pack.dropout_layers[name], width))
        return torch.cat(parts).to(self.pack.device, self.pack.compute_dtype)

    def _of_slot(self, member: Member, own: list[Item], layer: int, width: int) -> Tensor:
        probability = member.training.settings.adapter.dropout
        if probability == 0:
            return torch.ones(sum(item.length for item in own), width)
        slot = own[0].slot
        rows = self.ticks.rows[self.tick, slot][self.ticks.shares[self.tick, slot] > 0]
        longest = int(self.pack.data.splits["train"].lengths[rows].max())
        step = int(self.ticks.first_steps[slot]) + self.tick
        uniform = uniform_tokens(member.training.streams, layer, step, (len(rows), longest, width))
        return torch.cat([keep_mask(uniform[i.place, : i.length], probability, self.pack.dtype) for i in own])


_CAST: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def computing_copy(
    encoder: nn.Module, dtype: torch.dtype, compute_dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """The encoder in the pack's precision: itself where nothing changes; for bf16 its linear layers are cast, once
    for all packs."""
    own = encoder.to(device=device, dtype=dtype).eval()
    if compute_dtype == dtype:
        return own
    if own not in _CAST:
        _CAST[own] = copy.deepcopy(own)
        for module in _CAST[own].modules():
            if isinstance(module, nn.Linear):
                module.to(compute_dtype)
    return _CAST[own]


def residue_means(hidden: Tensor, lengths: list[int], data: EncodedData) -> Tensor:
    """(sequences, width) means of (tokens, width) over the residues of each sequence, marks left out."""
    hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
    parts = torch.split(hidden, lengths)
    return torch.stack([part[data.front : len(part) - data.back].mean(0) for part in parts])
