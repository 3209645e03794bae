"""Prediction heads. Pooled ones take (…, width) and keep what stands before it, so that they serve proteins as well as
residues; the others read all residues of a protein, (n, length, width), and must not see what is none.

Layer sizes are those of their papers: SETH (Ilzhöfer 2022), ProtTrans (Elnaggar 2021), light attention (Stärk 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plmray.config.catalog.heads import HEADS, own_kind
from plmray.config.catalog.tasks import Level
from plmray.config.fields.train import HeadSpec
from plmray.model.dropout import DropoutSource, StreamDropout


class LinearHead(nn.Module):
    """Dropout, then one linear layer."""

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        self.dropout = StreamDropout(spec.dropout_rate, source)
        self.out_proj = nn.Linear(width, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.out_proj(self.dropout(pooled))
        return out


class DenseHead(nn.Module):
    """The paper's head: Linear(width, hidden), ReLU, Linear(hidden, outputs), with dropout between."""

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        self.dense = nn.Linear(width, spec.hidden)
        self.dropout = StreamDropout(spec.dropout_rate, source)
        self.out_proj = nn.Linear(spec.hidden, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.out_proj(self.dropout(torch.relu(self.dense(pooled))))
        return out


class NotebookHead(nn.Module):
    """The notebooks' head: dropout, Linear(width, width), tanh, dropout, Linear(width, outputs)."""

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        self.dropout_in = StreamDropout(spec.dropout_rate, source)
        self.dense = nn.Linear(width, width)
        self.dropout_out = StreamDropout(spec.dropout_rate, source)
        self.out_proj = nn.Linear(width, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        hidden = torch.tanh(self.dense(self.dropout_in(pooled)))
        out: Tensor = self.out_proj(self.dropout_out(hidden))
        return out


class ConvolutionHead(nn.Module):
    """Two convolutions over residues: ``cnn_seth`` 5 wide with 28 channels and tanh, ``cnn_prottrans`` 7 wide with 32,
    ReLU and dropout. What is no residue is zero before either, as beyond the ends of a protein."""

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        convolution = HEADS[spec.kind].convolution
        assert convolution is not None  # build_head makes it of such heads alone
        channels, size = convolution
        self.first = nn.Conv1d(width, channels, size, padding=size // 2)
        self.activate = torch.tanh if spec.kind == "cnn_seth" else torch.relu
        self.dropout = StreamDropout(spec.dropout_rate, source)
        self.second = nn.Conv1d(channels, outputs, size, padding=size // 2)

    def forward(self, states: Tensor, residues: Tensor) -> Tensor:
        """(n, length, width) to (n, length, outputs)."""
        seen = residues.unsqueeze(-1)
        hidden = self.activate(_convolved(self.first, states.masked_fill(~seen, 0.0)))
        return _convolved(self.second, self.dropout(hidden).masked_fill(~seen, 0.0))


class LightAttentionHead(nn.Module):
    """A weighted sum of convolved residues beside their maximum, then a dense layer with batch normalisation.

    The statistics of a batch make its predictions depend on each other in training, so a batch comes whole; a batch
    of one protein is normalised by the running statistics.
    """

    def __init__(self, width: int, outputs: int, spec: HeadSpec, source: DropoutSource) -> None:
        super().__init__()
        self.features = nn.Conv1d(width, width, 9, padding=4)
        self.attention = nn.Conv1d(width, width, 9, padding=4)
        self.dropout_features = StreamDropout(spec.dropout_rate, source)
        self.dense = nn.Linear(2 * width, spec.hidden)
        self.dropout = StreamDropout(spec.dropout_rate, source)
        self.norm = nn.BatchNorm1d(spec.hidden)
        self.out_proj = nn.Linear(spec.hidden, outputs)

    def forward(self, states: Tensor, residues: Tensor) -> Tensor:
        """(n, length, width) to (n, outputs)."""
        seen = residues.unsqueeze(-1)
        states = states.masked_fill(~seen, 0.0)
        features = self.dropout_features(_convolved(self.features, states))
        weights = _convolved(self.attention, states).masked_fill(~seen, -torch.inf).softmax(dim=1)
        summed = (features.masked_fill(~seen, 0.0) * weights).sum(1)
        largest = features.masked_fill(~seen, -torch.inf).amax(1)
        hidden = torch.relu(self.dropout(self.dense(torch.cat([summed, largest], dim=1))))
        out: Tensor = self.out_proj(self._normed(hidden))
        return out

    def _normed(self, hidden: Tensor) -> Tensor:
        norm = self.norm
        alone = len(hidden) == 1
        return nn.functional.batch_norm(
            hidden,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=self.training and not alone,
            momentum=0.1,
            eps=norm.eps,
        )


def _convolved(convolution: nn.Module, states: Tensor) -> Tensor:
    out: Tensor = convolution(states.transpose(1, 2))
    return out.transpose(1, 2)


def build_head(width: int, outputs: int, spec: HeadSpec, level: Level, source: DropoutSource) -> nn.Module:
    """The head of a kind. At level residue the notebooks' head is dropout and one linear layer."""
    kind = own_kind(spec.kind, level)
    if HEADS[kind].convolution is not None:
        return ConvolutionHead(width, outputs, spec, source)
    if kind == "light_attention":
        return LightAttentionHead(width, outputs, spec, source)
    if kind == "dense":
        return DenseHead(width, outputs, spec, source)
    if kind == "notebook":
        return NotebookHead(width, outputs, spec, source)
    return LinearHead(width, outputs, spec, source)
