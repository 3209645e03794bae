"""H4: what a trial costs beside its training. 1,000 candidates × 10 seeds of no-op trials through the whole path.

Search, records, results, MLflow and report are real, and so are Ray Tune and the host actors in the second arm; only
a job's training is left out: it ends at once with made-up scores. Ray Tune alone is the peer.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.common import Answer, main, pin_threads

pin_threads(1)

from plmray.config.load import LoadedSweep, load_sweep  # noqa: E402
from plmray.sweep import driver  # noqa: E402
from plmray.sweep.driver import run_sweep  # noqa: E402
from plmray.sweep.on_ray import host_actor  # noqa: E402
from plmray.sweep.options import RunOptions  # noqa: E402
from plmray.trials.job import Job, JobSource, Report  # noqa: E402
from tests.benchmarks.noops import NoOpActor, noop_reports  # noqa: E402
from tests.examples import sweep_tree  # noqa: E402


def sweep(folder: Path, candidates: int, seeds: int) -> LoadedSweep:
    import yaml

    tree = sweep_tree(
        name="noop",
        search={"candidates": candidates, "seeds": list(range(seeds)), "sampler": "tpe", "scheduler": "asha"},
        replicate=None,
        resources={"max_concurrent": 16},
    )
    file = folder / "noop.yaml"
    file.write_text(yaml.safe_dump(tree))
    return load_sweep(file)


@dataclass
class NoOps:
    """A place that trains nothing: many jobs in flight, one report of each in turn."""

    concurrency: int = 16
    devices: int = 1
    memory_mb: list[float] = field(default_factory=list)

    def run(self, source: JobSource) -> None:
        live: dict[str, tuple[Job, Iterator[Report]]] = {}
        while True:
            while len(live) < self.concurrency and isinstance(job := source.next_job(), Job):
                live[job.candidate.id] = (job, noop_reports(job))
            if not live:
                return
            for key, (job, reports) in list(live.items()):
                report = next(reports)
                if source.observe(job, report) or report.finished:
                    del live[key]
                    source.finish(job, report)
            self.memory_mb.append(resident_mb())


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def drive(loaded: LoadedSweep, folder: Path, place: NoOps | None, **options: Any) -> tuple[Any, float]:
    """A whole sweep on ``place``, or on Ray: its outcome and wall seconds."""
    open_machines, actor = driver.open_machines, host_actor.PackActor
    if place is not None:
        machines = driver.Machines(False, lambda bench: place)
        driver.open_machines = lambda *arguments: contextlib.nullcontext(machines)  # type: ignore[assignment]
    host_actor.PackActor = NoOpActor  # type: ignore[misc]
    started = time.perf_counter()
    try:
        outcome = run_sweep(loaded, RunOptions(storage_path=folder, **options), lambda text: None)
    finally:
        driver.open_machines, host_actor.PackActor = open_machines, actor  # type: ignore[misc]
    return outcome, time.perf_counter() - started


def ray_tune_alone(candidates: int, reports: int) -> float:
    """Seconds of Ray Tune for as many no-op candidates in reused processes, Optuna's sampler and ASHA."""
    os.environ.update(RAY_AIR_NEW_OUTPUT="0", RAY_USAGE_STATS_ENABLED="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1")
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    class NoOp(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.rate, self.count = config["lr"], 0
            return True

        def step(self) -> dict[str, Any]:
            self.count += 1
            return {"score": self.rate, "done": self.count >= reports}

    folder = tempfile.mkdtemp(prefix="h4", dir="/tmp")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    try:
        started = time.perf_counter()
        tune.Tuner(
            NoOp,
            param_space={"lr": tune.loguniform(1e-3, 1e-2)},
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(metric="score", mode="max"),
                scheduler=ASHAScheduler(metric="score", mode="max", max_t=reports),
                num_samples=candidates,
                reuse_actors=True,
                max_concurrent_trials=2,
            ),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
            ),
        ).fit()
        return time.perf_counter() - started
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def run(quick: bool) -> Answer:
    candidates, seeds, alone = (50, 4, 50) if quick else (1000, 10, 200)
    answer = Answer("h4")
    folder = Path(tempfile.mkdtemp(prefix="h4", dir="/tmp"))
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    try:
        loaded, place = sweep(folder, candidates, seeds), NoOps()
        outcome, wall_s = drive(loaded, folder / "here", place)
        _, resume_s = drive(loaded, folder / "here", NoOps(), resume=True)
        on_ray, ray_wall_s = drive(loaded, folder / "ray", None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tune_s = ray_tune_alone(alone, 2) / alone
    trials, driver_s = on_ray.costs["trials"], on_ray.costs["driver_s_per_trial"]
    ray_s = (on_ray.costs["wall_s"] - outcome.costs["wall_s"]) / candidates
    growth_kb = 1000 * (place.memory_mb[-1] - place.memory_mb[len(place.memory_mb) // 2]) / (trials / 2)
    answer.ratios["ray_tune_alone_per_candidate"] = tune_s / (on_ray.costs["wall_s"] / candidates)
    answer.figures = {
        "trials": trials,
        "driver_ms_per_trial (search, records, results, on Ray)": round(1000 * driver_s, 2),
        "driver_ms_per_trial (without Ray)": round(1000 * outcome.costs["driver_s_per_trial"], 2),
        "ray_ms_per_candidate (Tune, hosts, process starts)": round(1000 * ray_s, 1),
        "tracking_lag_s": {
            "without Ray": round(wall_s - outcome.costs["wall_s"], 1),
            "on Ray": round(ray_wall_s - on_ray.costs["wall_s"], 1),
        },
        "resume_s": round(resume_s, 1),
        "ray_tune_alone_ms_per_candidate": round(1000 * tune_s, 1),
        "candidate_process_mb": round(on_ray.costs["candidate_process_mb"]),
        "driver_memory_mb": round(place.memory_mb[-1]),
        "driver_memory_growth_kb_per_trial": round(growth_kb, 1),
    }
    answer.gates["50 ms of driver time a trial"] = driver_s <= 0.05
    answer.gates["MLflow has everything at the end"] = outcome.tracking_complete and on_ray.tracking_complete
    if not quick:
        answer.gates["memory flat: a result's own 30 kB a trial"] = growth_kb < 30
        answer.gates["resume of 10,000 trials in under 30 s"] = resume_s < 30
    return answer


if __name__ == "__main__":
    main("h4", run, __doc__ or "")
