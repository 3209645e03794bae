"""What must be true of data before any worker starts. Every fault names its file, row and remedy."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from plmray.config.catalog.tasks import Level
from plmray.config.fields.task import SplitName, TaskSpec
from plmray.data import residues
from plmray.data.files.formats import Row, SplitRows
from plmray.data.files.tables import RESIDUES
from plmray.data.targets import labels_of
from plmray.errors import Fault
from plmray.metrics import Kind

MISSING = ("", "nan", "none", "null", "na", "n/a")  # targets that are none; "-" is a label set without labels
MAX_FAULTS_SHOWN = 20
STRUCTURE_TOKENS = re.compile(r"(?:[A-Z#][a-z#]){3,}")  # a residue and the letter of its structure, as SaProt has them
_ADVICE = {
    "-.": "gaps belong to alignments; give the sequence without them",
    "*": "a stop is no residue; end the sequence before it",
    " \t": "write residues side by side, without spaces",
    "0123456789": "numbers are no residues; give the bare sequence",
}


def row_faults(rows: Sequence[Row], kind: Kind, level: Level = "protein") -> Iterator[Fault]:
    """Faults of single rows: empty or duplicate ids, illegal characters, missing or unreadable targets."""
    first_with_id: dict[str, Row] = {}
    for row in rows:
        if not row.id:
            yield row.fault("task.columns.id", "the id is empty; give every protein a name")
        elif row.id in first_with_id:
            first = first_with_id[row.id]
            where = f"row {first.line}" if first.file == row.file else f"{first.file}, row {first.line}"
            yield row.fault("task.columns.id", f"id '{row.id}' was used in {where}; ids must differ")
        first_with_id.setdefault(row.id, row)
        yield from sequence_faults(row)
        yield from residues.label_faults(row, kind) if level == "residue" else _target_faults(row, kind)


def sequence_faults(row: Row) -> Iterator[Fault]:
    """What is no sequence of residues, with the likely reason."""
    if not row.sequence:
        yield row.fault("task.columns.sequence", "the sequence is empty; remove the row or fill it in")
        return
    illegal = sorted(set(row.sequence) - RESIDUES)
    if not illegal:
        return
    where = row.sequence.index(illegal[0]) + 1
    advice = next((a for odd, a in _ADVICE.items() if illegal[0] in odd), "write residues as one-letter codes")
    if set(row.sequence.upper()) <= RESIDUES:
        advice = "use upper case"
    if STRUCTURE_TOKENS.fullmatch(row.sequence):
        advice = "residues and 3Di letters side by side (SaProt); plmray data clean keeps the residues"
    yield row.fault("task.columns.sequence", f"'{_short(row.sequence)}' holds '{illegal[0]}' at {where}; {advice}")


def _target_faults(row: Row, kind: Kind) -> Iterator[Fault]:
    if row.target.lower() in MISSING:
        yield row.fault("task.columns.target", f"target is {row.target or 'empty'}; remove the row or fill it in")
    elif kind == "regression":
        try:
            value = float(row.target)
        except ValueError:
            advice = "write a decimal point" if "," in row.target else "for classes set task.kind"
            yield row.fault("task.columns.target", f"target '{row.target}' is no number; {advice}")
        else:
            if not math.isfinite(value):
                yield row.fault("task.columns.target", f"target {row.target} is not finite; remove the row")


def split_faults(splits: SplitRows, task: TaskSpec) -> Iterator[Fault]:
    """Faults between splits: one is empty, a class is unknown to training, a sequence is in two of them."""
    for name, advice in (
        ("train", "mark rows with set = train"),
        ("validation", "mark rows with validation = True, or let task.split draw test and validation proteins"),
    ):
        if not splits.get(name):  # type: ignore[call-overload]
            yield Fault("task.files", f"no {name} proteins; {advice}")
    for name, rows in splits.items():
        if name != "train" and len(rows) == 1 and task.level == "protein":
            yield Fault("task.files", f"one {name} protein cannot rank anything; give at least two, or none for test")
    yield from _constant_faults(splits, task) if task.kind == "regression" else _class_faults(splits, task)
    if task.level == "residue":
        yield from _uncounted_faults(splits)
    if task.shared_sequences == "refuse":
        yield from _shared_sequence_faults(splits)


def _class_faults(splits: SplitRows, task: TaskSpec) -> Iterator[Fault]:
    in_training = {label for row in splits.get("train", []) for label in labels_of(row, task)}
    names = ", ".join(sorted(in_training)[:6])
    if len(in_training) == 1 and task.kind != "multilabel":
        yield Fault("task.columns.target", f"training holds one class only ({names})")
    elif task.kind == "binary" and len(in_training) > 2:
        yield Fault(
            "task.kind", f"binary needs two classes, training has {len(in_training)} ({names}…); use classification"
        )
    elif task.kind == "multilabel" and not in_training:
        yield Fault("task.columns.target", "no training protein has a label; write them as a;b")
    if task.positive is not None and task.positive not in in_training:
        yield Fault("task.positive", f"'{task.positive}' is no class of training; its classes: {names}")
    for name, rows in splits.items():
        seen: set[str] = set()
        for row in rows:
            for label in set(labels_of(row, task)) - in_training - seen if name != "train" else ():
                seen.add(label)
                yield row.fault("task.columns.target", f"class '{label}' is in {name} but absent from training")


def _constant_faults(splits: SplitRows, task: TaskSpec) -> Iterator[Fault]:
    for name, rows in splits.items():
        units = [float(label) for row in rows for label in labels_of(row, task)]
        if len(units) > 1 and len(set(units)) == 1:
            what = "residues'" if task.level == "residue" else "targets"
            yield Fault(
                "task.columns.target",
                f"all {len(units)} {name} {what} equal {units[0]}; nothing can be learnt or ranked",
                rows[0].file,
            )


def _uncounted_faults(splits: SplitRows) -> Iterator[Fault]:
    for name, rows in splits.items():
        if rows and not any("1" in (row.mask or "") for row in rows):
            yield Fault("task.masks", f"no {name} residue counts; masks or missing labels leave none", rows[0].file)


def _shared_sequence_faults(splits: SplitRows) -> Iterator[Fault]:
    first: dict[str, tuple[SplitName, Row]] = {}
    for name, rows in splits.items():
        for row in rows:
            known = first.setdefault(row.sequence, (name, row))
            if known[0] != name:
                yield row.fault(
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


def _short(sequence: str) -> str:
    return f"{sequence[:12]}…" if len(sequence) > 12 else sequence
