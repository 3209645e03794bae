"""What must never happen: code read from files, secrets written down, doors opened to the network."""

from __future__ import annotations

import ast
import ipaddress
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from plmray.cli import cli
from plmray.config.load import load_sweep
from plmray.redact import redacted
from plmray.sweep.driver import run_sweep
from plmray.sweep.options import RunOptions
from tests.examples import ROOT, tiny_sweep, write_sweep

FILES = sorted((ROOT / "plmray").rglob("*.py"))
CODE_FROM_DATA = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {("torch", "load"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("np", "load")}
# Ray writes a trial's error as a pickle into a scratch folder of the driver's own, never a sweep folder.
ALLOWED = {("sweep/on_ray/tune_adapters.py", "ray.cloudpickle")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "plmray")))
def test_no_file_of_ours_runs_what_it_reads(file: Path) -> None:
    place = str(file.relative_to(ROOT / "plmray"))
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            unsafe = [n for n in names if set(n.split(".")) & UNSAFE_MODULES and (place, n) not in ALLOWED]
            assert not unsafe, f"{place} imports {unsafe}"
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name):
                assert called.id not in CODE_FROM_DATA, f"{place} calls {called.id}"
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                assert (called.value.id, called.attr) not in UNSAFE_CALLS, f"{place} calls {called.attr}"
            for keyword in node.keywords:
                trusting = keyword.arg == "trust_remote_code" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                )
                assert not trusting and keyword.arg != "allow_pickle", f"{place} sets {keyword.arg}"


class Trap:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("sprung"),))  # type: ignore[return-value]


def test_pickles_in_a_sweep_folder_are_not_opened(tmp_path: Path) -> None:
    """In the place of every file that a command reads, and as Tune's own files."""
    outcome = run_sweep(tiny_sweep(tmp_path), RunOptions(storage_path=tmp_path / "runs", local=True), lambda text: None)
    folder, trap = outcome.folder, pickle.dumps(Trap())
    assert not [f for f in folder.rglob("*") if f.suffix in (".pkl", ".pickle", ".pt", ".bin", ".ckpt")]
    (folder / ".tune" / "jobs").mkdir(parents=True)
    for name in (".tune/jobs/tuner.pkl", ".tune/jobs/error.pkl", "error.pkl"):
        (folder / name).write_bytes(trap)
    for file in [*folder.glob("*.json"), *folder.glob("trials/*/adapter/*"), *folder.glob("trials/*/curve.parquet")]:
        file.write_bytes(trap)
    for command in (["report"], ["best"], ["trials"], ["sync"], ["export", "-o", "bundle"]):
        done = CliRunner().invoke(cli, [command[0], str(folder), *command[1:]])
        assert done.exit_code in (0, 2), (command, done.exception)
    again = RunOptions(storage_path=tmp_path / "runs", local=True, resume=True)
    (folder / "costs.json").unlink()
    run_sweep(tiny_sweep(tmp_path), again, lambda text: None)
    assert not Path("sprung").exists()
    pickle.loads(trap)
    assert Path("sprung").exists(), "the trap itself does not work"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:pass@host/db", "postgresql://***@host/db"),
        ("postgresql://user:p@ss@host/db?x=a@b", "postgresql://***@host/db?x=a@b"),
        ("MLflow at https://a:b@host:5000 is down", "MLflow at https://***@host:5000 is down"),
        ("token hf_0123456789 was refused", "token <HF_TOKEN> was refused"),
        ("key wJalrXUtnFEMI", "key <AWS_SECRET_ACCESS_KEY>"),
        ("s3://bucket/path and sqlite:////tmp/x.db", "s3://bucket/path and sqlite:////tmp/x.db"),
    ],
)
def test_secrets_are_masked(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/path/is/no/secret")
    assert redacted(text) == shown


def test_no_secret_is_written_by_a_sweep_that_meets_them(tmp_path: Path) -> None:
    """A password in the store's address, a token in an error: neither in the folder, nor in what is printed."""
    secrets = {"MLFLOW_TRACKING_URI": "http://someone:open-sesame@127.0.0.1:9", "HF_TOKEN": "hf_abcdefghijkl"}
    script = (
        "import os, sys, plmray.train.engines as engines\n"
        "def broken(self, step):\n"
        "    raise RuntimeError('the hub refused ' + os.environ['HF_TOKEN'])\n"
        "engines.TorchEngine.train_step = broken\n"
        "from plmray.cli import main\n"
        "main()\n"
    )
    (tmp_path / "run.py").write_text(script)
    file = write_sweep(tmp_path, resources={"engine": "torch"}, replicate=None)
    quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = [sys.executable, "run.py", "run", str(file), "--local", "-y", "--storage-path", "runs"]
    process = subprocess.Popen(
        command, env={**os.environ, **secrets, **quick}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "records to MLflow" in line:
            process.send_signal(2)  # the rest is for plmray sync
    process.wait()
    output = "".join(lines)
    written = b"".join(f.read_bytes() for f in (tmp_path / "runs").rglob("*") if f.is_file())
    assert "<HF_TOKEN>" in output
    for secret in ("open-sesame", secrets["HF_TOKEN"]):
        assert secret not in output
        assert secret.encode() not in written
    assert json.loads((tmp_path / "runs" / "tiny" / "tracking.json").read_text())["uri"] == "http://***@127.0.0.1:9"


def test_a_password_in_the_sweep_file_is_refused(tmp_path: Path) -> None:
    from plmray.errors import SpecError

    file = write_sweep(tmp_path, tracking={"uri": "postgresql://me:secret@host/db"})
    with pytest.raises(
        SpecError, match=r"tracking.uri: holds a password or token, which would be kept with every result"
    ):
        load_sweep(file)


@pytest.mark.parametrize("name", ["..", "../../x", "/etc", "a/b", "a\\b", ".hidden", "a\0b", "~", ""])
def test_names_of_sweeps_lead_nowhere(name: str, tmp_path: Path) -> None:
    from plmray.errors import SpecError

    with pytest.raises(SpecError):
        load_sweep(write_sweep(tmp_path, name=name))


@pytest.mark.slow
@pytest.mark.ray
def test_a_private_cluster_listens_on_loopback_alone(tmp_path: Path) -> None:
    """Every socket of the driver and of all processes below it."""
    import psutil

    from tests.faults.drivers import DriverProcess, fault_sweep

    driver = DriverProcess(fault_sweep(tmp_path), tmp_path / "runs")
    driver.wait_for_results(3)
    own = psutil.Process(driver.process.pid)
    open_to = {
        connection.laddr.ip
        for process in [own, *own.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert driver.end() == 0, driver.output
    assert open_to, "nothing listened, so nothing was looked at"
    assert all(is_loopback(address) for address in open_to), open_to


def is_loopback(text: str) -> bool:
    """Also as an IPv6 socket shows an IPv4 address."""
    address = ipaddress.ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
