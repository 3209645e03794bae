"""The replicate phase where the statistics choose the next candidate and seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count
from typing import Any

import numpy as np

from plmray.config.fields.sweep import CONFIRMED, SweepSpec
from plmray.metrics import METRICS
from plmray.seeds import derived_rng
from plmray.stats.allocation import FIRST_SEEDS, Arms, Standing, next_trial, standing, stop_reason
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.phases.base import Events
from plmray.sweep.phases.replicate import ReplicatePhase
from plmray.trials import selection
from plmray.trials.job import Job, Report, Wait, job_key
from plmray.trials.result import TrialResult
from plmray.trials.trial import CONFIRMATION, Candidate


class AdaptivePhase(ReplicatePhase):
    """Anchors on the fixed grid; then the top candidates one seed at a time, each chosen by top-two Thompson sampling
    on the scores so far; then the two best on fresh seeds, whose means the choice has not biased.

    Every choice is recorded before it acts, so that a resumed or replayed sweep goes the same way.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: SweepFolder,
        events: Events,
        top: Sequence[Candidate],
        anchors: Sequence[Candidate],
        *,
        together: bool,
    ) -> None:
        super().__init__(spec, folder, events, anchors, top, together=together)
        self.top, self.sign = list(top), METRICS[spec.objective.metric].sign
        self.all = list({candidate.id: candidate for candidate in [*top, *anchors]}.values())
        self.made = [d for d in folder.decisions if d["kind"] == "allocation"]
        self.stopped = next((d for d in folder.decisions if d["kind"] == "allocation-stop"), None)
        self.again = list(self.made)  # chosen before a kill, perhaps never run
        self.live: dict[str, Job] = {}
        self.confirming = False

    def next_job(self) -> Job | Wait | None:
        while self.queue or self.again:
            job = self.queue.pop(0) if self.queue else self._recorded(self.again.pop(0))
            if job is not None:
                return self._start(job)
        if self.stopped is None:
            choice = self._choose()
            if choice is not None:
                return choice if choice == "wait" else self._start(choice)
        if self.live:
            return "wait"
        if not self.confirming:
            self.confirming = True
            self.queue = list(self._confirmation())
            return self.next_job()
        return None

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        super().finish(job, report, error)
        self.live.pop(job_key(job), None)

    def _start(self, job: Job) -> Job:
        self.live[job_key(job)] = job
        return self._announce(job)

    def _recorded(self, decision: dict[str, Any]) -> Job | None:
        candidate = next((c for c in self.top if c.id == decision["candidate_id"]), None)
        return None if candidate is None else self._job(candidate, (decision["seed"],), decision["reason"])

    def _choose(self) -> Job | Wait | None:
        """The next trial of the adaptive part, 'wait' for running ones, or None where it has come to its end."""
        alive = [candidate for candidate in self.top if not self._is_lost(candidate)]
        scores = [self._scores(candidate) for candidate in alive]
        flying = np.array([self._in_flight(candidate) for candidate in alive], dtype=np.int64)
        if len(alive) < 2:
            self._stop("one candidate left", None)
            return None
        fewest = min(map(len, scores))
        if fewest < FIRST_SEEDS <= min(len(own) + n for own, n in zip(scores, flying, strict=True)):
            return "wait"
        rng = derived_rng(self.spec.search.sampler_seed, "allocation", len(self.made))
        assert self.replicate.budget is not None
        now = standing(scores, self.sign, rng)
        budget, indifference = self.replicate.budget.trials, self.replicate.indifference
        reason = stop_reason(now, len(self.made), budget, indifference, fewest)
        if reason is not None:
            self._stop(reason, now)
            return None
        choice = next_trial(Arms(scores, flying, self._costs(alive)), self.sign, rng)
        rival = "" if choice.rival is None else f" {alive[choice.rival].id}"
        return self._chosen(alive[choice.candidate], choice.reason + rival)

    def _chosen(self, candidate: Candidate, reason: str) -> Job:
        seed = self._next_seed(candidate)
        failed = [r.seed for r in self._results(candidate) if r.score is None]
        if failed:
            reason += f"; replaces seed {', '.join(map(str, failed))}, which gave no score"
        record = {"kind": "allocation", "candidate_id": candidate.id, "seed": seed, "reason": reason}
        self.folder.record_decision(record)
        self.made.append(record)
        job = self._job(candidate, (seed,), reason)
        assert job is not None  # the seed was free
        return job

    def _stop(self, reason: str, now: Standing | None) -> None:
        facts = {} if now is None else {"p_best": float(now.p_best[now.leader]), "expected_loss": now.expected_loss}
        self.stopped = {"kind": "allocation-stop", "reason": reason, "trials": len(self.made), **facts}
        self.folder.record_decision(self.stopped)

    def _next_seed(self, candidate: Candidate) -> int:
        """The listed seeds first, then fresh ones, the same for every candidate."""
        chosen = {d["seed"] for d in self.made if d["candidate_id"] == candidate.id}
        used = chosen | {r.seed for r in self._results(candidate)}
        used |= {seed for job in self._jobs_of(candidate) for seed in job.seeds}
        return next(seed for seed in chain(self.replicate.seeds, count(self._fresh())) if seed not in used)

    def _fresh(self) -> int:
        return 1 + max(*self.replicate.seeds, *self.spec.search.seeds)

    def _confirmation(self) -> Iterable[Job]:
        """The two best of all, anchors included, on seeds that no choice has seen."""
        assert self.replicate.budget is not None
        recorded = next((d for d in self.folder.decisions if d["kind"] == CONFIRMATION), None)
        if recorded is None:
            first = self._fresh() + self.replicate.budget.trials
            seeds = list(range(first, first + self.replicate.confirmation_seeds))
            recorded = {"kind": CONFIRMATION, "candidates": [c.id for c in self._two_best()], "seeds": seeds}
            self.folder.record_decision(recorded)
        known = {candidate.id: candidate for candidate in self.all}
        for candidate_id in recorded["candidates"]:
            job = self._job(known[candidate_id], tuple(recorded["seeds"]), CONFIRMATION)
            if job is not None:
                yield job

    def _two_best(self) -> list[Candidate]:
        alive = [candidate for candidate in self.all if len(self._scores(candidate))]
        now = standing([self._scores(c) for c in alive], self.sign, derived_rng(self.spec.search.sampler_seed, "stop"))
        worth = now.p_best if now else [self.sign * float(self._scores(c).mean()) for c in alive]
        return [alive[i] for i in np.argsort(-np.asarray(worth), kind="stable")[:CONFIRMED]]

    def _results(self, candidate: Candidate) -> list[TrialResult]:
        own = selection.main(selection.of(candidate.id, self.folder.results.values()), "replicate")
        return [r for r in own if r.reason != CONFIRMATION]

    def _in_flight(self, candidate: Candidate) -> int:
        """Trials of a candidate that will count once they end."""
        return sum(len(job.seeds) for job in self._jobs_of(candidate))

    def _jobs_of(self, candidate: Candidate) -> list[Job]:
        own = (job for job in self.live.values() if job.candidate.id == candidate.id)
        return [job for job in own if job.varied is None and job.reason != CONFIRMATION]

    def _scores(self, candidate: Candidate) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Validation scores alone: a test score chooses nothing."""
        return np.array([r.score for r in self._results(candidate) if r.score is not None], dtype=np.float64)

    def _is_lost(self, candidate: Candidate) -> bool:
        results = self._results(candidate)
        return len(results) >= FIRST_SEEDS and all(r.score is None for r in results)

    def _costs(self, candidates: Sequence[Candidate]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Predicted cost of a trial: its arithmetic where that is known, the same on every machine; else seconds."""
        trials = [[r for r in self._results(candidate) if r.score is not None] for candidate in candidates]
        flops = [[r.provenance.get("train_flops", 0.0) for r in own] for own in trials]
        seconds = [[r.seconds for r in own] for own in trials]
        for costs in (flops, seconds):
            if all(own and min(own) > 0 for own in costs):
                return np.array([float(np.mean(own)) for own in costs])
        return np.ones(len(candidates))
