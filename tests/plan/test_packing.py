"""Who may share a pack, and what a trial's arithmetic comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plmray.config.fields.train import TrainSpec
from plmray.data.batches import collate
from plmray.model.assemble import trainable_count
from plmray.plan.flops import forward_flops, train_flops
from plmray.plan.packing import ALONE, jobs_at_once, pack_key, packs_of, search_width
from plmray.plan.plan import choose_engine
from tests.examples import tiny_data, tiny_model, tiny_sweep
from tests.packed.packs import head_settings


def key_of(settings: TrainSpec) -> str | None:
    return pack_key(settings, "protein", "esm2")


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer__lr": 0.1, "optimizer__clip": None, "optimizer__schedule": "cosine"},
        {"epochs": 7, "batch_size": 3, "patience": 2, "head__dropout": 0.5},
        {"adapter__rank": 7, "adapter__alpha": 32},
    ],
)
def test_what_is_free_inside_a_pack(changes: dict[str, Any]) -> None:
    base = {"adapter__kind": "lora", "adapter__rank": 8}
    assert key_of(head_settings(**{**base, **changes})) == pack_key(head_settings(**base), "protein", "esm2")


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter__rank": 9},
        {"adapter__kind": "dora"},
        {"adapter__layers": 2},
        {"head__hidden": 16},
        {"pooling": "mean"},
    ],
)
def test_what_parts_packs(changes: dict[str, Any]) -> None:
    base = {"adapter__kind": "lora", "adapter__rank": 8}
    assert key_of(head_settings(**{**base, **changes})) != pack_key(head_settings(**base), "protein", "esm2")


@pytest.mark.parametrize("changes", [{"adapter__kind": "full"}, {"adapter__kind": "lora", "adapter__bias": "all"}])
def test_what_trains_alone(changes: dict[str, Any]) -> None:
    assert key_of(head_settings(**changes)) is None


def test_a_plan_names_its_packs(tmp_path: Path) -> None:
    space = {"adapter.kind": {"kind": "choice", "values": ["none", "lora", "full"]}}
    spec = tiny_sweep(tmp_path, space=space).spec
    shares = {pack.pack: pack.share for pack in packs_of(spec, 1000, "esm2")}
    assert sum(shares.values()) == pytest.approx(1)
    assert len(shares) == 3 and 0.2 < shares[ALONE] < 0.5
    assert choose_engine(spec, "esm2")[0] == "packed"
    assert choose_engine(
        tiny_sweep(tmp_path, train={**spec.train.model_dump(), "adapter": {"kind": "full"}}).spec, "esm2"
    ) == (
        "torch",
        "auto: one worker a trial, and nothing that trials could share",
    )


def test_the_cached_states_of_a_plan_are_counted(tmp_path: Path) -> None:
    shape = {"layers": 3, "width": 16, "heads": 2, "feed_forward": 32}
    train = {"backbone": {"name": "t", "init": "random", "shape": shape}, "adapter": {"layers": 1}}
    spec = tiny_sweep(tmp_path, train=train, space={}, search={"candidates": 1}, replicate=None).spec
    (pack,) = packs_of(spec, 1000, "esm2")
    assert pack.prefix_bytes == 1000 * 16 * 4


def test_how_many_candidates_train_at_once(tmp_path: Path) -> None:
    spec = tiny_sweep(tmp_path, search={"candidates": 100, "seeds": [0, 1], "sampler": "tpe"}).spec
    assert jobs_at_once(spec, "esm2", 2, 34.0, "cpu") == 16  # two devices, 16 slots each, two seeds a candidate
    assert jobs_at_once(spec, "esm2", 2, 34.0, "cpu", limit=5) == 5
    assert jobs_at_once(spec, "esm2", 2, 500.0, "cpu") == 2  # long proteins: two trials fill a core
    assert jobs_at_once(spec, "esm2", 1, 500.0, "cuda") == 9
    frozen = tiny_sweep(tmp_path, train={**spec.train.model_dump(), "adapter": {"kind": "none"}}).spec
    assert jobs_at_once(frozen, "esm2", 2, 500.0, "cpu") == 32
    assert search_width(spec) == 25


@pytest.mark.parametrize(("kind", "layers"), [("lora", None), ("full", None)])
def test_arithmetic_against_torchs_own_count(kind: str, layers: int | None, tmp_path: Path) -> None:
    """torch counts matrix products as they run; the formula leaves out LoRA's own and the first layer's savings."""
    shape = {"layers": 4, "width": 64, "heads": 4, "feed_forward": 256}
    train = {
        "backbone": {"name": "t", "init": "random", "shape": shape},
        "adapter": {"kind": kind, "rank": 1, "layers": layers},
        "pooling": "mean",
        "batch_size": 48,
    }
    sweep = tiny_sweep(tmp_path, train=train, space={}, search={"candidates": 1}, replicate=None)
    data, settings = tiny_data(sweep), sweep.spec.train
    model, _ = tiny_model(settings, data)
    split = data.splits["train"]
    batch = collate(data, split, np.arange(48))
    with FlopCounterMode(display=False) as forward:
        outputs = model(batch.tokens, batch.attention, batch.residues)
    with FlopCounterMode(display=False) as backward:
        torch.sum(outputs).backward()
    trainable = trainable_count(model)
    expected = forward_flops(settings, split.lengths, trainable)
    assert expected is not None and expected == pytest.approx(forward.get_total_flops(), rel=0.05)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert train_flops(settings, split.lengths, trainable, 1) == pytest.approx(both, rel=0.12)
