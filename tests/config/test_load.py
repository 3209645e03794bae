from __future__ import annotations

from pathlib import Path

import pytest

from plmray.config.load import load_sweep
from plmray.config.strict_yaml import read_text
from tests.examples import ROOT, write_sweep

SHIPPED = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_shipped_sweeps_are_without_fault(file: Path) -> None:
    assert load_sweep(file).spec.name.replace("-", "_") == file.stem


def test_space_files_compose_and_keep_their_conditions() -> None:
    spec = load_sweep(ROOT / "sweeps" / "gb1_lora.yaml").spec
    assert set(spec.space) == {"adapter.kind", "adapter.rank", "adapter.alpha", "optimizer.lr"}
    assert spec.space["adapter.rank"].when == {"adapter.kind": "lora"}


def test_a_condition_that_always_holds_is_settled(tmp_path: Path) -> None:
    space = {"adapter.rank": {"kind": "choice", "values": [2, 4], "when": {"adapter.kind": "lora"}}}
    spec = load_sweep(write_sweep(tmp_path, space=space)).spec
    assert spec.space["adapter.rank"].when == {}


def test_overrides_reach_every_kind_of_field(tmp_path: Path) -> None:
    overrides = [
        "train.epochs=7",
        "train.backbone.init_seed=3",
        "space.optimizer.lr={kind: float, low: 0.1, high: 0.2}",
        "search.seeds=[4, 5]",
        "replicate=null",
    ]
    spec = load_sweep(write_sweep(tmp_path), overrides).spec
    assert spec.train.epochs == 7
    assert spec.train.backbone.init_seed == 3
    assert spec.space["optimizer.lr"].low == 0.1  # type: ignore[union-attr]
    assert spec.search.seeds == [4, 5]
    assert spec.replicate is None


def test_override_of_a_backbone_given_by_name() -> None:
    spec = load_sweep(ROOT / "sweeps" / "gb1_lora.yaml", ["train.backbone.init=random"]).spec
    assert (spec.train.backbone.name, spec.train.backbone.init) == ("esm2_t6_8M_UR50D", "random")


def test_values_keep_their_types() -> None:
    value = read_text("a: 1\nb: 1.0e-4\nc: 'no'\nd: [true, null, text]\n", "x").value
    assert value == {"a": 1, "b": 1e-4, "c": "no", "d": [True, None, "text"]}
    assert type(value["a"]) is int
