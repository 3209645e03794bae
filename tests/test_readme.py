"""What the READMEs name is there."""

from __future__ import annotations

import re

from tests.examples import ROOT


def test_every_test_named_in_the_table_of_faults_exists() -> None:
    named = set(re.findall(r"`(test_\w+)(?:\[[\w ]+\])?`", (ROOT / "tests" / "README.md").read_text()))
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert len(named) > 30
    assert named <= defined, named - defined


def test_every_benchmark_file_named_is_there() -> None:
    text = (ROOT / "tests" / "benchmarks" / "README.md").read_text()
    files = set(re.findall(r"`(?:results/)?(\w+\.json)`", text))
    assert files
    assert all((ROOT / "tests" / "benchmarks" / "results" / name).is_file() for name in files), files
