"""What a person sees while a sweep runs, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from plmray.errors import first_line
from plmray.metrics import Metric
from plmray.plan.plan import Plan
from plmray.trials.job import Job, Report
from plmray.trials.result import TrialResult


class Progress:
    """One line when a candidate ends: how far, how good, the best so far with its seed spread, time left."""

    def __init__(self, plan: Plan, metric: Metric, echo: Callable[[str], None], already_done: int) -> None:
        self.plan, self.metric, self.echo = plan, metric, echo
        self.done = self.before = already_done
        self.scores: dict[str, list[float]] = {}
        self.started = time.monotonic()

    def reported(self, job: Job, report: Report) -> None:
        if not report.finished and report.mean is not None:
            self.echo(f"  {job.candidate.id} epoch {report.epoch}: {self.metric.name} {report.mean:.4f}")

    def finished(self, result: TrialResult) -> None:
        self.done += 1
        if result.score is not None and not result.varied:
            self.scores.setdefault(f"{result.phase} {result.candidate_id}", []).append(result.score)
        what = f"{self.metric.name} {result.score:.4f}" if result.score is not None else self._reason(result)
        self.echo(
            f"[{self.done}/{self.plan.trials}] {result.phase} {result.trial_id} {what}{self._best()}{self._left()}"
        )

    def _reason(self, result: TrialResult) -> str:
        return f"{result.state} {first_line(result.error) if result.error else ''}"[:160]

    def _best(self) -> str:
        if not self.scores:
            return ""
        key = max(self.scores, key=lambda k: self.metric.sign * float(np.mean(self.scores[k])))
        own = self.scores[key]
        spread = f" ± {np.std(own, ddof=1):.4f} seed SD" if len(own) > 1 else ""
        return f" | best {key.split()[1]} {np.mean(own):.4f}{spread} ({len(own)} seeds)"

    def _left(self) -> str:
        now = self.done - self.before
        remaining = self.plan.trials - self.done
        if now < 2 or remaining <= 0:
            return ""
        minutes = (time.monotonic() - self.started) / now * remaining / 60
        return f" | about {minutes:.1f} min left"
