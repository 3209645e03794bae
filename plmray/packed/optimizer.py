"""AdamW with a clip, a rate, a decay and a step count of its own for every slot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.config.fields.train import OptimizerSpec
from plmray.packed.slots import SlotStore

NORM_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_


class SlotAdamW:
    """Steps the first slots of a store. The same numbers as clip_grad_norm_ and torch.optim.AdamW for each.

    ``rates``: (ticks, slots), the learning rates of the steps to come.
    """

    def __init__(self, store: SlotStore, rates: NDArray[np.float64], *, fused: bool | None = None) -> None:
        self.store, self.rates = store, rates.tolist()
        self.slots = rates.shape[1]
        self.specs = [spec for spec in store.spec[: self.slots] if spec is not None]
        self.clips = [spec.clip if spec.clip is not None else float("inf") for spec in self.specs]
        on_cpu = store.weights.device.type == "cpu"
        self.groups = list(_groups(store, rates, self.specs)) if (on_cpu if fused is None else fused) else None

    def step(self, tick: int) -> None:
        self._clip()
        self.store.steps[: self.slots].add_(1)
        if self.groups is None:
            self._all_at_once(self.rates[tick])
        else:
            # torch's fused kernel: on a CPU one pass over memory beats ten over all slots.
            for slot, tensors, options in self.groups:
                torch._fused_adamw_(*tensors, lr=self.rates[tick][slot], **options)

    def _clip(self) -> None:
        """Scale each slot's gradient down to its own largest norm."""
        if min(self.clips) == float("inf"):
            return
        grads = self.store.grads[: self.slots]
        norms = torch.linalg.vector_norm(grads, dim=1)
        limits = torch.tensor(self.clips, dtype=norms.dtype, device=norms.device)
        factors = (limits / (norms + NORM_EPSILON)).clamp_(max=1.0)
        if grads.device.type != "cpu" or bool((factors < 1.0).any()):  # a slot without a number stops no other's clip
            grads.mul_(factors.unsqueeze(1))

    def _all_at_once(self, rates: list[float]) -> None:
        """The same by vectors of rates: on a GPU a few large kernels beat many small ones."""
        store, slots = self.store, slice(0, self.slots)
        weights, grads = store.weights[slots], store.grads[slots]
        first, second = store.first_moments[slots], store.second_moments[slots]
        rate, decay = self._column(rates), self._column([spec.weight_decay for spec in self.specs])
        beta1, beta2 = (self._column([getattr(s, name) for s in self.specs]) for name in ("beta1", "beta2"))
        steps = store.steps[slots].double().unsqueeze(1)
        correction = (1 - beta2**steps).sqrt().to(weights.dtype)
        eps = self._column([spec.eps for spec in self.specs]).to(weights.dtype)
        weights.mul_((1 - rate * decay).to(weights.dtype))
        first.lerp_(grads, (1 - beta1).to(weights.dtype))
        second.mul_(beta2.to(weights.dtype)).addcmul_(grads * (1 - beta2).to(weights.dtype), grads)
        step_size = (rate / (1 - beta1**steps)).to(weights.dtype)
        weights.sub_(step_size * first / (second.sqrt() / correction).add_(eps))

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.store.weights.device).unsqueeze(1)


def _groups(
    store: SlotStore, rates: NDArray[np.float64], specs: list[OptimizerSpec]
) -> Iterator[tuple[int, tuple[list[Tensor], ...], dict[str, Any]]]:
    """Slots whose rates and settings agree take one call: a candidate's seeds, as long as they are in step."""
    together: dict[Any, list[int]] = {}
    for slot, spec in enumerate(specs):
        settings = (spec.beta1, spec.beta2, spec.eps, spec.weight_decay)
        together.setdefault((settings, rates[:, slot].tobytes()), []).append(slot)
    for (settings, _), slots in together.items():
        weights, grads, first, second, steps = zip(*(store.by_slot[slot] for slot in slots), strict=True)
        options = dict(zip(("beta1", "beta2", "eps", "weight_decay"), settings, strict=True))
        lists: tuple[list[Tensor], ...] = (list(weights), list(grads), list(first), list(second), [], list(steps))
        yield slots[0], lists, {**options, "amsgrad": False, "maximize": False}
