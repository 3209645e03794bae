"""The command line as scripts see it: quick imports, shapes, exit codes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from plmray.cli import cli
from plmray.hashing import SCHEMA_VERSION
from tests.examples import ROOT, write_sweep

HEAVY = ("torch", "ray", "mlflow", "optuna", "transformers", "pandas", "peft", "deepspeed", "sklearn", "scipy.stats")


LIGHT = [["--help"], ["validate", "FILE"], ["plan", "FILE"], ["plan", "FILE", "-f", "json"]]


@pytest.mark.parametrize("arguments", LIGHT)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    argv = ["plmray", *(str(file) if word == "FILE" else word for word in arguments)]
    code = (
        f"import sys; sys.argv = {argv!r}\n"
        "from plmray.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_help_needs_only_click() -> None:
    code = "import plmray.cli, sys; print([m for m in ('numpy', 'pydantic', 'yaml', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_sweeps_plan_without_data_or_weights(file: Path) -> None:
    done = CliRunner().invoke(cli, ["plan", str(file), "-f", "json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert plan["trials"] == sum(phase["trials"] for phase in plan["phases"])
    assert plan["train_tokens_ceiling"] > 0


def test_plan_counts_what_the_design_says(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["plan", str(write_sweep(tmp_path)), "-f", "json"])
    plan = json.loads(done.stdout)
    assert [(p["name"], p["candidates"], p["seeds"], p["trials"]) for p in plan["phases"]] == [
        ("search", 3, 2, 6),
        ("replicate", 3, 2, 6),
    ]
    assert plan["epochs_ceiling"] == 12 * 2
    assert plan["train_tokens_ceiling"] == 12 * 2 * 48 * 14
    assert plan["seed_resolution"]["degrees"] == 3
    assert len(plan["anchors"]) == 2


def test_validate_shapes(tmp_path: Path) -> None:
    good = CliRunner().invoke(cli, ["validate", str(write_sweep(tmp_path)), "-f", "json"])
    assert (good.exit_code, json.loads(good.stdout)) == (0, [])
    bad = CliRunner().invoke(cli, ["validate", str(write_sweep(tmp_path, nonsense=1)), "-f", "json"])
    assert bad.exit_code == 2
    assert json.loads(bad.stdout)[0].keys() == {"file", "line", "key", "message"}


def test_local_run_then_look_at_it(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, search={"candidates": 2, "seeds": [0], "sampler": "random"})
    invoke = CliRunner().invoke
    done = invoke(cli, ["run", str(file), "--local", "-y", "--storage-path", "runs"])
    assert done.exit_code == 0, done.output
    assert "mlflow ui --backend-store-uri" in done.stdout
    assert "% of the wall time" in done.stdout
    assert len(json.loads(invoke(cli, ["trials", "runs/tiny", "-f", "json"]).stdout)) == 8
    best = list(csv.DictReader(io.StringIO(invoke(cli, ["best", "runs/tiny", "-f", "csv"]).stdout)))
    assert [float(row["score.mean"]) for row in best] == sorted((float(r["score.mean"]) for r in best), reverse=True)
    report = invoke(cli, ["report", "runs/tiny", "--out", "elsewhere", "--confidence", "0.9"])
    assert report.exit_code == 0
    assert Path("elsewhere/report.md").exists()
    again = invoke(cli, ["run", str(file), "--local", "-y", "--storage-path", "runs"])
    assert (again.exit_code, "Add --resume" in again.stderr) == (2, True)


def test_smoke_test_is_small(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["run", str(write_sweep(tmp_path)), "--local", "-y", "--smoke-test", "--storage-path", "runs"]
    )
    assert done.exit_code == 0, done.output
    assert len(list(Path("runs").glob("tiny-smoke-*/trials/*"))) == 2 + 2 * 2


def test_trial_prints_its_result_as_json(tmp_path: Path) -> None:
    params = json.dumps({"optimizer.lr": 0.002})
    done = CliRunner().invoke(cli, ["trial", str(write_sweep(tmp_path)), "--seed", "5", "--params", params])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["state"], result["seed"], result["parameters"]) == ("COMPLETE", 5, {"optimizer.lr": 0.002})
    assert result["test_score"] is None


def test_doctor_looks_at_everything(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["doctor", "-f", "json", "--storage-path", str(tmp_path)])
    found = {finding["what"] for finding in json.loads(done.stdout)}
    assert {"CPU", "memory", "storage", "Ray", "MLflow", "DeepSpeed parts"} <= found


def test_inside_a_ray_job_relative_paths_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    done = CliRunner().invoke(cli, ["run", str(write_sweep(tmp_path)), "-y", "--local"])
    assert done.exit_code == 2
    assert "absolute path on storage that every node shares" in done.stderr
    tracked = write_sweep(tmp_path, tracking={"uri": "sqlite:///mlflow.db"})
    done = CliRunner().invoke(cli, ["run", str(tracked), "-y", "--local", "--storage-path", str(tmp_path / "runs")])
    assert done.exit_code == 2
    assert "sqlite:////absolute/path" in done.stderr


def test_schema_version_is_pinned() -> None:
    """Changing it renames every candidate: do so knowingly, with a line in CHANGELOG.md."""
    assert SCHEMA_VERSION == 2


def test_smoke_test_of_an_adaptive_sweep_is_small_and_valid(tmp_path: Path) -> None:
    from plmray.cli.running import _smoke_overrides
    from plmray.config.load import load_sweep
    from tests.examples import write_sweep

    adaptive = {"allocation": "adaptive", "budget": {"trials": 60}, "confirm": 8, "vary": ["init"]}
    search = {"candidates": 9, "seeds": [0], "sampler": "random"}
    replicate = {"top": 6, "random": 9, "seeds": [5, 6, 7], **adaptive}
    file = write_sweep(tmp_path, search=search, replicate=replicate)
    smoke = load_sweep(file, _smoke_overrides(load_sweep(file))).spec.replicate
    assert smoke is not None and smoke.budget is not None
    assert (smoke.top, smoke.random, smoke.budget.trials, smoke.confirm) == (2, 1, 4, 2)
