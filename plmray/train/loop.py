"""The training loop: the only one. It reads top to bottom, and asks whoever drives it to compute its steps.

A lone engine computes one trial's steps; a pack computes those of many trials at once. Order, rates, evaluation,
selection and stopping are here, so that no engine can change them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.config.fields.task import SplitName
from plmray.config.fields.train import TrainSpec
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.metrics import score
from plmray.seeds import Streams
from plmray.train.engines import Engine, State, Step
from plmray.train.losses import class_weights, loss_per_unit, weighted
from plmray.train.schedule import evaluation_steps, learning_rates


class Diverged(Exception):
    """A loss, or a score, that is no number: a property of the candidate, or of its split, not of the machine."""


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


@dataclass(frozen=True)
class Stretch:
    """The optimizer steps up to the next evaluation, wanted from whoever computes them.

    ``order``: training proteins, ``batch_size`` a step, the last step perhaps fewer. ``rates``: (steps,).
    """

    first: int
    order: NDArray[np.int64]
    batch_size: int
    rates: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rates)

    def steps(self) -> Iterator[Step]:
        for number, rate in enumerate(self.rates):
            rows = self.order[number * self.batch_size : (number + 1) * self.batch_size]
            yield Step(self.first + number, rows, float(rate))


@dataclass(frozen=True)
class Trained:
    """The answer to a Stretch: the loss of every step before its update, and this trial's seconds for them."""

    losses: NDArray[np.float64]
    seconds: float


@dataclass
class Training:
    """One trial in flight. Drive ``stretches`` yourself, or iterate ``evaluations`` to train it alone.

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

    def stretches(self) -> Generator[Stretch, Trained, None]:
        """Train to the end or to the early stop: answer each Stretch with its Trained, which is then evaluated.

        Raises Diverged on a loss that is not finite.
        """
        train, size = self.data.splits["train"], self.settings.batch_size
        steps_per_epoch = math.ceil(len(train) / size)
        total_steps = steps_per_epoch * self.settings.epochs
        due = [0, *evaluation_steps(steps_per_epoch, self.settings.evaluations_per_epoch)]
        for epoch in range(self.settings.epochs):
            order = self.streams.rng("order", epoch).permutation(len(train))
            for start, end in itertools.pairwise(due):
                first, last = epoch * steps_per_epoch + start, epoch * steps_per_epoch + end
                rates = learning_rates(self.settings.optimizer, np.arange(first, last), total_steps)
                rows = order[start * size : end * size]
                trained = yield Stretch(first, rows, size, rates)
                self.tokens += int(train.lengths[rows].sum())
                self._evaluate(last, last / steps_per_epoch, trained, float(rates[-1]))
                if self._out_of_patience():
                    return

    def evaluations(self) -> Iterator[Evaluation]:
        """Train alone, on this trial's own engine."""
        stretches = self.stretches()
        stretch = next(stretches, None)
        while stretch is not None:
            trained = self._train_alone(stretch)
            stretch = answered(stretches, trained)
            yield self.curve[-1]

    def _train_alone(self, stretch: Stretch) -> Trained:
        started, losses = time.perf_counter(), []
        for step in stretch.steps():
            losses.append(self.engine.train_step(step))
            if not math.isfinite(losses[-1]):
                break
        return Trained(np.array(losses), time.perf_counter() - started)

    def _evaluate(self, step: int, epoch: float, trained: Trained, rate: float) -> None:
        _require_finite(trained.losses, step - len(trained.losses))
        started = time.perf_counter()
        loss, score = self.judge("validation")
        _require_finite(np.array([loss]), step)
        if math.isnan(score):
            raise Diverged(f"{self.metric} is undefined on the validation proteins of this trial: they are all alike")
        self.seconds += trained.seconds + time.perf_counter() - started
        train_loss = math.fsum(trained.losses) / len(trained.losses)
        evaluation = Evaluation(step, epoch, train_loss, loss, score, rate, self.tokens, round(self.seconds, 3))
        self.curve.append(evaluation)
        if self.best is None or evaluation.validation_loss < self.best.validation_loss:
            self.best, self.best_state = evaluation, self.engine.state()

    def judge(self, name: SplitName) -> tuple[float, float]:
        """Mean loss and metric on a split, with the engine's present weights."""
        split = self.data.splits[name]
        outputs = self.engine.predict(split)
        if not np.isfinite(outputs).all():
            return math.nan, math.nan
        return self._mean_loss(split, outputs), score(self.metric, self.data.kind, *split.judged(outputs))

    def _mean_loss(self, split: EncodedSplit, outputs: NDArray[np.float64]) -> float:
        targets, judged = (torch.from_numpy(part) for part in split.judged(outputs))
        losses = loss_per_unit(self.data.kind, judged, targets)
        return float(weighted(losses, targets, self._class_weights, None).mean())

    @cached_property
    def _class_weights(self) -> Tensor | None:
        return class_weights(self.settings, self.data)

    def test_outputs(self) -> NDArray[np.float64]:
        """(units, outputs) of the test proteins at the selected checkpoint. Take them once, in the replicate phase."""
        assert self.best_state is not None
        self.engine.load_state(self.best_state)
        return self.engine.predict(self.data.splits["test"])

    def _out_of_patience(self) -> bool:
        if self.settings.patience is None or self.best is None:
            return False
        return sum(evaluation.step > self.best.step for evaluation in self.curve) >= self.settings.patience


def answered(stretches: Generator[Stretch, Trained, None], trained: Trained) -> Stretch | None:
    """Give an answer; the next Stretch, or None at the end of the trial."""
    try:
        return stretches.send(trained)
    except StopIteration:
        return None


def _require_finite(losses: NDArray[np.float64], first_step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        loss, step = losses[bad[0]], first_step + int(bad[0])
        raise Diverged(f"diverged: the loss was {loss} at step {step}; a lower learning rate may help")
