"""First contact: what is not there yet, or not as expected, is told in a sentence."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from plmray.cli import cli
from plmray.errors import SetupError
from plmray.storage.atomic import user_cache
from plmray.sweep.driver import run_sweep
from plmray.sweep.options import RunOptions
from tests.config.test_vocabulary import with_weights
from tests.examples import ROOT, sweep_tree, tiny_sweep, write_sweep


def sweep_on(folder: Path, backbone: Any, **task: Any) -> Path:
    tree = sweep_tree(train={"backbone": backbone, "pooling": "mean", "epochs": 1}, replicate=None)
    return write_sweep(folder, **{**tree, "task": {**tree["task"], **task}})


def commands(file: Path, folder: Path) -> dict[str, list[str]]:
    run = ["run", str(file), "--local", "-y", "--storage-path", str(folder / "runs")]
    return {
        "validate": ["validate", str(file)],
        "plan": ["plan", str(file)],
        "run": run,
        "trial": ["trial", str(file), "--seed", "1"],
    }


@pytest.mark.parametrize("command", ["run", "trial"])
def test_a_backbone_without_weights_is_told_offline(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    file = sweep_on(tmp_path, "nobody/there-is-no-such-model")
    done = CliRunner().invoke(cli, commands(file, tmp_path)[command])
    assert done.exit_code == 2
    assert "could not be loaded" in done.output and "give its folder" in done.output


@pytest.mark.parametrize("command", ["validate", "plan", "run", "trial"])
@pytest.mark.parametrize("case", ["not json", "pointer", "no weights"])
def test_a_broken_checkpoint_folder_is_told_by_every_command(
    case: str, command: str, cases: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    if case == "pointer":
        shutil.copytree(cases / "backbones" / "lfs_pointer", folder)
    else:
        with_weights(cases / "backbones" / "saprot_like", folder)
    if case == "not json":
        (folder / "config.json").write_text("<html>not found</html>")
    elif case == "no weights":
        (folder / "model.safetensors").unlink()
    done = CliRunner().invoke(cli, commands(sweep_on(tmp_path, "model"), tmp_path)[command])
    words = {"not json": "is no JSON", "pointer": "git lfs pull", "no weights": "has no weights"}[case]
    assert done.exit_code == 2 and words in done.output, done.output


def test_a_protein_beyond_the_position_table_is_told_before_training(cases: Path, tmp_path: Path) -> None:
    with_weights(cases / "backbones" / "bert_64_positions", tmp_path / "model")
    done = CliRunner().invoke(cli, ["validate", str(sweep_on(tmp_path, "model"))])
    assert done.exit_code == 2 and "positions for 62 residues; set max_length: 62" in done.output
    assert CliRunner().invoke(cli, ["validate", str(sweep_on(tmp_path, "model", max_length=62))]).exit_code == 0


def test_without_a_home_caches_lie_among_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert user_cache().name == f"plmray-cache-{os.getuid()}"


def test_a_machine_without_temporary_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from plmray.sweep.on_ray import cluster

    def refused(**_: Any) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cluster.tempfile, "mkdtemp", refused)
    with pytest.raises(SetupError, match=r"Read-only file system.*Set TMPDIR"):
        cluster.new_folder("plmray")


def test_where_tmp_cannot_be_written_another_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plmray.sweep.on_ray.cluster import new_folder

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Path(new_folder("plmray", str(tmp_path / "absent"))).parent == tmp_path


def test_a_report_reads_in_a_locale_without_utf8(tmp_path: Path) -> None:
    """Its file is UTF-8 wherever it is written, and a terminal shows what it can."""
    sweep = tiny_sweep(tmp_path, search={"candidates": 2, "seeds": [0, 1], "sampler": "random"})
    run_sweep(sweep, RunOptions(storage_path=tmp_path / "runs", local=True), lambda text: None)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONIOENCODING"] = "latin-1"  # knows ± and no Δ or ✓

    def plmray(*arguments: str) -> str:
        command = [sys.executable, "-m", "plmray", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        return done.stdout.decode("latin-1")

    assert "Candidates" in plmray("report", "runs/tiny")
    assert "Δ" in (tmp_path / "runs" / "tiny" / "report.html").read_text(encoding="utf-8")


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """A locale decides nothing of what is read or written."""
    bare = []
    for file in sorted((ROOT / "plmray").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text"):
                named = {keyword.arg for keyword in node.keywords}
                if "encoding" not in named:
                    bare.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not bare
