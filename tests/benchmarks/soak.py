"""Soak: 1,000 candidates × 10 seeds of light but real trials through the whole path, on Ray.

Optuna's TPE proposes, ASHA prunes, a host actor trains heads on embeddings, MLflow gets everything. Memory, open files,
threads and processes of the driver and of Ray below it are sampled meanwhile; then reading commands are timed on the
10,000 trials.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.common import Answer, main, pin_threads

pin_threads(1)

import psutil  # noqa: E402
import yaml  # noqa: E402

from plmray.config.load import LoadedSweep, load_sweep  # noqa: E402
from plmray.sweep.driver import run_sweep  # noqa: E402
from plmray.sweep.folder.reader import read_results  # noqa: E402
from plmray.sweep.options import RunOptions  # noqa: E402
from tests.examples import sweep_tree  # noqa: E402

SAMPLE_S = 2.0
COMMANDS = (["trials"], ["best"], ["report"], ["stats", "shares"], ["stats", "rank"])


def light_sweep(folder: Path, candidates: int, seeds: int) -> LoadedSweep:
    tree = sweep_tree(
        name="soak",
        search={"candidates": candidates, "seeds": list(range(seeds)), "sampler": "tpe", "scheduler": "asha"},
        replicate={"top": 2, "random": 10, "seeds": [101, 102, 103]},
        resources={"max_concurrent": 16, "cpus_per_worker": 2},
    )
    tree["train"] |= {"adapter": {"kind": "none"}, "epochs": 2}
    tree["space"]["optimizer.weight_decay"] = {"kind": "float", "low": 1e-6, "high": 1e-2, "log": True}
    (folder / "soak.yaml").write_text(yaml.safe_dump(tree))
    return load_sweep(folder / "soak.yaml")


class Watch:
    """Samples of this process and of all below it."""

    def __init__(self) -> None:
        self.samples: list[dict[str, float]] = []
        self._stop = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def growth(self, name: str, training_s: float) -> float:
        """Median of the last quarter over that of the second, while trials ran: 1.0 is flat.

        What follows waits for MLflow only, with fewer processes, and would flatter.
        """
        values = [sample[name] for sample in self.samples if sample["at_s"] <= training_s]
        quarter = max(1, len(values) // 4)
        second, last = sorted(values[quarter : 2 * quarter]), sorted(values[-quarter:])
        return last[len(last) // 2] / max(1.0, second[len(second) // 2])

    def last(self, name: str) -> float:
        return self.samples[-1][name]

    def _watch(self) -> None:
        own, started = psutil.Process(), time.monotonic()
        while not self._stop.wait(SAMPLE_S):
            below = own.children(recursive=True)
            self.samples.append(
                {
                    "at_s": time.monotonic() - started,
                    "driver_mb": own.memory_info().rss / 1e6,
                    "driver_files": own.num_fds(),
                    "driver_threads": own.num_threads(),
                    "ray_mb": sum(_quietly(lambda p: p.memory_info().rss, p) for p in below) / 1e6,
                    "host_mb": sum(_quietly(_host_bytes, p) for p in below) / 1e6,
                    "ray_files": sum(_quietly(lambda p: p.num_fds(), p) for p in below),
                    "ray_processes": len(below),
                }
            )


def _host_bytes(process: psutil.Process) -> float:
    return process.memory_info().rss if "PackActor" in " ".join(process.cmdline()) else 0.0


def _quietly(ask: Any, process: psutil.Process) -> float:
    try:
        return float(ask(process))
    except psutil.Error:
        return 0.0


def command_s(arguments: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "plmray", *arguments, str(folder)], check=True, capture_output=True)
    return round(time.perf_counter() - started, 2)


def run(quick: bool) -> Answer:
    candidates, seeds = (40, 4) if quick else (1000, 10)
    answer = Answer("soak")
    folder = Path(tempfile.mkdtemp(prefix="soak", dir="/tmp"))
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    watch, loaded = Watch(), light_sweep(folder, candidates, seeds)
    try:
        started = time.perf_counter()
        with watch.watching():
            outcome = run_sweep(loaded, RunOptions(storage_path=folder / "runs"), lambda text: None)
        wall_s = time.perf_counter() - started
        results = read_results(outcome.folder)
        started = time.perf_counter()
        again = run_sweep(loaded, RunOptions(storage_path=folder / "runs", resume=True), lambda text: None)
        resume_s = time.perf_counter() - started
        commands = {" ".join(arguments): command_s(arguments, outcome.folder) for arguments in COMMANDS}
        size_mb = sum(file.stat().st_size for file in outcome.folder.rglob("*") if file.is_file()) / 1e6
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    states = {state: sum(result.state == state for result in results) for state in ("COMPLETE", "PRUNED", "FAILED")}
    watched = [name for name in watch.samples[0] if name != "at_s"]
    growth = {name: round(watch.growth(name, outcome.costs["wall_s"]), 3) for name in watched}
    answer.figures = {
        "trials": len(results),
        "states": states,
        "wall_s": round(wall_s, 1),
        "training_s": round(outcome.costs["wall_s"], 1),
        "trials_per_s": round(len(results) / outcome.costs["wall_s"], 1),
        "driver_ms_per_trial": round(1000 * outcome.costs["driver_s_per_trial"], 2),
        "resume_s": round(resume_s, 1),
        "seconds of commands": commands,
        "folder_mb": round(size_mb),
        "at the end": {name: round(watch.last(name)) for name in watched},
        "last quarter over second": growth,
    }
    answer.gates = {
        "every planned trial ended, none failed": states["FAILED"] == 0 and outcome.exit_code == 0,
        "MLflow has everything at the end": outcome.tracking_complete,
        "a resume runs nothing": again.costs["trials"] == outcome.costs["trials"],
        "reading commands within 20 s": max(commands.values()) <= 20,
    }
    if not quick:
        flat = ("driver_files", "ray_files", "ray_processes", "driver_threads")
        answer.gates |= {f"{name} flat (within 5 %)": growth[name] <= 1.05 for name in flat}
        answer.gates["host memory flat (within 10 %)"] = growth["host_mb"] <= 1.1
        answer.gates["driver memory: its results and no more (within 30 %)"] = growth["driver_mb"] <= 1.3
    return answer


if __name__ == "__main__":
    main("soak", run, __doc__ or "")
