"""The replicate phase: which (candidate, seeds) next, after the search. A fixed grid, or what statistics ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from plmray.config.fields.sweep import SweepSpec
from plmray.seeds import StreamName
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.phases.base import Events, Phase, epochs_of
from plmray.sweep.phases.study import quarters
from plmray.trials.job import Job, Report, Wait, job_key
from plmray.trials.result import TrialResult
from plmray.trials.trial import FIXED_GRID, Candidate, Trial


class ReplicatePhase(Phase):
    """Candidates on fresh seeds: no pruning, the test score taken once. This one runs a fixed grid."""

    def __init__(
        self,
        spec: SweepSpec,
        folder: SweepFolder,
        events: Events,
        candidates: Sequence[Candidate],
        varied: Sequence[Candidate],
        *,
        together: bool,
    ) -> None:
        """``varied``: the candidates whose random streams are moved one at a time, where the sweep asks for it."""
        super().__init__(spec, folder, events)
        assert spec.replicate is not None
        self.replicate = spec.replicate
        # Seed by seed, so that every candidate has its first before any has its second; all seeds of a candidate in
        # one job where they share a pack, or where starting workers is dear.
        seeds = self.replicate.seeds
        groups = [tuple(seeds)] if together else [(seed,) for seed in seeds]
        grid = (self._job(candidate, group, FIXED_GRID) for group in groups for candidate in candidates)
        self.queue = [job for job in chain(grid, self._varied(varied)) if job is not None]

    def next_job(self) -> Job | Wait | None:
        return self._announce(self.queue.pop(0)) if self.queue else None

    def observe(self, job: Job, report: Report) -> bool:
        self._take(job, report)
        return False

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        if error is not None:
            done = {r.trial_id: r for r in (self._last[job_key(job)].results if job_key(job) in self._last else [])}
            complete = [r for r in done.values() if r.state == "COMPLETE" and r.test_score is not None]
            failed = [t for t in job.trials() if t.id not in {r.trial_id for r in complete}]
            self._write([*complete, *(TrialResult.failed(trial, error) for trial in failed)])
        elif report is not None:
            self._write(report.results)

    def _varied(self, candidates: Sequence[Candidate]) -> Iterator[Job | None]:
        """One stream moved at a time, the others held at the first seed; that seed itself is in the grid."""
        held, *others = self.replicate.seeds
        for stream in self.replicate.vary:
            for candidate in candidates:
                yield self._job(candidate, tuple(others), f"varies {stream}", stream, held)

    def _job(
        self,
        candidate: Candidate,
        seeds: tuple[int, ...],
        reason: str,
        varied: StreamName | None = None,
        held: int | None = None,
    ) -> Job | None:
        """A job of those seeds that have no result yet, if any."""
        known = self.folder.results
        missing = tuple(s for s in seeds if Trial(candidate, s, "replicate", "", varied, held).id not in known)
        if not missing:
            return None
        return Job(
            candidate=candidate,
            seeds=missing,
            phase="replicate",
            report_epochs=tuple(quarters(epochs_of(self.spec, candidate))),
            take_test=True,
            keep=self.spec.resources.keep in ("best", "replicate"),
            reason=reason,
            varied=varied,
            held=held,
        )
