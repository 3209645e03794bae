"""Adapters of many slots on one frozen encoder: LoRA, DoRA and IA3, as peft computes them one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from plmray.packed.encoder import plain_linear
from plmray.packed.layers import LowRank, Range, slot_lora, slot_ranges, slot_scale
from plmray.packed.slots import SlotWeight

LORA_A, LORA_B = ".lora_A.default.weight", ".lora_B.default.weight"
MAGNITUDE = ".lora_magnitude_vector.default.weight"
IA3 = ".ia3_l.default"

Mask = Callable[[str, int], Tensor | None]


@dataclass(frozen=True)
class Adapters:
    """What replaces the encoder's linear layers in one forward pass: an ``encoder.Linear``.

    ``weights``: views of the slots by the names a lone trial has; ``slots`` and ``lengths``: of every sequence;
    ``scales``: alpha / rank by slot; ``mask(name, width)``: dropout of a layer's LoRA input, (tokens, width), or None.
    """

    weights: Mapping[str, SlotWeight]
    slots: list[int]
    lengths: list[int]
    scales: list[float]
    dtype: torch.dtype
    mask: Mask | None = None

    @cached_property
    def ranges(self) -> list[Range]:
        return slot_ranges(self.slots, self.lengths)

    def on_first_tokens(self) -> Adapters:
        ends = torch.tensor(self.lengths).cumsum(0)
        firsts = ends - torch.tensor(self.lengths)

        def of_firsts(name: str, width: int) -> Tensor | None:
            whole = self.mask(name, width) if self.mask else None
            return None if whole is None else whole[firsts.to(whole.device)]

        return replace(self, lengths=[1] * len(self.lengths), mask=of_firsts)

    def __call__(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        own = f"encoder.{name}"
        if own + IA3 in self.weights:
            return self._rescaled(self._compute(own + IA3), module, x)
        if own + LORA_A not in self.weights:
            return plain_linear(module, x)
        weight: Tensor = module.weight  # type: ignore[assignment]
        bias: Tensor | None = module.bias  # type: ignore[assignment]
        mask = self.mask(own, x.shape[1]) if self.mask else None
        low_rank = LowRank(self._compute(own + LORA_A), self._compute(own + LORA_B), self.scales, mask)
        x = x.to(weight.dtype)
        if own + MAGNITUDE not in self.weights:
            return slot_lora(x, weight, bias, low_rank, self.ranges)
        return self._decomposed(self.weights[own + MAGNITUDE], x, weight, bias, low_rank)

    def _compute(self, name: str) -> SlotWeight:
        """A slot weight in the precision of the arithmetic; its gradient stays in the store's."""
        own = self.weights[name]
        return SlotWeight(own.value.to(self.dtype), own.grad)

    def _rescaled(self, factors: SlotWeight, module: nn.Module, x: Tensor) -> Tensor:
        """IA3: factors of the output, (slots, out, 1), or of the input, (slots, 1, in)."""
        weight: Tensor = module.weight  # type: ignore[assignment]
        bias: Tensor | None = module.bias  # type: ignore[assignment]
        x = x.to(weight.dtype)
        if factors.value.shape[1] == 1:
            return functional.linear(slot_scale(x, factors, self.ranges), weight, bias)
        return slot_scale(functional.linear(x, weight, bias), factors, self.ranges)

    def _decomposed(
        self, magnitude: SlotWeight, x: Tensor, weight: Tensor, bias: Tensor | None, low_rank: LowRank
    ) -> Tensor:
        """DoRA: every output direction at its trained length. The norm is a constant to the gradient, as in peft.

        Source: Liu et al. 2024, section 4.3.
        """
        if low_rank.mask is not None:
            raise NotImplementedError("DoRA with dropout is not packed")
        norms = column_norms(weight, low_rank)
        factors = SlotWeight(magnitude.value.to(x.dtype) / norms, magnitude.grad)
        directed = slot_lora(x, weight, None, low_rank, self.ranges)
        scaled = slot_scale(directed, factors, self.ranges, chain=1 / norms)
        return scaled if bias is None else scaled + bias


@torch.no_grad()
def column_norms(weight: Tensor, low_rank: LowRank) -> Tensor:
    """(slots, out) lengths of the rows of W + s BA, without the product: |W|² + 2s (W Aᵀ)∘B + s² B (A Aᵀ) Bᵀ."""
    a, b = low_rank.a.value, low_rank.b.value
    scale = torch.tensor(low_rank.scales, dtype=weight.dtype, device=weight.device)[:, None]
    cross = (torch.matmul(weight, a.transpose(1, 2)) * b).sum(2)
    square = (torch.bmm(b, torch.bmm(a, a.transpose(1, 2))) * b).sum(2)
    return (weight.square().sum(1) + 2 * scale * cross + scale.square() * square).clamp(min=0).sqrt()
