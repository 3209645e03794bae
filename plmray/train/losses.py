"""Loss per protein, so that an effective batch is a plain weighted sum however it is cut."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def loss_per_protein(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """(n, outputs) and (n,) to (n,): squared error for regression, cross-entropy for classes."""
    if kind == "classification":
        return functional.cross_entropy(outputs, targets, reduction="none")
    return (outputs[:, 0] - targets.to(outputs.dtype)) ** 2
