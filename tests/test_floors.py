"""The house: a file imports from lower floors or its own room, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from plmray.storage import layout

PACKAGE = Path(__file__).resolve().parents[1] / "plmray"

# A room is a folder; the loose files beside the rooms are the ground they stand on. report stands below sweep, because
# a sweep ends with its report.
FLOORS = {
    "errors": 0,
    "hashing": 0,
    "seeds": 0,
    "metrics": 0,
    "redact": 0,
    "interrupt": 0,
    "text": 0,
    "storage": 1,
    "stats": 1,
    "config.catalog": 1,
    "config.fields": 2,
    "config": 3,
    "data.files": 3,
    "data": 4,
    "model": 4,
    "trials": 4,
    "plan": 5,
    "train": 5,
    "sweep.folder": 5,
    "packed": 6,
    "report": 6,
    "report.tables": 6,
    "sweep.phases": 6,
    "sweep.tracking": 7,
    "sweep.workers": 7,
    "bundle": 7,
    "sweep.on_ray": 8,
    "sweep": 9,
    "api": 10,
    "cli": 11,
    "__main__": 12,
    "__init__": 13,  # the door: what it shows is loaded when it is asked for
}
DOORS = {("stats", "plmray.report.tables.verbs")}  # so that they are found as plmray.stats.shares, and so on
LOOSE = {"errors"}  # of the ground floor, what the rest of it and every room may lean on
# Rooms, or single files, that know a library.
HOMES = {
    "torch": {"data.batches", "model", "train", "packed", "bundle", "sweep.workers", "sweep.on_ray"}
    | {"sweep.machines", "sweep.doctor"},
    "transformers": {"model"},
    "peft": {"model"},
    "deepspeed": {"train"},
    "ray": {"sweep.on_ray", "sweep.doctor"},
    "optuna": {"sweep.phases"},
    "mlflow": {"sweep.tracking", "bundle.pyfunc"},
    "obstore": {"storage"},
    "pandas": {"api", "report.tables", "bundle.model", "bundle.embed"},
}
MOST_LINES = 300
LARGEST_ROOM = 0.10  # of all lines


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The room that a module is in, or the module where it is a loose file."""
    while module not in FLOORS and "." in module:
        module = module.rpartition(".")[0]
    return module


def imports_of(file: Path) -> Iterator[str]:
    """Dotted names of what a file imports, anywhere in it; of our own the module, never a name in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name != "plmray.__version__":
                yield name if not name.startswith("plmray.") else own_module(name.removeprefix("plmray."))


def own_module(name: str) -> str:
    while name not in FILES and "." in name:
        name = name.rpartition(".")[0]
    return "plmray." + (name if name in FILES else "__init__")


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module: str) -> None:
    own = room_of(module)
    assert own in FLOORS, f"{module} stands in no room that has a floor"
    for name in imports_of(FILES[module]):
        if not name.startswith("plmray.") or (module, name) in DOORS:
            continue
        other = room_of(name.removeprefix("plmray."))
        allowed = other == own or FLOORS[other] < FLOORS[own] or other in LOOSE
        assert allowed, f"{module} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})"


@pytest.mark.parametrize("module", FILES)
def test_heavy_libraries_stay_home(module: str) -> None:
    for name in imports_of(FILES[module]):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or any(f"{module}.".startswith(f"{home}.") for home in homes), (
            f"{module} imports {name}, which lives in {sorted(homes)}"
        )


def test_imports_run_in_no_circle() -> None:
    """No module needs itself, by whatever way round, lazily or not."""
    needs = {
        module: {name.removeprefix("plmray.") for name in imports_of(file) if name.startswith("plmray.")} - {module}
        for module, file in FILES.items()
    }
    while leaves := [module for module, needed in needs.items() if not needed & needs.keys()]:
        for module in leaves:
            del needs[module]
    assert not needs, f"circles among {sorted(needs)}"


def test_files_can_be_read_in_one_sitting() -> None:
    lines = {module: len(file.read_text().splitlines()) for module, file in FILES.items()}
    assert not {module: count for module, count in lines.items() if count > MOST_LINES}
    rooms: dict[str, int] = {}
    for module, count in lines.items():
        rooms[room_of(module)] = rooms.get(room_of(module), 0) + count
    total = sum(rooms.values())
    assert not {room: count for room, count in rooms.items() if count > LARGEST_ROOM * total}


def test_one_file_spells_the_names_of_a_sweep_folder() -> None:
    """Texts of the program, docstrings left out: what is renamed there is renamed everywhere."""
    names = [
        v for v in vars(layout).values() if isinstance(v, str) and Path(v).suffix in (".json", ".jsonl", ".parquet")
    ]
    names += [layout.RESOLVED, layout.LOG, *layout.REPORT_FILES]
    assert len(set(names)) >= 15
    for module, file in FILES.items():
        tree = ast.parse(file.read_text())
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [
            n.value
            for n in ast.walk(tree)
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in told
        ]
        spelled = [name for name in names for text in texts if re.search(rf"(?<![\w.]){re.escape(name)}", text)]
        assert module == "storage.layout" or not spelled, f"{module} spells {spelled}; storage/layout.py has the names"
