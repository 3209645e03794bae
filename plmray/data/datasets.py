"""From a task to checked proteins: found or fetched, split, cut to the window, and hashed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from plmray.config.catalog.tasks import KNOWN_TASKS
from plmray.config.fields.task import SplitName, TaskSpec
from plmray.data import checks, clean, draw, fetch, labels, landscape, residues, splits, targets
from plmray.data.files.formats import Row, SplitRows, read_rows
from plmray.data.known import SOURCES
from plmray.data.proteins import ProteinData, Proteins
from plmray.errors import DataError, Fault
from plmray.hashing import content_hash
from plmray.seeds import derived_rng

WINDOW_MARGIN = 8


def data_roots(given: Path | None) -> list[Path]:
    """Folders searched for known data sets: ``--data-root``, then ``PLMRAY_DATA``, then the download cache."""
    named = [given] if given is not None else []
    from_environment = os.environ.get("PLMRAY_DATA")
    named += [Path(from_environment)] if from_environment else []
    return [*named, fetch.cache_folder()]


def load_data(task: TaskSpec, folder: Path, data_root: Path | None = None, *, may_fetch: bool = True) -> ProteinData:
    """Read, check and split the proteins of a task; paths start at ``folder``. Raises DataError with all faults."""
    notes: list[str] = []
    split_rows, faults = _split_rows(task, folder, data_root, may_fetch, notes)
    split_rows = labels.as_read(split_rows, task, notes)
    if task.level == "residue":
        split_rows = {name: [residues.parsed(row, task.kind) for row in group] for name, group in split_rows.items()}
    rows = [row for group in split_rows.values() for row in group]
    if task.level == "protein":
        notes += clean.repeated_note(rows)
    faults += [*checks.row_faults(rows, task.kind, task.level), *labels.label_faults(split_rows, task)]
    if faults:
        raise DataError(checks.shortened(faults))
    if task.split is not None:
        split_rows = draw.drawn(rows, task, notes)
    faults += splits.drawn_twice(split_rows, task.validation_fraction)
    if task.validation_fraction is not None:
        split_rows = splits.draw_validation(split_rows, task.validation_fraction, task.split_seed)
    window = _window(task, [row for group in split_rows.values() for row in group], notes)
    fitted = _thinned(task, _as_trained(task, split_rows, window, notes), notes)
    # Judged as a model sees them: a window can make two variants one, a length limit can empty a split.
    faults += checks.split_faults(fitted, task)
    if faults:
        raise DataError(checks.shortened(faults))
    return replace(_assembled(task, fitted, notes), window=window)


def _split_rows(
    task: TaskSpec, folder: Path, data_root: Path | None, may_fetch: bool, notes: list[str]
) -> tuple[SplitRows, list[Fault]]:
    if task.dataset == "landscape":
        try:
            return splits.by_columns(landscape.generate(task.landscape))
        except ValueError as error:
            raise DataError.of("task.landscape", str(error)) from error
    if task.dataset is not None:
        root = fetch.find(task.dataset, data_roots(data_root), may_fetch=may_fetch)
        rows = SOURCES[task.dataset].read(root)
        fetch.verify(task.dataset, rows, root)
        return splits.by_columns(rows)
    if isinstance(task.files, dict):
        return splits.by_files({name: _rows_of(task, folder, name, notes) for name in task.files})
    rows = [row for number in range(len(task.files or [])) for row in _rows_of(task, folder, number, notes)]
    notes += splits.unused_note(rows)
    return splits.by_columns(rows)


def _rows_of(task: TaskSpec, folder: Path, which: Any, notes: list[str]) -> list[Row]:
    """Rows of one of the task's files, with the labels and masks that stand beside it."""
    files: Any = task.files
    if task.level == "protein":
        return read_rows(folder / files[which], task.columns, notes)
    beside = [None if given is None else folder / given[which] for given in (task.labels, task.masks)]
    return residues.read_labelled(folder / files[which], beside[0], beside[1], task.columns, notes)


def _thinned(task: TaskSpec, split_rows: SplitRows, notes: list[str]) -> SplitRows:
    """A part of the training proteins where the task asks for one; validation and test stay whole."""
    if task.train_fraction == 1:
        return split_rows
    whole = split_rows["train"]
    count = max(1, round(task.train_fraction * len(whole)))
    kept = sorted(derived_rng(task.split_seed, "train fraction").permutation(len(whole))[:count])
    notes.append(f"{count} of {len(whole)} training proteins, drawn by split_seed {task.split_seed}")
    return split_rows | {"train": [whole[n] for n in kept]}


def _as_trained(task: TaskSpec, split_rows: SplitRows, window: tuple[int, int | None], notes: list[str]) -> SplitRows:
    """Rows with the sequences that training will see: within the window, within the length limit."""
    first, last = window
    return {
        name: _fitted(task, name, [row.cut(first, last) for row in group], notes) for name, group in split_rows.items()
    }


def _assembled(task: TaskSpec, split_rows: SplitRows, notes: list[str]) -> ProteinData:
    classes = targets.classes_of(task, split_rows["train"], notes)
    parts: dict[SplitName, Proteins] = {name: _proteins(group, task, classes) for name, group in split_rows.items()}
    digest = content_hash([task.kind, list(classes), targets.parts_hash(parts)])
    if task.dataset in KNOWN_TASKS and not KNOWN_TASKS[task.dataset].published:
        notes.append(f"{task.dataset} is an internal split: its scores cannot be laid beside published ones")
    name = task.dataset or _file_name(task)
    families = draw.families_of(split_rows["test"])
    return ProteinData(name, task.kind, parts, classes, digest, tuple(notes), task.level, families=families)


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
            raise DataError.of("task.window", f"auto needs variants of one length, found {sorted(lengths)[:5]}")
        letters = np.array([row.sequence.encode() for row in rows]).view("S1").reshape(len(rows), -1)
        mutated = np.flatnonzero((letters != letters[0]).any(axis=0))
        if not mutated.size:
            raise DataError.of("task.window", "auto found no mutated position: all sequences are equal")
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
        raise DataError.of("task.over_length", message, over[0].file, over[0].line)
    notes.append(f"{counted}: {'cut' if task.over_length == 'cut' else 'dropped'}")
    if task.over_length == "drop":
        return [row for row in rows if len(row.sequence) <= task.max_length]
    return [row.cut(0, task.max_length) for row in rows]


def _proteins(rows: list[Row], task: TaskSpec, classes: tuple[str, ...]) -> Proteins:
    ids, sequences = [row.id for row in rows], [row.sequence for row in rows]
    if task.level == "residue":
        return Proteins(ids, sequences, *targets.of_residues(rows, task.kind, classes))
    return Proteins(ids, sequences, targets.of_proteins(rows, task.kind, classes))
