"""How much GPU memory a trial takes, before any GPU is there: which length fits, and which setting.

Activations are what autograd keeps, counted on the real models by ``tests/test_memory.py``; weights, gradients and
optimizer states follow from the settings. What a device's own libraries take is an allowance, not a measurement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from plmray.spec.families import Family
from plmray.spec.train import ShapeSpec

GIB = 2**30
CUDA_CONTEXT_BYTES = 0.6 * GIB  # allowance: context, kernels, workspaces of a process on a device
FRAGMENTATION = 1.1  # allowance: of the caching allocator


@dataclass(frozen=True)
class Size:
    """An encoder: ``inner`` is the width of all attention heads together, ``feed_forward`` of the layer between."""

    layers: int
    width: int
    inner: int
    feed_forward: int
    heads: int
    vocabulary: int = 33
    gated: bool = False

    @property
    def layer_weights(self) -> int:
        return 4 * self.width * self.inner + (3 if self.gated else 2) * self.width * self.feed_forward

    @property
    def weights(self) -> int:
        """Of the whole encoder, biases and norms left out."""
        return self.layers * self.layer_weights + self.vocabulary * self.width


def esm2_size(shape: ShapeSpec) -> Size:
    return Size(shape.layers, shape.width, shape.width, shape.feed_forward, shape.heads)


# Sources: the configurations of the published checkpoints.
_T5_XL = Size(24, 1024, 4096, 16384, 32, vocabulary=128)
SIZES: dict[str, Size] = {
    "esm2_t6_8M_UR50D": Size(6, 320, 320, 1280, 20),
    "esm2_t12_35M_UR50D": Size(12, 480, 480, 1920, 20),
    "esm2_t30_150M_UR50D": Size(30, 640, 640, 2560, 20),
    "esm2_t33_650M_UR50D": Size(33, 1280, 1280, 5120, 20),
    "esm2_t36_3B_UR50D": Size(36, 2560, 2560, 10240, 40),
    "esm1b_t33_650M_UR50S": Size(33, 1280, 1280, 5120, 20),
    "prot_bert": Size(30, 1024, 1024, 4096, 16),
    "prot_t5_xl_uniref50": _T5_XL,
    "prot_t5_xl_half_uniref50-enc": _T5_XL,
    "ProstT5": Size(24, 1024, 4096, 16384, 32, vocabulary=150),
    "ankh-base": Size(48, 768, 768, 3072, 12, vocabulary=144, gated=True),
    "ankh-large": Size(48, 1536, 1024, 3840, 16, vocabulary=144, gated=True),
}


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
# above, bytes of a pair of tokens and head), fitted to its longest lengths at 16 and 24 GB; PUBLISHED_LONGEST has them.
_AS_PUBLISHED: dict[str, tuple[float, float]] = {"esm": (1.0, 2.7), "t5": (2.45, 7.0), "gated": (2.8, 4.6)}

# Tokens that trained with LoRA at 8, 16, 24 GB; None: longer than was tried. Source: Schmirler et al. 2024.
PUBLISHED_LONGEST: dict[str, tuple[int, int | None, int | None]] = {
    "esm2_t6_8M_UR50D": (2000, None, None),
    "esm2_t12_35M_UR50D": (2000, None, None),
    "esm2_t30_150M_UR50D": (1900, 2000, None),
    "esm2_t33_650M_UR50D": (1300, 2000, None),
    "esm2_t36_3B_UR50D": (200, 1100, 1600),
    "prot_t5_xl_uniref50": (500, 1100, 1500),
    "ankh-base": (400, 1300, 1800),
    "ankh-large": (0, 700, 1200),
}


@dataclass(frozen=True)
class Setting:
    """``trainable``: parameters that train. ``offload``: optimizer states in main memory. ``as_published``: the
    study's way, weights in two bytes and attention unfused; plmray keeps float32 weights, and copies under autocast."""

    size: Size
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
