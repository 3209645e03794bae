"""Slots: the trainable weights of many trials side by side, one row a trial."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plmray.config.fields.train import OptimizerSpec
from plmray.train.engines import State

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SlotWeight:
    """One named weight of all live slots, and where its gradient goes. Both: (slots, *shape)."""

    value: Tensor
    grad: Tensor


class SlotStore:
    """Weights, gradients and AdamW moments of ``capacity`` slots: (capacity, numbers of a slot) each.

    A trial's tensor may be smaller than the slot's (a lower rank): it lies in the corner, and what lies
    around it is zero and stays zero.
    """

    def __init__(self, shapes: Shapes, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shapes, self.capacity = dict(shapes), capacity
        self.size = sum(math.prod(shape) for shape in shapes.values())
        self.weights, self.grads, self.first_moments, self.second_moments = (
            torch.zeros(capacity, self.size, dtype=dtype, device=device) for _ in range(4)
        )
        self.steps = torch.zeros(capacity, device=device)
        parts = (self.weights, self.grads, self.first_moments, self.second_moments, self.steps)
        self.by_slot = [tuple(part[slot] for part in parts) for slot in range(capacity)]  # views, made once
        self.spec: list[OptimizerSpec | None] = [None] * capacity
        self._own: list[dict[str, tuple[int, ...]]] = [{} for _ in range(capacity)]

    def take(self, slot: int, state: Mapping[str, Tensor], spec: OptimizerSpec) -> None:
        """Put a trial's first weights into a slot, with fresh moments."""
        for part in (self.weights, self.grads, self.first_moments, self.second_moments):
            part[slot].zero_()
        self.steps[slot].zero_()
        self.spec[slot] = spec
        self._own[slot] = {name: tuple(tensor.shape) for name, tensor in state.items()}
        self.load(slot, state)

    def load(self, slot: int, state: Mapping[str, Tensor]) -> None:
        for name, view in self._corners(self.weights, slot):
            view.copy_(state[name])

    def state(self, slot: int) -> State:
        """Copies of a trial's weights on the CPU, at their true shapes."""
        return {name: view.to("cpu", copy=True).contiguous() for name, view in self._corners(self.weights, slot)}

    def move(self, source: int, target: int) -> None:
        """Let a trial continue in another slot, so that live slots stay side by side."""
        for part in (self.weights, self.first_moments, self.second_moments):
            part[target].copy_(part[source])
        self.steps[target].copy_(self.steps[source])
        self.spec[target], self._own[target] = self.spec[source], self._own[source]

    def live(self, slots: int) -> dict[str, SlotWeight]:
        """Views of the first ``slots`` slots by name."""
        return {
            name: SlotWeight(value, grad)
            for (name, value), (_, grad) in zip(
                self._views(self.weights[:slots]), self._views(self.grads[:slots]), strict=True
            )
        }

    def only(self, slot: int) -> dict[str, SlotWeight]:
        """Views of a single slot, for predictions."""
        rows = slice(slot, slot + 1)
        return {name: SlotWeight(value, value) for name, value in self._views(self.weights[rows])}

    def _views(self, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
        start = 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            yield name, rows[:, start:end].view(len(rows), *shape)
            start = end

    def _corners(self, part: Tensor, slot: int) -> Iterator[tuple[str, Tensor]]:
        for name, view in self._views(part[slot : slot + 1]):
            yield name, view[0][tuple(slice(0, size) for size in self._own[slot][name])]
