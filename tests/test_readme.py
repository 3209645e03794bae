"""What the READMEs name is there: rooms, tests, files, commands, options, links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from plmray.cli import cli
from tests.examples import ROOT

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
PAGES = [ROOT / name for name in TRACKED if name.endswith(".md")] or sorted(ROOT.glob("*.md"))
PACKAGE = ROOT / "plmray"
OPTIONS = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def rows(page: Path) -> list[list[str]]:
    """Cells of a page's table rows, code quotes kept."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.read_text().splitlines() if "|" in line
    ]


def test_the_package_readme_names_every_room_and_loose_file() -> None:
    named = {name for row in rows(PACKAGE / "README.md") if len(row) == 3 for name in re.findall(r"`([\w/]+)`", row[1])}
    folders = {f"{file.parent.relative_to(PACKAGE)}/" for file in PACKAGE.rglob("__init__.py")} - {"./"}
    loose = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert named == folders | loose


def test_the_rooms_of_the_package_stand_on_the_floors_of_the_test() -> None:
    from tests.test_floors import FLOORS

    for floor, names, _ in (row for row in rows(PACKAGE / "README.md") if len(row) == 3 and row[0].isdigit()):
        for name in re.findall(r"`([\w/]+)`", names):
            assert FLOORS[name.strip("/").replace("/", ".")] == int(floor), name


def test_every_room_has_tests_and_they_are_there() -> None:
    text = (ROOT / "tests" / "README.md").read_text().partition("## Faults")[0]
    own = {name for row in rows(ROOT / "tests" / "README.md") for name in re.findall(r"`([\w/]+)/`", row[0])}
    folders = {str(file.parent.relative_to(PACKAGE)) for file in PACKAGE.rglob("__init__.py")} - {"."}
    spelled = {f"config/{name}" if name in ("catalog", "fields") else name for name in own}
    assert folders <= spelled
    files = re.findall(r"`([\w/]+\.py)`", text)
    there = {str(file.relative_to(ROOT / "tests")) for file in (ROOT / "tests").rglob("*.py")}
    assert len(files) > 20
    assert not [name for name in files if not any(known == name or known.endswith(f"/{name}") for known in there)]


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_links_and_commands_of_a_page_are_there(page: Path) -> None:
    text = page.read_text()
    places = re.findall(r"`((?:plmray|sweeps|search_spaces|cluster|tests|\.ci|\.github)/[\w./-]+)`", text)
    places += [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    lost = [place for place in places if not ((ROOT / place).exists() or (page.parent / place).exists())]
    assert not lost
    for line in re.findall(r"^ {4}(?:\$ )?plmray (.+)$", text, re.M) + re.findall(r"`plmray ([^`]+)`", text):
        check_command(line.partition("#")[0])
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"^ {4}make ([a-z-]+)", text, re.M) + re.findall(r"`make ([a-z-]+)`", text)
    assert not set(named) - set(targets)


def check_command(line: str) -> None:
    """Subcommands and options of a command line are known to click; of 'a|b' the first is looked at."""
    command: click.Command = cli
    for word in line.split():
        if not isinstance(command, click.Group) or not re.match(r"[a-z]", word):
            break
        name = word.split("|")[0].strip("[],…")
        assert name in command.commands, f"plmray {line}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    assert not set(OPTIONS.findall(line)) - known, f"plmray {line}"
