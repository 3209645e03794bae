"""Tables as people bring them: CSV with any delimiter, TSV, Parquet, Excel; and which column is what."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plmray.config.fields.task import ColumnsSpec
from plmray.data.files.fasta import read_text
from plmray.errors import DataError, first_line, nearest_name
from plmray.text import delimiter_of

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".tab")
PARQUET_SUFFIXES, EXCEL_SUFFIXES = (".parquet", ".pq"), (".xlsx", ".xlsm")
# Names of columns, in lower case and without signs, in the order in which they are looked for.
ROLES: dict[str, tuple[str, ...]] = {
    "sequence": (
        "sequence", "proteinsequence", "aasequence", "aminoacidsequence", "mutatedsequence", "mutantsequence",
        "variantsequence", "fullsequence", "seq", "aaseq", "primary",
    ),
    "target": (
        "target", "label", "labels", "fitness", "score", "dmsscore", "activity", "measurement", "value", "y", "class",
        "location", "localization",
    ),
    "id": (
        "id", "name", "proteinid", "variantid", "identifier", "accession", "entry", "uniprot", "uniprotid", "mutant",
    ),
    "split": ("set", "split", "subset", "partition"),
}  # fmt: skip
REQUIRED = ("sequence", "target")
RESIDUES = frozenset("ACDEFGHIKLMNPQRSTVWYXBZUOJ")
LOOKED_AT, SHORTEST = 50, 6  # cells of a column, and residues of a cell, to know sequences by


@dataclass(frozen=True)
class Cells:
    """A table as text. ``rows``: the line each begins at (Parquet, Excel: its number), and its cells."""

    header: list[str]
    rows: list[tuple[int, list[str]]]


def read_cells(path: Path) -> Cells:
    """Raises DataError where the file is no table that can be read."""
    suffix = suffix_of(path)
    if suffix in PARQUET_SUFFIXES:
        return _parquet(path)
    return _excel(path) if suffix in EXCEL_SUFFIXES else _delimited(path)


def suffix_of(path: Path) -> str:
    """The ending that says what a file is, ``.csv`` of ``x.csv.gz``."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _delimited(path: Path) -> Cells:
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text.partition("\n")[0]))
    try:
        header = next(reader, None)
        if not header:
            raise fault(path, "is empty; expected a header line")
        rows = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise fault(path, f"has {len(cells)} cells, the header has {len(header)}", reader.line_num)
            rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise fault(path, f"is no readable table: {error}", reader.line_num) from error
    return Cells([name.strip() for name in header], rows)


def _parquet(path: Path) -> Cells:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise fault(path, f"is no Parquet file that can be read: {first_line(error)}") from error
    rows = [(number, [_text(cell) for cell in row]) for number, row in enumerate(zip(*columns, strict=True), 1)]
    return Cells(list(table.column_names), rows)


def _excel(path: Path) -> Cells:
    """The first sheet."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        message = "is an Excel file: install openpyxl (pip install 'plmray[excel]'), or save it as 'CSV UTF-8'"
        raise fault(path, message) from None
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        sheet = [[_text(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)]
    except Exception as error:  # openpyxl raises what its parts do
        raise fault(path, f"is no Excel file that can be read: {first_line(error)}") from error
    filled = [(number, row) for number, row in enumerate(sheet, 1) if any(row)]
    if not filled:
        raise fault(path, "is empty; expected a header line")
    return Cells([name.strip() for name in filled[0][1]], filled[1:])


def _text(value: object) -> str:
    """A cell as a CSV file of pandas would have it, lists too."""
    if isinstance(value, list):
        return f"[{', '.join('nan' if label is None else repr(label) for label in value)}]"
    return "" if value is None else str(value)


def column_places(
    path: Path,
    cells: Cells,
    columns: ColumnsSpec,
    notes: list[str],
    need: Sequence[str],
    wanted: Sequence[str] = tuple(ROLES),
) -> dict[str, int]:
    """Position of each field that is there; ``notes`` say what was taken for what where nobody named it.

    A column named by hand must be there. Else the default name counts, then the names in ``ROLES``, then, of
    sequences, the one column that holds residues. Raises DataError where one of ``need`` is not found, or two columns
    may be it. ``wanted``: fields to look for by role.
    """
    header = cells.header
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise fault(path, f"column '{twice[0]}' stands twice in the header; rename one", 1)
    places: dict[str, int] = {}
    for field, name in columns.model_dump().items():
        if name is None:
            continue
        if name in header:
            places[field] = header.index(name)
        elif field in columns.model_fields_set:
            raise fault(path, f"has no column '{name}'; {nearest_name(name, header)}", 1, f"task.columns.{field}")
    taken = {}
    for field in wanted:
        if field in places or getattr(columns, field) is None or field in columns.model_fields_set:
            continue
        found = _by_role(path, cells, field, set(places.values()), field in need)
        if found is not None:
            places[field], taken[field] = found, header[found]
    if taken:
        notes.append(", ".join(f"{field} is column '{name}'" for field, name in taken.items()))
    return places


def _by_role(path: Path, cells: Cells, field: str, used: set[int], needed: bool) -> int | None:
    free = [place for place in range(len(cells.header)) if place not in used]
    names = {place: re.sub(r"\(.*?\)|[^a-z]", "", cells.header[place].lower()) for place in free}
    for wanted in ROLES[field]:
        found = [place for place in free if names[place] == wanted]
        if len(found) == 1:
            return found[0]
        if len(found) > 1 and needed:
            raise _unclear(path, field, [cells.header[place] for place in found])
    if field != "sequence" or not needed:
        if needed:
            raise _missing(path, field, cells.header)
        return None
    found = [place for place in free if _are_sequences(cells, place)]
    if len(found) == 1:
        return found[0]
    raise (
        _unclear(path, field, [cells.header[place] for place in found])
        if found
        else _missing(path, field, cells.header)
    )


def _are_sequences(cells: Cells, place: int) -> bool:
    seen = [row[place].strip().upper() for _, row in cells.rows[:LOOKED_AT] if row[place].strip()]
    return bool(seen) and all(len(text) >= SHORTEST and set(text) <= RESIDUES for text in seen)


def _unclear(path: Path, field: str, names: Sequence[str]) -> DataError:
    shown = " or ".join(f"'{name}'" for name in names)
    return fault(path, f"{shown} may be the {field}; name it: columns: {{{field}: …}}", 1, f"task.columns.{field}")


def _missing(path: Path, field: str, header: Sequence[str]) -> DataError:
    name = ROLES[field][0]
    hint = nearest_name(name, header)
    known = "" if hint.startswith("known") else f" (known: {', '.join(header)})"
    message = f"has no column '{name}'; {hint}{known}. Name it in columns: {{{field}: …}}, or with an option"
    return fault(path, message, 1, f"task.columns.{field}")


def fault(path: Path, message: str, line: int = 0, key: str = "task.files") -> DataError:
    return DataError.of(key, message, str(path), line)


def named_cells(cells: Cells, places: dict[str, int]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and stripped cells by field, of every row."""
    for line, row in cells.rows:
        yield line, {field: row[place].strip() for field, place in places.items()}
