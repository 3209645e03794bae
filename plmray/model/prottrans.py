"""The ProtTrans adapter, before peft: W ∘ (b·a) + BA/rank, that is low rank plus a scaling of rank one, as in T-Few.

Source: Liu et al. 2022 and the study's ``prottrans`` recipe. All layer norms are trained beside it.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_SD = 0.01


class ScaledLowRankLinear(nn.Module):
    """A frozen linear layer with the scaling and the addition. It starts as the layer it wraps, but for the noise of
    its scaling: a ~ 1 + .01 · normal, b = 1, A ~ .01 · normal, B = 0."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base, self.rank = base, rank
        inside, outside = base.in_features, base.out_features
        self.lora_A = nn.Parameter(INITIAL_SD * torch.randn(rank, inside))
        self.lora_B = nn.Parameter(torch.zeros(outside, rank))
        self.scale_a = nn.Parameter(1.0 + INITIAL_SD * torch.randn(inside))
        self.scale_b = nn.Parameter(torch.ones(outside))

    @property
    def weight(self) -> Tensor:
        """The weight in effect; T5 reads its type."""
        base: Tensor = self.base.weight * torch.outer(self.scale_b, self.scale_a)
        return base + self.lora_B @ self.lora_A / self.rank

    def forward(self, x: Tensor) -> Tensor:
        scaled = functional.linear(x * self.scale_a, self.base.weight) * self.scale_b
        out = scaled + functional.linear(functional.linear(x, self.lora_A), self.lora_B) / self.rank
        return out if self.base.bias is None else out + self.base.bias


def wrap(encoder: nn.Module, linears: str, norms: str, rank: int) -> None:
    """Wrap every linear layer whose name matches ``linears``; train the norms that match ``norms``."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, nn.Linear) and re.fullmatch(linears, name):
            parent, _, own = name.rpartition(".")
            setattr(encoder.get_submodule(parent), own, ScaledLowRankLinear(module, rank))
        elif re.fullmatch(norms, name):
            module.requires_grad_(True)
