"""How much GPU memory a trial takes, before any GPU is there: which length fits, and which setting.

Activations are what autograd keeps, counted on the real models by ``tests/test_memory.py``; weights, gradients and
optimizer states follow from the settings. What a device's own libraries take is an allowance, not a measurement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from plmray.config.catalog.backbones import EncoderSize
from plmray.config.catalog.families import Family

GIB = 2**30
CUDA_CONTEXT_BYTES = 0.6 * GIB  # allowance: context, kernels, workspaces of a process on a device
FRAGMENTATION = 1.1  # allowance: of the caching allocator


@dataclass(frozen=True)
class Kept:
    """Bytes that autograd keeps in one layer: of a token ``width`` and ``feed_forward`` times these, ``scores`` of each
    pair of tokens and each head. Counted on transformers 5.23, peft 0.21 (tests/test_memory.py)."""

    width: float
    feed_forward: float
    scores: float


# By precision, then by what trains. Fused attention keeps no scores; T5's relative bias is a mask of its own.
_ESM: dict[tuple[str, str], Kept] = {
    ("fp32", "adapter"): Kept(28, 12, 0),
    ("bf16", "adapter"): Kept(24, 6, 0),
    ("fp32", "full"): Kept(32, 16, 0),
    ("bf16", "full"): Kept(24, 8, 0),
}
_T5_KEPT: dict[tuple[str, str], Kept] = {
    ("fp32", "adapter"): Kept(28, 4, 4),
    ("bf16", "adapter"): Kept(24, 2, 2),
    ("fp32", "full"): Kept(40, 4, 4),
    ("bf16", "full"): Kept(38, 4, 4),
}
_GATED: dict[tuple[str, str], Kept] = {
    ("fp32", "adapter"): Kept(28, 24, 4),
    ("bf16", "adapter"): Kept(24, 12, 2),
    ("fp32", "full"): Kept(40, 28, 4),
    ("bf16", "full"): Kept(40, 14, 4),
}
# The study trained in float16 with unfused attention and the checkpoints' own dropout. (times the bytes of a token
# above, bytes of a pair of tokens and head), fitted to its longest lengths at 16 and 24 GB; KNOWN_BACKBONES has them.
_AS_PUBLISHED: dict[str, tuple[float, float]] = {"esm": (1.0, 2.7), "t5": (2.45, 7.0), "gated": (2.8, 4.6)}


@dataclass(frozen=True)
class Setting:
    """``trainable``: parameters that train. ``offload``: optimizer states in main memory. ``as_published``: the
    study's way, weights in two bytes and attention unfused; plmray keeps float32 weights, and copies under autocast."""

    size: EncoderSize
    family: Family
    adapter: str
    precision: str
    trainable: float
    micro_batch: int = 1
    checkpointing: bool = False
    as_published: bool = False
    offload: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes of one process on one device."""

    weights: float
    training: float
    activations: float

    @property
    def total(self) -> float:
        return CUDA_CONTEXT_BYTES + FRAGMENTATION * (self.weights + self.training + self.activations)


def memory(setting: Setting, length: int) -> Memory:
    """Of a training step with proteins of ``length`` tokens. An estimate: not measured on a GPU."""
    size, rows = setting.size, setting.micro_batch
    number = 8 if setting.precision == "fp64" else 4
    if setting.as_published:
        weights = 2.0 * size.weights
    else:
        copies = 2.0 * size.weights if setting.precision == "bf16" and setting.adapter != "none" else 0.0
        weights = number * size.weights + copies
    states = 0.0 if setting.offload else 2.0 * number * setting.trainable
    gradients = (2.0 if setting.as_published else number) * setting.trainable
    if setting.adapter == "none":
        states, gradients = 0.0, 0.0
    return Memory(weights, states + gradients, rows * _activations(setting, length))


def _activations(setting: Setting, length: int) -> float:
    """Bytes of one protein. With checkpointing the input of every layer, and the inside of one at a time."""
    layer, size = _layer_bytes(setting, length), setting.size
    if setting.adapter == "none":
        return 2 * layer  # nothing is kept: a layer's input and output, and what is inside
    if setting.checkpointing:
        return 4.0 * size.layers * length * size.width + layer
    return size.layers * layer


def _layer_bytes(setting: Setting, length: int) -> float:
    precision = "fp32" if setting.precision in ("fp32", "fp64") else "bf16"
    kind = "gated" if setting.size.gated else "t5" if setting.family in ("t5", "prostt5") else "esm"
    table = {"gated": _GATED, "t5": _T5_KEPT, "esm": _ESM}[kind]
    kept = table[precision, "full" if setting.adapter == "full" else "adapter"]
    times, scores = _AS_PUBLISHED[kind] if setting.as_published else (1.0, kept.scores)
    # Widths of queries, keys, values and what attention gives are those of all heads together.
    widths = kept.width * (0.5 * setting.size.width + 0.5 * setting.size.inner)
    per_token = widths + kept.feed_forward * setting.size.feed_forward
    factor = 2.0 if setting.precision == "fp64" else 1.0
    return factor * (times * per_token * length + scores * setting.size.heads * length**2)


def longest(setting: Setting, device_bytes: float, limit: int = 4096) -> int:
    """Tokens of the longest protein that fits, 0 where none does; ``limit`` where more would."""
    low, high = 0, limit
    while low < high:
        middle = math.ceil((low + high) / 2)
        low, high = (middle, high) if memory(setting, middle).total <= device_bytes else (low, middle - 1)
    return low
