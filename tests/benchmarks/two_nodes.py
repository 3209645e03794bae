"""The same sweep on one host and on two, each with one core: how much faster, and are the numbers the same?

The hosts are network namespaces on this machine (root and iproute2 needed). TWO_NODES_KEEP=FOLDER keeps the sweep that
ran on two.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from tests.benchmarks.common import DATA, Answer, main, pin_threads

pin_threads(1)

from plmray.sweep.folder.costs import read_costs  # noqa: E402
from plmray.sweep.folder.reader import read_results  # noqa: E402
from plmray.trials.result import TrialResult  # noqa: E402
from tests.examples import ROOT  # noqa: E402
from tests.faults.hosts import HEAD_ADDRESS, two_hosts  # noqa: E402

SWEEP = ROOT / "sweeps" / "examples" / "two-nodes" / "sweep.yaml"
KEPT = "TWO_NODES_KEEP"
QUICK = ["--set", "replicate=null", "--set", "search.candidates=2"]


def run_on(hosts: int, folder: Path, quick: bool) -> Path:
    """The sweep's folder; both hosts are there, and the second one joins the cluster or does not."""
    folder.mkdir()
    command = ["plmray", "run", str(SWEEP), "-y", "--address", HEAD_ADDRESS, "--storage-path", str(folder)]
    command += [
        "--data-root",
        str(DATA),
        *(["--set", "replicate=null", "--set", "search.candidates=2"] if quick else []),
    ]
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "XDG_CACHE_HOME": str(folder / "cache")}
    names = ("node-a", "node-b")
    with two_hosts(folder, ray=True, joined=hosts, names=names, environment=own) as (head, _):
        done = head.run(*command, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return folder / "two-nodes"


def states(results: dict[str, TrialResult]) -> dict[str, str]:
    return {trial: result.state for trial, result in results.items()}


def difference(one: dict[str, TrialResult], two: dict[str, TrialResult]) -> float:
    """The largest of any trial's score or test score."""
    pairs = [(one[trial], two[trial]) for trial in one]
    scores = [(a.score, b.score) for a, b in pairs] + [(a.test_score, b.test_score) for a, b in pairs]
    return max(abs(a - b) for a, b in scores if a is not None and b is not None)


def run(quick: bool) -> Answer:
    answer = Answer("two_nodes")
    work = Path(tempfile.mkdtemp(prefix="nodes", dir="/tmp"))
    try:
        folders = {hosts: run_on(hosts, work / str(hosts), quick) for hosts in (1, 2)}
        results = {hosts: {r.trial_id: r for r in read_results(folder)} for hosts, folder in folders.items()}
        wall = {hosts: read_costs(folder)["wall_s"] for hosts, folder in folders.items()}
        if keep := os.environ.get(KEPT):
            shutil.copytree(folders[2], keep, dirs_exist_ok=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    one, two = results[1], results[2]
    answer.ratios = {"one host, wall time of the sweep": round(wall[1] / wall[2], 2)}
    answer.gates = {
        "the same trials in the same states": {t: r.state for t, r in one.items()}
        == {t: r.state for t, r in two.items()},
        "scores equal within 1e-4": difference(one, two) <= 1e-4,
        "both hosts trained": len({r.provenance["host"] for r in two.values()}) == 2,
    }
    answer.figures = {
        "wall_s": {f"{hosts} hosts": round(seconds, 1) for hosts, seconds in wall.items()},
        "trials of each host": dict(Counter(str(r.provenance["host"]) for r in two.values())),
        "largest difference of a score": difference(one, two),
    }
    return answer


if __name__ == "__main__":
    main("two_nodes", run, __doc__ or "")
