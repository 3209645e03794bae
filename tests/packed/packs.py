"""Small tasks on embeddings, trained alone and in packs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plmray.config.fields.train import TrainSpec
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.metrics import DEFAULT_METRIC
from plmray.model.assemble import build_head_model
from plmray.packed.head_pack import HeadPack
from plmray.packed.pack import Member, Pack
from plmray.seeds import Streams
from plmray.train.engines import TorchEngine
from plmray.train.loop import Training
from tests.examples import CPU

WIDTH = 24


def embedded(kind: str = "regression", train: int = 50) -> EncodedData:
    """Embeddings whose targets can be learnt; three classes or one value."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=WIDTH)

    def split(size: int) -> EncodedSplit:
        values = rng.normal(size=(size, WIDTH)).astype(np.float32)
        signal = values @ direction
        targets: Any = signal
        if kind == "classification":
            targets = np.digitize(signal, [-2.0, 2.0])
        elif kind == "binary":
            targets = (signal > 0).astype(np.int64)
        elif kind == "multilabel":
            targets = np.stack([signal > -1, signal > 1], axis=1).astype(np.int64)
        return EncodedSplit(np.zeros(size, np.int16), np.arange(size + 1), targets, values)

    splits = {"train": split(train), "validation": split(20), "test": split(20)}
    classes = {"classification": ("a", "b", "c"), "binary": ("n", "y"), "multilabel": ("a", "b")}.get(kind, ())
    outputs = len(classes) if kind in ("classification", "multilabel") else 1
    return EncodedData(splits, kind, classes, outputs, 1, 0, 0)  # type: ignore[arg-type]


def head_settings(**changes: Any) -> TrainSpec:
    """Settings by dotted name: ``optimizer__lr=0.1``."""
    tree: dict[str, Any] = {"backbone": "esm2_t6_8M_UR50D", "adapter": {"kind": "none"}, "epochs": 3}
    for name, value in changes.items():
        section, _, leaf = name.partition("__")
        if leaf:
            tree.setdefault(section, {})[leaf] = value
        else:
            tree[section] = value
    return TrainSpec.model_validate(tree)


def metric(data: EncodedData) -> str:
    return DEFAULT_METRIC[data.kind]


def alone(data: EncodedData, settings: TrainSpec, seed: int, precision: str = "fp64") -> Training:
    """The reference: a plain module, autograd and torch.optim.AdamW."""
    model = build_head_model(settings, WIDTH, data.num_outputs, Streams(seed))
    engine = TorchEngine(model, settings, data, precision=precision, device=CPU)
    training = Training(settings, data, engine, Streams(seed), metric(data))
    list(training.evaluations())
    return training


def head_pack(data: EncodedData, settings: TrainSpec, capacity: int, precision: str = "fp64") -> HeadPack:
    return HeadPack(data, settings, metric(data), capacity=capacity, precision=precision, device=CPU)


def finish(pack: Pack, members: Sequence[Member]) -> list[Training]:
    """Train until all have ended; each leaves as soon as it has."""
    while pack.members:
        for member in pack.advance():
            if member.ended:
                member.training.engine.close()
    return [member.training for member in members]


def curve(training: Training) -> np.ndarray:
    return np.array([(e.step, e.epoch, e.train_loss, e.validation_loss, e.score) for e in training.curve])
