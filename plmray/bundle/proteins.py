"""Proteins to predict or embed: FASTA, a table with a column 'sequence', or sequences; files are read as streams."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from plmray.bundle.folder import BundleFacts
from plmray.config.fields.task import ColumnsSpec
from plmray.data.checks import MAX_FAULTS_SHOWN, sequence_faults, shortened
from plmray.data.files.fasta import UTF16_MARKS, entries
from plmray.data.files.formats import FASTA_SUFFIXES, Row
from plmray.data.files.tables import (
    EXCEL_SUFFIXES,
    PARQUET_SUFFIXES,
    TEXT_SUFFIXES,
    Cells,
    column_places,
    read_cells,
    suffix_of,
)
from plmray.errors import DataError, Fault, nearest_name
from plmray.text import delimiter_of

WHOLE = (*EXCEL_SUFFIXES, *PARQUET_SUFFIXES)  # read into memory


@dataclass(frozen=True)
class Limits:
    """What proteins a model takes. ``window``: the residues it reads, 0-based, end excluded; ``longest``: how many it
    has positions for, None where that is not limited."""

    window: tuple[int, int | None] = (0, None)
    longest: int | None = None

    @classmethod
    def of(cls, facts: BundleFacts) -> Limits:
        return cls(facts.window, facts.longest if facts.cut_at is None else None)


def rows_from(proteins: Any) -> list[Row]:
    """Rows of a file's path, or of what ``rows_of`` takes."""
    is_path = isinstance(proteins, Path) or (isinstance(proteins, str) and Path(proteins).suffix != "")
    return list(read_stream(Path(proteins))) if is_path else rows_of(proteins)


def rows_of(proteins: Any) -> list[Row]:
    """Rows of sequences, of sequences by id, or of a table of pandas with a column 'sequence' (and 'id').

    Raises DataError where ``proteins`` is none of these.
    """
    if hasattr(proteins, "columns"):
        places = _places(Path("table"), [str(name) for name in proteins.columns], None, [])
        sequences = list(proteins.iloc[:, places["sequence"]])
        ids = list(proteins.iloc[:, places["id"]]) if "id" in places else range(len(sequences))
    elif isinstance(proteins, Mapping):
        ids, sequences = list(proteins), list(proteins.values())
    elif isinstance(proteins, str) or not isinstance(proteins, Iterable):
        message = f"found {str(proteins)[:40]!r}, expected sequences, a table, or a path"
        raise DataError.of("", message, "proteins")
    else:
        sequences = list(proteins)
        ids = range(len(sequences))
    return [
        Row(
            "",
            number,
            str(name),
            "" if sequence is None or sequence != sequence else str(sequence).strip(),
            "",
            None,
            None,
        )
        for number, (name, sequence) in enumerate(zip(ids, sequences, strict=True), 1)
    ]


def _text(sequence: Any) -> str:
    """What pandas leaves for a missing one is empty."""
    return "" if sequence is None or sequence != sequence else str(sequence).strip()


def require_sound(rows: Iterable[Row], limits: Limits) -> None:
    """Raise DataError with every fault of some proteins."""
    names: set[str] = set()
    faults: list[Fault] = []
    for row in rows:
        faults += protein_faults(row, names, limits)
        names.add(row.id)
    if faults:
        raise DataError(shortened(faults))


def read_stream(path: Path, columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Proteins one at a time, in the file's order, gzipped or not; Excel and Parquet files are read whole.

    ``columns``: names of ``sequence`` and ``id`` in a table; without them its columns are found by their names.
    Raises DataError where the file is neither FASTA nor a table with a column of sequences.
    """
    suffix = suffix_of(path)
    if suffix in WHOLE:
        cells = read_cells(path)
        places = _places(path, cells.header, columns, [])
        yield from (_of_cells(path, line, row, places) for line, row in cells.rows)
        return
    if suffix not in (*FASTA_SUFFIXES, *TEXT_SUFFIXES):
        raise _fault(
            path, f"ends in '{path.suffix}', expected .fasta, .csv, .tsv or .xlsx, .parquet (text with .gz, too)"
        )
    try:
        with _opened(path) as stream:
            yield from _fasta(path, stream) if suffix in FASTA_SUFFIXES else _table(path, stream, columns)
    except UnicodeDecodeError as error:
        raise _fault(path, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise _fault(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def header_of(path: Path) -> list[str]:
    """Names of a table's columns; none where it cannot be read, which reading it will tell, and of other files."""
    if suffix_of(path) not in (*WHOLE, *TEXT_SUFFIXES):
        return []
    try:
        if suffix_of(path) in WHOLE:
            return read_cells(path).header
        with _opened(path) as stream:
            first = stream.readline()
    except (OSError, EOFError, ValueError, zlib.error, DataError):
        return []
    return _names(first)


def column_notes(path: Path, columns: Mapping[str, str] | None) -> list[str]:
    """Which columns of a table are taken for what, where nobody named them. Raises DataError where none can be."""
    notes: list[str] = []
    header = header_of(path)
    if header:
        _places(path, header, columns, notes)
    return notes


def _names(line: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter_of(line)), [])]


