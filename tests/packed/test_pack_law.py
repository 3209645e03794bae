"""The law of packs: whatever may differ between two trials of a pack trains as alone; all else keeps them apart.

Every field of the train settings is walked, as its schema has it. A new field fails here until it has values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plmray.config.catalog.adapters import ADAPTERS
from plmray.config.fields.train import TrainSpec
from plmray.config.parameters import train_fields, with_parameters
from plmray.packed.adapter_pack import AdapterPack
from plmray.plan.packing import FREE_OF_HEADS, pack_key
from plmray.seeds import Streams
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.options import RunOptions
from plmray.train.loop import Training
from tests.examples import CPU, tiny_sweep
from tests.packed import test_adapters as adapters
from tests.packed.packs import alone, curve, embedded, finish, head_pack, head_settings

SHAPE = {"layers": 3, "width": 16, "heads": 2, "feed_forward": 32}
RANDOM = {"name": "tiny", "init": "random", "shape": SHAPE}
# Two values of every field, in settings that allow both; "+": what else has to be set for them.
VALUES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "backbone.name": ("tiny", "other", {}),
    "backbone.init": ("random", "pretrained", {"backbone.shape": None, "backbone.name": "esm2_t6_8M_UR50D"}),
    "backbone.init_seed": (0, 1, {}),
    "backbone.shape.layers": (3, 2, {}),
    "backbone.shape.width": (16, 24, {}),
    "backbone.shape.heads": (2, 4, {}),
    "backbone.shape.feed_forward": (32, 48, {}),
    "backbone.revision": (None, "abc", {"backbone": {"name": "esm2_t6_8M_UR50D"}}),
    "backbone.family": (None, "esm1b", {"backbone": {"name": "esm2_t6_8M_UR50D"}}),
    "backbone.embeddings": (["a.parquet"], ["b.parquet"], {"backbone": {"name": "own"}}),
    "adapter.kind": ("lora", "dora", {}),
    "adapter.rank": (2, 4, {}),
    "adapter.alpha": (1.0, 8.0, {}),
    "adapter.dropout": (0.0, 0.2, {}),
    "adapter.targets": ("attention", "notebook", {}),
    "adapter.bias": ("none", "all", {}),
    "adapter.layers": (None, 1, {}),
    "adapter.tokens": (20, 5, {}),
    "adapter.method": (None, "loha", {}),
    "adapter.options": ({}, {"r": 2}, {}),
    "head.kind": ("linear", "dense", {}),
    "head.hidden": (8, 16, {}),
    "head.dropout": (0.0, 0.3, {}),
    "head.standardize": (False, True, {}),
    "pooling": ("mean", "cls", {}),
    "optimizer.lr": (0.003, 0.01, {}),
    "optimizer.weight_decay": (0.0, 0.1, {}),
    "optimizer.beta1": (0.9, 0.5, {}),
    "optimizer.beta2": (0.999, 0.9, {}),
    "optimizer.eps": (1e-8, 1e-3, {}),
    "optimizer.schedule": ("linear", "cosine", {}),
    "optimizer.warmup": (0.0, 0.3, {}),
    "optimizer.clip": (1.0, None, {}),
    "epochs": (3, 5, {}),
    "batch_size": (4, 7, {}),
    "evaluations_per_epoch": (1, 2, {}),
    "patience": (None, 1, {}),
    "precision": ("auto", "fp64", {}),
    "class_weights": ("none", "balanced", {}),
}
KINDS = tuple(kind for kind, row in ADAPTERS.items() if row.packs)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def two_trials(field: str, kind: str) -> tuple[TrainSpec, TrainSpec]:
    first, second, others = VALUES[field]
    base = TrainSpec.model_validate(
        {"backbone": RANDOM, "adapter": {"kind": kind}, "head": {"hidden": 8}, "pooling": "mean", "epochs": 2}
        | {key: value for key, value in others.items() if "." not in key}
    )
    dotted = {key: value for key, value in others.items() if "." in key}
    return with_parameters(base, {**dotted, field: first}), with_parameters(base, {**dotted, field: second})


def test_every_field_of_the_train_settings_has_its_values() -> None:
    assert set(VALUES) == set(train_fields(TrainSpec)), "a new field: give it two values here"
    assert FREE_OF_HEADS | {f"adapter.{name}" for row in ADAPTERS.values() for name in row.free_in_pack} <= set(VALUES)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_keep_trials_apart_or_train_as_alone(kind: str) -> None:
    """All variants that share a pack with the plain settings, each in a slot of it, against the lone engine."""
    together: dict[str, tuple[TrainSpec, ...]] = {}
    for field in VALUES:
        first, second = two_trials(field, kind)
        keys = [pack_key(own, "protein", own.backbone.family or "esm2") for own in (first, second)]
        if None not in keys and keys[0] == keys[1]:
            together[str(keys[0])] = (*together.get(str(keys[0]), (first,)), second)
    assert together
    for variants in together.values():
        packed, lone = trained(kind, *variants)
        for one, other in zip(packed, lone, strict=True):
            np.testing.assert_allclose(curve(one), curve(other), atol=1e-10, rtol=1e-10)


def trained(kind: str, *variants: TrainSpec) -> tuple[list[Training], list[Training]]:
    """The same trials in one pack, and one by one on the plain engine; float64."""
    if kind == "none":
        data = embedded()
        heads = head_pack(data, variants[0], len(variants))
        members = [heads.start(own, Streams(seed)) for seed, own in enumerate(variants)]
        return finish(heads, members), [alone(data, own, seed) for seed, own in enumerate(variants)]
    proteins, encoder = adapters.proteins(train=10), adapters.encoder_of("esm2")
    shared = {"capacity": len(variants), "precision": "fp64", "device": CPU}
    pack = AdapterPack(proteins, variants[0], encoder, "esm2", "spearman", **shared)  # type: ignore[arg-type]
    members = [pack.start(own, Streams(seed)) for seed, own in enumerate(variants)]
    together = finish(pack, members)
    return together, [adapters.alone(proteins, own, encoder, "esm2", seed) for seed, own in enumerate(variants)]


@pytest.mark.parametrize("field", sorted(FREE_OF_HEADS))
def test_what_is_free_does_share_a_pack(field: str) -> None:
    """Else the walk above would pass by keeping everything apart."""
    keys = {pack_key(own, "protein", "esm2") for own in two_trials(field, "none")}
    assert len(keys) == 1 and None not in keys


def test_names_of_packs_tell_what_parts_them() -> None:
    base = head_settings(adapter__kind="lora")
    other = with_parameters(base, {"backbone.init": "random", "backbone.init_seed": 3})
    name = pack_key(other, "protein", "esm2")
    assert name is not None and "backbone.init random" in name and "backbone.init_seed 3" in name


def test_candidates_of_several_encoders_train_on_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders of other seeds, shapes and weights in one sweep: a pack each, to the plain engine's numbers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    space = {
        "adapter.kind": {"kind": "choice", "values": ["none", "lora"]},
        "backbone.init": {"kind": "choice", "values": ["pretrained", "random"]},
        "backbone.init_seed": {"kind": "choice", "values": [0, 1]},
    }
    changes: dict[str, Any] = {
        "train": {"backbone": "esm2_plmray_1.6M", "pooling": "mean", "epochs": 2, "optimizer": {"lr": 0.003}},
        "space": space,
        "search": {"sampler": "grid", "seeds": [0]},
        "replicate": None,
    }
    scores = {}
    for engine in ("packed", "torch"):
        sweep = tiny_sweep(tmp_path, resources={"engine": engine}, **changes)
        options = RunOptions(storage_path=tmp_path / engine, local=True)
        found = read_results(run_sweep(sweep, options, lambda text: None).folder)
        assert {result.engine for result in found} == {engine}
        scores[engine] = {r.trial_id: (r.score, r.validation_loss) for r in found}
    assert scores["packed"].keys() == scores["torch"].keys() and len(scores["torch"]) == 6  # 2 × (pretrained, 2 seeds)
    assert len({round(loss, 6) for _, loss in scores["torch"].values()}) == 6  # no encoder is another's
    for trial_id, numbers in scores["torch"].items():
        np.testing.assert_allclose(scores["packed"][trial_id], numbers, atol=1e-4)
