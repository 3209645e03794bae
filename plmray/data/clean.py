"""Proteins mended by rule: what can be read is kept, what cannot is set aside with its reason, and all is counted."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from plmray.config.fields.task import ColumnsSpec
from plmray.data.checks import MISSING, STRUCTURE_TOKENS, sequence_faults
from plmray.data.files.fasta import read_fasta
from plmray.data.files.formats import FASTA_SUFFIXES, Row
from plmray.data.files.tables import Cells, column_places, read_cells, suffix_of
from plmray.text import as_decimal

Duplicates = Literal["mean", "first", "drop", "keep"]


@dataclass
class Cleaned:
    """``header`` and ``rows``: the table as it was, mended; ``aside``: reason, then the cells, of rows that are not
    kept; ``done``: how many rows each rule changed."""

    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    aside: list[list[str]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def report(self) -> Iterator[str]:
        yield f"{len(self.rows):,} proteins kept, {len(self.aside):,} set aside"
        yield from (f"{count:,} × {rule}" for rule, count in sorted(self.done.items()))
        reasons = Counter(row[0] for row in self.aside)
        yield from (f"{count:,} set aside: {reason}" for reason, count in sorted(reasons.items()))


def clean(path: Path, columns: ColumnsSpec, duplicates: Duplicates = "mean", notes: list[str] | None = None) -> Cleaned:
    """A file of proteins, mended. Raises DataError where it cannot be read or its sequences cannot be found.

    Sequences: upper case; spaces, gaps and a stop at the end out; what is then no sequence is set aside. Targets, where
    the file has them: rows without one are set aside. A sequence that comes again: equal targets once; else, by
    ``duplicates``, the mean (of numbers; classes that differ are set aside), the first, none, or all.
    """
    cells, places = _read(path, columns, [] if notes is None else notes)
    found = Cleaned(cells.header)
    kept: list[tuple[int, list[str]]] = []
    for line, cells_of in cells.rows:
        row = [cell.strip() for cell in cells_of]
        row[places["sequence"]] = _sequence(row[places["sequence"]], found.done)
        reason = _reason(path, line, row, places)
        if reason is None:
            kept.append((line, row))
        else:
            found.aside.append([reason, *row])
    _merged(kept, places, duplicates, found)
    return found


def _read(path: Path, columns: ColumnsSpec, notes: list[str]) -> tuple[Cells, dict[str, int]]:
    if suffix_of(path) in FASTA_SUFFIXES:
        rows = [(e.line, [e.id, e.sequence, e.description]) for e in read_fasta(path)]
        # What a header says beside the name is the target, where it says one.
        target = {"target": 2} if all("TARGET=" in e[2].upper() for _, e in rows) else {}
        return Cells(["id", "sequence", "description"], rows), {"id": 0, "sequence": 1} | target
    cells = read_cells(path)
    return cells, column_places(path, cells, columns, notes, ("sequence",))


def _sequence(text: str, done: Counter[str]) -> str:
    for rule, pattern, by in (
        ("spaces taken out", r"\s+", ""),
        ("gaps of an alignment taken out", r"[-.]", ""),
        ("a stop at the end taken off", r"\*+$", ""),
    ):
        mended = re.sub(pattern, by, text)
        done.update([rule] if mended != text else [])
        text = mended
    if STRUCTURE_TOKENS.fullmatch(text):
        done.update(["3Di letters taken out"])
        text = text[::2].replace("#", "X")
    done.update(["written in upper case"] if text != text.upper() else [])
    return text.upper()


def _reason(path: Path, line: int, row: Sequence[str], places: dict[str, int]) -> str | None:
    """Why a row is not kept; None where it is."""
    probe = Row(str(path), line, "x", row[places["sequence"]], "", None, None)
    fault = next(sequence_faults(probe), None)
    if fault is not None:
        return "no sequence" if not probe.sequence else f"no sequence of residues: {fault.message.partition(': ')[2]}"
    if "target" in places and row[places["target"]].lower() in MISSING:
        return "no target"
    return None


def _merged(kept: Sequence[tuple[int, list[str]]], places: dict[str, int], rule: Duplicates, found: Cleaned) -> None:
    groups: dict[str, list[list[str]]] = {}
    for _, row in kept:
        groups.setdefault(row[places["sequence"]], []).append(row)
    for own in groups.values():
        if len(own) == 1 or rule == "keep":
            found.rows += own
            continue
        targets = {row[places["target"]] for row in own} if "target" in places else {""}
        if len(targets) == 1 or rule == "first":
            found.done["a sequence that came again left out"] += len(own) - 1
            found.rows.append(own[0])
            continue
        mean = _mean(sorted(targets), [row[places["target"]] for row in own]) if rule == "mean" else None
        if mean is None:
            found.aside += [["a sequence with different targets", *row] for row in own]
            continue
        found.done["measurements of one sequence made their mean"] += len(own)
        merged = list(own[0])
        merged[places["target"]] = mean
        found.rows.append(merged)


def _mean(different: Sequence[str], targets: Sequence[str]) -> str | None:
    """Of numbers; None where one is none."""
    try:
        [_number(target) for target in different]
    except ValueError:
        return None
    return repr(float(np.mean([_number(target) for target in targets])))


def _number(text: str) -> float:
    value = as_decimal(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def repeated_note(rows: Sequence[Row]) -> Iterator[str]:
    """Sequences that have different targets, and how far these are apart."""
    targets: dict[str, list[str]] = {}
    for row in rows:
        targets.setdefault(row.sequence, []).append(row.target)
    unlike = [own for own in targets.values() if len(set(own)) > 1]
    if not unlike:
        return
    count = sum(map(len, unlike))
    text = f"{len(unlike):,} sequences come {count:,} times with different targets"
    try:
        spreads = [float(np.std([_number(t) for t in own], ddof=1)) for own in unlike]
    except ValueError:
        yield f"{text}: no model can be right on all of them. plmray data clean merges or drops them"
        return
    yield f"{text} (SD {np.mean(spreads):.3g} on average). plmray data clean makes one of each, its mean"
