"""Embeddings of a frozen encoder: computed once for all its trials, by batches of similar length."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from plmray.data.batches import EncodedData, EncodedSplit, collate, sorted_batches
from plmray.data.embeddings import Arrays, EmbeddingCache
from plmray.identity import content_hash
from plmray.model.assemble import encode, encoder_width, pool
from plmray.train.engines import EVALUATION_TOKENS

CACHE_VERSION = 1
RESIDUES = "residues"  # in the place of a pooling: the states of all residues
RESIDUE_LIMIT_BYTES = 8 * 2**30  # states of a larger task are computed anew in every pass


def cached_embeddings(
    cache: EmbeddingCache,
    data: EncodedData,
    encoder: Callable[[], nn.Module],
    *,
    weights: str,
    pooling: str,
    precision: str,
    device: torch.device,
) -> Arrays:
    """(n, width) embeddings of every split, or (residues, width) where ``pooling`` is RESIDUES.

    ``weights`` is the hash that names the encoder's weights.
    """
    key = content_hash([CACHE_VERSION, weights, tokens_hash(data), pooling, precision, device.type])
    counts = {name: _rows(split, pooling) for name, split in data.splits.items()}
    return cache.get(key, counts, lambda: compute_embeddings(data, encoder(), pooling, precision, device))


@torch.no_grad()
def compute_embeddings(
    data: EncodedData, encoder: nn.Module, pooling: str, precision: str, device: torch.device
) -> Arrays:
    """float64 for fp64, else float32: bf16 shortens the encoder's own arithmetic only."""
    model = encoder.to(device=device, dtype=torch.float64 if precision == "fp64" else torch.float32).eval()
    autocast = torch.bfloat16 if precision == "bf16" else None
    dtype = np.float64 if precision == "fp64" else np.float32
    width = encoder_width(model)
    arrays: Arrays = {name: np.zeros((_rows(split, pooling), width), dtype) for name, split in data.splits.items()}
    for name, split in data.splits.items():
        for rows in sorted_batches(split, EVALUATION_TOKENS):
            batch = collate(data, split, rows).to(device)
            states = encode(model, batch.tokens, batch.attention, autocast)
            if pooling == RESIDUES:
                arrays[name][split.residues(rows)] = states[batch.residues].cpu().numpy()
            else:
                arrays[name][rows] = pool(states, batch.residues, pooling).cpu().numpy()
    return arrays


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
