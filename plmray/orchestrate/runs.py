"""The trials of one job: started, reported, and turned into results, whoever computes their steps."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plmray.data.batches import EncodedSplit
from plmray.files import write_atomic
from plmray.metrics import all_scores, per_class
from plmray.model.assemble import trainable_count
from plmray.orchestrate.bench import Bench
from plmray.orchestrate.device import Device, reads_residues
from plmray.orchestrate.jobs import Job, Report
from plmray.orchestrate.process import adapter_config, make_engine, trial_model
from plmray.packed.pack import Member
from plmray.results import TrialResult
from plmray.spec.checks import with_parameters
from plmray.spec.task import SplitName
from plmray.spec.train import TrainSpec
from plmray.storage import keep_trial_files
from plmray.throughput import arithmetic
from plmray.train import checkpoint
from plmray.train.loop import Diverged, Evaluation, Training
from plmray.trial import Trial

JUDGED: tuple[SplitName, SplitName] = ("train", "validation")


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
    engine: str = "torch"
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
    engine = "deepspeed" if bench.engine == "deepspeed" else "torch"
    return Run(trial, settings, training, training.evaluations(), trainable, limit_s(bench), engine)


def limit_s(bench: Bench) -> float:
    hours = bench.spec.resources.max_hours_per_trial
    return hours * 3600 if hours else math.inf


@dataclass(frozen=True)
class JobBook:
    """Turns the runs of one job into reports and results, and keeps weights where the job asks for it."""

    device: Device
    bench: Bench
    job: Job
    is_chief: bool = True

    def conclude(self, run: Run) -> None:
        """The trial's result; the test score is taken here, once, and the weights are kept if asked."""
        outputs = None
        if run.error is None and self.job.take_test and len(self.bench.data.splits["test"]):
            outputs = self._take_test(run)
        if run.error is None and self.job.keep and self.is_chief and self.bench.home is not None:
            say = logging.getLogger(__name__).warning
            keep_trial_files(self.bench.home, run.trial.id, lambda folder: self._keep(run, outputs, folder), say)
        run.final = self._result(run)

    def _take_test(self, run: Run) -> NDArray[np.float64] | None:
        """All metrics on the test proteins, and the predictions themselves where they are numbers."""
        outputs, data = run.training.test_outputs(), run.training.data
        targets, judged = data.splits["test"].judged(outputs)
        if not np.isfinite(judged).all():
            run.test_scores = {run.training.metric: math.nan}
            return None
        scores = all_scores(data.kind, targets, judged)
        run.test_scores = {name: score for name, score in scores.items() if not math.isnan(score)}  # undefined ones
        run.test_classes = per_class(data.kind, targets, judged, data.classes)
        return outputs

    def _keep(self, run: Run, outputs: NDArray[np.float64] | None, folder: Path) -> None:
        """Predictions and weights, beside the result that the driver will write."""
        training = run.training
        if outputs is not None:
            write_atomic(folder / "test_outputs.parquet", outputs_table(training.data.splits["test"], outputs))
        if training.best_state:
            config, scaling = adapter_config(self.device, self.bench, run.settings), training.data.scaling
            tensors = None if scaling is None else (torch.from_numpy(scaling[0]), torch.from_numpy(scaling[1]))
            checkpoint.save(folder / "adapter", training.best_state, config, tensors)

    def report(self, runs: list[Run], epoch: int, finished: bool = False) -> Report:
        """The job as it stood at ``epoch``, whatever its runs have done since."""
        results = [run.final or self._result(run, epoch) for run in runs]
        judged = [best.score for run in runs if (best := lowest_loss(run.seen(epoch))) and not (run.probe and finished)]
        lost = self.is_lost(runs)
        return Report(
            epoch=epoch,
            mean=None if lost or not judged else sum(judged) / len(judged),
            results=self._with_the_lost(results) if finished else results,
            curves={run.trial.id: run.news(epoch) for run in runs},
            finished=finished,
        )

    def is_lost(self, runs: list[Run]) -> bool:
        """In the search a candidate that diverges under one seed is out; replicates stand for themselves."""
        return self.job.phase == "search" and any(run.error for run in runs)

    def _with_the_lost(self, results: list[TrialResult]) -> list[TrialResult]:
        causes = [result for result in results if result.error]
        if self.job.phase != "search" or not causes:
            return results
        known = {result.trial_id: result for result in results}
        ended = []
        for trial in self.job.trials():
            result = known.get(trial.id) or TrialResult.pruned(trial, None)
            reason = result.error or f"its candidate diverged under seed {causes[0].seed}"
            ended.append(replace(result, state="PRUNED", score=None, test_score=None, error=reason))
        return ended

    def _result(self, run: Run, epoch: float = math.inf) -> TrialResult:
        training, curve = run.training, run.seen(epoch)
        best, last = lowest_loss(curve), curve[-1] if curve else None
        facts: dict[str, Any] = {
            "epochs_run": last.epoch if last else 0.0,
            "seconds": last.seconds if last else 0.0,
            "tokens": last.tokens if last else 0,
            "engine": run.engine,
            "provenance": {
                **self.bench.facts,
                "host": socket.gethostname(),
                "trainable_parameters": run.trainable_parameters,
                **self._arithmetic(run, last.epoch if last else 0.0),
                **training.engine.provenance(),
            },
            "probe": run.probe,
        }
        if curve:
            facts["first_train_loss"] = curve[0].train_loss
            facts["last_train_loss"] = curve[-1].train_loss
        if run.error is not None or best is None:
            return TrialResult.pruned(run.trial, run.error, **facts)
        facts |= {
            "selected_epoch": best.epoch,
            "validation_loss": best.validation_loss,
            "test_score": run.test_scores.get(run.training.metric),
            "test_scores": run.test_scores,
            "test_classes": run.test_classes,
        }
        return TrialResult.complete(run.trial, score=best.score, **facts)

    def _arithmetic(self, run: Run, epochs: float) -> dict[str, Any]:
        train, validation = (run.training.data.splits[name].lengths for name in JUDGED)
        by_residue = reads_residues(self.bench, run.settings)
        facts = arithmetic(run.settings, train, validation, run.trainable_parameters, epochs, by_residue=by_residue)
        return {**facts, "peak_flops": self.device.peak_flops(self.bench)} if facts else {}


def outputs_table(split: EncodedSplit, outputs: NDArray[np.float64]) -> bytes:
    """Parquet of every unit: its protein's id and number, its place (residues), target, whether it counts, outputs."""
    import pyarrow as pa
    from pyarrow import parquet

    by_residue = split.counted is not None
    sizes = np.diff(split.residue_offsets) if by_residue else np.ones(len(split), np.int64)
    proteins = np.repeat(np.arange(len(split)), sizes)
    columns: dict[str, Any] = {"id": [split.ids[n] for n in proteins], "protein": proteins}
    if by_residue:
        columns |= {"position": np.concatenate([np.arange(1, n + 1) for n in sizes]), "counted": split.counted}
    columns |= {"target": list(split.targets), "outputs": list(outputs.astype(np.float32))}
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def lowest_loss(curve: list[Evaluation]) -> Evaluation | None:
    """The evaluation a trial is judged by: the first with the lowest validation loss."""
    return min(curve, key=lambda evaluation: evaluation.validation_loss, default=None)
