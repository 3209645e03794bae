"""What runs inside Ray's processes: a candidate in a reused Tune process, or on a Ray Train worker group."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune

from plmray.sweep.on_ray.notes import say_to_driver
from plmray.trials.job import Job, Report

GROUP_TIMEOUT_S = 300
STARTS_TRIED = 5  # of 60 s each


def packed_report(report: Report, worker_start_s: float | None) -> dict[str, Any]:
    """A Tune result. JSON in one field, because Tune flattens nested results on their way to a scheduler."""
    return {"report": json.dumps(report.to_dict()), "epoch": report.epoch, "worker_start_s": worker_start_s}


def unpacked_report(result: dict[str, Any]) -> Report | None:
    text = result.get("report")
    return Report.from_dict(json.loads(text)) if text else None


class CandidateTrainable(tune.Trainable):  # type: ignore[misc]
    """One candidate with its seeds, a report a step, in a process that later candidates use again.

    A class and not a function: it has no second thread that could outlive a stop.
    """

    def setup(self, config: dict[str, Any]) -> None:
        from plmray.sweep.workers.device import Device

        self._started: float | None = seconds_since_process_start()
        self._device = Device(say_to_driver(config["bench"]["notes"]))
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        import ray

        from plmray.sweep.workers.serial import Worker

        job = Job.from_dict(config["job"])
        worker = Worker(ray.get(config["bench"]["ref"]), device=self._device)
        self._reports: Iterator[Report] = worker.reports(job)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next report inside Ray Train, in this very process."""
        from ray.train import ScalingConfig
        from ray.train.torch import TorchTrainer

        trainer = TorchTrainer(
            _next_report, train_loop_config={"reports": self._reports}, scaling_config=ScalingConfig(num_workers=0)
        )
        report = trainer.fit().return_value
        started, self._started = self._started, None
        return {**packed_report(report, started), "done": report.finished}

    def cleanup(self) -> None:
        self._reports = iter(())


def _next_report(config: dict[str, Any]) -> Report:
    report: Report = next(config["reports"])
    return report


class PackedCandidate(tune.Trainable):  # type: ignore[misc]
    """One candidate whose trials train in a pack on a host actor. It only asks and passes on: no torch here."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self._job, self._key, self._hosts, self._bench = (config[name] for name in ("job", "key", "hosts", "bench"))
        self._token = uuid.uuid4().hex
        self._heard = 0
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next report."""
        import ray

        while True:
            try:
                answer = ray.get(
                    self._hosts[0].next.remote(self._job, self._key, self._token, self._heard, [self._bench["ref"]])
                )
            except ray.exceptions.ActorDiedError:  # given up by the driver: its node is lost
                self._hosts = self._hosts[1:]
                if not self._hosts:
                    raise
                continue
            if answer.get("error"):
                raise RuntimeError(answer["error"])
            if "report" in answer:
                break
        self._heard += 1
        report = Report.from_dict(answer["report"])
        return {
            **packed_report(report, answer["start_s"]),
            "done": report.finished,
            "process_bytes": resident_bytes(),
        }


def run_on_group(config: dict[str, Any]) -> None:
    """A Tune function: one Ray Train worker group for all seeds of a candidate.

    Its last report is not marked done: Tune would end this process before the trainer has given its
    placement group back, and the next trial would wait for those CPUs.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from plmray.sweep.on_ray.torch_backend import GroupConfig

    # A new name each attempt: Train would resume a known one, and our trials start over instead.
    name = f"{tune.get_context().get_trial_id()}-{uuid.uuid4().hex[:8]}"
    use_gpu = "GPU" in config["resources"]
    trainer = TorchTrainer(
        group_loop,
        train_loop_config={**config, "asked_at": time.time()},
        scaling_config=ScalingConfig(
            num_workers=config["workers"], resources_per_worker=config["resources"], use_gpu=use_gpu
        ),
        torch_config=GroupConfig(backend="nccl" if use_gpu else "gloo", timeout_s=GROUP_TIMEOUT_S),
        run_config=RunConfig(
            name=name,
            storage_path=config["store"],
            callbacks=[TuneReportCallback()],
            # The bridge does the retries; workers that never start are a failure, not an endless wait.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=STARTS_TRIED),
        ),
    )
    trainer.fit()


def group_loop(config: dict[str, Any]) -> None:
    """On every worker of the group: the same reports in step; Ray forwards those of rank 0."""
    import ray
    import ray.train

    from plmray.sweep.workers.device import Device
    from plmray.sweep.workers.serial import Worker

    is_chief = ray.train.get_context().get_world_rank() == 0
    started: float | None = max(0.0, time.time() - config["asked_at"])  # two hosts, two clocks
    device = Device(say_to_driver(config["bench"]["notes"]))
    worker = Worker(ray.get(config["bench"]["ref"]), is_chief, device)
    for report in worker.reports(Job.from_dict(config["job"])):
        ray.train.report(packed_report(report, started))
        started = None


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8", errors="replace").split()[1]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def seconds_since_process_start() -> float:
    """Seconds since this process was launched: interpreter, Ray and torch imports included."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
    boot_s = float(Path("/proc/uptime").read_text(encoding="utf-8", errors="replace").split()[0])
    return boot_s - ticks / os.sysconf("SC_CLK_TCK")
