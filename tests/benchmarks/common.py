"""What all benchmarks share: pinned threads, interleaved arms, facts of the machine, and one form of answer."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("PLMRAY_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


@dataclass
class Answer:
    """The contract of every benchmark: ratios (how many times faster than a peer), gates, figures."""

    name: str
    ratios: dict[str, float] = field(default_factory=dict)
    gates: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        facts = {"name": self.name, "hardware": hardware(), "versions": versions()}
        return {**facts, "ratios": self.ratios, "gates": self.gates, "figures": self.figures}


def main(name: str, run: Callable[[bool], Answer], description: str) -> None:
    """The command line of a benchmark: ``--quick`` for a small form, ``--json PATH`` to keep the answer."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="a small form, for a look; its ratios mean little")
    parser.add_argument("--json", type=Path, default=None, help="write the answer here")
    options = parser.parse_args()
    answer = run(options.quick).to_dict()
    print_answer(answer)
    if options.json is not None:
        options.json.write_text(json.dumps(answer, indent=1) + "\n")
    sys.exit(0 if all(answer["gates"].values()) else 1)


def pin_threads(number: int = 1) -> None:
    """Call before torch or numpy is imported; children inherit it."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(number)))


def interleaved(arms: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every arm, each repeat running all of them in turn; an arm may return its own seconds instead."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            started = time.perf_counter()
            own = arm()
            seconds[name].append(float(own) if isinstance(own, float) else time.perf_counter() - started)
    return seconds


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    return {
        "median": round(median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "repeats": len(values),
    }


def python_start_s() -> float:
    """Seconds to start Python and import torch: what a process a trial pays before its first step."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


def hardware() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": _gpu_name(),
    }


def versions() -> dict[str, str]:
    wanted = ("torch", "transformers", "peft", "ray", "optuna", "mlflow", "numpy", "scikit-learn")
    known = {name: _version(name) for name in wanted}
    return {"python": platform.python_version(), **{name: text for name, text in known.items() if text}}


def print_answer(answer: Mapping[str, Any]) -> None:
    lines = [f"{answer['name']} on {answer['hardware']['cpu']}, {answer['hardware']['cores']} cores"]
    lines += [f"  {ratio:8.2f} x  against {name}" for name, ratio in answer["ratios"].items()]
    lines += [f"  {'holds' if holds else 'FAILS':>10}  {name}" for name, holds in answer["gates"].items()]
    lines += [f"  {name}: {figure}" for name, figure in answer["figures"].items()]
    sys.stdout.write("\n".join(lines) + "\n")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
