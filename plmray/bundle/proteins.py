"""Proteins to predict or embed: FASTA, a table with a column 'sequence', or sequences; files are read as streams."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from plmray.bundle.folder import BundleFacts
from plmray.data.checks import MAX_FAULTS_SHOWN, sequence_faults, shortened
from plmray.data.files.fasta import entries
from plmray.data.files.formats import FASTA_SUFFIXES, Row
from plmray.errors import DataError, Fault

TABLE_SUFFIXES = {".csv": ",", ".tsv": "\t"}


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
        if "sequence" not in proteins.columns:
            found = ", ".join(map(str, proteins.columns))
            raise DataError.of("", f"has no column 'sequence', found {found}", "table")
        sequences = list(proteins["sequence"])
        ids = list(proteins["id"]) if "id" in proteins.columns else range(len(sequences))
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


def read_stream(path: Path) -> Iterator[Row]:
    """Proteins one at a time, in the file's order. Raises DataError where the file is neither FASTA nor a table."""
    suffix = path.suffix.lower()
    if suffix not in (*FASTA_SUFFIXES, *TABLE_SUFFIXES):
        raise _fault(path, f"ends in '{path.suffix}', expected .fasta, .csv or .tsv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from (
                _fasta(path, stream) if suffix in FASTA_SUFFIXES else _table(path, stream, TABLE_SUFFIXES[suffix])
            )
    except UnicodeDecodeError as error:
        raise _fault(path, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:
        raise _fault(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _fasta(path: Path, stream: TextIO) -> Iterator[Row]:
    for entry in entries(stream, str(path)):
        yield Row(str(path), entry.line, entry.id, entry.sequence, "", None, None)


def _table(path: Path, stream: TextIO, separator: str) -> Iterator[Row]:
    reader = csv.DictReader(stream, delimiter=separator)
    names = reader.fieldnames or []
    if "sequence" not in names:
        raise _fault(path, f"has no column 'sequence', found {', '.join(names) or 'nothing'}", 1)
    for record in reader:
        sequence = (record["sequence"] or "").strip()
        yield Row(str(path), reader.line_num, record.get("id") or f"row{reader.line_num}", sequence, "", None, None)


def checked(path: Path, limits: Limits) -> tuple[int, str]:
    """How many proteins the file holds, and a hash of their names and sequences. Raises DataError with all faults."""
    faults: list[Fault] = []
    digest, names = hashlib.sha256(), set[str]()
    count = 0
    for row in read_stream(path):
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
