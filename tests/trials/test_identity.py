"""Equal work, equal id; anything that changes the numbers changes the id; nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plmray.plan.prepare import prepare
from plmray.seeds import Streams, derived_rng
from tests.examples import tiny_sweep


def identity(folder: Path, parameters: dict[str, Any] | None = None, **changes: Any) -> str:
    prepared = prepare(tiny_sweep(folder, **changes), None, has_gpu=False)
    return prepared.identifier.candidate(parameters or {}, "given").id


def train(**changes: Any) -> dict[str, Any]:
    shape = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}
    base = {"backbone": {"name": "tiny", "init": "random", "shape": shape}, "pooling": "mean", "epochs": 2}
    return {**base, "optimizer": {"lr": 0.003}, **changes}


def test_a_parameter_equals_the_same_setting(tmp_path: Path) -> None:
    assert identity(tmp_path, {"optimizer.lr": 0.01}) == identity(tmp_path, train=train(optimizer={"lr": 0.01}))


def test_a_default_written_out_changes_nothing(tmp_path: Path) -> None:
    assert identity(tmp_path, train=train(adapter={"kind": "lora", "rank": 4})) == identity(tmp_path, train=train())


def test_what_an_adapter_does_not_read_changes_nothing(tmp_path: Path) -> None:
    frozen = train(adapter={"kind": "none"})
    assert identity(tmp_path, {"adapter.rank": 8}, train=frozen) == identity(tmp_path, train=frozen)


def test_where_a_trial_runs_changes_nothing(tmp_path: Path) -> None:
    resources = {"workers": 2, "engine": "deepspeed", "micro_batch": 1, "keep": "none"}
    assert identity(tmp_path, resources=resources) == identity(tmp_path)


def test_the_label_of_a_random_backbone_changes_nothing(tmp_path: Path) -> None:
    shape = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}
    renamed = train(backbone={"name": "other", "init": "random", "shape": shape})
    assert identity(tmp_path, train=renamed) == identity(tmp_path)


SHAPE = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}


@pytest.mark.parametrize(
    "changes",
    [
        {"train": train(epochs=3)},
        {"train": train(batch_size=4)},
        {"train": train(precision="fp64")},
        {"train": train(backbone={"name": "tiny", "init": "random", "init_seed": 1, "shape": SHAPE})},
        {"task": {"dataset": "landscape", "landscape": {"length": 12, "train": 48, "validation": 24, "test": 25}}},
        {"objective": {"metric": "pearson"}},
    ],
)
def test_what_changes_numbers_changes_the_id(changes: dict[str, Any], tmp_path: Path) -> None:
    assert identity(tmp_path, **changes) != identity(tmp_path)


def test_one_candidate_may_have_two_origins(tmp_path: Path) -> None:
    identifier = prepare(tiny_sweep(tmp_path), None, has_gpu=False).identifier
    identifier.candidate({"optimizer.lr": 0.01}, "random")
    assert identifier.candidate({"optimizer.lr": 0.01}, "searched").origin == "random+searched"


def test_streams_are_independent_and_repeatable() -> None:
    streams = Streams(7)
    first = streams.rng("order", 3).permutation(50)
    assert (streams.rng("order", 3).permutation(50) == first).all()
    assert (streams.rng("order", 4).permutation(50) != first).any()
    assert (streams.rng("dropout", 3).permutation(50) != first).any()
    assert (derived_rng(8, "order", 3).permutation(50) != first).any()


def test_one_stream_can_be_held_while_the_others_vary() -> None:
    held = {"order": 1}
    assert Streams(7, held).integer("order", 0) == Streams(8, held).integer("order", 0)  # type: ignore[arg-type]
    assert Streams(7, held).integer("init") != Streams(8, held).integer("init")  # type: ignore[arg-type]


def test_what_reads_the_same_weights_otherwise_is_another_candidate() -> None:
    from plmray.config.fields.train import TrainSpec
    from plmray.trials.trial import identifying_settings

    def settings(level: str, **train: object) -> object:
        return identifying_settings(TrainSpec.model_validate({"backbone": "x", **train}), level)  # type: ignore[arg-type]

    plain = {"name": "x"}
    assert settings("protein", backbone=plain | {"family": "prostt5"}) != settings("protein", backbone=plain)
    assert settings("residue", pooling="mean") == settings("residue")
    assert settings("protein", pooling="mean") != settings("protein")
    assert settings("residue", head={"kind": "notebook"}) == settings("residue", head={"kind": "linear"})
    assert settings("protein", head={"dropout": 0.0}) == settings("protein")
    assert settings("protein", head={"kind": "light_attention", "dropout": 0.25}) == settings(
        "protein", head={"kind": "light_attention"}
    )
    assert settings("protein", adapter={"kind": "prefix", "rank": 2}) == settings("protein", adapter={"kind": "prefix"})
    assert settings("protein", adapter={"kind": "prefix", "tokens": 2}) != settings(
        "protein", adapter={"kind": "prefix"}
    )
    assert settings("protein") == {}
