"""Labels as people write them: lists of pandas, label sets with other separators, marks that mean no label.

What is read as something else than it says is told in a note; what cannot be told apart is a fault.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from plmray.config.fields.task import TaskSpec
from plmray.data.files.formats import Row
from plmray.errors import Fault
from plmray.metrics import Kind
from plmray.text import DECIMAL_COMMA, THOUSANDS, as_decimal

if TYPE_CHECKING:
    from plmray.data.files.formats import SplitRows

IGNORED_LABEL = -100.0  # Hugging Face's mark of what no loss is taken of; the study's notebooks write it
NO_VALUE = 999.0  # CheZOD's mark of a residue without a measurement
LABEL_SEPARATOR, NO_LABELS = ";", "-"
OTHER_SEPARATORS = "|,"
_SEPARATORS = re.compile(r"[\s,;]+")
_QUOTES = "'\""


def words_of(text: str) -> list[str]:
    """Labels between spaces, commas or semicolons; of a list as pandas and numpy write it, ``['H', 'E']`` or ``[0 1]``,
    its items."""
    stripped = text.strip()
    if is_list(stripped):
        stripped = stripped[1:-1]
        return [word.strip(_QUOTES) for word in _SEPARATORS.split(stripped.strip()) if word.strip(_QUOTES)]
    return [word for word in _SEPARATORS.split(stripped) if word]


def is_list(text: str) -> bool:
    return len(text) > 1 and (text[0], text[-1]) in (("[", "]"), ("(", ")"))


def means_nothing(word: str, kind: Kind) -> str | None:
    """What a label that is none means, in words; None for a label. 999 may well be a class."""
    try:
        value = float(word)
    except ValueError:
        return None
    if value == IGNORED_LABEL:
        return f"{IGNORED_LABEL:g} (Hugging Face's mark)"
    return f"{NO_VALUE:g} (CheZOD's mark)" if value == NO_VALUE and kind == "regression" else None


def as_read(rows: SplitRows, task: TaskSpec, notes: list[str]) -> SplitRows:
    """Rows whose targets are in the form that the rest of the package knows; notes say what was taken for what."""
    every = [row for group in rows.values() for row in group]
    notes += _unread_keys(every)
    if task.level == "residue":
        notes += _gaps(every, task.kind)
        return rows
    if any(row.mask for row in every):
        notes.append("masks are not read: they belong to level: residue")
    if task.kind == "regression":
        return _decimal_points(rows, notes)
    lists = sum(_is_square(row.target) for row in every)
    if lists:
        notes.append(f"{lists} targets are lists in brackets and read as such")
        rows = {name: [_unlisted(row, task) for row in group] for name, group in rows.items()}
    return _label_sets(rows, notes) if task.kind == "multilabel" else rows


def _decimal_points(rows: SplitRows, notes: list[str]) -> SplitRows:
    """Targets with decimal commas as numbers; where all of them may part thousands they stay what they are: a fault."""
    commas = [row.target for group in rows.values() for row in group if DECIMAL_COMMA.fullmatch(row.target)]
    if not commas or all(THOUSANDS.fullmatch(target) for target in commas):
        return rows
    notes.append(f"{len(commas)} targets have decimal commas: '{commas[0]}' is {as_decimal(commas[0]):g}")
    return {
        name: [
            replace(row, target=row.target.replace(",", ".")) if DECIMAL_COMMA.fullmatch(row.target) else row
            for row in group
        ]
        for name, group in rows.items()
    }


def label_faults(rows: SplitRows, task: TaskSpec) -> Iterator[Fault]:
    """Classes of proteins that are lists, one set of labels in several orders, or marks of no label."""
    if task.level == "residue" or task.kind == "regression":
        return
    if task.kind == "multilabel":
        yield from _vectors(rows)
        return
    seen: dict[frozenset[str], Row] = {}
    for row in (row for group in rows.values() for row in group):
        if means_nothing(row.target, task.kind):
            message = f"row {row.line}: target {row.target} means no label; remove the row"
            yield Fault("task.columns.target", message, row.file, row.line)
        if _is_square(row.target):
            message = (
                f"row {row.line}: target {row.target} is a list of classes; for label sets set task.kind: multilabel"
            )
            yield Fault("task.kind", message, row.file, row.line)
            return
        labels = frozenset(_split_at(row.target, LABEL_SEPARATOR + OTHER_SEPARATORS))
        first = seen.setdefault(labels, row)
        if len(labels) > 1 and first.target != row.target:
            message = f"'{first.target}' and '{row.target}' are one set of labels written in two ways"
            advice = "set task.kind: multilabel, or write them alike"
            yield Fault("task.kind", f"row {row.line}: {message}; {advice}", row.file, row.line)
            return


def _vectors(rows: SplitRows) -> Iterator[Fault]:
    """Rows of 0 and 1 are places of labels, which this reads by name."""
    every = [row for group in rows.values() for row in group]
    found = {label for row in every for label in _split_at(row.target, LABEL_SEPARATOR)}
    if every and found <= {"0", "1"} and len(found) == 2:
        message = "label sets hold 0 and 1 alone; write the names of a protein's labels, as in a;b, or - for none"
        yield Fault("task.columns.target", message, every[0].file)


def _unread_keys(rows: Iterable[Row]) -> Iterator[str]:
    counts = Counter(key for row in rows for key in row.unread)
    if counts:
        named = ", ".join(f"{key}= ({count})" for key, count in sorted(counts.items()))
        yield f"keys of FASTA headers that are not read: {named}; those known are SET, TARGET, VALIDATION, MASK"


def _gaps(rows: Iterable[Row], kind: Kind) -> Iterator[str]:
    counts = Counter(meaning for row in rows for word in words_of(row.target) if (meaning := means_nothing(word, kind)))
    for meaning, count in sorted(counts.items()):
        yield f"{count:,} residues are labelled {meaning}: they have no label and do not count"


def _unlisted(row: Row, task: TaskSpec) -> Row:
    if not _is_square(row.target):
        return row  # what stands in round brackets may be a name
    items = items_of(row.target)
    if task.kind != "multilabel" and len(items) != 1:
        return row  # several classes of one protein: a fault
    return replace(row, target=LABEL_SEPARATOR.join(items) or NO_LABELS)


def _is_square(text: str) -> bool:
    return is_list(text) and text[0] == "["


def items_of(text: str) -> list[str]:
    """Items of a list as Python or numpy writes it; those in quotes may hold commas and spaces."""
    quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", text)
    return [(single or double).strip() for single, double in quoted] if quoted else words_of(text)


def _label_sets(rows: SplitRows, notes: list[str]) -> SplitRows:
    every = [row.target for group in rows.values() for row in group]
    if any(LABEL_SEPARATOR in target for target in every):
        return rows
    found = [mark for mark in OTHER_SEPARATORS if any(mark in target for target in every)]
    if not found:
        return rows
    notes.append(f"label sets are split at {' and '.join(repr(mark) for mark in found)}")
    marks = "".join(found)
    return {
        name: [replace(row, target=LABEL_SEPARATOR.join(_split_at(row.target, marks))) for row in group]
        for name, group in rows.items()
    }


def _split_at(text: str, marks: str) -> list[str]:
    return [part.strip() for part in re.split(f"[{re.escape(marks)}]", text) if part.strip()]
