"""A job: one candidate with some seeds, computed in one place. Plain data, so that any place can take it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from plmray.redact import redacted
from plmray.seeds import StreamName
from plmray.trials.result import TrialResult
from plmray.trials.trial import Candidate, Phase, Trial

Wait = Literal["wait"]


@dataclass(frozen=True)
class Job:
    """``report_epochs``: when the seed mean is reported; the last one is the full budget.

    ``probe``: where seeds cannot advance together, the first one alone faces the scheduler and is
    then left out of the mean. ``reason``, ``varied``, ``held``: as in ``Trial``.
    """

    candidate: Candidate
    seeds: tuple[int, ...]
    phase: Phase
    report_epochs: tuple[int, ...]
    take_test: bool = False
    keep: bool = False
    probe: bool = False
    reason: str = ""
    varied: StreamName | None = None
    held: int | None = None

    def trials(self) -> list[Trial]:
        return [Trial(self.candidate, seed, self.phase, self.reason, self.varied, self.held) for seed in self.seeds]

    def to_dict(self) -> dict[str, Any]:
        return {
            "candidate": {
                "id": self.candidate.id,
                "parameters": dict(self.candidate.parameters),
                "origins": list(self.candidate.origins),
            },
            "seeds": list(self.seeds),
            "phase": self.phase,
            "report_epochs": list(self.report_epochs),
            "take_test": self.take_test,
            "keep": self.keep,
            "probe": self.probe,
            "reason": self.reason,
            "varied": self.varied,
            "held": self.held,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Job:
        candidate = record["candidate"]
        return cls(
            candidate=Candidate(candidate["id"], candidate["parameters"], tuple(candidate["origins"])),
            seeds=tuple(record["seeds"]),
            phase=record["phase"],
            report_epochs=tuple(record["report_epochs"]),
            take_test=record["take_test"],
            keep=record["keep"],
            probe=record["probe"],
            reason=record["reason"],
            varied=record["varied"],
            held=record["held"],
        )


@dataclass(frozen=True)
class Report:
    """News of a job. ``mean`` is the objective over the seeds that face the scheduler, at ``epoch``.

    ``results`` holds every trial as it stands: final once ``finished``. ``curves``: evaluations since the
    last report, by trial id. ``judged`` is false while seeds run that no scheduler judges.
    """

    epoch: int
    mean: float | None
    results: list[TrialResult]
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    judged: bool = True
    finished: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "mean": self.mean,
            "results": [result.to_dict() for result in self.results],
            "curves": self.curves,
            "judged": self.judged,
            "finished": self.finished,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Report:
        return cls(
            epoch=record["epoch"],
            mean=record["mean"],
            results=[TrialResult.from_dict(result) for result in record["results"]],
            curves=record["curves"],
            judged=record["judged"],
            finished=record["finished"],
        )


class JobSource(Protocol):
    """A phase, as a place to run sees it."""

    def next_job(self) -> Job | Wait | None:
        """The next job, 'wait' while it depends on running ones, None when there are no more."""

    def observe(self, job: Job, report: Report) -> bool:
        """Take a report; True where the job should stop now."""

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        """The end of a job: its last report, or why it failed."""


class Place(Protocol):
    """Where jobs run: on Ray, or in this process. ``concurrency``: how many at a time, on how many ``devices``."""

    @property
    def concurrency(self) -> int: ...

    @property
    def devices(self) -> int: ...

    def run(self, source: JobSource) -> None: ...


class JobRunner(Protocol):
    """Computes a job, one report at a time."""

    def reports(self, job: Job) -> Iterator[Report]: ...


def job_key(job: Job) -> str:
    """Names a job among those of its sweep."""
    return f"{job.phase}:{job.candidate.id}:{job.varied or ''}{'-'.join(map(str, job.seeds))}"


def short_trace(error: BaseException, lines: int = 12) -> str:
    """The error and the end of its traceback without secrets, for a result's ``error`` field."""
    text = "".join(traceback.format_exception(error)).strip().splitlines()
    return redacted("\n".join([f"{type(error).__name__}: {error}", *text[-lines:]]))
