"""Tables as people bring them: read as what they are, and what was taken for what is told."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from plmray.config.fields.task import TaskSpec
from plmray.data.datasets import load_data
from plmray.data.proteins import ProteinData
from plmray.errors import DataError

ROWS = [
    ("p1", "MKTAYIAKQR", 0.5, "train", ""),
    ("p2", "MKTAYIAKQK", 1.5, "train", ""),
    ("p3", "MKTAYIAKQA", 1.0, "train", "True"),
    ("p4", "MKTAYIAKQG", 2.0, "train", "True"),
    ("p5", "MKTAYIAKQL", 0.1, "test", ""),
    ("p6", "MKTAYIAKQV", 0.2, "test", ""),
]
NO_MARKS = {"split": None, "validation": None}
HEADER = ("id", "sequence", "target", "set", "validation")


def read(file: Path, **task: Any) -> ProteinData:
    return load_data(TaskSpec.model_validate({"files": str(file), **task}), file.parent)


def text(separator: str = ",", header: tuple[str, ...] = HEADER, end: str = "\n", comma: bool = False) -> str:
    def cell(value: object) -> str:
        return str(value).replace(".", ",") if comma and isinstance(value, float) else str(value)

    return end.join(separator.join(map(cell, row)) for row in (header, *ROWS)) + end


FORMS: dict[str, tuple[str, bytes]] = {
    "commas": ("a.csv", text().encode()),
    "semicolons": ("a.csv", text(";").encode()),
    "semicolons and decimal commas": ("a.csv", text(";", comma=True).encode()),
    "tabs and decimal commas": ("a.tsv", text("\t", comma=True).encode()),
    "tabs in a csv": ("a.csv", text("\t").encode()),
    "bars": ("a.txt", text("|").encode()),
    "byte order mark": ("a.csv", b"\xef\xbb\xbf" + text().encode()),
    "UTF-16 of a spreadsheet": ("a.csv", text("\t").encode("utf-16")),
    "Mac ends of lines": ("a.csv", text(end="\r").encode()),
    "Windows ends of lines": ("a.csv", text(end="\r\n").encode()),
    "quoted header": ("a.csv", text(header=tuple(f'"{name}"' for name in HEADER)).encode()),
    "gzip": ("a.csv.gz", gzip.compress(text().encode())),
    "other names": (
        "a.csv",
        text(header=("Variant ID", "Mutant sequence", "fitness (a.u.)", "set", "validation")).encode(),
    ),
    "residues in an unknown column": (
        "a.csv",
        text(header=("nr", "heavy chain", "Fitness", "set", "validation")).encode(),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_is_the_same_data(tmp_path: Path, form: str) -> None:
    name, content = FORMS[form]
    (tmp_path / name).write_bytes(content)
    plain = tmp_path / "plain.csv"
    plain.write_text(text())
    assert read(tmp_path / name).hash == read(plain).hash


def test_excel_is_the_same_data_and_so_is_parquet(tmp_path: Path) -> None:
    import pandas as pd

    plain = tmp_path / "plain.csv"
    plain.write_text(text())
    frame = pd.DataFrame(ROWS, columns=list(HEADER))
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.xlsx").hash == read(tmp_path / "a.parquet").hash == read(plain).hash


def test_what_was_taken_for_what_is_told(cases: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(FORMS["other names"][1])
    notes = " | ".join(read(file).notes)
    assert "sequence is column 'Mutant sequence', target is column 'fitness (a.u.)', id is column 'Variant ID'" in notes
    for name in ("semicolons_decimal_comma.csv", "decimal_comma.tsv"):
        data = read(cases / "data" / name, columns=NO_MARKS, validation_fraction=0.5)
        assert data.splits["train"].targets.tolist() + data.splits["validation"].targets.tolist()
        assert any("decimal commas: '0,5' is 0.5" in note for note in data.notes)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("id", "sequence", "colour", "set", "validation"), "has no column 'target'"),
        (("id", "sequence", "score (a)", "set", "score (b)"), "'score (a)' or 'score (b)' may be the target"),
        (("id", "x", "target", "y", "validation"), "has no column 'sequence'|may be"),
    ],
)
def test_what_cannot_be_told_is_asked(tmp_path: Path, header: tuple[str, ...], message: str) -> None:
    (tmp_path / "a.csv").write_text(text(header=header).replace("MKTAYI", "12"))
    with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
        read(tmp_path / "a.csv")


def test_thousands_are_no_decimals(tmp_path: Path) -> None:
    rows = "id;sequence;target\n" + "".join(f"p{n};MKTAYIAKQ{'RKAGLV'[n]};1,{n}00\n" for n in range(6))
    (tmp_path / "a.csv").write_text(rows)
    with pytest.raises(DataError, match="is no number; write a decimal point"):
        read(tmp_path / "a.csv", validation_fraction=0.5)


def test_proteins_to_predict_are_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text() + "p7,MKTAYIAKQW,,pred,\n")
    data = read(tmp_path / "a.csv")
    assert sum(data.counts().values()) == 6
    assert any("1 proteins are marked 'pred' and left out" in note for note in data.notes)


@pytest.mark.parametrize("content", [b"not a workbook", b""])
def test_a_broken_workbook_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(DataError, match="is no Excel file that can be read"):
        read(tmp_path / "a.xlsx")
