"""Files of proteins as rows of text, each with the line it came from. Nothing is judged here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plmray.config.fields.task import ColumnsSpec, SplitName
from plmray.data.fasta import Entry, read_fasta, read_text
from plmray.errors import DataError, Fault, first_line

FASTA_SUFFIXES = (".fasta", ".fa", ".faa")
# A value runs to the next key; that of TARGET may hold spaces.
_FASTA_FIELD = re.compile(r"(?:^|(?<=\s))([\w-]+)=(.*?)(?=\s+[\w-]+=|$)")
FASTA_KEYS = ("SET", "TARGET", "VALIDATION", "MASK")
PARTNER_KEYS = ("INTERACTOR", "SEQINTERACTOR")
_DEEPLOC_LOCATION = re.compile(r"([A-Za-z][\w./-]*?)-[MSU]\b")  # membrane, soluble, unknown


@dataclass(frozen=True)
class Row:
    """One protein as written. ``line`` is the file's line (FASTA: of the header; Parquet: the row + 1).

    Of residue tasks ``target`` holds the labels of all residues, and ``mask`` a 1 for each that counts, else 0;
    ``labels`` are the same once they are read, one a residue: text for classes, floats for values. ``unread``: keys of
    a FASTA header that nothing is made of.
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
    unread: tuple[str, ...] = ()

    def fault(self, key: str, message: str) -> Fault:
        """Something wrong with this protein."""
        return Fault(key, f"row {self.line}: {message}", self.file, self.line)

    def cut(self, first: int, last: int | None) -> Row:
        """The protein from residue ``first`` (0-based) to ``last``, with what belongs to its residues."""
        mask = None if self.mask is None else self.mask[first:last]
        return replace(self, sequence=self.sequence[first:last], mask=mask, labels=self.labels[first:last])


def read_rows(path: Path, columns: ColumnsSpec) -> list[Row]:
    """Rows of a CSV, TSV, Parquet or FASTA file, chosen by its ending. Raises DataError."""
    suffix = path.suffix.lower()
    if suffix in FASTA_SUFFIXES:
        rows = [_fasta_row(path, entry) for entry in read_fasta(path)]
    elif suffix in (".csv", ".tsv", ".txt"):
        rows = list(_table(path, columns, "," if suffix == ".csv" else "\t"))
    elif suffix in (".parquet", ".pq"):
        rows = list(_parquet(path, columns))
    else:
        raise _fault(path, f"ends in '{path.suffix}', expected .csv, .tsv, .parquet or .fasta")
    if not rows:
        raise _fault(path, "holds no proteins; expected at least one row below the header")
    return rows


def _fault(path: Path, message: str, line: int = 0, key: str = "task.files") -> DataError:
    return DataError.of(key, message, str(path), line)


def _table(path: Path, columns: ColumnsSpec, separator: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=separator)
    try:
        header = next(reader, None)
        if not header:
            raise _fault(path, "is empty; expected a header line")
        index = _column_index(path, header, columns)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise _fault(path, f"has {len(cells)} cells, the header has {len(header)}", reader.line_num)
            named = {field: cells[position] for field, position in index.items()}
            yield _row(path, reader.line_num, named)
    except csv.Error as error:
        raise _fault(path, f"is no readable table: {error}", reader.line_num) from error


def _parquet(path: Path, columns: ColumnsSpec) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
        index = _column_index(path, names, columns)
        table = parquet.read_table(path, columns=[names[position] for position in index.values()])
        cells = {field: table.column(names[position]).to_pylist() for field, position in index.items()}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _fault(path, f"is no Parquet file that can be read: {first_line(error)}") from error
    for number in range(table.num_rows):
        yield _row(path, number + 1, {field: _text(column[number]) for field, column in cells.items()})


def _text(value: object) -> str:
    """A cell as a CSV file of pandas would have it, lists too."""
    if isinstance(value, list):
        return f"[{', '.join('nan' if label is None else repr(label) for label in value)}]"
    return "" if value is None else str(value)


def _column_index(path: Path, header: list[str], columns: ColumnsSpec) -> dict[str, int]:
    """Position of each field. A column named by hand must exist; the default split columns may be absent."""
    from plmray.errors import nearest_name

    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _fault(path, f"column '{twice[0]}' stands twice in the header; rename one", 1)
    index: dict[str, int] = {}
    for field, name in columns.model_dump().items():
        if name is None:
            continue
        if name in header:
            index[field] = header.index(name)
        elif field in ("sequence", "target") or field in columns.model_fields_set:
            raise _fault(path, f"has no column '{name}'; {nearest_name(name, header)}", 1, f"task.columns.{field}")
    return index


def _row(path: Path, line: int, named: dict[str, str]) -> Row:
    stripped = {field: text.strip() for field, text in named.items()}
    return Row(
        file=str(path),
        line=line,
        id=stripped.get("id", f"{path.name}:{line}"),
        sequence=stripped["sequence"],
        target=stripped["target"],
        split=stripped.get("split"),
        validation=stripped.get("validation"),
        mask=stripped.get("mask"),
    )


def _fasta_row(path: Path, entry: Entry) -> Row:
    """``>id SET=train TARGET=1.5 VALIDATION=False MASK=110`` (FLIP, biotrainer), or ``>id Location-M`` (DeepLoc)."""
    found = {key: value.strip() for key, value in _FASTA_FIELD.findall(entry.description)}
    known = {key.upper(): value for key, value in found.items() if key.upper() in FASTA_KEYS}
    fields = {key: value if key == "TARGET" else value.partition(" ")[0] for key, value in known.items()}
    partner = next((key for key in found if key.upper() in PARTNER_KEYS), None)
    if partner is not None:
        message = f"row {entry.line}: '{entry.id}' is one of a pair of proteins ({partner}=)"
        raise _fault(path, f"{message}; this version predicts from single proteins", entry.line)
    location = _DEEPLOC_LOCATION.match(entry.description)
    target = str(fields.get("TARGET", location[1] if location else ""))
    split, validation = fields.get("SET"), fields.get("VALIDATION")
    unread = tuple(key for key in found if key.upper() not in FASTA_KEYS)
    mask = fields.get("MASK")
    return Row(str(path), entry.line, entry.id, entry.sequence, target, split, validation, mask, unread=unread)


SplitRows = dict[SplitName, list[Row]]