def _opened(path: Path) -> TextIO:
    """Text, gzipped or not; UTF-8, or UTF-16 by its byte order mark."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as raw:
        encoding = "utf-16" if raw.read(2) in UTF16_MARKS else "utf-8-sig"
    stream: TextIO = opened(path, "rt", encoding=encoding, newline="")
    return stream


def _fasta(path: Path, stream: TextIO) -> Iterator[Row]:
    for entry in entries(stream, str(path)):
        yield Row(str(path), entry.line, entry.id, entry.sequence, "", None, None)


def _table(path: Path, stream: TextIO, columns: Mapping[str, str] | None) -> Iterator[Row]:
    first = stream.readline()
    header = _names(first)
    places = _places(path, header, columns, [])
    for line, row in enumerate(csv.reader(stream, delimiter=delimiter_of(first)), start=2):
        if row and len(row) != len(header):
            raise _fault(path, f"has {len(row)} cells, the header has {len(header)}", line)
        if row:
            yield _of_cells(path, line, row, places)


def _places(path: Path, header: list[str], columns: Mapping[str, str] | None, notes: list[str]) -> dict[str, int]:
    """Where the sequence is, and the id if there is one. ``notes``: as of ``column_places``."""
    known = {name: place for name, place in (columns or {}).items() if name in ("sequence", "id")}
    for name in known.values():
        if name not in header:
            raise _fault(path, f"has no column '{name}'; {nearest_name(name, header)}", 1)
    places = column_places(path, Cells(header, []), ColumnsSpec(**known), notes, ("sequence",), ("sequence", "id"))
    return {field: places[field] for field in ("sequence", "id") if field in places}


def _of_cells(path: Path, line: int, row: Sequence[str], places: Mapping[str, int]) -> Row:
    named = {field: row[place].strip() for field, place in places.items()}
    return Row(str(path), line, named.get("id") or f"row{line}", named["sequence"], "", None, None)


def checked(path: Path, limits: Limits, columns: Mapping[str, str] | None = None) -> tuple[int, str]:
    """How many proteins the file holds, and a hash of their names and sequences. Raises DataError with all faults."""
    faults: list[Fault] = []
    digest, names = hashlib.sha256(), set[str]()
    count = 0
    for row in read_stream(path, columns):
        count += 1
        digest.update(f"{row.id}\n{row.sequence}\n".encode())
        faults += protein_faults(row, names, limits)
        names.add(row.id)
        if len(faults) > MAX_FAULTS_SHOWN:
            faults.append(Fault("", "… and perhaps more; the rest was not read", str(path)))
            break
    if not count:
        faults.append(Fault("", "holds no proteins", str(path)))
    if faults:
        raise DataError(faults)
    return count, digest.hexdigest()


def protein_faults(row: Row, names: set[str], limits: Limits) -> Iterator[Fault]:
    """What keeps a model from reading a protein. ``names``: ids of those before it."""
    window, longest = limits.window, limits.longest
    if longest is not None and len(row.sequence) > longest:
        message = f"row {row.line}: '{row.id}' has {len(row.sequence)} residues, the encoder positions for {longest}"
        yield Fault("sequence", message, row.file, row.line)
    if not row.id or row.id in names:
        problem = f"id '{row.id}' stands twice" if row.id else "a protein has no id"
        yield Fault("id", f"row {row.line}: {problem}; ids must differ", row.file, row.line)
    yield from sequence_faults(row)
    if row.sequence and len(row.sequence) < (window[1] or window[0] + 1):
        message = (
            f"row {row.line}: '{row.id}' has {len(row.sequence)} residues, the window of training ends at {window[1]}"
        )
        yield Fault("sequence", message, row.file, row.line)


def _fault(path: Path, message: str, line: int = 0) -> DataError:
    return DataError.of("", message, str(path), line)
