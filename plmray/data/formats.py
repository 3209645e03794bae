"""Files of proteins as rows of text, each with the line it came from. Nothing is judged here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plmray.errors import DataError, Fault
from plmray.spec.sweep import ColumnsSpec

FASTA_SUFFIXES = (".fasta", ".fa", ".faa")
_FASTA_FIELD = re.compile(r"\b(SET|TARGET|VALIDATION)=(\S*)")


@dataclass(frozen=True)
class Row:
    """One protein as written. ``line`` is the file's line (FASTA: of the header; Parquet: the row + 1)."""

    file: str
    line: int
    id: str
    sequence: str
    target: str
    split: str | None
    validation: str | None


def read_rows(path: Path, columns: ColumnsSpec) -> list[Row]:
    """Rows of a CSV, TSV, Parquet or FASTA file, chosen by its ending. Raises DataError."""
    suffix = path.suffix.lower()
    if suffix in FASTA_SUFFIXES:
        rows = list(_fasta(path))
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
    return DataError([Fault(key, message, str(path), line)])


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _fault(path, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _table(path: Path, columns: ColumnsSpec, separator: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), delimiter=separator)
    header = next(reader, None)
    if not header:
        raise _fault(path, "is empty; expected a header line")
    index = _column_index(path, header, columns)
    try:
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
    except pyarrow.ArrowInvalid as error:
        raise _fault(path, f"is no Parquet file: {error}") from error
    cells = {field: table.column(names[position]).to_pylist() for field, position in index.items()}
    for number in range(table.num_rows):
        yield _row(path, number + 1, {field: _text(column[number]) for field, column in cells.items()})


def _text(value: object) -> str:
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
        id=stripped.get("id", f"{path}:{line}"),
        sequence=stripped["sequence"],
        target=stripped["target"],
        split=stripped.get("split"),
        validation=stripped.get("validation"),
    )


def _fasta(path: Path) -> Iterator[Row]:
    """``>id SET=train TARGET=1.5 VALIDATION=False`` and a sequence over one or more lines (FLIP)."""
    header: tuple[int, str] | None = None
    sequence: list[str] = []
    for line, raw in enumerate(_read_text(path).splitlines(), start=1):
        text = raw.strip()
        if text.startswith(">"):
            if header is not None:
                yield _fasta_row(path, header, "".join(sequence))
            header, sequence = (line, text[1:]), []
        elif text and header is None:
            raise _fault(path, f"starts with '{text[:20]}', expected a header line beginning with '>'", line)
        else:
            sequence.append(text)
    if header is not None:
        yield _fasta_row(path, header, "".join(sequence))


def _fasta_row(path: Path, header: tuple[int, str], sequence: str) -> Row:
    line, text = header
    name = text.split(maxsplit=1)[0] if text.split() else ""
    fields = dict(_FASTA_FIELD.findall(text))
    return Row(str(path), line, name, sequence, fields.get("TARGET", ""), fields.get("SET"), fields.get("VALIDATION"))
