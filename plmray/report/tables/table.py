"""Tables of runs from anywhere: CSV, TSV or Parquet files, and sweep folders."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plmray.errors import DataError, first_line, nearest_name
from plmray.storage import layout
from plmray.text import THOUSANDS, as_decimal, delimiter_of

MISSING = ("", "nan", "NaN", "NA", "null", "None")


@dataclass(frozen=True)
class RunTable:
    """Columns of one row a run."""

    source: str
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def column(self, name: str) -> list[Any]:
        """Raises DataError naming the nearest column where there is none, and how to melt a wide table."""
        if name not in self.columns:
            seeds = [
                own for own in self.columns if re.fullmatch(r"(seed|run|rep(licate)?|fold)?[\s_.-]*\d+", own, re.I)
            ]
            raise _fault(self.source, name, _wide(name, seeds, self.columns) or nearest(name, self.columns))
        return self.columns[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as numbers, NaN where empty; ``51,2`` is 51.2, and ``51.2 %`` is .512 where all have the sign.

        Raises DataError naming the first row that is none.
        """
        values, percent = np.full(len(self), np.nan), np.zeros(len(self), bool)
        for row, value in enumerate(self.column(name)):
            if value is None or (isinstance(value, str) and value.strip() in MISSING):
                continue
            try:
                values[row], percent[row] = as_number(value)
            except (TypeError, ValueError):
                raise _fault(self.source, name, f"row {row + 1} holds {value!r}; expected a number") from None
        mixed = percent.any() and not percent[np.isfinite(values)].all()
        if mixed:
            row = int(np.flatnonzero(np.isfinite(values) & ~percent)[0])
            raise _fault(self.source, name, f"row {row + 1} has no % and others have; write all of them alike")
        return values / 100 if percent.any() else values

    def refuse_thousands(self, name: str) -> None:
        """Raise DataError where commas of a column may part thousands as well as decimals; ask of a whole table."""
        commas = [(row, v) for row, v in enumerate(self.column(name)) if isinstance(v, str) and "," in v]
        if commas and all(THOUSANDS.fullmatch(value.strip().removesuffix("%").strip()) for _, value in commas):
            row, value = commas[0]
            message = f"row {row + 1} holds {value!r}: a decimal comma, or thousands? Write a point, or no comma"
            raise _fault(self.source, name, message)

    def texts(self, name: str) -> list[str]:
        """A column of labels. Raises DataError naming the first empty one."""
        values = self.column(name)
        empty = next((row for row, value in enumerate(values) if value is None or str(value).strip() == ""), None)
        if empty is not None:
            raise _fault(self.source, name, f"row {empty + 1} is empty; every run needs a value here, or drop the row")
        # A column of whole numbers with gaps is read as floats: 99.0 is the label 99.
        texts = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values]
        return _one_spelling(texts)

    def where(self, rows: Sequence[int]) -> RunTable:
        return RunTable(self.source, {name: [values[row] for row in rows] for name, values in self.columns.items()})

    def groups(self, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], RunTable]]:
        """The rows of every combination of values of some columns, sorted; all rows where no column is named."""
        keys = list(zip(*(self.texts(name) for name in names), strict=True)) if names else [()] * len(self)
        rows: dict[tuple[str, ...], list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        for key in sorted(rows):
            yield key, self.where(rows[key])


def _one_spelling(texts: list[str]) -> list[str]:
    """Where all labels are numbers, each in the spelling that comes first: 1e-3 and 0.001 are one level."""
    try:
        numbers = {text: float(text) for text in dict.fromkeys(texts)}
    except ValueError:
        return texts
    first: dict[float, str] = {}
    for text, number in numbers.items():
        first.setdefault(number, text)
    return [first[numbers[text]] for text in texts] if len(first) < len(numbers) else texts


def read_runs(path: Path) -> RunTable:
    """A table of runs; a sweep folder gives its ``results.parquet``. Raises DataError on what cannot be read."""
    try:
        file = path / layout.TABLE if path.is_dir() else path
        there = file.is_file()
    except (OSError, ValueError):  # no name that a file can have
        file, there = path, False
    if not there:
        expected = f"a sweep folder with {layout.TABLE}" if path.is_dir() else "a CSV, TSV or Parquet file"
        raise _fault(str(path), "", f"not found; expected {expected}")
    names, rows = _read_parquet(file) if file.suffix == ".parquet" else _read_text(file)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise _fault(str(file), twice[0], "stands in the header twice; rename one")
    if not rows:
        raise _fault(str(file), "", "holds no run; expected a header and one row a run")
    return RunTable(
        str(file), {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    )


def _read_parquet(file: Path) -> tuple[list[str], list[Sequence[Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
        return table.column_names, list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _unreadable(file, str(error)) from error


def _read_text(file: Path) -> tuple[list[str], list[Sequence[Any]]]:
    """Every cell as it is written: a label '1e-3' or 'true' stays one."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            header, *rows = csv.reader(stream, delimiter="\t" if file.suffix == ".tsv" else delimiter_of(first)) or [[]]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise _unreadable(file, str(error)) from error
    rows = [row for row in rows if row]
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise _unreadable(file, f"row {number} has {len(row)} fields, the header {len(header)}")
    return header, list(rows)


def as_number(value: Any) -> tuple[float, bool]:
    """A number as people write it, and whether a percent sign follows. Raises ValueError or TypeError."""
    if not isinstance(value, str):
        return float(value), False
    text = value.strip()
    return as_decimal(text.removesuffix("%").strip()), text.endswith("%")


def nearest(name: str, columns: Iterable[str]) -> str:
    return f"no such column; {nearest_name(name, columns)}"


def _wide(name: str, seeds: Sequence[str], columns: Iterable[str]) -> str | None:
    """What to do with a table that has a column a seed, where it has."""
    if len(seeds) < 2:
        return None
    kept = ", ".join(repr(own) for own in columns if own not in seeds)
    return (
        f"no such column, and {', '.join(seeds[:3])} … look like one column a seed: make it long, a row a run, with "
        f"pandas.melt(table, id_vars=[{kept}], var_name='seed', value_name={name!r})"
    )


def _unreadable(file: Path, reason: str) -> DataError:
    return _fault(str(file), "", f"cannot be read ({first_line(reason)}); expected UTF-8 CSV, TSV or Parquet")


def _fault(source: str, key: str, message: str) -> DataError:
    return DataError.of(key, message, source)
