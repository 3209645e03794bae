"""Computing a job with an engine for each of its trials: a candidate's seeds side by side or in turn.

The same code runs inside a reused Tune process, on the workers of a Ray Train group, and without Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from plmray.config.catalog.engines import ENGINES
from plmray.errors import PlmrayError
from plmray.sweep.workers.context import Bench
from plmray.sweep.workers.device import Device
from plmray.sweep.workers.live_trial import OverTime, Run, start_alone
from plmray.sweep.workers.process import prepare_process, release_memory
from plmray.sweep.workers.reporter import JobBook
from plmray.trials.job import Job, Report
from plmray.trials.result import TrialResult


class Worker:
    """A JobRunner on this process. ``device``: what the process has kept, where it has worked before."""

    def __init__(self, bench: Bench, is_chief: bool = True, device: Device | None = None) -> None:
        self.bench, self.device = bench, device or Device()
        self.is_chief = is_chief
        prepare_process(bench.spec)

    def reports(self, job: Job) -> Iterator[Report]:
        """All seeds to each rung in turn; where they cannot share a process, one after the other."""
        release_memory()  # a stopped trial may have skipped its own clean-up
        done: dict[str, TrialResult] = {}
        try:
            for report in self._in_turn(job) if ENGINES[self.bench.engine].has_groups else self._side_by_side(job):
                # A test score is taken at a trial's very end, and once: what has one is finished.
                done.update({r.trial_id: r for r in report.results if r.test_score is not None})
                yield report
        except (OverTime, PlmrayError) as error:  # another attempt would end the same way
            ended = [
                done.get(t.id) or TrialResult.failed(t, str(error), engine=self.bench.engine) for t in job.trials()
            ]
            yield Report(job.report_epochs[-1], None, ended, finished=True)

    def _side_by_side(self, job: Job) -> Iterator[Report]:
        book = JobBook(self.device, self.bench, job, self.is_chief)
        runs = [start_alone(self.device, self.bench, trial) for trial in job.trials()]
        for epoch in job.report_epochs:
            for run in runs:
                run.advance(epoch)
            if epoch == job.report_epochs[-1] or book.is_lost(runs):
                break
            yield book.report(runs, epoch)
        for run in runs:
            book.conclude(run)
        yield book.report(runs, job.report_epochs[-1], finished=True)
        for run in runs:
            run.close()

    def _in_turn(self, job: Job) -> Iterator[Report]:
        """The first seed faces the scheduler alone; the others then run without being judged."""
        book, done = JobBook(self.device, self.bench, job, self.is_chief), list[Run]()
        for number, trial in enumerate(job.trials()):
            run = start_alone(self.device, self.bench, trial)
            run.probe = job.probe and number == 0 and len(job.seeds) > 1
            for epoch in job.report_epochs if number == 0 else job.report_epochs[-1:]:
                run.advance(epoch)
                if run.ended or epoch == job.report_epochs[-1]:
                    break
                yield book.report([*done, run], epoch)
            book.conclude(run)
            run.close()
            done.append(run)
            if book.is_lost(done):
                break
            if number < len(job.seeds) - 1:
                yield replace(book.report(done, job.report_epochs[-1]), judged=False)
        yield book.report(done, job.report_epochs[-1], finished=True)
