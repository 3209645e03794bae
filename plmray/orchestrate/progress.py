"""What a person sees while a sweep runs, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from plmray.metrics import Metric
from plmray.orchestrate.jobs import Job, JobSource, Report, Wait
from plmray.plan import Plan
from plmray.results import TrialResult


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
        first_line = (result.error or "").splitlines()[0] if result.error else ""
        return f"{result.state} {first_line}"[:160]

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


@dataclass
class Costs:
    """Seconds of a sweep by what they were spent on. Runs that were resumed add up (``before``)."""

    before: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    driver_s: float = 0.0
    worker_starts_s: list[float] = field(default_factory=list)
    training_s: float = 0.0
    trials: int = 0
    tokens: int = 0
    slots: int = 1
    process_bytes: int = 0  # of the largest process of a packed candidate
    padded_tokens: float = 0.0  # computed for the real ones in ``padding_of``
    padding_of: int = 0
    train_flops: float = 0.0
    validation_flops: float = 0.0
    peak_flops: float = 0.0  # a device
    packs: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def driver(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.driver_s += time.perf_counter() - begun

    def trial(self, result: TrialResult) -> None:
        self.trials += 1
        self.training_s += result.seconds
        self.tokens += result.tokens
        facts = result.provenance
        if "padding_ratio" in facts:
            self.padded_tokens += facts["padding_ratio"] * result.tokens
            self.padding_of += result.tokens
        self.train_flops += facts.get("train_flops", 0.0)
        self.validation_flops += facts.get("validation_flops", 0.0)
        self.peak_flops = max(self.peak_flops, facts.get("peak_flops", 0.0))

    def add_packs(self, hosts: Iterable[Mapping[str, float]]) -> None:
        """What the packs of every host have done."""
        for facts in hosts:
            for name in ("slot_ticks", "room_ticks"):
                self.packs[name] = self.packs.get(name, 0.0) + facts.get(name, 0.0)

    def totals(self) -> dict[str, float]:
        """Sums over all runs of the sweep: what the folder keeps."""
        wall_s = time.monotonic() - self.started
        now = {
            "wall_s": wall_s,
            "slot_s": wall_s * self.slots,
            "trials": float(self.trials),
            "driver_s": self.driver_s,
            "worker_starts": float(len(self.worker_starts_s)),
            "worker_start_s": sum(self.worker_starts_s),
            "training_s": self.training_s,
            "train_tokens": float(self.tokens),
            "padded_tokens": self.padded_tokens,
            "padding_of": float(self.padding_of),
            "train_flops": self.train_flops,
            "validation_flops": self.validation_flops,
            **{name: self.packs.get(name, 0.0) for name in ("slot_ticks", "room_ticks")},
        }
        sums = {name: value + self.before.get(name, 0.0) for name, value in now.items()}
        largest = {"peak_flops": self.peak_flops, "process_bytes": float(self.process_bytes)}
        return sums | {name: max(value, self.before.get(name, 0.0)) for name, value in largest.items()}


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
