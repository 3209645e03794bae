"""What must be true of data before any worker starts. Every fault names its file, row and remedy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from plmray.data.formats import Row
from plmray.errors import Fault
from plmray.spec.sweep import SplitName

RESIDUES = frozenset("ACDEFGHIKLMNPQRSTVWYXBZUOJ")
MAX_FAULTS_SHOWN = 20

SplitRows = dict[SplitName, list[Row]]


def row_faults(rows: Sequence[Row], kind: str) -> Iterator[Fault]:
    """Faults of single rows: empty or duplicate ids, illegal characters, missing or unreadable targets."""
    first_with_id: dict[str, Row] = {}
    for row in rows:
        if not row.id:
            yield _fault(row, "task.columns.id", "the id is empty; give every protein a name")
        elif row.id in first_with_id:
            first = first_with_id[row.id]
            where = f"row {first.line}" if first.file == row.file else f"{first.file}, row {first.line}"
            yield _fault(row, "task.columns.id", f"id '{row.id}' was used in {where}; ids must differ")
        first_with_id.setdefault(row.id, row)
        yield from _sequence_faults(row)
        yield from _target_faults(row, kind)


def _sequence_faults(row: Row) -> Iterator[Fault]:
    if not row.sequence:
        yield _fault(row, "task.columns.sequence", "the sequence is empty; remove the row or fill it in")
        return
    illegal = sorted(set(row.sequence) - RESIDUES)
    if not illegal:
        return
    where = row.sequence.index(illegal[0]) + 1
    advice = "use upper case" if set(row.sequence.upper()) <= RESIDUES else "write residues as one-letter codes"
    yield _fault(row, "task.columns.sequence", f"'{_short(row.sequence)}' holds '{illegal[0]}' at {where}; {advice}")


def _target_faults(row: Row, kind: str) -> Iterator[Fault]:
    if row.target == "" or row.target.lower() in ("nan", "none", "null", "na"):
        yield _fault(row, "task.columns.target", f"target is {row.target or 'empty'}; remove the row or fill it in")
    elif kind == "regression":
        try:
            value = float(row.target)
        except ValueError:
            yield _fault(row, "task.columns.target", f"target '{row.target}' is no number; for classes set task.kind")
        else:
            if not math.isfinite(value):
                yield _fault(row, "task.columns.target", f"target {row.target} is not finite; remove the row")


def split_faults(splits: SplitRows, kind: str, shared_sequences: str) -> Iterator[Fault]:
    """Faults between splits: one is empty, a class is unknown to training, a sequence is in two of them."""
    for name, advice in (
        ("train", "mark rows with set = train"),
        ("validation", "mark rows with validation = True, or set task.validation_fraction"),
    ):
        if not splits.get(name):  # type: ignore[call-overload]
            yield Fault("task.files", f"no {name} proteins; {advice}")
    for name, rows in splits.items():
        if name != "train" and len(rows) == 1:
            yield Fault("task.files", f"one {name} protein cannot rank anything; give at least two, or none for test")
    if kind == "classification":
        yield from _class_faults(splits)
    else:
        yield from _constant_faults(splits)
    if shared_sequences == "refuse":
        yield from _shared_sequence_faults(splits)


def _class_faults(splits: SplitRows) -> Iterator[Fault]:
    in_training = {row.target for row in splits.get("train", [])}
    if len(in_training) == 1:
        yield Fault("task.columns.target", f"training holds one class only ({next(iter(in_training))})")
    for name, rows in splits.items():
        seen: set[str] = set()
        for row in rows:
            if name != "train" and row.target not in in_training and row.target not in seen:
                seen.add(row.target)
                yield _fault(row, "task.columns.target", f"class '{row.target}' is in {name} but absent from training")


def _constant_faults(splits: SplitRows) -> Iterator[Fault]:
    for name, rows in splits.items():
        if len(rows) > 1 and len({float(row.target) for row in rows}) == 1:
            yield Fault(
                "task.columns.target",
                f"all {len(rows)} {name} targets equal {rows[0].target}; nothing can be learnt or ranked",
                rows[0].file,
            )


def _shared_sequence_faults(splits: SplitRows) -> Iterator[Fault]:
    first: dict[str, tuple[SplitName, Row]] = {}
    for name, rows in splits.items():
        for row in rows:
            known = first.setdefault(row.sequence, (name, row))
            if known[0] != name:
                yield _fault(
                    row,
                    "task.shared_sequences",
                    f"the sequence of '{row.id}' ({name}) is also in {known[0]}, row {known[1].line}; "
                    "remove one, or set task.shared_sequences: allow",
                )


def shortened(faults: Iterable[Fault]) -> list[Fault]:
    """At most 20 faults of one file and key, then a line that counts the rest."""
    groups: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[fault.file, fault.key].append(fault)
    shown: list[Fault] = []
    for (file, key), group in groups.items():
        shown += group[:MAX_FAULTS_SHOWN]
        if len(group) > MAX_FAULTS_SHOWN:
            shown.append(Fault(key, f"… and {len(group) - MAX_FAULTS_SHOWN} more such rows", file))
    return shown


def _fault(row: Row, key: str, message: str) -> Fault:
    return Fault(key, f"row {row.line}: {message}", row.file, row.line)


def _short(sequence: str) -> str:
    return f"{sequence[:12]}…" if len(sequence) > 12 else sequence
