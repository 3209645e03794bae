"""Embeddings of a frozen encoder: computed once for all its trials, by batches of similar length."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plmray.data.batches import collate, sorted_batches
from plmray.data.embeddings import Arrays, EmbeddingCache
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.hashing import content_hash
from plmray.model.assemble import encode, encoder_width, pool

CACHE_VERSION = 2
EMBEDDING_TOKENS = {"cpu": 4096, "cuda": 8192}  # of a pass: measured on a CPU, whose caches more would leave
SAY_EVERY_S = 10.0
RESIDUES = "residues"  # in the place of a pooling: the states of all residues
RESIDUE_LIMIT_BYTES = 8 * 2**30  # states of a larger task are computed anew in every pass


class Embedder(Protocol):
    """The last states of a frozen encoder."""

    @property
    def width(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, data: EncodedData, split: EncodedSplit, rows: NDArray[np.int64], pooling: str) -> Tensor:
        """(proteins, width) of ``rows`` of a split, or (residues, width) end to end where ``pooling`` is RESIDUES."""


class Padded:
    """An Embedder: transformers' own forward pass, on proteins padded to the longest of their batch."""

    def __init__(self, encoder: nn.Module, precision: str, device: torch.device) -> None:
        self.encoder = encoder.to(device=device, dtype=torch.float64 if precision == "fp64" else torch.float32).eval()
        self.autocast = torch.bfloat16 if precision == "bf16" else None
        self.device, self.width = device, encoder_width(encoder)

    def __call__(self, data: EncodedData, split: EncodedSplit, rows: NDArray[np.int64], pooling: str) -> Tensor:
        batch = collate(data, split, rows).to(self.device)
        states = encode(self.encoder, batch.tokens, batch.attention, self.autocast)
        return states[batch.residues] if pooling == RESIDUES else pool(states, batch.residues, pooling)


def cached_embeddings(
    cache: EmbeddingCache,
    data: EncodedData,
    embedder: Callable[[], Embedder],
    *,
    weights: str,
    pooling: str,
    precision: str,
    device: torch.device,
    say: Callable[[str], None] = lambda _: None,
) -> Arrays:
    """(n, width) embeddings of every split, or (residues, width) where ``pooling`` is RESIDUES.

    ``weights`` is the hash that names the encoder's weights; ``say`` hears how far a long pass is.
    """
    key = content_hash([CACHE_VERSION, weights, tokens_hash(data), pooling, precision, device.type])
    counts = {name: _rows(split, pooling) for name, split in data.splits.items()}
    return cache.get(key, counts, lambda: compute_embeddings(data, embedder(), pooling, precision, say), say)


@torch.no_grad()
def compute_embeddings(
    data: EncodedData,
    embedder: Embedder,
    pooling: str,
    precision: str,
    say: Callable[[str], None] = lambda _: None,
) -> Arrays:
    """float64 for fp64, else float32: bf16 shortens the encoder's own arithmetic only."""
    dtype = np.float64 if precision == "fp64" else np.float32
    arrays: Arrays = {
        name: np.zeros((_rows(split, pooling), embedder.width), dtype) for name, split in data.splits.items()
    }
    passed = PassProgress(data, say)
    for name, split in data.splits.items():
        for rows in sorted_batches(split, EMBEDDING_TOKENS[embedder.device.type]):
            found = embedder(data, split, rows, pooling).cpu().numpy()
            arrays[name][split.residues(rows) if pooling == RESIDUES else rows] = found
            passed.advance(len(rows), int(split.lengths[rows].sum()))
    return arrays


class PassProgress:
    """Says how far a pass over all proteins is, every ten seconds, and how long it will take."""

    def __init__(self, data: EncodedData, say: Callable[[str], None]) -> None:
        self.say = say
        self.proteins = sum(len(split) for split in data.splits.values())
        self.tokens = sum(int(split.offsets[-1]) for split in data.splits.values())
        self.done = self.tokens_done = 0
        self.started = self.told = time.monotonic()

    def advance(self, proteins: int, tokens: int) -> None:
        self.done, self.tokens_done = self.done + proteins, self.tokens_done + tokens
        now = time.monotonic()
        is_end = self.done == self.proteins and self.told > self.started
        if now - self.told < SAY_EVERY_S and not is_end:
            return
        self.told = now
        rate = self.tokens_done / max(now - self.started, 1e-9)
        left = (self.tokens - self.tokens_done) / rate / 60
        end = f"about {left:.1f} min left" if left else f"done in {now - self.started:.0f} s"
        self.say(f"embedding: {self.done:,} of {self.proteins:,} proteins, {rate:,.0f} tokens a second, {end}")


def residue_bytes(data: EncodedData, width: int, precision: str) -> int:
    """How much the states of all residues of a task take."""
    return sum(_rows(split, RESIDUES) for split in data.splits.values()) * width * (8 if precision == "fp64" else 4)


def _rows(split: EncodedSplit, pooling: str) -> int:
    return int(split.residue_offsets[-1]) if pooling == RESIDUES else len(split)


def tokens_hash(data: EncodedData) -> str:
    """What an encoder reads of a task: its tokens and marks, not its targets."""
    digest = hashlib.sha256(f"{data.pad_id} {data.front} {data.back}".encode())
    for name, split in sorted(data.splits.items()):
        digest.update(name.encode() + split.offsets.tobytes() + split.tokens.tobytes())
    return digest.hexdigest()
