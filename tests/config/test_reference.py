"""Every field of a sweep file is explained, and what is generated from the types is current."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from plmray.cli import cli
from plmray.config import reference
from plmray.config.fields.train import TrainSpec
from plmray.config.load import load_sweep
from plmray.config.parameters import train_fields
from tests.examples import ROOT, sweep_tree

MARK = "<!-- reference -->\n"
SWEEPS = sorted(file for file in (ROOT / "sweeps").rglob("*.yaml") if "search_spaces" not in file.parts)


def test_every_field_has_a_meaning_and_an_example() -> None:
    rows = list(reference.references())
    assert len({row.name for row in rows}) == len(rows) > 100
    assert not [row.name for row in rows if not row.meaning]
    assert not [row.name for row in rows if not row.is_section and not row.example]
    told = {row.name.removeprefix("train.") for row in rows if row.name.startswith("train.") and not row.is_section}
    assert told == set(train_fields(TrainSpec))


def test_examples_are_taken() -> None:
    """Each as --set KEY=VALUE over a sweep: whatever it is refused for, it is not its own type."""
    for row in reference.references():
        if row.is_section or row.name.startswith("space"):
            continue
        try:
            load_sweep(sweep_tree(), [row.example])
        except Exception as error:
            wrong = [line for line in str(error).splitlines() if f" {row.name}: found" in line and "expected" in line]
            assert not wrong


def test_the_readme_and_the_schema_are_current() -> None:
    """Mend with: plmray explain --markdown, after the mark; plmray explain --json-schema > sweeps/sweep.schema.json."""
    assert (ROOT / "sweeps" / "README.md").read_text().partition(MARK)[2] == reference.markdown()
    assert json.loads((ROOT / "sweeps" / "sweep.schema.json").read_text()) == reference.json_schema()


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_schema_takes_our_sweeps(file: Path) -> None:
    jsonschema.validate(yaml.safe_load(file.read_text()), reference.json_schema())


@pytest.mark.parametrize(
    "change", [{"nam": "x"}, {"search": {"seeds": ["a"]}}, {"replicate": {"seeds": [1], "topp": 1}}]
)
def test_the_schema_refuses_what_validate_refuses(change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(sweep_tree(**change), reference.json_schema())


def test_explain_prints_a_field_and_the_nearest() -> None:
    def told(*arguments: str) -> str:
        return CliRunner().invoke(cli, ["explain", *arguments]).output

    assert told("train.adapter.rank").splitlines()[:3] == [
        "train.adapter.rank: whole number, ≥ 1, ≤ 1024",
        "  adalora: the mean rank it ends with",
        "  default: 4",
    ]
    assert told("adapter.rank") == told("train.adapter.rank")
    assert "train.adapter.kind: none, lora" in told("train.adapter") and "replicate: section" in told()
    assert "did you mean 'search.sampler'" in told("search.smapler")
