"""The training loop: the only one. It reads top to bottom and yields after every evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from plmray.data.batches import EncodedData, EncodedSplit
from plmray.metrics import METRICS
from plmray.seeds import Streams
from plmray.spec.sweep import SplitName, TrainSpec
from plmray.train.engines import Engine, State, Step
from plmray.train.losses import loss_per_protein
from plmray.train.schedule import evaluation_steps, learning_rate


class Diverged(Exception):
    """A loss that is no number any more: a property of the candidate, not of the machine."""


@dataclass(frozen=True)
class Evaluation:
    """One look at the validation proteins. ``epoch`` counts in fractions; ``train_loss`` since the last look."""

    step: int
    epoch: float
    train_loss: float
    validation_loss: float
    score: float
    learning_rate: float
    tokens: int
    seconds: float


@dataclass
class Training:
    """One trial in flight: iterate ``evaluations`` to train it, as far and as fast as you like.

    ``best`` is the evaluation with the lowest validation loss so far and ``best_state`` its weights.
    """

    settings: TrainSpec
    data: EncodedData
    engine: Engine
    streams: Streams
    metric: str
    curve: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None
    best_state: State | None = None
    tokens: int = 0
    seconds: float = 0.0
    _started: float = 0.0

    def evaluations(self) -> Iterator[Evaluation]:
        """Train to the end or to the early stop. Raises Diverged on a loss that is not finite."""
        train = self.data.splits["train"]
        steps_per_epoch = math.ceil(len(train) / self.settings.batch_size)
        total_steps = steps_per_epoch * self.settings.epochs
        due = evaluation_steps(steps_per_epoch, self.settings.evaluations_per_epoch)
        losses: list[float] = []
        self._started = time.perf_counter()
        for epoch in range(self.settings.epochs):
            order = self.streams.rng("order", epoch).permutation(len(train))
            for number, rows in enumerate(_slices(order, self.settings.batch_size), start=1):
                index = epoch * steps_per_epoch + number - 1
                rate = learning_rate(self.settings.optimizer, index, total_steps)
                losses.append(_finite(self.engine.train_step(Step(index, rows, rate)), index))
                self.tokens += int(train.lengths[rows].sum())
                if number in due:
                    yield self._evaluate(index + 1, epoch + number / steps_per_epoch, losses, rate)
                    self._started, losses = time.perf_counter(), []
                    if self._out_of_patience():
                        return

    def _evaluate(self, step: int, epoch: float, losses: list[float], rate: float) -> Evaluation:
        loss, score = self.judge("validation")
        train_loss = sum(losses) / len(losses)
        self.seconds += time.perf_counter() - self._started  # waiting between evaluations does not count
        evaluation = Evaluation(
            step, epoch, train_loss, _finite(loss, step), score, rate, self.tokens, round(self.seconds, 3)
        )
        self.curve.append(evaluation)
        if self.best is None or evaluation.validation_loss < self.best.validation_loss:
            self.best, self.best_state = evaluation, self.engine.state()
        return evaluation

    def judge(self, name: SplitName) -> tuple[float, float]:
        """Mean loss and metric on a split, with the engine's present weights."""
        split = self.data.splits[name]
        outputs = self.engine.predict(split)
        if not np.isfinite(outputs).all():
            return math.nan, math.nan
        return mean_loss(self.data, split, outputs), score(self.data, split, outputs, self.metric)

    def test_score(self) -> float:
        """The metric on the test proteins at the selected checkpoint. Take it once, in the replicate phase."""
        assert self.best_state is not None
        self.engine.load_state(self.best_state)
        return self.judge("test")[1]

    def _out_of_patience(self) -> bool:
        if self.settings.patience is None or self.best is None:
            return False
        return sum(evaluation.step > self.best.step for evaluation in self.curve) >= self.settings.patience


def mean_loss(data: EncodedData, split: EncodedSplit, outputs: NDArray[np.float64]) -> float:
    losses = loss_per_protein(data.kind, torch.from_numpy(outputs), torch.from_numpy(split.targets))
    return float(losses.mean())


def score(data: EncodedData, split: EncodedSplit, outputs: NDArray[np.float64], metric: str) -> float:
    predictions = outputs.argmax(axis=1) if data.kind == "classification" else outputs[:, 0]
    return METRICS[metric].compute(split.targets, predictions)


def _slices(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise Diverged(f"diverged: the loss was {loss} at step {step}; a lower learning rate may help")
    return loss
