"""Text as it is found: wrapped FASTA, ends of lines of every system, byte order marks, gzip."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plmray.errors import DataError

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Entry:
    """``id``: the header's first word, ``description``: the rest of it. ``line``: of the header."""

    id: str
    description: str
    sequence: str
    line: int


def read_text(path: Path) -> str:
    """A file as text with lines that end in \\n, gzipped or not; UTF-8, or UTF-16 by its byte order mark.

    Raises DataError where it cannot be read.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        text = raw.decode("utf-16" if raw[:2] in UTF16_MARKS else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start}); save it as UTF-8 (of a spreadsheet: 'CSV UTF-8')"
        raise DataError.of("task.files", message, str(path)) from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError.of("task.files", f"cannot be read ({reason}); expected a file", str(path)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_fasta(path: Path) -> list[Entry]:
    """All entries of a file. Raises DataError where text stands before the first header."""
    return list(entries(read_text(path).splitlines(), str(path)))


def entries(lines: Iterator[str] | list[str], file: str = "") -> Iterator[Entry]:
    """Entries of lines, one at a time, so that a large file can be streamed."""
    header: tuple[int, str] | None = None
    sequence: list[str] = []
    for number, raw in enumerate(lines, start=1):
        text = raw.strip()
        if text.startswith(">"):
            if header is not None:
                yield _entry(header, sequence)
            header, sequence = (number, text[1:]), []
        elif text and header is None:
            message = f"starts with '{text[:20]}', expected a header line beginning with '>'"
            raise DataError.of("task.files", message, file, number)
        else:
            sequence.append(text)
    if header is not None:
        yield _entry(header, sequence)


def _entry(header: tuple[int, str], sequence: list[str]) -> Entry:
    line, text = header
    name, description = [*text.split(maxsplit=1), "", ""][:2]
    return Entry(name, description, "".join(sequence), line)
