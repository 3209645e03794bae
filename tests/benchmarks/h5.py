"""H5: how long a person waits for --help, validate and plan, beside other tools' --help."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.common import Answer, interleaved, main, median, spread

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
QUICKSTART = str(ROOT / "sweeps" / "quickstart.yaml")
LIMITS_S = {"plmray --help": 0.3, "plmray validate": 1.0, "plmray plan": 1.0}
COMMANDS = {
    "plmray --help": [str(BIN / "plmray"), "--help"],
    "plmray validate": [str(BIN / "plmray"), "validate", QUICKSTART],
    "plmray plan": [str(BIN / "plmray"), "plan", QUICKSTART],
    "mlflow --help": [str(BIN / "mlflow"), "--help"],
    "ray --help": [str(BIN / "ray"), "--help"],
}


def timed(command: list[str]) -> Callable[[], float]:
    def arm() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    return arm


def heavy_imports(command: list[str]) -> set[str]:
    """Which of torch and ray a plmray command imports, as Python's own import log has it."""
    with tempfile.TemporaryFile("w+") as log:
        subprocess.run([sys.executable, "-X", "importtime", "-m", "plmray", *command[1:]], check=True, stderr=log, stdout=subprocess.DEVNULL)  # fmt: skip # noqa: E501
        log.seek(0)
        names = {line.rpartition("|")[2].strip() for line in log}
    return names & {"torch", "ray"}


def run(quick: bool) -> Answer:
    seconds = interleaved({name: timed(command) for name, command in COMMANDS.items()}, 3 if quick else 9)
    answer = Answer("h5")
    help_s = median(seconds["plmray --help"])
    answer.ratios = {peer: median(seconds[peer]) / help_s for peer in ("mlflow --help", "ray --help")}
    answer.figures["seconds"] = {name: spread(values, 3) for name, values in seconds.items()}
    for name, limit in LIMITS_S.items():
        answer.gates[f"{name} under {limit:g} s"] = median(seconds[name]) < limit
        answer.gates[f"{name} imports neither torch nor ray"] = not heavy_imports(COMMANDS[name])
    return answer


if __name__ == "__main__":
    main("h5", run, __doc__ or "")
