"""Tables as text: as they are printed, and what parts the cells of one that is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

DELIMITERS = (",", ";", "\t", "|")
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table that also reads well in a terminal: columns are padded, a bar within a cell is escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def delimiter_of(header: str) -> str:
    """What a header's names are parted by: the most frequent of comma, semicolon, tab and bar outside quotes."""
    outside = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=outside.count)


def as_decimal(text: str) -> float:
    """A number as people write it: ``51,2`` is 51.2. Raises ValueError."""
    return float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
