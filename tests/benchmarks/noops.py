"""A host that trains nothing. In a light file of its own: Ray loads an actor's class in every process that asks it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from plmray.seeds import derived_rng
from plmray.sweep.on_ray.host_actor import PackActor
from plmray.trials.job import Job, Report
from plmray.trials.result import TrialResult

if TYPE_CHECKING:
    from plmray.sweep.workers.packed import News


def noop_reports(job: Job) -> Iterator[Report]:
    """A curve a seed, better at lower rates, and no training."""
    rate = float(job.candidate.parameters["optimizer.lr"])
    for epoch in job.report_epochs:
        scores = [rate + 0.1 * float(derived_rng(seed, "noop", epoch).random()) for seed in job.seeds]
        results = [
            TrialResult.complete(trial, score=score, validation_loss=score, epochs_run=float(epoch), engine="none")
            for trial, score in zip(job.trials(), scores, strict=True)
        ]
        curves = {r.trial_id: [_point(epoch, r.score or 0.0)] for r in results}
        yield Report(epoch, sum(scores) / len(scores), results, curves, finished=epoch == job.report_epochs[-1])


def _point(epoch: int, score: float) -> dict[str, Any]:
    numbers = dict.fromkeys(("train_loss", "validation_loss", "score", "learning_rate", "seconds"), score)
    return {"step": epoch, "epoch": float(epoch), "tokens": 0, **numbers}


class NoOpHost:
    """A Host that trains nothing."""

    def __init__(self) -> None:
        self.seats: dict[str, Iterator[Report]] = {}

    def submit(self, key: str, job: Job) -> None:
        self.seats[key] = noop_reports(job)

    def drop(self, key: str) -> None:
        self.seats.pop(key, None)

    def facts(self) -> dict[str, float]:
        return {}

    def advance(self) -> Iterator[News]:
        from plmray.sweep.workers.packed import News

        for key, reports in list(self.seats.items()):
            report = next(reports)
            if report.finished:
                self.drop(key)
            yield News(key, report)


class NoOpActor(PackActor):
    def _open(self, bench: Any) -> None:
        self.host = NoOpHost()  # type: ignore[assignment]
        threading.Thread(target=self._train, args=(self.host,), daemon=True).start()
