"""Residue tasks, weights and heads on engine torch: equal numbers however a batch is cut, cached or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from plmray.config.fields.train import TrainSpec
from plmray.data.batches import collate
from plmray.data.encoded import EncodedData, with_embeddings
from plmray.model.assemble import build_head_model, build_model
from plmray.model.backbones import load_encoder
from plmray.packed.embedder import Unpadded
from plmray.seeds import Streams
from plmray.train.embeddings import RESIDUES, Padded, compute_embeddings
from plmray.train.engines import Step, TorchEngine
from plmray.train.loop import Training
from plmray.train.losses import class_weights, loss_per_unit, weighted
from tests.bundle.test_bundle import RANDOM
from tests.examples import CPU, tiny_data, tiny_sweep, write_toy

LORA = {"kind": "lora", "rank": 2, "alpha": 8, "dropout": 0.2}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # more of them wait for each other at these sizes


def task_of(folder: Path, level: str, kind: str) -> EncodedData:
    write_toy(folder / "toy.csv", level, kind)
    task = {"files": "toy.csv", "level": level, "kind": kind, "shared_sequences": "allow"}
    return tiny_data(tiny_sweep(folder, task=task, objective={}))


def settings_of(**changes: Any) -> TrainSpec:
    tree = {"backbone": RANDOM, "pooling": "mean", "epochs": 2, "batch_size": 6, "optimizer": {"lr": 0.01}}
    return TrainSpec.model_validate({**tree, **changes})


def trained(data: EncodedData, settings: TrainSpec, **options: Any) -> Training:
    model = build_model(
        settings, load_encoder(settings.backbone, Path()), "esm2", data.num_outputs, Streams(1), data.level
    )
    engine = TorchEngine(model, settings, data, device=CPU, **{"precision": "fp64", **options})
    training = Training(settings, data, engine, Streams(1), "accuracy")
    list(training.evaluations())
    return training


@pytest.mark.parametrize("head", ["linear", "dense", "cnn_seth", "cnn_prottrans"])
def test_micro_batches_do_not_matter(head: str, tmp_path: Path) -> None:
    """With dropout in adapter and head, masks that leave batches of unlike weight, and balanced classes."""
    data = task_of(tmp_path, "residue", "classification")
    settings = settings_of(adapter=LORA, head={"kind": head, "dropout": 0.3}, class_weights="balanced")
    whole, parts = trained(data, settings), trained(data, settings, micro_batch=2)
    for one, other in zip(whole.curve, parts.curve, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, abs=1e-12)
        assert other.validation_loss == pytest.approx(one.validation_loss, abs=1e-12)
    assert whole.best_state is not None and parts.best_state is not None
    for name, tensor in whole.best_state.items():
        torch.testing.assert_close(parts.best_state[name], tensor, atol=1e-12, rtol=0)


@pytest.mark.parametrize("embedder", [Padded, Unpadded])
@pytest.mark.parametrize("head", ["dense", "cnn_prottrans"])
def test_cached_states_train_to_the_numbers_of_the_encoder(head: str, embedder: Any, tmp_path: Path) -> None:
    data = task_of(tmp_path, "residue", "regression")
    settings = settings_of(adapter={"kind": "none"}, head={"kind": head, "dropout": 0.3})
    encoder = load_encoder(settings.backbone, Path())
    states = compute_embeddings(data, embedder(encoder, "fp64", CPU), RESIDUES, "fp64")
    cached = with_embeddings(data, states, by_residue=True)
    live = build_model(settings, load_encoder(settings.backbone, Path()), "esm2", 1, Streams(1), "residue")
    numbers = []
    for model, own in ((build_head_model(settings, cached.width, 1, Streams(1), "residue"), cached), (live, data)):
        training = Training(
            settings, own, TorchEngine(model, settings, own, precision="fp64", device=CPU), Streams(1), "spearman"
        )
        numbers.append([(e.train_loss, e.validation_loss, e.score) for e in training.evaluations()])
    np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-10)


def test_the_loss_is_the_mean_over_residues_that_count(tmp_path: Path) -> None:
    """Of an effective batch, by hand: every counted residue weighs the same, whatever its protein's length."""
    data = task_of(tmp_path, "residue", "classification")
    settings = settings_of(adapter={"kind": "full"}, head={"kind": "linear"})
    model = build_model(
        settings, load_encoder(settings.backbone, Path()), "esm2", data.num_outputs, Streams(1), "residue"
    )
    engine = TorchEngine(model, settings, data, precision="fp64", device=CPU, micro_batch=2)
    rows = np.array([3, 0, 7, 9, 5])
    with torch.no_grad():
        losses: list[float] = []
        for row in rows:
            batch = collate(data, data.splits["train"], np.array([row]))
            out = engine.model(batch.tokens, batch.attention, batch.residues)
            assert batch.counted is not None
            losses += functional.cross_entropy(
                out[batch.counted], batch.targets[batch.counted], reduction="none"
            ).tolist()
    assert engine.train_step(Step(0, rows, 0.0)) == pytest.approx(np.mean(losses), abs=1e-12)


def test_balanced_classes_weigh_the_same_in_all(tmp_path: Path) -> None:
    data = task_of(tmp_path, "residue", "classification")
    split = data.splits["train"]
    weights = class_weights(settings_of(class_weights="balanced"), data)
    assert weights is not None and split.counted is not None
    counts = np.bincount(split.targets[split.counted])
    np.testing.assert_allclose(weights.numpy() * counts, counts.sum() / len(counts))
    targets = torch.from_numpy(split.targets)
    counted = torch.from_numpy(split.counted)
    ones = weighted(torch.ones(len(targets), dtype=torch.float64), targets, weights, counted)
    assert float(ones.sum() / counted.sum()) == pytest.approx(1)  # the mean weight is 1
    assert float(ones[~counted].abs().sum()) == 0


def test_losses_of_two_classes_and_label_sets_are_torchs() -> None:
    torch.manual_seed(0)
    outputs, two, sets = torch.randn(5, 1), torch.tensor([0, 1, 1, 0, 1]), torch.randint(0, 2, (5, 3))
    expected = functional.binary_cross_entropy_with_logits(outputs[:, 0], two.float(), reduction="none")
    torch.testing.assert_close(loss_per_unit("binary", outputs, two), expected)
    wide = torch.randn(5, 3)
    expected = functional.binary_cross_entropy_with_logits(wide, sets.float(), reduction="none").mean(1)
    torch.testing.assert_close(loss_per_unit("multilabel", wide, sets), expected)


def test_padded_mean_is_the_notebooks_and_depends_on_the_batch(tmp_path: Path) -> None:
    """Kept for comparison alone: the mean runs over marks and padding too."""
    data = task_of(tmp_path, "protein", "regression")
    settings = settings_of(pooling="padded_mean", adapter={"kind": "none"}, head={"kind": "linear"})
    model = build_model(settings, load_encoder(settings.backbone, Path()), "esm2", 1, Streams(1)).eval()
    split = data.splits["train"]
    short = int(np.argmin(split.lengths))
    with torch.no_grad():
        batch = collate(data, split, np.array([short]))
        assert model.encoder is not None
        states = model.encoder(input_ids=batch.tokens, attention_mask=batch.attention).last_hidden_state
        alone = model(batch.tokens, batch.attention, batch.residues)
        torch.testing.assert_close(alone, model.classifier(states.mean(1)))
        beside = collate(data, split, np.array([short, int(np.argmax(split.lengths))]))
        other = model(beside.tokens, beside.attention, beside.residues)[0]
    assert abs(float(other) - float(alone)) > 1e-4
