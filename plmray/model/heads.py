"""Prediction heads on pooled embeddings: (n, width) to (n, outputs)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plmray.model.dropout import DropoutSource, StreamDropout
from plmray.spec.sweep import HeadSpec


class LinearHead(nn.Module):
    """Dropout, then one linear layer."""

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        self.dropout = StreamDropout(spec.dropout, source)
        self.out_proj = nn.Linear(width, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.out_proj(self.dropout(pooled))
        return out


class DenseHead(nn.Module):
    """The paper's head: Linear(width, hidden), ReLU, Linear(hidden, outputs), with dropout between."""

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        self.dense = nn.Linear(width, spec.hidden)
        self.dropout = StreamDropout(spec.dropout, source)
        self.out_proj = nn.Linear(spec.hidden, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.out_proj(self.dropout(torch.relu(self.dense(pooled))))
        return out


class NotebookHead(nn.Module):
    """The notebooks' head: dropout, Linear(width, width), tanh, dropout, Linear(width, outputs)."""

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        self.dropout_in = StreamDropout(spec.dropout, source)
        self.dense = nn.Linear(width, width)
        self.dropout_out = StreamDropout(spec.dropout, source)
        self.out_proj = nn.Linear(width, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        hidden = torch.tanh(self.dense(self.dropout_in(pooled)))
        out: Tensor = self.out_proj(self.dropout_out(hidden))
        return out


HEADS = {"linear": LinearHead, "dense": DenseHead, "notebook": NotebookHead}
