"""A packed head trains to the numbers it has alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from plmray.config.fields.train import OptimizerSpec
from plmray.packed.optimizer import SlotAdamW
from plmray.packed.slots import SlotStore
from plmray.seeds import Streams
from plmray.train.losses import loss_and_gradient, loss_per_unit
from tests.examples import CPU
from tests.packed.packs import alone, curve, embedded, finish, head_pack, head_settings

# Different in everything that is free inside a pack; 50 proteins, so that last batches are short.
VARIANTS = [
    {"optimizer__lr": 0.003, "head__dropout": 0.2},
    {"optimizer__lr": 0.01, "optimizer__weight_decay": 0.1, "optimizer__clip": 0.05, "batch_size": 16},
    {"optimizer__schedule": "cosine", "optimizer__warmup": 0.2, "optimizer__clip": None, "epochs": 5},
    {"optimizer__beta1": 0.8, "optimizer__eps": 1e-4, "head__dropout": 0.5, "evaluations_per_epoch": 2},
]


@pytest.mark.parametrize("kind", ["regression", "binary", "classification", "multilabel"])
@pytest.mark.parametrize("head", ["linear", "dense", "notebook"])
def test_a_pack_gives_the_numbers_of_torch(head: str, kind: str) -> None:
    data = embedded(kind)
    variants = [head_settings(head__kind=head, head__hidden=8, **changes) for changes in VARIANTS]
    pack = head_pack(data, variants[0], capacity=4)
    members = [pack.start(settings, Streams(seed)) for seed, settings in enumerate(variants)]
    for seed, (settings, training) in enumerate(zip(variants, finish(pack, members), strict=True)):
        lone = alone(data, settings, seed)
        np.testing.assert_allclose(curve(training), curve(lone), atol=1e-12, rtol=0)
        assert training.best_state is not None and lone.best_state is not None
        assert training.best_state.keys() == lone.best_state.keys()
        for name, tensor in lone.best_state.items():
            torch.testing.assert_close(training.best_state[name], tensor, atol=1e-12, rtol=0)


def test_neighbours_do_not_matter_even_when_they_come_and_go() -> None:
    """1,000 steps in float32: alone = among others that join, diverge and leave."""
    data = embedded()
    settings = head_settings(head__dropout=0.2, epochs=143)
    pack = head_pack(data, settings, capacity=3, precision="fp32")
    (lone,) = finish(pack, [pack.start(settings, Streams(5))])
    others = [head_settings(epochs=2), head_settings(epochs=30, batch_size=16), head_settings(epochs=4)]
    crowded = head_pack(data, settings, capacity=3, precision="fp32")
    early = crowded.start(others[0], Streams(1))
    member = crowded.start(settings, Streams(5))
    crowded.start(others[1], Streams(2))
    while not early.ended:
        crowded.advance()
    early.training.engine.close()
    crowded.start(others[2], Streams(3))
    (among,) = finish(crowded, [member])
    assert among.curve[-1].step == 1001
    np.testing.assert_allclose(curve(among), curve(lone), rtol=1e-6)


def test_a_newcomer_draws_its_own_dropout() -> None:
    """Trials one after the other through one slot: nothing of the last one is left for the next."""
    data, settings = embedded(), head_settings(head__dropout=0.5, epochs=2)
    pack = head_pack(data, settings, capacity=1)
    for seed in range(4):
        (training,) = finish(pack, [pack.start(settings, Streams(seed))])
        np.testing.assert_allclose(curve(training), curve(alone(data, settings, seed)), atol=1e-12, rtol=0)


def test_a_diverging_trial_fails_alone() -> None:
    data = embedded()
    good, bad = head_settings(), head_settings(optimizer__lr=1.0, optimizer__clip=None, optimizer__eps=1e-30)
    pack = head_pack(data, good, capacity=3, precision="fp32")
    members = [pack.start(settings, Streams(seed)) for seed, settings in enumerate((good, bad, good))]
    with torch.no_grad():
        pack.store.weights[1].fill_(1e30)
    one, _, other = finish(pack, members)
    assert members[1].error is not None and "diverged" in members[1].error
    for seed, training in ((0, one), (2, other)):
        np.testing.assert_allclose(curve(training), curve(alone(data, good, seed, "fp32")), atol=1e-5)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_both_forms_of_the_optimizer_agree(clip: float | None) -> None:
    """The slot-by-slot kernel of a CPU, the vectors of a GPU, and torch's own AdamW: the same weights."""
    torch.manual_seed(0)
    specs = [OptimizerSpec(lr=0.01, clip=clip), OptimizerSpec(lr=0.02, weight_decay=0.1, beta2=0.9, clip=clip)]
    first = [torch.randn(7, dtype=torch.float64) for _ in specs]
    stores = [SlotStore({"w": (7,)}, 3, torch.float64, CPU) for _ in range(2)]
    lone = [torch.nn.Parameter(weights.clone()) for weights in first]
    optimizers = [
        torch.optim.AdamW([p], lr=s.lr, betas=(s.beta1, s.beta2), eps=s.eps, weight_decay=s.weight_decay)
        for p, s in zip(lone, specs, strict=True)
    ]
    for store in stores:
        for slot, spec in enumerate(specs):
            store.take(slot, {"w": first[slot]}, spec)
    for _ in range(20):
        grads = torch.randn(2, 7, dtype=torch.float64)
        for store, fused in zip(stores, (True, False), strict=True):
            store.grads[:2] = grads
            SlotAdamW(store, np.array([[0.01, 0.02]]), fused=fused).step(0)
        for parameter, grad, optimizer in zip(lone, grads, optimizers, strict=True):
            parameter.grad = grad.clone()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([parameter], clip)
            optimizer.step()
    for store in stores:
        torch.testing.assert_close(store.weights[:2], torch.stack([p.data for p in lone]), atol=1e-14, rtol=0)


@pytest.mark.parametrize("kind", ["regression", "binary", "classification", "multilabel"])
def test_the_loss_gradient_is_autograds(kind: Any) -> None:
    torch.manual_seed(0)
    outputs = torch.randn(6, 3 if kind in ("classification", "multilabel") else 1, dtype=torch.float64)
    outputs.requires_grad_(True)
    labels = torch.randint(0, 2, (6, 3) if kind == "multilabel" else (6,))
    targets = torch.randn(6, dtype=torch.float64) if kind == "regression" else labels
    expected = loss_per_unit(kind, outputs, targets)
    (gradient,) = torch.autograd.grad(expected.sum(), outputs)
    losses, ours = loss_and_gradient(kind, outputs.detach(), targets)
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(ours, gradient)
