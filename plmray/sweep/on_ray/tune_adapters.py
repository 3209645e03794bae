"""Tune's searcher, scheduler and callback, adapted to one JobSource in the driver's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray.cloudpickle
import ray.exceptions
from ray import tune
from ray.tune import Callback
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from plmray.sweep.folder.costs import Costs
from plmray.sweep.on_ray.trainables import unpacked_report
from plmray.trials.job import Job, JobSource, Report, short_trace

IDLE_WAIT_S = 0.2
LOST = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.RaySystemError)
# Before a job's second, third … process: until a lost node is noticed, new processes may be sent there.
RETRY_WAITS_S = (1.0, 5.0, 25.0)


@dataclass(frozen=True)
class Attempt:
    """A job's n-th process; not before ``due`` of the monotonic clock."""

    job: Job
    number: int = 0
    due: float = 0.0

    def next(self, lost: bool) -> Attempt:
        wait = RETRY_WAITS_S[min(self.number, len(RETRY_WAITS_S) - 1)] if lost else 0.0
        return Attempt(self.job, self.number + 1, time.monotonic() + wait)


class Bridge:
    """The state the three adapters share: which Tune trial computes which job, and its last report.

    Processes that died are replaced here, as new trials of Tune: Tune's own retries give a trial up at once whose
    reused process was on a lost node, and do not wait.
    """

    def __init__(
        self,
        source: JobSource,
        config: Callable[[Job], dict[str, Any]],
        costs: Costs,
        concurrency: int,
        retries: int,
        ended: Callable[[Job], None] | None,
        mend: Callable[[], None],
    ) -> None:
        self.source, self.config, self.costs, self.concurrency = source, config, costs, concurrency
        self.retries, self.ended, self.mend = retries, ended, mend
        self.live: dict[str, Attempt] = {}
        self.again: list[Attempt] = []
        self.last: dict[str, Report] = {}
        self.exhausted = False
        self.failure: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        found = self._next_attempt()
        if isinstance(found, Attempt):
            self.live[trial_id] = found
            return self.config(found.job)
        if found == "wait" or self.live or self.again:
            if not self.live:
                time.sleep(IDLE_WAIT_S)
            return None
        self.exhausted = self.failure is None
        return str(Searcher.FINISHED)

    def _next_attempt(self) -> Attempt | Literal["wait"] | None:
        now = time.monotonic()
        for number, attempt in enumerate(self.again):
            if attempt.due <= now:
                return self.again.pop(number)
        if len(self.live) + len(self.again) >= self.concurrency:
            return "wait"  # what waits for another process is under way: proposals come in the same order
        job = self._guarded(self.source.next_job)
        return Attempt(job) if isinstance(job, Job) else "wait" if job == "wait" else None

    def observe(self, trial_id: str, result: dict[str, Any]) -> bool:
        report = unpacked_report(result)
        if report is None or trial_id not in self.live:
            return False
        if trial_id in self.last and self.last[trial_id].finished:
            return False  # Tune repeats the last result of a function when it ends
        if result.get("worker_start_s") is not None:
            self.costs.worker_starts_s.append(float(result["worker_start_s"]))
        self.costs.process_bytes = max(self.costs.process_bytes, int(result.get("process_bytes") or 0))
        self.last[trial_id] = report
        return bool(self._guarded(lambda: self.source.observe(self.live[trial_id].job, report)))

    def complete(self, trial_id: str) -> None:
        attempt, report = self.live.pop(trial_id, None), self.last.pop(trial_id, None)
        if attempt is not None:
            self._end(attempt.job)
            self._guarded(lambda: self.source.finish(attempt.job, report))

    def fail(self, trial_id: str, error: str, lost: bool) -> None:
        """``lost``: the process is gone, which says nothing against the trial."""
        if trial_id in self.last and self.last[trial_id].finished:
            self.complete(trial_id)  # it broke while leaving; its results are in hand
            return
        self.last.pop(trial_id, None)
        attempt = self.live.pop(trial_id, None)
        if attempt is None:
            return
        if attempt.number < self.retries:
            self.again.append(attempt.next(lost))
            return
        self._end(attempt.job)
        self._guarded(lambda: self.source.finish(attempt.job, None, error))

    def _end(self, job: Job) -> None:
        if self.ended is not None:
            self.ended(job)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """An error of ours ends the sweep as itself, not as Tune's report of a broken callback."""
        try:
            return action()
        except Exception as error:
            self.failure = self.failure or error
            raise


class _NotSaved:
    """Tune pickles its parts at the start; ours are rebuilt from the sweep folder and never loaded."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (object, ())


class JobSearcher(_NotSaved, Searcher):  # type: ignore[misc]
    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        return True  # the bridge keeps the limit

    def suggest(self, trial_id: str) -> Any:
        return self.bridge.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass  # the callback below knows more

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        pass


class JobScheduler(_NotSaved, FIFOScheduler):  # type: ignore[misc]
    """Stops a trial when the source says so."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(self.STOP if self.bridge.observe(trial.trial_id, result) else self.CONTINUE)


class JobCallback(_NotSaved, Callback):  # type: ignore[misc]
    """The end of trials. A last report never passes the scheduler, so it is observed here."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        report = unpacked_report(result)
        if report is not None and report.finished:
            self.bridge.observe(trial.trial_id, result)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        self.bridge.mend()

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.bridge.complete(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.bridge.fail(trial.trial_id, *what_went_wrong(trial))


def what_went_wrong(trial: Any) -> tuple[str, bool]:
    """In a worker, in its own words; and whether its process was lost."""
    file = trial.pickled_error_file
    if not file or not Path(file).exists():
        return "the worker process ended without an error; look into Ray's logs, and at the machine's memory", True
    with Path(file).open("rb") as stream:
        error = ray.cloudpickle.load(stream)
    cause = getattr(error, "cause", None) or error
    failures = getattr(cause, "worker_failures", None) or {}
    lost = any(isinstance(found, LOST) for found in (error, cause, *failures.values()))
    if failures:
        rank, first = next(iter(failures.items()))
        return f"rank {rank}: {short_trace(first)}", lost
    return short_trace(cause), lost


def fit(bridge: Bridge, trainable: Any, store: str, reuse: bool) -> None:
    """Run Tune until the source has no more jobs, or the user interrupts."""
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=JobSearcher(bridge),
            scheduler=JobScheduler(bridge),
            num_samples=-1,
            reuse_actors=reuse,
            max_concurrent_trials=bridge.concurrency,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="jobs",
            storage_path=store,
            verbose=0,
            callbacks=[JobCallback(bridge)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False) if reuse else tune.CheckpointConfig(),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        tuner.fit()
    except TuneError:
        if bridge.failure is None:
            raise
