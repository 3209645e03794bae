"""Files of proteins as rows of text, each with the line it came from. Nothing is judged here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plmray.config.fields.task import ColumnsSpec, SplitName
from plmray.data.files.fasta import Entry, read_fasta, read_text
from plmray.data.files.tables import (
    EXCEL_SUFFIXES,
    PARQUET_SUFFIXES,
    REQUIRED,
    TEXT_SUFFIXES,
    column_places,
    fault,
    named_cells,
    read_cells,
    suffix_of,
)
from plmray.errors import Fault

FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas")
# A value runs to the next key; that of TARGET may hold spaces.
_FASTA_FIELD = re.compile(r"(?:^|(?<=\s))([\w-]+)=(.*?)(?=\s+[\w-]+=|$)")
FASTA_KEYS = ("SET", "TARGET", "VALIDATION", "MASK")
PARTNER_KEYS = ("INTERACTOR", "SEQINTERACTOR")
_DEEPLOC_LOCATION = re.compile(r"([A-Za-z][\w./-]*?)-[MSU]\b")  # membrane, soluble, unknown


@dataclass(frozen=True)
class Row:
    """One protein as written. ``line`` is the file's line (FASTA: of the header; Parquet: the row + 1).

    Of residue tasks ``target`` holds the labels of all residues, and ``mask`` a 1 for each that counts, else 0;
    ``labels`` are the same once they are read, one a residue: text for classes, floats for values. ``group``: what a
    split keeps together. ``unread``: keys of a FASTA header that nothing is made of.
    """

    file: str
    line: int
    id: str
    sequence: str
    target: str
    split: str | None
    validation: str | None
    mask: str | None = None
    labels: Sequence[Any] = ()
    group: str | None = None
    unread: tuple[str, ...] = ()

    def fault(self, key: str, message: str) -> Fault:
        """Something wrong with this protein."""
        return Fault(key, f"row {self.line}: {message}", self.file, self.line)

    def cut(self, first: int, last: int | None) -> Row:
        """The protein from residue ``first`` (0-based) to ``last``, with what belongs to its residues."""
        mask = None if self.mask is None else self.mask[first:last]
        return replace(self, sequence=self.sequence[first:last], mask=mask, labels=self.labels[first:last])


def read_rows(path: Path, columns: ColumnsSpec, notes: list[str] | None = None) -> list[Row]:
    """Rows of a FASTA file or a table, gzipped or not, chosen by its ending. ``notes``: which column was taken for
    what, where nobody named it. Raises DataError."""
    suffix = suffix_of(path)
    if suffix in FASTA_SUFFIXES or (suffix == ".txt" and read_text(path).lstrip().startswith(">")):
        rows = [_fasta_row(path, entry) for entry in read_fasta(path)]
    elif suffix in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES, *EXCEL_SUFFIXES):
        cells = read_cells(path)
        places = column_places(path, cells, columns, [] if notes is None else notes, REQUIRED)
        rows = [_row(path, line, named) for line, named in named_cells(cells, places)]
    else:
        raise fault(path, f"ends in '{path.suffix}', expected .csv, .tsv, .parquet, .xlsx or .fasta")
    if not rows:
        raise fault(path, "holds no proteins; expected at least one row below the header")
    return rows


def _row(path: Path, line: int, named: dict[str, str]) -> Row:
    return Row(
        file=str(path),
        line=line,
        id=named.get("id", f"{path.name}:{line}"),
        sequence=named["sequence"],
        target=named["target"],
        split=named.get("split"),
        validation=named.get("validation"),
        mask=named.get("mask"),
        group=named.get("group"),
    )


def _fasta_row(path: Path, entry: Entry) -> Row:
    """``>id SET=train TARGET=1.5 VALIDATION=False MASK=110`` (FLIP, biotrainer), or ``>id Location-M`` (DeepLoc)."""
    found = {key: value.strip() for key, value in _FASTA_FIELD.findall(entry.description)}
    known = {key.upper(): value for key, value in found.items() if key.upper() in FASTA_KEYS}
    fields = {key: value if key == "TARGET" else value.partition(" ")[0] for key, value in known.items()}
    partner = next((key for key in found if key.upper() in PARTNER_KEYS), None)
    if partner is not None:
        message = f"row {entry.line}: '{entry.id}' is one of a pair of proteins ({partner}=)"
        raise fault(path, f"{message}; this version predicts from single proteins", entry.line)
    location = _DEEPLOC_LOCATION.match(entry.description)
    target = str(fields.get("TARGET", location[1] if location else ""))
    split, validation = fields.get("SET"), fields.get("VALIDATION")
    unread = tuple(key for key in found if key.upper() not in FASTA_KEYS)
    mask = fields.get("MASK")
    return Row(str(path), entry.line, entry.id, entry.sequence, target, split, validation, mask, unread=unread)


SplitRows = dict[SplitName, list[Row]]
