"""Loss per unit, so that an effective batch is a plain weighted sum however it is cut.

Units are proteins, or residues where the task labels these.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plmray.config.fields.train import TrainSpec
from plmray.data.encoded import EncodedData
from plmray.metrics import Kind


def loss_per_unit(kind: Kind, outputs: Tensor, targets: Tensor) -> Tensor:
    """(units, outputs) and (units,) or (units, labels) to (units,).

    Squared error for values, cross-entropy for classes, binary cross-entropy for two classes, its mean over labels for
    label sets.
    """
    if kind == "classification":
        return functional.cross_entropy(outputs, targets, reduction="none")
    if kind == "regression":
        return (outputs[:, 0] - targets.to(outputs.dtype)) ** 2
    wanted = targets.to(outputs.dtype).reshape(outputs.shape)
    return functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(1)


def loss_and_gradient(kind: Kind, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same with its gradient, (n,) and (n, outputs), where autograd would cost more than the loss."""
    if kind == "classification":
        logs = functional.log_softmax(outputs, dim=1)
        wanted = functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        return -(logs * wanted).sum(1), torch.exp(logs) - wanted
    if kind == "regression":
        error = outputs[:, 0] - targets.to(outputs.dtype)
        return error**2, (2.0 * error).unsqueeze(1)
    wanted = targets.to(outputs.dtype).reshape(outputs.shape)
    return loss_per_unit(kind, outputs, targets), (torch.sigmoid(outputs) - wanted) / outputs.shape[1]


def class_weights(settings: TrainSpec, data: EncodedData) -> Tensor | None:
    """(classes,) weights of a unit's loss, float64; None where all count the same.

    Balanced: n / (classes · n of the class) over the training units that count, so that their mean weight is 1.
    """
    if settings.class_weights == "none":
        return None
    train, num_classes = data.splits["train"], len(data.classes)
    targets = train.targets if train.counted is None else train.targets[train.counted]
    counts: NDArray[np.int64] = np.bincount(targets, minlength=num_classes)
    return torch.from_numpy(len(targets) / (num_classes * np.maximum(counts, 1)))


def weighted(losses: Tensor, targets: Tensor, weights: Tensor | None, counted: Tensor | None) -> Tensor:
    """(units,) losses with their classes' weights, 0 where a residue does not count."""
    if weights is not None:
        losses = losses * weights.to(losses)[targets]
    return losses if counted is None else torch.where(counted, losses, torch.zeros_like(losses))
