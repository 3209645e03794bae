"""From a task to checked proteins: found or fetched, split, cut to the window, and hashed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plmray.data import checks, fetch, landscape, splits
from plmray.data.formats import Row, read_rows
from plmray.errors import DataError, Fault
from plmray.identity import content_hash
from plmray.spec.sweep import SplitName, TaskSpec

WINDOW_MARGIN = 8


@dataclass(frozen=True)
class Proteins:
    """One split. ``targets``: (n,) floats for regression, (n,) class indices for classification."""

    ids: Sequence[str]
    sequences: Sequence[str]
    targets: NDArray[Any]

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True)
class ProteinData:
    """Checked data of a task. ``hash`` covers what training sees: sequences, targets, splits, classes."""

    name: str
    kind: str
    splits: dict[SplitName, Proteins]
    classes: tuple[str, ...]
    hash: str
    notes: tuple[str, ...] = field(default=())

    @property
    def num_outputs(self) -> int:
        return len(self.classes) if self.kind == "classification" else 1

    def counts(self) -> dict[str, int]:
        return {name: len(proteins) for name, proteins in self.splits.items()}


def data_roots(given: Path | None) -> list[Path]:
    """Folders searched for known data sets: ``--data-root``, then ``PLMRAY_DATA``, then the download cache."""
    named = [given] if given is not None else []
    from_environment = os.environ.get("PLMRAY_DATA")
    named += [Path(from_environment)] if from_environment else []
    return [*named, fetch.cache_folder()]


def load_data(task: TaskSpec, folder: Path, data_root: Path | None = None, *, may_fetch: bool = True) -> ProteinData:
    """Read, check and split the proteins of a task; paths start at ``folder``. Raises DataError with all faults."""
    split_rows, faults = _split_rows(task, folder, data_root, may_fetch)
    rows = [row for group in split_rows.values() for row in group]
    faults += checks.row_faults(rows, task.kind)
    if faults:
        raise DataError(checks.shortened(faults))
    faults += splits.drawn_twice(split_rows, task.validation_fraction)
    if task.validation_fraction is not None:
        split_rows = splits.draw_validation(split_rows, task.validation_fraction, task.split_seed)
    notes: list[str] = []
    fitted = _as_trained(task, split_rows, notes)
    # Judged as a model sees them: a window can make two variants one, a length limit can empty a split.
    faults += checks.split_faults(fitted, task.kind, task.shared_sequences)
    if faults:
        raise DataError(checks.shortened(faults))
    return _assembled(task, fitted, notes)


def _split_rows(
    task: TaskSpec, folder: Path, data_root: Path | None, may_fetch: bool
) -> tuple[checks.SplitRows, list[Fault]]:
    if task.dataset == "landscape":
        try:
            return splits.by_columns(landscape.generate(task.landscape))
        except ValueError as error:
            raise DataError([Fault("task.landscape", str(error))]) from error
    if task.dataset is not None:
        path = fetch.find(task.dataset, data_roots(data_root), may_fetch=may_fetch)
        return splits.by_columns(read_rows(path, task.columns))
    if isinstance(task.files, dict):
        return splits.by_files({name: read_rows(folder / file, task.columns) for name, file in task.files.items()})
    return splits.by_columns([row for file in task.files or [] for row in read_rows(folder / file, task.columns)])


def _as_trained(task: TaskSpec, split_rows: checks.SplitRows, notes: list[str]) -> checks.SplitRows:
    """Rows with the sequences that training will see: within the window, within the length limit."""
    first, last = _window(task, [row for group in split_rows.values() for row in group], notes)
    return {
        name: _fitted(task, name, [replace(row, sequence=row.sequence[first:last]) for row in group], notes)
        for name, group in split_rows.items()
    }


def _assembled(task: TaskSpec, split_rows: checks.SplitRows, notes: list[str]) -> ProteinData:
    rows = [row for group in split_rows.values() for row in group]
    classes = tuple(sorted({row.target for row in rows})) if task.kind == "classification" else ()
    parts: dict[SplitName, Proteins] = {
        name: _proteins(group, task.kind, classes) for name, group in split_rows.items()
    }
    rows_hash = content_hash(
        [[name, list(part.sequences), part.targets.tolist()] for name, part in sorted(parts.items())]
    )
    digest = content_hash([task.kind, list(classes), rows_hash])
    return ProteinData(task.dataset or _file_name(task), task.kind, parts, classes, digest, tuple(notes))


def _file_name(task: TaskSpec) -> str:
    files = list(task.files.values()) if isinstance(task.files, dict) else task.files or ["data"]
    return Path(files[0]).stem


def _window(task: TaskSpec, rows: Sequence[Row], notes: list[str]) -> tuple[int, int | None]:
    """Slice of residues to keep. ``auto``: from 8 before the first mutated position to 8 after the last."""
    if task.window is None:
        return 0, None
    lengths = {len(row.sequence) for row in rows}
    if task.window == "auto":
        if len(lengths) != 1:
            raise DataError([Fault("task.window", f"auto needs variants of one length, found {sorted(lengths)[:5]}")])
        letters = np.array([row.sequence.encode() for row in rows]).view("S1").reshape(len(rows), -1)
        mutated = np.flatnonzero((letters != letters[0]).any(axis=0))
        if not mutated.size:
            raise DataError([Fault("task.window", "auto found no mutated position: all sequences are equal")])
        first = max(0, int(mutated[0]) - WINDOW_MARGIN)
        last = min(lengths.pop(), int(mutated[-1]) + 1 + WINDOW_MARGIN)
    else:
        first, last = task.window[0] - 1, task.window[1]
        if last > min(lengths):
            raise DataError(
                [Fault("task.window", f"ends at {last}, the shortest sequence has {min(lengths)} residues")]
            )
    notes.append(f"window: residues {first + 1} to {last} of every sequence")
    return first, last


def _fitted(task: TaskSpec, name: str, rows: list[Row], notes: list[str]) -> list[Row]:
    over = [row for row in rows if len(row.sequence) > task.max_length]
    if not over:
        return rows
    residues = sum(len(row.sequence) - task.max_length for row in over)
    counted = f"{len(over)} of {len(rows)} {name} proteins exceed {task.max_length} residues (by {residues} in all)"
    if task.over_length == "refuse":
        advice = "set task.over_length: cut or drop, or raise max_length"
        message = f"{counted}, the first in row {over[0].line}; {advice}"
        raise DataError([Fault("task.over_length", message, over[0].file, over[0].line)])
    notes.append(f"{counted}: {'cut' if task.over_length == 'cut' else 'dropped'}")
    if task.over_length == "drop":
        return [row for row in rows if len(row.sequence) <= task.max_length]
    return [replace(row, sequence=row.sequence[: task.max_length]) for row in rows]


def _proteins(rows: list[Row], kind: str, classes: tuple[str, ...]) -> Proteins:
    if kind == "classification":
        number = {name: index for index, name in enumerate(classes)}
        targets: NDArray[Any] = np.array([number[row.target] for row in rows], dtype=np.int64)
    else:
        targets = np.array([float(row.target) for row in rows], dtype=np.float64)
    return Proteins([row.id for row in rows], [row.sequence for row in rows], targets)
