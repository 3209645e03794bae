"""The notebook runs as it stands, from a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.examples import ROOT


def test_the_first_sweep_runs(tmp_path: Path) -> None:
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    script = ROOT / "sweeps" / "examples" / "first_sweep.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the seed explains" in done.stdout and "the best candidate" in done.stdout
    assert (tmp_path / "plmray_runs" / "first-sweep" / "report.html").is_file()
    structure = done.stdout.strip().splitlines()[-1]
    assert len(structure) == 32 and set(structure) <= set("CEH")
