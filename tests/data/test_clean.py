"""Bad rows mended by rule, and the rest set aside with its reason."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from plmray.cli import cli
from plmray.config.fields.task import ColumnsSpec, TaskSpec
from plmray.data.clean import clean
from plmray.data.datasets import load_data
from plmray.errors import DataError

MESSY = """name;Sequence;fitness (a.u.);plate
v1; mktayiakqr*;0,5;A
v2;GSHM LEDP VV;1,5;A
v3;AV-LKK.DEFF;2,5;A
v4;;1,0;B
v5;MK1AY;1,0;B
v6;MKT*AYI;1,0;B
v7;WQNNPLTTII;nan;B
v8;MKTAYIAKQR;1,5;B
v9;AVLKKDEFF;2,5;C
"""


def test_a_messy_table_is_mended_and_what_was_done_is_told(tmp_path: Path) -> None:
    (tmp_path / "messy.csv").write_text(MESSY)
    arguments = ["data", "clean", str(tmp_path / "messy.csv"), "-o", str(tmp_path / "clean.csv")]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "clean.csv").open()))
    assert [(row["name"], row["Sequence"], row["fitness (a.u.)"], row["plate"]) for row in rows] == [
        ("v1", "MKTAYIAKQR", "1.0", "A"),
        ("v2", "GSHMLEDPVV", "1,5", "A"),
        ("v3", "AVLKKDEFF", "2,5", "A"),
    ]
    aside = {row["name"]: row["reason"] for row in csv.DictReader((tmp_path / "clean.csv.aside.csv").open())}
    assert aside.keys() == {"v4", "v5", "v6", "v7"} and aside["v7"] == "no target" and aside["v4"] == "no sequence"
    for words in ("3 proteins kept, 4 set aside", "1 × written in upper case", "2 × measurements of one sequence"):
        assert words in result.output
    assert "there already" in CliRunner().invoke(cli, arguments).output
    task = {"files": str(tmp_path / "clean.csv"), "split": {"test": 0.0, "validation": 0.5}}
    data = load_data(TaskSpec.model_validate(task), tmp_path)
    assert sum(data.counts().values()) == 3


@pytest.mark.parametrize(("rule", "kept", "aside"), [("mean", 3, 0), ("first", 3, 0), ("drop", 2, 2), ("keep", 4, 0)])
def test_measurements_of_one_sequence(cases: Path, rule: str, kept: int, aside: int) -> None:
    found = clean(cases / "data" / "same_sequence_two_targets.csv", ColumnsSpec(), rule)  # type: ignore[arg-type]
    lines = (cases / "data" / "same_sequence_two_targets.csv").read_text().splitlines()[1:]
    different = len({line.split(",")[0] for line in lines})
    assert len(lines) - different == 1  # one sequence, twice
    assert (len(found.rows) - different, len(found.aside)) == (kept - 3, aside)


def test_repeats_are_told_before_anything_trains(cases: Path) -> None:
    task = {"files": str(cases / "data" / "same_sequence_two_targets.csv"), "split": {"test": 0.0, "validation": 0.4}}
    data = load_data(TaskSpec.model_validate(task), cases)
    assert any("1 sequences come 2 times with different targets (SD 1.41 on average)" in note for note in data.notes)
    whole = [s for part in data.splits.values() for s in part.sequences]
    assert len({part for part, own in data.splits.items() if "MKTAYIAKQR" in own.sequences}) == 1 and len(whole) == 5


def test_translated_frames_are_mended_to_fasta(cases: Path, tmp_path: Path) -> None:
    source = cases / "data" / "stop_marks_lower_case_spaces.fasta"
    arguments = ["data", "clean", str(source), "-o", str(tmp_path / "clean.fasta")]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "clean.fasta").read_text()
    assert ">v1 some protein OX=9606\nMKTAYIAKQR\n" in text and ">v2\nGSHMLEDPVV\n" in text


def test_classes_that_differ_have_no_mean(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sequence,target\nMKTAYI,x\nMKTAYI,y\nMKTAYV,x\n")
    found = clean(tmp_path / "a.csv", ColumnsSpec())
    assert [row[0] for row in found.rows] == ["MKTAYV"]
    assert [row[0] for row in found.aside] == ["a sequence with different targets"] * 2


def test_structure_letters_are_recognised_for_what_they_are(cases: Path, tmp_path: Path) -> None:
    """Upper case, the advice of old, would have doubled the protein."""
    source = cases / "data" / "structure_tokens.fasta"
    with pytest.raises(DataError, match="3Di letters side by side"):
        load_data(TaskSpec.model_validate({"files": str(source), "kind": "binary"}), cases)
    found = clean(source, ColumnsSpec())
    assert found.done["3Di letters taken out"] == len(found.rows) == 3
    assert found.rows[0][1] == "MKTAYI"
