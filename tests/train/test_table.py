"""Every family of encoders × adapter × head × kind of task: it trains, improves on a toy that can be learnt, comes back
from disk equal, and predicts the same whatever stands beside a protein.

The whole table is slow; the quick part holds every pair of a family with an adapter and of a head with a kind.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from plmray.config.backbone_names import family as family_of
from plmray.config.catalog.families import Family
from plmray.config.fields.task import TaskSpec
from plmray.config.fields.train import TrainSpec
from plmray.data.datasets import load_data
from plmray.data.encoded import EncodedData, encode_data
from plmray.metrics import DEFAULT_METRIC
from plmray.model.adapters import encoder_layers, saved_config
from plmray.model.assemble import ProteinModel, build_model, selected_tensors
from plmray.model.backbones import load_encoder, load_tokenizer
from plmray.seeds import Streams
from plmray.train import checkpoint
from plmray.train.engines import TorchEngine, predict_rows
from plmray.train.loop import Training
from tests.examples import CPU, label
from tests.model.families import write_checkpoint

FAMILIES = get_args(Family)
ADAPTERS: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "lora": {"kind": "lora", "alpha": 8, "dropout": 0.1},
    "dora": {"kind": "dora", "alpha": 8},
    "ia3": {"kind": "ia3"},
    "adalora": {"kind": "adalora", "alpha": 8, "rank": 2},
    "prefix": {"kind": "prefix", "tokens": 3},
    "prottrans": {"kind": "prottrans"},
    "full": {"kind": "full"},
    "loha": {"kind": "peft", "method": "loha", "options": {"r": 2}},
    "lokr": {"kind": "peft", "method": "lokr", "options": {"r": 2}},
    "oft": {"kind": "peft", "method": "oft", "options": {"oft_block_size": 4}},
    "boft": {"kind": "peft", "method": "boft", "options": {"boft_block_size": 4}},
    "fourierft": {"kind": "peft", "method": "fourierft", "options": {"n_frequency": 20, "scaling": 20.0}},
    "hra": {"kind": "peft", "method": "hra", "options": {"r": 2}},
    "ln_tuning": {"kind": "peft", "method": "ln_tuning"},
}
HEADS = {
    "protein": ("linear", "dense", "notebook", "light_attention"),
    "residue": ("linear", "dense", "notebook", "cnn_seth", "cnn_prottrans"),
}
KINDS = {
    "protein": ("regression", "binary", "classification", "multilabel"),
    "residue": ("regression", "binary", "classification"),
}
TASKS = [(level, head, kind) for level in HEADS for head in HEADS[level] for kind in KINDS[level]]
Cell = tuple[str, str, str, str, str]  # family, adapter, level, head, kind
WHOLE: list[Cell] = [(f, a, *task) for f in FAMILIES for a in ADAPTERS for task in TASKS]


def covering() -> Iterator[Cell]:
    """Every family with every adapter, each with another head and kind, until all of these have had their turn."""
    tasks = itertools.cycle(TASKS)
    for family, adapter in itertools.product(FAMILIES, ADAPTERS):
        yield (family, adapter, *next(tasks))


@pytest.mark.parametrize("cell", list(covering()), ids="-".join)
def test_cell(cell: Cell, checkpoints: Path, tmp_path: Path) -> None:
    check(cell, checkpoints, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_whole_table(family: str, adapter: str, checkpoints: Path, tmp_path: Path) -> None:
    for number, task in enumerate(TASKS):
        check((family, adapter, *task), checkpoints, tmp_path / str(number))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        write_checkpoint(family, folder / family)
    return folder


def check(cell: Cell, checkpoints: Path, folder: Path) -> None:
    family, adapter, level, head, kind = cell
    settings = settings_of(family, adapter, head)
    assert family_of(settings.backbone, checkpoints) == family
    torch.set_num_threads(1)
    data = toy(checkpoints, family, level, kind)
    model = new_model(settings, checkpoints, family, data, seed=1)
    engine = TorchEngine(model, settings, data, precision="fp32", device=CPU)
    training = Training(settings, data, engine, Streams(1), DEFAULT_METRIC[kind])  # type: ignore[index]
    before, _ = training.judge("validation")
    curve = list(training.evaluations())
    assert math.isfinite(before) and training.best is not None
    assert training.best.validation_loss < before, f"{before} → {[e.validation_loss for e in curve]}"
    reloads_equal(training, settings, checkpoints, family, data, folder)
    stands_alone(model, data)


def reloads_equal(
    training: Training, settings: TrainSpec, checkpoints: Path, family: str, data: EncodedData, folder: Path
) -> None:
    expected = training.test_outputs()
    assert training.best_state is not None
    layers = encoder_layers(load_encoder(settings.backbone, checkpoints))
    config = saved_config(settings.adapter, family, layers)  # type: ignore[arg-type]
    folder.mkdir(exist_ok=True)
    checkpoint.save(folder / "kept", training.best_state, config)
    again = new_model(settings, checkpoints, family, data, seed=2)
    engine = TorchEngine(again, settings, data, precision="fp32", device=CPU)
    engine.load_state(checkpoint.load(folder / "kept", selected_tensors(again)))
    assert np.array_equal(engine.predict(data.splits["test"]), expected)


def stands_alone(model: ProteinModel, data: EncodedData) -> None:
    """A protein by itself, and beside the longest."""
    split = data.splits["test"]
    model.eval()
    together = predict_rows(model, data, split, np.arange(len(split)), CPU)
    alone = [predict_rows(model, data, split, np.array([row]), CPU) for row in range(len(split))]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=2e-5)


def settings_of(family: str, adapter: str, head: str) -> TrainSpec:
    tree = {
        "backbone": family,
        "adapter": ADAPTERS[adapter],
        "head": {"kind": head, "hidden": 8},
        "pooling": "mean",
        "optimizer": {"lr": 0.01},
        "epochs": 4,
        "batch_size": 8,
        "class_weights": "none",
    }
    return TrainSpec.model_validate(tree)


def new_model(settings: TrainSpec, checkpoints: Path, family: str, data: EncodedData, seed: int) -> ProteinModel:
    encoder = encoder_of(checkpoints, family)
    steps = math.ceil(len(data.splits["train"]) / settings.batch_size) * settings.epochs
    outputs, level = data.num_outputs, data.level
    return build_model(settings, encoder, family, outputs, Streams(seed), level, steps)  # type: ignore[arg-type]


@cache
def encoder_of(checkpoints: Path, family: str) -> Any:
    return load_encoder(TrainSpec.model_validate({"backbone": family}).backbone, checkpoints)


@cache
def toy(checkpoints: Path, family: str, level: str, kind: str) -> EncodedData:
    """Peptides whose labels a composition, or a residue's own letter, tells."""
    rng = np.random.default_rng(0)
    lines = ["sequence,target,mask,set,validation"]
    for number in range(104):
        sequence = "".join(rng.choice(list("ACDEFG"), size=int(rng.integers(6, 13))))
        mask = "".join(rng.choice(list("1110"), size=len(sequence)))
        split = "test" if number >= 96 else "train"
        lines.append(f"{sequence},{label(sequence, level, kind)},{mask},{split},{64 <= number < 96}")
    file = checkpoints / f"{level}-{kind}.csv"
    file.write_text("\n".join(lines) + "\n")
    task = {"files": file.name, "level": level, "kind": kind, "shared_sequences": "allow"}
    data = load_data(TaskSpec.model_validate(task), checkpoints)
    tokenizer = load_tokenizer(TrainSpec.model_validate({"backbone": family}).backbone, checkpoints)
    front, back = len(tokenizer.front), len(tokenizer.back)
    return encode_data(data, tokenizer.encode, pad_id=tokenizer.pad_id, front=front, back=back)
