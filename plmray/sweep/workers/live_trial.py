"""The trials of one job: started, reported, and turned into results, whoever computes their steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from plmray.config.catalog.engines import ENGINES, EngineName
from plmray.config.fields.train import TrainSpec
from plmray.config.parameters import with_parameters
from plmray.model.assemble import trainable_count
from plmray.packed.pack import Member
from plmray.sweep.workers.context import Bench
from plmray.sweep.workers.device import Device
from plmray.sweep.workers.process import make_engine, trial_model
from plmray.train.loop import Diverged, Evaluation, Training
from plmray.trials.result import TrialResult
from plmray.trials.trial import Trial


class OverTime(Exception):
    """A trial that ran longer than resources.max_hours_per_trial."""


@dataclass
class Run:
    """One trial in flight: driven by ``step`` on an engine of its own, or by the pack its ``member`` is in."""

    trial: Trial
    settings: TrainSpec
    training: Training
    steps: Iterator[Evaluation]
    trainable_parameters: int
    limit_s: float = math.inf
    engine: EngineName = "torch"
    pack: str | None = None
    member: Member | None = None
    probe: bool = False
    reported: int = 0
    test_scores: dict[str, float] = field(default_factory=dict)
    test_classes: list[dict[str, Any]] = field(default_factory=list)
    final: TrialResult | None = None
    _ended: bool = False
    _closed: bool = False
    _error: str | None = None

    @property
    def ended(self) -> bool:
        return self.member.ended if self.member else self._ended

    @property
    def error(self) -> str | None:
        """Why the trial ended before its time: its loss was no number any more."""
        return self.member.error if self.member else self._error

    def step(self) -> None:
        """Train to the next evaluation, the end, or divergence."""
        try:
            next(self.steps)
        except StopIteration:
            self._ended = True
        except Diverged as error:
            self._ended, self._error = True, str(error)
        self.check_time()

    def advance(self, epoch: float) -> None:
        while not self.ended and not self.has_come_to(epoch):
            self.step()

    def has_come_to(self, epoch: float) -> bool:
        return bool(self.training.curve) and self.training.curve[-1].epoch >= epoch

    def check_time(self) -> None:
        if self.training.seconds > self.limit_s:
            hours = self.limit_s / 3600
            raise OverTime(f"{self.trial.id} ran over max_hours_per_trial ({hours:g} h); raise it or train less")

    def close(self) -> None:
        """Free the engine or the slot; once is enough."""
        if not self._closed:
            self._closed = True
            self.training.engine.close()

    def seen(self, epoch: float) -> list[Evaluation]:
        """The curve up to ``epoch``: a packed trial may be ahead of what its job reports."""
        return [evaluation for evaluation in self.training.curve if evaluation.epoch <= epoch]

    def news(self, epoch: float) -> list[dict[str, Any]]:
        fresh = self.seen(epoch)[self.reported :]
        self.reported += len(fresh)
        return [asdict(evaluation) for evaluation in fresh]


def start_alone(device: Device, bench: Bench, trial: Trial) -> Run:
    """A trial with an engine of its own."""
    settings = with_parameters(bench.spec.train, trial.candidate.parameters)
    streams = trial.streams
    model, data = trial_model(device, bench, settings, streams, trial.split_seed)
    trainable = trainable_count(model)
    training = Training(settings, data, make_engine(bench, model, settings, data), streams, bench.spec.objective.metric)
    engine: EngineName = "torch" if ENGINES[bench.engine].has_hosts else bench.engine
    return Run(trial, settings, training, training.evaluations(), trainable, limit_s(bench), engine)


def limit_s(bench: Bench) -> float:
    hours = bench.spec.resources.max_hours_per_trial
    return hours * 3600 if hours else math.inf
