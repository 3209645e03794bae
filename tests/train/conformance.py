"""Trains one small trial on an engine, in one process or in several, and hands the numbers over.

``run(engine, world)`` starts real gloo workers; nothing here knows Ray.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import multiprocessing

from plmray.config.fields.sweep import DeepSpeedSpec
from plmray.metrics import score
from plmray.train.engines import TorchEngine
from plmray.train.loop import Training
from tests.examples import CPU, tiny_data, tiny_model, tiny_sweep, write_toy

EPOCHS = 2


def train(zero: dict[str, Any] | None, adapter: str, **options: Any) -> dict[str, Any]:
    """Numbers of one trial: losses, scores, the test score at the selected checkpoint, weights, provenance."""
    torch.set_num_threads(1)
    precision, by_residue = options.pop("precision", "fp32"), options.pop("by_residue", False)
    with tempfile.TemporaryDirectory() as folder:
        sweep = tiny_sweep(
            Path(folder), train=_settings(adapter), **(_residue_task(Path(folder)) if by_residue else {})
        )
        data = tiny_data(sweep)
    settings = sweep.spec.train
    model, streams = tiny_model(settings, data)
    if zero is None:
        engine: Any = TorchEngine(model, settings, data, precision=precision, device=CPU, **options)
    else:
        from plmray.train.deepspeed_engine import DeepSpeedEngine

        section = DeepSpeedSpec(**zero)
        engine = DeepSpeedEngine(model, settings, data, section, precision=precision, device=CPU, **options)
    training = Training(settings, data, engine, streams, sweep.spec.objective.metric)
    curve = [(e.train_loss, e.validation_loss, e.score) for e in training.evaluations()]
    weights = {name: tensor.double().numpy() for name, tensor in engine.state().items()}
    judged = data.splits["test"].judged(training.test_outputs())
    test = score(training.metric, data.kind, *judged)
    found = {"curve": curve, "weights": weights, "test": test, "provenance": engine.provenance()}
    engine.close()
    return found


def _residue_task(folder: Path) -> dict[str, Any]:
    """Classes of residues, some masked: batches whose micro-batches weigh unlike."""
    write_toy(folder / "toy.csv", "residue", "classification")
    task = {"files": "toy.csv", "level": "residue", "kind": "classification", "shared_sequences": "allow"}
    return {"task": task, "objective": {}}


def _settings(adapter: str) -> dict[str, Any]:
    return {
        "backbone": {
            "name": "tiny",
            "init": "random",
            "shape": {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32},
        },
        "pooling": "mean",
        "adapter": {"kind": adapter, "alpha": 8, "dropout": 0.1 if adapter == "lora" else 0.0},
        "head": {"dropout": 0.1},
        "optimizer": {"lr": 0.003, "warmup": 0.1, "weight_decay": 0.01},
        "epochs": EPOCHS,
        "batch_size": 10,  # 48 proteins: the last batch of an epoch is short
        "evaluations_per_epoch": 2,
    }


def run(world: int, zero: dict[str, Any], adapter: str, **options: Any) -> dict[str, Any]:
    """The same on ``world`` gloo workers; rank 0's numbers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.pt"
        arguments = (world, port, str(answer), zero, adapter, options)
        multiprocessing.start_processes(_worker, arguments, nprocs=world, start_method="spawn")
        found: dict[str, Any] = torch.load(answer, weights_only=False)
    return found


def _worker(
    rank: int, world: int, port: int, answer: str, zero: dict[str, Any], adapter: str, options: dict[str, Any]
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    found = train(zero, adapter, **options)
    if rank == 0:
        torch.save(found, answer)
    torch.distributed.destroy_process_group()


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Over all losses, scores and weights."""
    assert one["weights"].keys() == other["weights"].keys()
    weights = [np.abs(one["weights"][name] - other["weights"][name]).max() for name in one["weights"]]
    curves = np.abs(np.array(one["curve"]) - np.array(other["curve"])).max()
    return float(max(*weights, curves, abs(one["test"] - other["test"])))
