"""Proteins to predict, in every form: the golden bundle says the same of all of them."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from plmray.bundle.predict import predict_file
from plmray.cli import cli
from plmray.data.files.fasta import read_fasta
from plmray.errors import DataError
from tests.golden.make import HERE

BUNDLE = HERE / "bundle"
ENTRIES = [(entry.id, entry.sequence) for entry in read_fasta(HERE / "proteins.fasta")]


def table(separator: str, header: tuple[str, str], extra: bool = False) -> str:
    rows = [(*header, "plate") if extra else header, *((*e, "7") if extra else e for e in ENTRIES)]
    return "".join(separator.join(row) + "\n" for row in rows)


def excel(file: Path) -> None:
    import pandas as pd

    pd.DataFrame(ENTRIES, columns=["id", "sequence"]).to_excel(file, index=False)


def parquet(file: Path) -> None:
    import pandas as pd

    pd.DataFrame(ENTRIES, columns=["id", "sequence"]).to_parquet(file)


FORMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "fasta": ("a.fa", lambda f: f.write_bytes((HERE / "proteins.fasta").read_bytes())),
    "fasta.gz": ("a.fasta.gz", lambda f: f.write_bytes(gzip.compress((HERE / "proteins.fasta").read_bytes()))),
    "csv": ("a.csv", lambda f: f.write_text(table(",", ("id", "sequence")))),
    "csv.gz": ("a.csv.gz", lambda f: f.write_bytes(gzip.compress(table(",", ("id", "sequence")).encode()))),
    "semicolons": ("a.csv", lambda f: f.write_text(table(";", ("id", "sequence"), extra=True))),
    "other names": ("a.tsv", lambda f: f.write_text(table("\t", ("Accession", "Protein sequence"), extra=True))),
    "byte order mark": ("a.csv", lambda f: f.write_bytes(b"\xef\xbb\xbf" + table(",", ("id", "sequence")).encode())),
    "excel": ("a.xlsx", excel),
    "parquet": ("a.parquet", parquet),
    "UTF-16": ("a.csv", lambda f: f.write_bytes(table("\t", ("id", "sequence")).encode("utf-16"))),
    "Mac ends of lines": (
        "a.csv",
        lambda f: f.write_bytes(table(",", ("id", "sequence")).replace("\n", "\r").encode()),
    ),
}


def predictions(file: Path) -> list[tuple[str, str]]:
    return [(row["id"], row["prediction"]) for row in csv.DictReader(file.open())]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    out = tmp_path_factory.mktemp("expected") / "out.csv"
    predict_file(BUNDLE, HERE / "proteins.fasta", out, echo=lambda text: None)
    return predictions(out)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_predicted_alike(form: str, tmp_path: Path, expected: list[tuple[str, str]]) -> None:
    name, write = FORMS[form]
    write(tmp_path / name)
    told: list[str] = []
    predict_file(BUNDLE, tmp_path / name, tmp_path / "out.csv", echo=told.append)
    assert predictions(tmp_path / "out.csv") == expected
    taken = "sequence is column 'Protein sequence', id is column 'Accession'"
    assert (taken in told) == (form == "other names")


@pytest.mark.parametrize("text", [(HERE / "proteins.fasta").read_text(), table(",", ("id", "sequence"))])
def test_standard_input_is_predicted_alike(text: str, tmp_path: Path, expected: list[tuple[str, str]]) -> None:
    arguments = ["predict", str(BUNDLE), "-", "-o", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(cli, arguments, input=text, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert predictions(tmp_path / "out.csv") == expected


def test_columns_can_be_named(tmp_path: Path, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "a.csv").write_text(table(",", ("a", "b")))
    arguments = ["predict", str(BUNDLE), str(tmp_path / "a.csv"), "-o", str(tmp_path / "out.csv")]
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code == 2 and "has no column 'sequence'" in refused.output
    named = [*arguments, "--sequence-column", "b", "--id-column", "a"]
    assert CliRunner().invoke(cli, named, catch_exceptions=False).exit_code == 0
    assert predictions(tmp_path / "out.csv") == expected
    wrong = CliRunner().invoke(cli, [*arguments, "--sequence-column", "c"])
    assert wrong.exit_code == 2 and "has no column 'c'" in wrong.output


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.xlsx", b"no workbook", "is no Excel file"),
        ("a.doc", b"", "expected .fasta, .csv, .tsv or .xlsx"),
        ("a.csv", b"sequence,seq,id\n", "holds no proteins"),
        ("a.csv", b"sequence,id\nMKTAYI\n", "has 1 cells, the header has 2"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        predict_file(BUNDLE, tmp_path / name, tmp_path / "out.csv", echo=lambda text: None)
