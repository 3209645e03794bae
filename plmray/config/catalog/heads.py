"""Heads, one row each: what tasks they are for, what they read, how many parameters they have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from plmray.config.catalog.tasks import Level

HeadKind = Literal["linear", "dense", "notebook", "cnn_seth", "cnn_prottrans", "light_attention"]


@dataclass(frozen=True)
class HeadRow:
    """``count``: weights and biases, of (width of the embeddings, head.hidden, outputs).

    ``levels``: of tasks it predicts for. ``reads_residues``: the states of all residues, not one pooled embedding.
    ``dropout``: rate where none is set. ``has_hidden``: whether ``head.hidden`` is its own. ``packs``: many share a
    device. ``needs_whole_batch``: normalises over a batch, so it trains to other numbers in parts of one.
    ``convolution``: channels and residues of its first layer.
    """

    count: Callable[[int, int, int], int]
    levels: tuple[Level, ...] = ("protein", "residue")
    reads_residues: bool = False
    dropout: float = 0.0
    has_hidden: bool = False
    packs: bool = False
    needs_whole_batch: bool = False
    convolution: tuple[int, int] | None = None


def _linear(width: int, _hidden: int, outputs: int) -> int:
    return (width + 1) * outputs


def _dense(width: int, hidden: int, outputs: int) -> int:
    return (width + 1) * hidden + (hidden + 1) * outputs


def _notebook(width: int, _hidden: int, outputs: int) -> int:
    return (width + 1) * width + (width + 1) * outputs


def _light_attention(width: int, hidden: int, outputs: int) -> int:
    convolution = 9 * width**2 + width
    return 2 * convolution + (2 * width + 1) * hidden + 2 * hidden + (hidden + 1) * outputs


def _convolutions(channels: int, size: int, dropout: float) -> HeadRow:
    def count(width: int, _hidden: int, outputs: int) -> int:
        return (width * size + 1) * channels + (channels * size + 1) * outputs

    return HeadRow(count, ("residue",), reads_residues=True, dropout=dropout, convolution=(channels, size))


HEADS: dict[HeadKind, HeadRow] = {
    "linear": HeadRow(_linear, packs=True),
    "dense": HeadRow(_dense, has_hidden=True, packs=True),
    "notebook": HeadRow(_notebook, packs=True),  # of residues dropout and one linear layer: see own_kind
    "cnn_seth": _convolutions(28, 5, dropout=0.0),
    "cnn_prottrans": _convolutions(32, 7, dropout=0.25),
    "light_attention": HeadRow(
        _light_attention, ("protein",), reads_residues=True, dropout=0.25, has_hidden=True, needs_whole_batch=True
    ),
}


def own_kind(kind: HeadKind, level: Level) -> HeadKind:
    """The head that is built: the notebooks' head of residues has the layers of a linear one."""
    return "linear" if kind == "notebook" and level == "residue" else kind
