"""Prediction heads of many slots at once, with the names and the arithmetic of ``model.heads``.

Forward and backward are written out: at these sizes autograd's bookkeeping would cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plmray.config.fields.train import HeadSpec
from plmray.packed.slots import SlotWeight

Weights = Mapping[str, SlotWeight]
Masks = Sequence[Tensor | None]


@dataclass(frozen=True)
class Pass:
    """What a backward pass needs of its forward pass. ``activated`` is None for a head without a hidden layer."""

    entering: Tensor
    activated: Tensor | None
    leaving: Tensor
    mask_in: Tensor | None
    mask_out: Tensor | None


def forward(head: HeadSpec, pooled: Tensor, weights: Weights, masks: Masks) -> tuple[Tensor, Pass]:
    """(slots, rows, width) embeddings to (slots, rows, outputs). ``masks``: one for each dropout layer, or None."""
    if head.kind == "linear":
        entering = _masked(pooled, masks[0])
        return _linear(entering, weights, "out_proj"), Pass(entering, None, entering, masks[0], None)
    mask_in, mask_out = (None, masks[0]) if head.kind == "dense" else (masks[0], masks[1])
    entering = _masked(pooled, mask_in)
    hidden = _linear(entering, weights, "dense")
    activated = hidden.relu_() if head.kind == "dense" else hidden.tanh_()
    leaving = _masked(activated, mask_out)
    return _linear(leaving, weights, "out_proj"), Pass(entering, activated, leaving, mask_in, mask_out)


def backward(head: HeadSpec, grad: Tensor, done: Pass, weights: Weights, *, add: bool) -> Tensor:
    """Write weight gradients from (slots, rows, outputs) ``grad``, or add them to what is there.

    Returns the gradient behind the first layer's weights, for ``input_gradient``.
    """
    _weight_gradient(grad, done.leaving, weights, "out_proj", add)
    if done.activated is None:
        return grad
    inner: Tensor = _masked(torch.bmm(grad, _value(weights, "out_proj")), done.mask_out)
    if head.kind == "dense":
        inner = torch.ops.aten.threshold_backward(inner, done.activated, 0)
    else:
        inner = torch.ops.aten.tanh_backward(inner, done.activated)
    _weight_gradient(inner, done.entering, weights, "dense", add)
    return inner


def input_gradient(head: HeadSpec, inner: Tensor, done: Pass, weights: Weights) -> Tensor:
    """(slots, rows, width) gradient of the embeddings, from what ``backward`` returned."""
    first = "out_proj" if head.kind == "linear" else "dense"
    return _masked(torch.bmm(inner, _value(weights, first)), done.mask_in)


def dropout_widths(head: HeadSpec, width: int) -> list[int]:
    """The width of every dropout layer of a head, in the order in which ``model.heads`` makes them."""
    return {"linear": [width], "dense": [head.hidden], "notebook": [width, width]}[head.kind]


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    bias = weights[f"classifier.{name}.bias"].value
    return torch.baddbmm(bias.unsqueeze(1), x, _value(weights, name).transpose(1, 2))


def _weight_gradient(grad: Tensor, x: Tensor, weights: Weights, name: str, add: bool) -> None:
    weight, bias = weights[f"classifier.{name}.weight"], weights[f"classifier.{name}.bias"]
    if add:
        weight.grad.add_(torch.bmm(grad.transpose(1, 2), x))
        bias.grad.add_(grad.sum(1))
    else:
        # Straight into the store: on a CPU these gradients are as much memory traffic as the optimizer.
        torch.bmm(grad.transpose(1, 2), x, out=weight.grad)
        bias.grad.copy_(grad.sum(1))


def _value(weights: Weights, name: str) -> Tensor:
    return weights[f"classifier.{name}.weight"].value


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask
