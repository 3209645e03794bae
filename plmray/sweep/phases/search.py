"""The two phases of a sweep as sources of jobs: search proposes and prunes, replicate repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from plmray.config.fields.space import Parameters, Space
from plmray.config.fields.sweep import SweepSpec
from plmray.errors import FolderError
from plmray.metrics import METRICS
from plmray.plan.plan import num_candidates
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.phases.base import Events, Phase, epochs_of
from plmray.sweep.phases.study import CandidateSearch, report_epochs
from plmray.trials.job import Job, Report, Wait, job_key
from plmray.trials.result import TrialResult
from plmray.trials.trial import Candidate, Identifier, Origin, Trial

REPEATS_BEFORE_BLIND = 20


class SearchPhase(Phase):
    """Candidates one after the other, each with its search seeds; judged by the mean, never by one seed's luck.

    Without a scheduler, proposals are the same in every run: candidate i is drawn when exactly the
    candidates up to i - ``lag`` have been told, in order. With one, order of arrival decides, and the
    records of candidates and decisions make a replay exact.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: SweepFolder,
        identifier: Identifier,
        events: Events,
        *,
        lag: int,
        in_turn: bool,
    ) -> None:
        super().__init__(spec, folder, events)
        self.identifier, self.lag = identifier, max(1, lag)
        self.metric = METRICS[spec.objective.metric]
        space = Space(spec.space)
        self.search = CandidateSearch(space, spec.search, self.metric.direction, spec.train.epochs)
        self.recorded = [record for record in folder.candidates if record["phase"] == "search"]
        self.decided: dict[tuple[str, int], bool] = {
            (d["candidate_id"], d["epoch"]): d["decision"] == "stop" for d in folder.decisions if d["kind"] == "rung"
        }
        self.order: list[Candidate] = []
        self.numbers: dict[str, int] = {}  # candidate id to its number in the study
        self.told: set[int] = set()
        self.probe = in_turn and spec.search.scheduler != "none"
        self.limit = num_candidates(spec)
        self._deterministic = spec.search.scheduler == "none"
        self._live: set[str] = set()

    def next_job(self) -> Job | Wait | None:
        while len(self.order) < self.limit:
            if len(self._live) >= self.lag or self._must_wait(len(self.order)):
                return "wait"
            candidate = self._next_candidate()
            if candidate is None:
                self.limit = len(self.order)  # the space holds no more
                return None
            seeds = self._missing(candidate, self.spec.search.seeds, "search")
            if seeds:
                self._live.add(candidate.id)
                return self._announce(self._job(candidate, seeds))
            self._tell_finished()
        return None

    def observe(self, job: Job, report: Report) -> bool:
        self._take(job, report)
        unjudged = self.spec.search.scheduler == "none" or report.finished or not report.judged
        if unjudged or report.mean is None:
            return False
        key = (job.candidate.id, report.epoch)
        if key not in self.decided:
            stop = self.search.observe(self.numbers[job.candidate.id], report.epoch, report.mean)
            self.folder.record_decision(
                {
                    "kind": "rung",
                    "candidate_id": job.candidate.id,
                    "epoch": report.epoch,
                    "mean": report.mean,
                    "decision": "stop" if stop else "continue",
                }
            )
            self.decided[key] = stop
        return self.decided[key]

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        self._live.discard(job.candidate.id)
        if error is not None:
            self._write([TrialResult.failed(trial, error) for trial in job.trials()])
        elif report is None or not report.finished:
            last = self._last.get(job_key(job))
            rung = f" at epoch {last.epoch}" if last else ""
            self._write(self._stopped(job, f"stopped by {self.spec.search.scheduler}{rung}"))
        else:
            self._write(report.results)
        self._tell_finished()

    def ranked(self) -> list[Candidate]:
        """Candidates that ran to the end, best mean first; then pruned ones by how far they came and how well.

        Diverged and failed candidates are left out. Where all is equal the earlier one comes first.
        """
        places = [(self._standing(candidate), index) for index, candidate in enumerate(self.order)]
        standing = [(place, index) for place, index in places if place is not None]
        return [self.order[index] for _, index in sorted(standing, key=lambda p: (-p[0][0], -p[0][1], p[1]))]

    def num_complete(self) -> int:
        return sum(self._mean(candidate) is not None for candidate in self.order)

    def _standing(self, candidate: Candidate) -> tuple[float, float] | None:
        """(how far, how well), larger is better; None for a candidate that no mean speaks for."""
        mean = self._mean(candidate)
        if mean is not None:
            return math.inf, self.metric.sign * mean
        rungs = [d for d in self.folder.decisions if d["kind"] == "rung" and d["candidate_id"] == candidate.id]
        if not rungs or rungs[-1]["decision"] != "stop":
            return None
        return rungs[-1]["epoch"], self.metric.sign * rungs[-1]["mean"]

    def _job(self, candidate: Candidate, seeds: tuple[int, ...]) -> Job:
        return Job(
            candidate=candidate,
            seeds=seeds,
            phase="search",
            report_epochs=tuple(report_epochs(self.spec.search, epochs_of(self.spec, candidate))),
            keep=self.spec.resources.keep == "best",
            probe=self.probe,
        )

    def _next_candidate(self) -> Candidate | None:
        index = len(self.order)
        record = self.recorded[index] if index < len(self.recorded) else None
        self._tell_finished()
        origin: Origin = "given" if index < len(self.spec.search.given) else "searched"
        candidate = self._again(record, origin) if record else self._fresh(self._given(index), origin)
        if candidate is None:
            return None
        self.order.append(candidate)
        if record is None:
            self.folder.record_candidate(candidate, "search", index, self.numbers[candidate.id])
        return candidate

    def _again(self, record: Mapping[str, Any], origin: Origin) -> Candidate:
        """A recorded candidate under its old study number; the numbers of repeats in between are spent again.

        Where proposals are the same in every run the sampler proposes it once more, so that its own state
        goes on as if nothing had happened; the record decides where it does not (another Optuna).
        """
        while self.search.asked < record["number"]:
            self.search.tell(self.search.ask()[0], None, failed=True)
        redrawn = self._given(record["index"]) if self._deterministic else record["parameters"]
        number, parameters = self.search.ask(redrawn)
        if parameters != record["parameters"]:
            self.search.tell(number, None, failed=True)
            number, parameters = self.search.ask(record["parameters"])
        candidate = self.identifier.candidate(parameters, origin)
        if candidate.id != record["id"]:  # begin.require_same has looked at what is recorded, not at a space that grew
            raise FolderError(
                f"{self.folder.address}: candidate {record['id']} of this sweep is {candidate.id} now; its space "
                "changed since. Undo the change, or use another name."
            )
        self.numbers[candidate.id] = number
        for decision in self.folder.decisions:  # the rungs, as they stood
            if decision["kind"] == "rung" and decision["candidate_id"] == candidate.id:
                self.search.observe(number, decision["epoch"], decision["mean"])
        return candidate

    def _given(self, index: int) -> Parameters | None:
        return self.spec.search.given[index] if index < len(self.spec.search.given) else None

    def _fresh(self, given: Parameters | None, origin: Origin) -> Candidate | None:
        """A candidate this search has not had, or None where the space seems to hold no more."""
        tried = {candidate.id for candidate in self.order}
        number, parameters = self.search.ask(given)
        for attempt in range(10 * REPEATS_BEFORE_BLIND):
            candidate = self.identifier.candidate(parameters, origin)
            if candidate.id not in tried:
                self.numbers[candidate.id] = number
                return candidate
            self.search.tell(number, None, failed=True)
            blind = self.search.draw_blindly() if attempt >= REPEATS_BEFORE_BLIND else None
            number, parameters = self.search.ask(blind)
        return None

    def _must_wait(self, index: int) -> bool:
        learns_after = self.search.learns_after()
        if not self._deterministic or learns_after is None or index < learns_after:
            return False
        needed = self.order[: max(0, index - self.lag + 1)]
        return any(self._missing(candidate, self.spec.search.seeds, "search") for candidate in needed)

    def _tell_finished(self) -> None:
        """Tell the study of finished candidates: all of them, or in order and with the lag."""
        for index, candidate in enumerate(self.order):
            if index in self.told:
                continue
            if self._missing(candidate, self.spec.search.seeds, "search"):
                if self._deterministic:
                    return
                continue
            if self._deterministic and index > len(self.order) - self.lag:
                return
            mean = self._mean(candidate)
            failed = any(result.state == "FAILED" for result in self._results(candidate))
            self.search.tell(self.numbers[candidate.id], mean, failed=failed and mean is None)
            self.told.add(index)

    def _results(self, candidate: Candidate) -> list[TrialResult]:
        ids = [Trial(candidate, seed, "search").id for seed in self.spec.search.seeds]
        return [self.folder.results[i] for i in ids if i in self.folder.results]

    def _mean(self, candidate: Candidate) -> float | None:
        """Mean over the search seeds (a probe left out); None unless every one of them is complete."""
        results = self._results(candidate)
        if len(results) < len(self.spec.search.seeds) or any(r.score is None for r in results):
            return None
        scores = [r.score for r in results if r.score is not None and not r.probe]
        return math.fsum(scores) / len(scores) if scores else None
