"""Labels of residues: read from the files they come in, and from the text they are written as."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from plmray.config.backbone_names import is_there
from plmray.config.fields.task import ColumnsSpec
from plmray.data.files.fasta import read_fasta, read_text
from plmray.data.files.formats import FASTA_SUFFIXES, Row, read_rows
from plmray.data.labels import means_nothing, words_of
from plmray.errors import DataError, Fault, nearest_name
from plmray.metrics import Kind

NO_LABEL = "-."  # in the place of a class
NO_VALUE_ABOVE = 900.0  # CheZOD writes 999 where nothing was measured


def read_labelled(
    sequences: Path, labels: Path | None, masks: Path | None, columns: ColumnsSpec, notes: list[str] | None = None
) -> list[Row]:
    """Proteins with the labels of their residues. Raises DataError where a protein has none.

    ``labels``: a FASTA file with a label a residue (FLIP, whose headers name the split); a text file of lines
    ``id: value, value, …``; or a folder of files ``zscores<id>.txt`` with lines ``residue position value`` (CheZOD).
    None: the proteins' own target column has them. ``masks``: a FASTA file of 0 and 1.
    """
    rows = read_rows(sequences, columns, notes)
    if labels is not None:
        rows = _with_labels(rows, labels)
    if masks is not None:
        given = {entry.id: entry.sequence for entry in read_fasta(masks)}
        _all_known(rows, given, masks, "task.masks", "mask")
        rows = [replace(row, mask=_both(row.mask, given[row.id])) for row in rows]
    return rows


def _both(first: str | None, second: str) -> str:
    """A residue counts where both masks say so; one of another length is left for the checks to tell."""
    if first is None or len(first) != len(second):
        return second
    return "".join("0" if "0" in (a, b) else b for a, b in zip(first, second, strict=True))


def _with_labels(rows: list[Row], labels: Path) -> list[Row]:
    if labels.suffix.lower() in FASTA_SUFFIXES:
        headers = {row.id: row for row in read_rows(labels, ColumnsSpec())}
        texts = {entry.id: entry.sequence for entry in read_fasta(labels)}
        _all_known(rows, texts, labels, "task.labels", "labels")
        return [_joined(row, headers[row.id], texts[row.id]) for row in rows]
    values = dict(_folder_values(rows, labels)) if labels.is_dir() else dict(_line_values(labels))
    _all_known(rows, values, labels, "task.labels", "labels")
    return [_chezod(row, values[row.id]) for row in rows]


def _joined(row: Row, header: Row, text: str) -> Row:
    split = row.split if header.split is None else header.split
    validation = row.validation if header.validation is None else header.validation
    return replace(row, target=text, split=split, validation=validation)


def _chezod(row: Row, values: list[str]) -> Row:
    """``mask``: what is written as no value does not count; what is no number is found by the checks."""
    mask = "".join("0" if _number(value) > NO_VALUE_ABOVE else "1" for value in values)
    return replace(row, target=" ".join(values), mask=mask)


def _line_values(file: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name, colon, text = line.partition(":")
        if line.strip() and not colon:
            message = f"row {number}: '{line[:20]}' is no line of labels; expected 'id: value, value, …'"
            raise DataError.of("task.labels", message, str(file), number)
        if colon:
            yield name.strip(), words_of(text)


def _folder_values(rows: list[Row], folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Labels in the order of their positions; each line's residue must be the sequence's."""
    for row in rows:
        file = folder / f"zscores{row.id}.txt"
        if "/" in row.id or not is_there(file):
            continue
        parts = [line.split() for line in read_text(file).splitlines() if line.strip()]
        letters = "".join(part[0] for part in parts)
        if any(len(part) != 3 for part in parts) or letters != row.sequence:
            message = f"residues of '{row.id}' are not those of its sequence; expected 'residue position value' of each"
            raise DataError.of("task.labels", message, str(file))
        yield row.id, [part[2] for part in parts]


def _all_known(rows: list[Row], found: Collection[str], file: Path, key: str, what: str) -> None:
    names = set(found)
    missing = [row.id for row in rows if row.id not in names]
    if missing:
        hint = nearest_name(missing[0], names) if len(names) <= 50 else f"it has {len(names)} others"
        message = f"has no {what} for {len(missing)} of {len(rows)} proteins (first: '{missing[0]}'); {hint}"
        raise DataError.of(key, message, str(file))


def parsed(row: Row, kind: Kind) -> Row:
    """The row with its ``labels``, and a ``mask`` that leaves out what has no label.

    Classes: a letter a residue, or words between spaces, commas or semicolons. Values: numbers so separated. Lists as
    pandas writes them are lists; -100 and 999 are no labels (``labels.means_nothing``).
    """
    words = words_of(row.target)
    if kind == "regression":
        labels: tuple[object, ...] = tuple(_number(word) for word in words)
        known = [not math.isnan(_number(word)) and not means_nothing(word, kind) for word in words]
    else:
        one_word = len(words) == 1 and len(words[0]) == len(row.sequence)
        labels = tuple(words[0]) if one_word or len(words) == 1 else tuple(words)
        known = [str(label) not in NO_LABEL and not means_nothing(str(label), kind) for label in labels]
    mask = "".join(words_of(row.mask or "")) or "1" * len(labels)
    if len(mask) == len(labels):
        mask = "".join(m if is_known else "0" for m, is_known in zip(mask, known, strict=True))
    return replace(row, labels=labels, mask=mask)


def label_faults(row: Row, kind: Kind) -> Iterator[Fault]:
    """Faults of a row as ``parsed`` made it."""
    residues, found = len(row.sequence), len(row.labels)
    if not found:
        yield _fault(row, "task.columns.target", "has no labels; expected one for each residue")
    elif found != residues:
        yield _fault(row, "task.columns.target", f"has {found} labels for {residues} residues; expected one for each")
    mask = row.mask or ""
    if set(mask) - {"0", "1"}:
        odd = sorted(set(mask) - {"0", "1"})[0]
        yield _fault(row, "task.columns.mask", f"mask holds '{odd}'; expected 1 (counts) or 0")
    elif len(mask) not in (residues, found):
        yield _fault(
            row, "task.columns.mask", f"mask has {len(mask)} places for {residues} residues; expected one each"
        )
    if kind == "regression":
        words = words_of(row.target)
        odd_words = [word for word in words if math.isnan(_number(word)) and word.lower() not in ("nan", "na", "none")]
        endless = [word for word in words if math.isinf(_number(word))]
        if odd_words or endless:
            bad = (odd_words or endless)[0]
            yield _fault(row, "task.columns.target", f"label '{bad}' is no finite number; for classes set task.kind")


def counted(row: Row) -> list[object]:
    """Labels of the residues that count."""
    return [label for label, mark in zip(row.labels, row.mask or "", strict=True) if mark == "1"]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _fault(row: Row, key: str, message: str) -> Fault:
    return row.fault(key, f"'{row.id}' {message}")
