"""Adapted layers of many slots over one frozen weight, on tokens without padding.

Tokens of all sequences lie end to end, (tokens, width), those of a slot side by side. Weight gradients are added
where the optimizer reads them, so autograd carries activations only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plmray.packed.slots import SlotWeight


@dataclass(frozen=True)
class Range:
    """Tokens ``start`` to ``end`` belong to ``slot``."""

    slot: int
    start: int
    end: int

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.end)


def slot_ranges(slots: list[int], lengths: list[int]) -> list[Range]:
    """Ranges of tokens from the slots and lengths of sequences; those of a slot are side by side."""
    ranges: list[Range] = []
    start = 0
    for slot, length in zip(slots, lengths, strict=True):
        if ranges and ranges[-1].slot == slot:
            ranges[-1] = Range(slot, ranges[-1].start, start + length)
        else:
            ranges.append(Range(slot, start, start + length))
        start += length
    return ranges


@dataclass(frozen=True)
class LowRank:
    """LoRA's A (slots, rank, in) and B (slots, out, rank), with alpha / rank of every slot.

    ``mask``: (tokens, in) dropout of the input, or None.
    """

    a: SlotWeight
    b: SlotWeight
    scales: list[float]
    mask: Tensor | None = None


def slot_lora(x: Tensor, weight: Tensor, bias: Tensor | None, low_rank: LowRank, ranges: list[Range]) -> Tensor:
    """x Wᵀ + b + s_k (x A_kᵀ) B_kᵀ, for (tokens, in) to (tokens, out)."""
    out: Tensor = _SlotLoRA.apply(x, recorded(x), weight, bias, low_rank, ranges)  # type: ignore[no-untyped-call]
    return out


def slot_scale(x: Tensor, factors: SlotWeight, ranges: list[Range], chain: Tensor | None = None) -> Tensor:
    """Rows of x (tokens, width) times their slot's factors (slots, width).

    ``chain``: (slots, width) derivative of the factors by what is trained, where that is not the factors themselves.
    """
    out: Tensor = _SlotScale.apply(x, recorded(x), factors, ranges, chain)  # type: ignore[no-untyped-call]
    return out


class _SlotLoRA(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, _anchor: Tensor, weight: Tensor, bias: Tensor | None, own: LowRank, ranges: list[Range]
    ) -> Tensor:
        out = functional.linear(x, weight, bias)
        entering = x if own.mask is None else x * own.mask
        low = x.new_empty(x.shape[0], own.a.value.shape[1])
        for r in ranges:
            torch.mm(entering[r.tokens], own.a.value[r.slot].T, out=low[r.tokens])
            out[r.tokens].addmm_(low[r.tokens], own.b.value[r.slot].T, alpha=own.scales[r.slot])
        ctx.save_for_backward(entering, low, weight)
        ctx.own, ctx.ranges = own, ranges
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        entering, low, weight = ctx.saved_tensors
        own: LowRank = ctx.own
        grad_low = torch.empty_like(low)
        for r in ctx.ranges:
            scale = own.scales[r.slot]
            torch.mm(grad[r.tokens], own.b.value[r.slot], out=grad_low[r.tokens]).mul_(scale)
            _add_product(own.b.grad[r.slot], grad[r.tokens].T, low[r.tokens], scale)
            _add_product(own.a.grad[r.slot], grad_low[r.tokens].T, entering[r.tokens], 1.0)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None
        return _below(grad, weight, grad_low, own, ctx.ranges), None, None, None, None, None


def _below(grad: Tensor, weight: Tensor, grad_low: Tensor, own: LowRank, ranges: list[Range]) -> Tensor:
    """(tokens, in) gradient of the input, through the frozen weight and through A."""
    below = grad @ weight
    if own.mask is None:
        for r in ranges:
            below[r.tokens].addmm_(grad_low[r.tokens], own.a.value[r.slot])
        return below
    for r in ranges:
        below[r.tokens].add_((grad_low[r.tokens] @ own.a.value[r.slot]).mul_(own.mask[r.tokens]))
    return below


class _SlotScale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, _anchor: Tensor, factors: SlotWeight, ranges: list[Range], chain: Tensor | None
    ) -> Tensor:
        out = torch.empty_like(x)
        for r in ranges:
            torch.mul(x[r.tokens], factors.value[r.slot].flatten(), out=out[r.tokens])
        ctx.save_for_backward(x)
        ctx.factors, ctx.ranges, ctx.chain = factors, ranges, chain
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        below = torch.empty_like(grad)
        for r in ctx.ranges:
            values, into = ctx.factors.value[r.slot].flatten(), ctx.factors.grad[r.slot]
            own = (grad[r.tokens] * x[r.tokens]).sum(0)
            into.add_((own if ctx.chain is None else own * ctx.chain[r.slot]).view_as(into))
            torch.mul(grad[r.tokens], values, out=below[r.tokens])
        return below, None, None, None, None


def _add_product(into: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """into += scale · left @ right; bf16 products are added to float32 gradients."""
    if into.dtype == left.dtype:
        into.addmm_(left, right, alpha=scale)
    else:
        into.add_((left @ right).to(into.dtype), alpha=scale)


def recorded(like: Tensor) -> Tensor:
    """Autograd records a function only where some input wants a gradient; the weights here are no leaves."""
    return torch.zeros((), dtype=like.dtype, device=like.device, requires_grad=torch.is_grad_enabled())
