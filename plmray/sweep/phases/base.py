"""What a phase is: it says which job is next and takes each report; phases follow one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plmray.config.fields.sweep import SweepSpec
from plmray.interrupt import Interrupted, StopSignals
from plmray.sweep.folder.costs import Costs
from plmray.sweep.folder.writer import SweepFolder
from plmray.trials.job import Job, JobSource, Report, Wait, job_key
from plmray.trials.result import TrialResult
from plmray.trials.trial import Candidate, Trial


class StoppableSource:
    """A JobSource that ends at its next event once a stop was asked for."""

    def __init__(self, source: JobSource, signals: StopSignals) -> None:
        self.source, self.signals = source, signals

    def next_job(self) -> Job | Wait | None:
        self._check()
        return self.source.next_job()

    def observe(self, job: Job, report: Report) -> bool:
        self._check()
        return self.source.observe(job, report)

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        self.source.finish(job, report, error)

    def _check(self) -> None:
        if self.signals.asked:
            raise Interrupted


@dataclass
class Events:
    """Who is told what happens; every listener is called in the driver, between two jobs."""

    started: list[Callable[[Candidate], None]] = field(default_factory=list)
    reported: list[Callable[[Job, Report], None]] = field(default_factory=list)
    finished: list[Callable[[TrialResult], None]] = field(default_factory=list)


class Phase:
    """What all phases share: collecting curves, writing results, telling listeners."""

    def __init__(self, spec: SweepSpec, folder: SweepFolder, events: Events) -> None:
        self.spec, self.folder, self.events = spec, folder, events
        self._curves: dict[str, dict[int, dict[str, Any]]] = {}
        self._last: dict[str, Report] = {}

    def _announce(self, job: Job) -> Job:
        for listener in self.events.started:
            listener(job.candidate)
        return job

    def _take(self, job: Job, report: Report) -> None:
        self._last[job_key(job)] = report
        for trial_id, evaluations in report.curves.items():
            # By step: a restarted job reports its first steps a second time.
            self._curves.setdefault(trial_id, {}).update({e["step"]: e for e in evaluations})
        for listener in self.events.reported:
            listener(job, report)

    def _write(self, results: Iterable[TrialResult]) -> None:
        for result in results:
            if result.trial_id in self.folder.results:
                continue
            curve = sorted(self._curves.pop(result.trial_id, {}).items())
            self.folder.write_trial(result, [evaluation for _, evaluation in curve])
            for listener in self.events.finished:
                listener(result)

    def _missing(self, candidate: Candidate, seeds: Sequence[int], phase: Any) -> tuple[int, ...]:
        return tuple(seed for seed in seeds if Trial(candidate, seed, phase).id not in self.folder.results)

    def _stopped(self, job: Job, reason: str | None) -> list[TrialResult]:
        """A job's trials as they were when the scheduler stopped it: pruned, without a score."""
        last = self._last.get(job_key(job))
        seen = {result.trial_id: result for result in last.results} if last else {}
        return [
            replace(seen.get(trial.id, TrialResult.pruned(trial, None)), state="PRUNED", score=None, error=reason)
            for trial in job.trials()
        ]


def epochs_of(spec: SweepSpec, candidate: Candidate) -> int:
    return int(candidate.parameters.get("epochs", spec.train.epochs))


class InTurn:
    """Two phases as one source, so that the processes of the first also serve the second.

    ``then`` makes the second phase, or none, when every job of the first has ended.
    """

    def __init__(self, first: JobSource, then: Callable[[], JobSource | None]) -> None:
        self.now: JobSource = first
        self.then: Callable[[], JobSource | None] | None = then
        self.live = 0

    def next_job(self) -> Job | Wait | None:
        job = self.now.next_job()
        if job is None and self.then is not None:
            if self.live:
                return "wait"
            second, self.then = self.then(), None
            if second is None:
                return None
            self.now = second
            job = second.next_job()
        self.live += isinstance(job, Job)
        return job

    def observe(self, job: Job, report: Report) -> bool:
        return self.now.observe(job, report)

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        self.live -= 1
        self.now.finish(job, report, error)


class TimedSource:
    """A JobSource whose time in the driver is counted."""

    def __init__(self, source: JobSource, costs: Costs) -> None:
        self.source, self.costs = source, costs

    def next_job(self) -> Job | Wait | None:
        with self.costs.driver():
            return self.source.next_job()

    def observe(self, job: Job, report: Report) -> bool:
        with self.costs.driver():
            return self.source.observe(job, report)

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        with self.costs.driver():
            self.source.finish(job, report, error)
