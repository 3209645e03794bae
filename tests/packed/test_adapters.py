"""Packed adapters train to the numbers that peft gives them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plmray.data.batches import EncodedData, EncodedSplit
from plmray.model.assemble import build_model
from plmray.model.backbones import random_esm2
from plmray.packed.adapter_pack import AdapterPack
from plmray.seeds import Streams
from plmray.spec.names import Family
from plmray.spec.sweep import ShapeSpec, TrainSpec
from plmray.train.engines import TorchEngine
from plmray.train.loop import Training
from tests.examples import CPU
from tests.packed.packs import curve, finish, head_settings

SHAPE = ShapeSpec(layers=3, width=16, heads=2, feed_forward=32)


def encoder_of(family: str, precision: torch.dtype = torch.float64) -> nn.Module:
    """A small random encoder whose weights are large enough to matter."""
    if family == "esm2":
        encoder = random_esm2(SHAPE, 1)
    else:
        from transformers import T5Config, T5EncoderModel

        feed_forward = "gated-gelu" if family == "ankh" else "relu"
        config = T5Config(
            vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2, feed_forward_proj=feed_forward
        )
        config.dropout_rate = 0.0
        encoder = T5EncoderModel(config)
    torch.manual_seed(2)
    for parameter in encoder.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return encoder.requires_grad_(False).to(precision).eval()


def proteins(train: int = 26) -> EncodedData:
    """Random proteins of many lengths whose target is the share of one residue."""
    rng = np.random.default_rng(0)

    def split(size: int) -> EncodedSplit:
        rows = [np.concatenate([[0], rng.integers(4, 24, rng.integers(3, 12)), [2]]) for _ in range(size)]
        targets = np.array([(row == 5).mean() * 10 + rng.normal() * 0.1 for row in rows])
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        return EncodedSplit(np.concatenate(rows).astype(np.int16), offsets, targets)

    splits = {"train": split(train), "validation": split(9), "test": split(9)}
    return EncodedData(splits, "regression", (), 1, 1, 1, 1)  # type: ignore[arg-type]


def settings_of(**changes: Any) -> TrainSpec:
    defaults = {"adapter__kind": "lora", "pooling": "mean", "batch_size": 4, "head__hidden": 8}
    return head_settings(**{**defaults, **changes})


def alone(
    data: EncodedData, settings: TrainSpec, encoder: nn.Module, family: Family, seed: int, **options: Any
) -> Training:
    model = build_model(settings, encoder, family, 1, Streams(seed))
    options = {"precision": "fp64", **options}
    training = Training(
        settings, data, TorchEngine(model, settings, data, device=CPU, **options), Streams(seed), "spearman"
    )
    list(training.evaluations())
    return training


def adapter_pack(
    data: EncodedData, settings: TrainSpec, encoder: nn.Module, family: Family, precision: str = "fp64"
) -> AdapterPack:
    return AdapterPack(data, settings, encoder, family, "spearman", capacity=3, precision=precision, device=CPU)


ADAPTERS: dict[str, list[dict[str, Any]]] = {
    "lora": [
        {"adapter__rank": 2, "adapter__alpha": 8, "adapter__dropout": 0.1},
        {"adapter__rank": 4, "adapter__alpha": 4, "optimizer__lr": 0.001, "batch_size": 5, "head__dropout": 0.2},
        {"adapter__rank": 3, "adapter__alpha": 16, "optimizer__clip": 0.1, "optimizer__weight_decay": 0.05},
    ],
    "dora": [{"adapter__rank": 2, "adapter__alpha": 8}, {"adapter__rank": 4, "adapter__alpha": 4, "batch_size": 5}],
    "ia3": [{}, {"optimizer__lr": 0.001, "batch_size": 5}, {"head__dropout": 0.3}],
}


@pytest.mark.parametrize("family", ["esm2", "prott5", "ankh"])
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_a_pack_gives_the_numbers_of_peft(kind: str, family: str) -> None:
    """float64, at least 60 steps, trials of different rank, alpha, dropout, batch and seed: 1e-12."""
    data, encoder, known = proteins(), encoder_of(family), "esm2" if family == "esm2" else "t5"
    variants = [settings_of(adapter__kind=kind, epochs=10, **changes) for changes in ADAPTERS[kind]]
    pack = adapter_pack(data, variants[0], encoder, known)  # type: ignore[arg-type]
    pack.tokens_at_once = 30  # several micro-batches a tick, some with parts of a slot
    members = [pack.start(settings, Streams(seed)) for seed, settings in enumerate(variants)]
    for seed, (settings, training) in enumerate(zip(variants, finish(pack, members), strict=True)):
        lone = alone(data, settings, encoder, known, seed)  # type: ignore[arg-type]
        assert lone.curve[-1].step >= 60
        np.testing.assert_allclose(curve(training), curve(lone), atol=1e-12, rtol=1e-12)
        assert training.best_state is not None and lone.best_state is not None
        assert training.best_state.keys() == lone.best_state.keys()
        for name, tensor in lone.best_state.items():
            torch.testing.assert_close(training.best_state[name], tensor, atol=1e-12, rtol=1e-12)
