"""Makes the golden data anew: `python -m tests.golden.make`, where numbers change under a new SCHEMA_VERSION alone.

`python -m tests.golden.make judge` only judges the finished sweep again, where a report says something else on purpose.

``ids.json``: candidate and trial ids of settings of every kind. ``sweep``: a finished sweep folder; ``bundle``: its
winner; ``predictions.csv``: what the bundle says of ``toy.csv``'s test proteins; all as the version in
``VERSION`` wrote them.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import plmray
from plmray.bundle.export import export
from plmray.bundle.predict import predict_file
from plmray.config.load import load_sweep
from plmray.data.datasets import load_data
from plmray.hashing import SCHEMA_VERSION
from plmray.plan.prepare import make_identifier
from plmray.report.write import judge_folder, to_json
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import load_resolved, read_results
from plmray.sweep.options import RunOptions
from plmray.trials.trial import Trial
from tests.examples import write_toy

HERE = Path(__file__).parent
PLACE = "GOLDEN"  # stands in the committed files where the folder's own path stood
DROPPED = ("mlflow.db", "sweep.log", "report.html", "results.parquet")

# Parameters whose ids are pinned, laid over sweep.yaml's train settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "rate": {"optimizer.lr": 0.01},
    "frozen": {"adapter.kind": "none", "head.standardize": True},
    "full": {"adapter.kind": "full", "optimizer.lr": 2e-5},
    "dora": {"adapter.kind": "dora", "adapter.rank": 8, "adapter.targets": "attention"},
    "prefix": {"adapter.kind": "prefix"},
    "peft": {"adapter.kind": "peft", "adapter.method": "loha"},
    "light attention": {"head.kind": "light_attention", "head.hidden": 16},
    "bf16": {"epochs": 3, "batch_size": 16, "head.dropout": 0.1},
    "random encoder": {"backbone.init": "random", "backbone.init_seed": 5},
}


def ids() -> dict[str, dict[str, str]]:
    """Candidate and trial ids of SETTINGS, the trial with seed 3 and the order stream alone moved."""
    sweep = load_sweep(HERE / "sweep.yaml")
    identifier = make_identifier(sweep, load_data(sweep.spec.task, sweep.folder).hash, has_gpu=False)
    found = {}
    for name, parameters in SETTINGS.items():
        candidate = identifier.candidate(parameters, "given")
        trials = (Trial(candidate, 3, "replicate"), Trial(candidate, 3, "replicate", varied="order", held=0))
        found[name] = {"candidate": candidate.id, "trial": trials[0].id, "order alone": trials[1].id}
    return found


def judge_again() -> None:
    """Write ``sweep/report.json`` anew, where a verdict says something else on purpose; the results stay."""
    folder = HERE / "sweep"
    old = json.loads((folder / "report.json").read_text())
    verdict = judge_folder(folder, load_resolved(folder), read_results(folder))
    new = json.loads(to_json(verdict, "golden")) | {"costs": old["costs"]}
    (folder / "report.json").write_text(json.dumps(new, indent=1))


def main() -> None:
    for name in ("sweep", "bundle"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    write_toy(HERE / "toy.csv", "protein", "regression")
    with tempfile.TemporaryDirectory() as scratch:
        sweep = load_sweep(HERE / "sweep.yaml", [f"tracking.uri=sqlite:///{scratch}/mlflow.db"])
        outcome = run_sweep(sweep, RunOptions(storage_path=Path(scratch), local=True), print)
        export(outcome.folder, HERE / "bundle")
        shutil.copytree(outcome.folder, HERE / "sweep", ignore=shutil.ignore_patterns(*DROPPED))
        places = {str(HERE): PLACE, scratch: f"{PLACE}/runs", socket.gethostname(): "golden-host"}
    for file in [*(HERE / "sweep").rglob("*"), *(HERE / "bundle").rglob("*")]:
        if file.suffix in (".json", ".yaml", ".jsonl", ".md", ".csv"):
            text = file.read_text()
            for path, place in places.items():
                text = text.replace(path, place)
            file.write_text(text)
    proteins = load_data(sweep.spec.task, HERE).splits["test"].sequences
    (HERE / "proteins.fasta").write_text("".join(f">p{n}\n{sequence}\n" for n, sequence in enumerate(proteins)))
    (HERE / "predictions.csv").unlink(missing_ok=True)
    predict_file(HERE / "bundle", HERE / "proteins.fasta", HERE / "predictions.csv", echo=print)
    (HERE / "ids.json").write_text(json.dumps(ids(), indent=1) + "\n")
    (HERE / "VERSION").write_text(f"{plmray.__version__}, schema {SCHEMA_VERSION}\n")


if __name__ == "__main__":
    judge_again() if sys.argv[1:] == ["judge"] else main()
