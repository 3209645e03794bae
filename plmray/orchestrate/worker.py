"""Computing a job: a candidate's seeds on one worker, side by side or in turn.

The same code runs inside a reused Tune process, on the workers of a Ray Train group, and without Ray.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from plmray.errors import PlmrayError, SetupError
from plmray.model.adapters import TARGETS
from plmray.model.assemble import ProteinModel, build_model, trainable_count
from plmray.model.backbones import load_encoder
from plmray.orchestrate.bench import Bench
from plmray.orchestrate.jobs import Job, Report
from plmray.results import TrialResult
from plmray.seeds import Streams
from plmray.spec.checks import with_parameters
from plmray.spec.names import family
from plmray.spec.sweep import BackboneSpec, SweepSpec, TrainSpec
from plmray.train import checkpoint
from plmray.train.engines import Engine, TorchEngine
from plmray.train.loop import Diverged, Evaluation, Training
from plmray.trial import Trial


class OverTime(Exception):
    """A trial that ran longer than resources.max_hours_per_trial."""


@dataclass
class Run:
    """One trial in flight."""

    trial: Trial
    settings: TrainSpec
    training: Training
    steps: Iterator[Evaluation]
    trainable_parameters: int
    limit_s: float = math.inf
    probe: bool = False
    error: str | None = None
    ended: bool = False
    reported: int = 0
    test_score: float | None = None
    final: TrialResult | None = None

    def advance(self, epoch: float) -> None:
        """Train until ``epoch``, the early stop, or divergence."""
        while not self.ended and (not self.training.curve or self.training.curve[-1].epoch < epoch):
            try:
                next(self.steps)
            except StopIteration:
                self.ended = True
            except Diverged as error:
                self.ended, self.error = True, str(error)
            if self.training.seconds > self.limit_s:
                hours = self.limit_s / 3600
                raise OverTime(f"{self.trial.id} ran over max_hours_per_trial ({hours:g} h); raise it or train less")

    def news(self) -> list[dict[str, Any]]:
        fresh = self.training.curve[self.reported :]
        self.reported = len(self.training.curve)
        return [asdict(evaluation) for evaluation in fresh]


_ENCODERS: dict[str, torch.nn.Module] = {}


def frozen_encoder(backbone: BackboneSpec, base: Path, device: torch.device) -> torch.nn.Module:
    """The encoder of this process, loaded once onto its device: all trials of the process share its weights."""
    key = f"{device} {backbone.model_dump_json()}"
    if key not in _ENCODERS:
        _ENCODERS.clear()  # one backbone at a time: memory is for trials
        _ENCODERS[key] = load_encoder(backbone, base).to(device)
    return _ENCODERS[key]


def device_of(bench: Bench) -> torch.device:
    """The GPU that Ray gave this process, where the sweep uses one. Raises SetupError when there is none."""
    if not bench.use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SetupError("the sweep asks for a GPU (resources.gpus_per_trial) and this process sees none")
    return torch.device("cuda", torch.cuda.current_device())


def prepare_process(spec: SweepSpec) -> None:
    """Fixed threads, so that sums are added in the same order wherever a trial runs."""
    torch.set_num_threads(spec.resources.cpus_per_worker)


class Worker:
    """A JobRunner on this process."""

    def __init__(self, bench: Bench, is_chief: bool = True) -> None:
        self.bench = bench
        self.is_chief = is_chief
        prepare_process(bench.spec)

    def reports(self, job: Job) -> Iterator[Report]:
        """All seeds to each rung in turn; where they cannot share a process, one after the other."""
        release_memory()  # a stopped trial may have skipped its own clean-up
        done: dict[str, TrialResult] = {}
        try:
            for report in self._in_turn(job) if self.bench.engine == "deepspeed" else self._side_by_side(job):
                # A test score is taken at a trial's very end, and once: what has one is finished.
                done.update({r.trial_id: r for r in report.results if r.test_score is not None})
                yield report
        except (OverTime, PlmrayError) as error:  # another attempt would end the same way
            ended = [
                done.get(t.id) or TrialResult.failed(t, str(error), engine=self.bench.engine) for t in job.trials()
            ]
            yield Report(job.report_epochs[-1], None, ended, finished=True)

    def _side_by_side(self, job: Job) -> Iterator[Report]:
        runs = [self._start(trial) for trial in job.trials()]
        for epoch in job.report_epochs:
            for run in runs:
                run.advance(epoch)
            if epoch == job.report_epochs[-1] or self._is_lost(job, runs):
                break
            yield self._report(job, runs, epoch)
        for run in runs:
            self._conclude(job, run)
        yield self._report(job, runs, job.report_epochs[-1], finished=True)
        for run in runs:
            run.training.engine.close()

    def _in_turn(self, job: Job) -> Iterator[Report]:
        """The first seed faces the scheduler alone; the others then run without being judged."""
        done: list[Run] = []
        for number, trial in enumerate(job.trials()):
            run = self._start(trial)
            run.probe = job.probe and number == 0 and len(job.seeds) > 1
            for epoch in job.report_epochs if number == 0 else job.report_epochs[-1:]:
                run.advance(epoch)
                if run.ended or epoch == job.report_epochs[-1]:
                    break
                yield self._report(job, [*done, run], epoch)
            self._conclude(job, run)
            run.training.engine.close()
            done.append(run)
            if self._is_lost(job, done):
                break
            if number < len(job.seeds) - 1:
                yield replace(self._report(job, done, job.report_epochs[-1]), judged=False)
        yield self._report(job, done, job.report_epochs[-1], finished=True)

    def _start(self, trial: Trial) -> Run:
        bench = self.bench
        settings = with_parameters(bench.spec.train, trial.candidate.parameters)
        streams = Streams(trial.seed)
        encoder = frozen_encoder(settings.backbone, bench.base, device_of(bench))
        model = build_model(settings, encoder, family(settings.backbone, bench.base), bench.data.num_outputs, streams)
        trainable = trainable_count(model)
        engine = make_engine(bench, model, settings)
        training = Training(settings, bench.data, engine, streams, bench.spec.objective.metric)
        hours = bench.spec.resources.max_hours_per_trial
        limit_s = hours * 3600 if hours else math.inf
        return Run(trial, settings, training, training.evaluations(), trainable, limit_s)

    def _conclude(self, job: Job, run: Run) -> None:
        """The trial's result; the test score is taken here, once, and the weights are kept if asked."""
        training = run.training
        if run.error is None and job.take_test and len(self.bench.data.splits["test"]):
            run.test_score = training.test_score()
        if run.error is None and job.keep and self.is_chief and self.bench.folder and training.best_state:
            targets = run.settings.adapter.targets
            named = TARGETS[family(run.settings.backbone, self.bench.base)]
            checkpoint.save(
                self.bench.folder / "trials" / run.trial.id / "adapter",
                training.best_state,
                run.settings.adapter,
                named[targets] if isinstance(targets, str) else targets,
            )
        run.final = self._result(run)

    def _report(self, job: Job, runs: list[Run], epoch: int, finished: bool = False) -> Report:
        results = [run.final or self._result(run) for run in runs]
        judged = [run.training.best.score for run in runs if run.training.best and not (run.probe and finished)]
        lost = self._is_lost(job, runs)
        return Report(
            epoch=epoch,
            mean=None if lost or not judged else sum(judged) / len(judged),
            results=self._with_the_lost(job, results) if finished else results,
            curves={run.trial.id: run.news() for run in runs},
            finished=finished,
        )

    def _is_lost(self, job: Job, runs: list[Run]) -> bool:
        """In the search a candidate that diverges under one seed is out; replicates stand for themselves."""
        return job.phase == "search" and any(run.error for run in runs)

    def _with_the_lost(self, job: Job, results: list[TrialResult]) -> list[TrialResult]:
        causes = [result for result in results if result.error]
        if job.phase != "search" or not causes:
            return results
        known = {result.trial_id: result for result in results}
        ended = []
        for trial in job.trials():
            result = known.get(trial.id) or TrialResult.pruned(trial, None)
            reason = result.error or f"its candidate diverged under seed {causes[0].seed}"
            ended.append(replace(result, state="PRUNED", score=None, test_score=None, error=reason))
        return ended

    def _result(self, run: Run) -> TrialResult:
        training, best = run.training, run.training.best
        facts: dict[str, Any] = {
            "epochs_run": training.curve[-1].epoch if training.curve else 0.0,
            "seconds": round(training.seconds, 3),
            "tokens": training.tokens,
            "engine": self.bench.engine,
            "provenance": {
                **self.bench.facts,
                "trainable_parameters": run.trainable_parameters,
                **training.engine.provenance(),
            },
            "probe": run.probe,
        }
        if training.curve:
            facts["first_train_loss"] = training.curve[0].train_loss
            facts["last_train_loss"] = training.curve[-1].train_loss
        if run.error is not None or best is None:
            return TrialResult.pruned(run.trial, run.error, **facts)
        facts |= {"selected_epoch": best.epoch, "validation_loss": best.validation_loss, "test_score": run.test_score}
        return TrialResult.complete(run.trial, score=best.score, **facts)


def make_engine(bench: Bench, model: ProteinModel, settings: TrainSpec) -> Engine:
    resources = bench.spec.resources
    device = device_of(bench)
    if bench.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise SetupError(f"{torch.cuda.get_device_name(device)} has no bf16; set train.precision: fp32")
    options: dict[str, Any] = {
        "precision": bench.precision,
        "device": device,
        "micro_batch": None if resources.micro_batch == "auto" else resources.micro_batch,
        "gradient_checkpointing": resources.gradient_checkpointing,
    }
    if bench.engine == "deepspeed":
        from plmray.train.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, settings, bench.data, resources.deepspeed, **options)
    return TorchEngine(model, settings, bench.data, **options)


def release_memory() -> None:
    """Give freed memory back to the system, so that a reused process does not grow from trial to trial."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        import ctypes

        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass  # not glibc: nothing to trim
