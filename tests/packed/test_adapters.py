"""Packed adapters train to the numbers that peft gives them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plmray.config.backbone_names import Family
from plmray.config.fields.train import ShapeSpec, TrainSpec
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.model.assemble import build_model
from plmray.model.backbones import random_esm2
from plmray.packed.adapter_pack import AdapterPack
from plmray.packed.attention import attend_by_length, attend_padded
from plmray.seeds import Streams
from plmray.train.engines import TorchEngine
from plmray.train.loop import Training
from tests.examples import CPU
from tests.packed.packs import curve, finish, head_settings

SHAPE = ShapeSpec(layers=3, width=16, heads=2, feed_forward=32).size


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
    data: EncodedData, settings: TrainSpec, encoder: nn.Module, family: Family, seed: int, precision: str = "fp64"
) -> Training:
    """The reference: transformers' module with peft's layers, padded batches, autograd, torch.optim.AdamW."""
    model = build_model(settings, encoder, family, 1, Streams(seed))
    engine = TorchEngine(model, settings, data, precision=precision, device=CPU)
    training = Training(settings, data, engine, Streams(seed), "spearman")
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


@pytest.mark.parametrize("family", ["esm2", "prott5"])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_top_layers_train_from_cached_states(layers: int, family: str) -> None:
    """adapter.layers: what is below the lowest adapted layer is computed once, to the same numbers."""
    data, encoder, known = proteins(), encoder_of(family), "esm2" if family == "esm2" else "t5"
    pooling = "cls" if family == "esm2" else "mean"
    settings = settings_of(adapter__layers=layers, adapter__alpha=8, pooling=pooling)
    pack = adapter_pack(data, settings, encoder, known)  # type: ignore[arg-type]
    assert pack.prefix is not None and pack.first_layer == 3 - layers
    (training,) = finish(pack, [pack.start(settings, Streams(1))])
    lone = alone(data, settings, encoder, known, 1)  # type: ignore[arg-type]
    np.testing.assert_allclose(curve(training), curve(lone), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("changes", [{"adapter__dropout": 0.2}, {"adapter__kind": "dora"}, {"adapter__kind": "ia3"}])
def test_first_token_pooling_needs_less_and_gives_the_same(changes: dict[str, Any]) -> None:
    data, encoder = proteins(), encoder_of("esm2")
    settings = settings_of(pooling="cls", adapter__alpha=8, **changes)
    pack = adapter_pack(data, settings, encoder, "esm2")
    (training,) = finish(pack, [pack.start(settings, Streams(1))])
    np.testing.assert_allclose(
        curve(training), curve(alone(data, settings, encoder, "esm2", 1)), atol=1e-12, rtol=1e-12
    )


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_first_steps_in_lower_precision(precision: str, tolerance: float) -> None:
    data, encoder = proteins(), encoder_of("esm2", torch.float32)
    settings = settings_of(adapter__alpha=8, epochs=1, evaluations_per_epoch=7)
    pack = adapter_pack(data, settings, encoder, "esm2", precision)
    (training,) = finish(pack, [pack.start(settings, Streams(1))])
    lone = alone(data, settings, encoder, "esm2", 1, precision)
    np.testing.assert_allclose(curve(training)[:, 2:4], curve(lone)[:, 2:4], rtol=tolerance)


def test_out_of_memory_halves_the_tokens_and_repeats_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    data, encoder, settings = proteins(), encoder_of("esm2"), settings_of(adapter__alpha=8)
    (expected,) = finish(pack := adapter_pack(data, settings, encoder, "esm2"), [pack.start(settings, Streams(1))])
    tight = adapter_pack(data, settings, encoder, "esm2")
    tight.tokens_at_once = 64
    inner = tight._micro_batch

    def small_memory(items: list[Any], *rest: Any) -> Any:
        found = inner(items, *rest)  # gradients of this micro-batch are in: the tick must forget them
        if sum(item.length for item in items) > 30:
            raise torch.OutOfMemoryError("too large")
        return found

    monkeypatch.setattr(tight, "_micro_batch", small_memory)
    (training,) = finish(tight, [tight.start(settings, Streams(1))])
    np.testing.assert_allclose(curve(training), curve(expected), atol=1e-12, rtol=1e-12)
    assert tight.provenance()["out_of_memory_halvings"] == 2


@pytest.mark.parametrize("asking", ["all tokens", "first tokens"])
@pytest.mark.parametrize("biased", [True, False])
def test_attention_padded_and_by_length_agree(biased: bool, asking: str) -> None:
    """What a GPU computes where its variable-length kernel does not serve, against sequence by sequence."""
    torch.manual_seed(0)
    lengths = [5, 5, 9, 3]
    firsts = torch.tensor([0, 5, 10, 19])
    found = []
    inputs = torch.randn(3, sum(lengths), 2, 4, dtype=torch.float64)
    table = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    for form in (attend_by_length, attend_padded):
        query, key, value = (part.clone().requires_grad_() for part in inputs)
        asked = query if asking == "all tokens" else query[firsts]
        bias = (lambda n: table[:, :, : (n if asking == "all tokens" else 1), :n]) if biased else None
        out = form(asked, key, value, lengths, bias)
        out.square().sum().backward()
        found.append([out.detach(), query.grad, key.grad, value.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
