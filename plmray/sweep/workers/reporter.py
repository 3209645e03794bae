"""What a process reports of the trials of a job: finished results, outputs, the lowest loss."""

from __future__ import annotations

import logging
import math
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plmray.config.fields.task import SplitName
from plmray.data.encoded import EncodedSplit
from plmray.metrics import all_scores, per_class
from plmray.plan.flops import arithmetic
from plmray.storage import layout
from plmray.storage.atomic import write_atomic
from plmray.storage.home import keep_trial_files
from plmray.sweep.workers.context import Bench
from plmray.sweep.workers.device import Device, reads_residues
from plmray.sweep.workers.live_trial import Run
from plmray.sweep.workers.process import adapter_config
from plmray.train import checkpoint
from plmray.train.loop import Evaluation
from plmray.trials.job import Job, Report
from plmray.trials.result import TrialResult

JUDGED: tuple[SplitName, SplitName] = ("train", "validation")


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
            write_atomic(folder / layout.TEST_OUTPUTS, outputs_table(training.data.splits["test"], outputs))
        if training.best_state:
            config, scaling = adapter_config(self.device, self.bench, run.settings), training.data.scaling
            tensors = None if scaling is None else (torch.from_numpy(scaling[0]), torch.from_numpy(scaling[1]))
            checkpoint.save(folder / layout.ADAPTER, training.best_state, config, tensors)

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
