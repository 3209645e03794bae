"""The house: a file imports from lower floors or its own folder, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "plmray"

# report stands below orchestrate, because a sweep ends with its report: it knows results and statistics only.
FLOORS = {
    "__init__": 0,
    "errors": 0,
    "identity": 0,
    "seeds": 0,
    "files": 0,
    "lock": 0,
    "redact": 0,
    "storage": 0,
    "metrics": 0,
    "spec": 1,
    "trial": 2,
    "stats": 2,
    "results": 2,
    "tables": 2,
    "plan": 2,
    "packing": 2,
    "throughput": 2,
    "memory": 2,
    "gpu_plan": 2,
    "data": 2,
    "model": 2,
    "train": 3,
    "report": 3,
    "packed": 4,
    "assets": 4,
    "bundle": 4,
    "orchestrate": 5,
    "cli": 6,
    "__main__": 7,
}
# Within floor 2: who may lean on whom.
SAME_FLOOR = {
    ("files", "errors"),
    ("lock", "errors"),
    ("storage", "errors"),
    ("storage", "files"),
    ("storage", "lock"),
    ("results", "trial"),
    ("plan", "trial"),
    ("plan", "stats"),
    ("plan", "packing"),
    ("packing", "throughput"),
    ("packing", "trial"),
    ("gpu_plan", "memory"),
}
HOMES = {
    "torch": {"data", "model", "train", "packed", "orchestrate", "assets", "bundle"},
    "transformers": {"model", "assets"},
    "peft": {"model"},
    "deepspeed": {"train"},
    "ray": {"orchestrate"},
    "optuna": {"orchestrate"},
    "mlflow": {"orchestrate"},
    "pandas": set(),
    "obstore": {"storage"},
}


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(file):
        if name.split(".")[0] != "plmray" or name == "plmray.__version__":
            continue
        other = room(name)
        if other in ("__version__", own) or other not in FLOORS:
            continue
        allowed = FLOORS[other] < FLOORS[own] or (own, other) in SAME_FLOOR
        assert allowed, f"{own} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[other]})"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_libraries_stay_home(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports_of(file):
        library = name.split(".")[0]
        if library in HOMES:
            assert own in HOMES[library], f"{own} imports {library}, which lives in {sorted(HOMES[library])}"
            if own == "data":
                assert file.name == "batches.py", "only data/batches.py knows torch"


def test_every_room_has_a_floor() -> None:
    rooms = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}
    assert rooms <= set(FLOORS)


def test_files_can_be_read_in_one_sitting() -> None:
    long = {str(file): n for file in FILES if (n := len(file.read_text().splitlines())) > 400}
    assert not long
