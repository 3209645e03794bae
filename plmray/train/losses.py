"""Loss per protein, so that an effective batch is a plain weighted sum however it is cut."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def loss_per_protein(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """(n, outputs) and (n,) to (n,): squared error for regression, cross-entropy for classes."""
    if kind == "classification":
        return functional.cross_entropy(outputs, targets, reduction="none")
    return (outputs[:, 0] - targets.to(outputs.dtype)) ** 2


def loss_and_gradient(kind: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same with its gradient, (n,) and (n, outputs), where autograd would cost more than the loss."""
    if kind == "classification":
        logs = functional.log_softmax(outputs, dim=1)
        wanted = functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        return -(logs * wanted).sum(1), torch.exp(logs) - wanted
    error = outputs[:, 0] - targets.to(outputs.dtype)
    return error**2, (2.0 * error).unsqueeze(1)
