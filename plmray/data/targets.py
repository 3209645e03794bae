"""Labels as numbers: classes, positives, label sets, values; of proteins or of their residues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plmray.config.fields.task import SplitName, TaskSpec
from plmray.data import residues
from plmray.data.files.formats import Row
from plmray.data.labels import LABEL_SEPARATOR, NO_LABELS
from plmray.hashing import content_hash
from plmray.metrics import Kind

if TYPE_CHECKING:
    from plmray.data.proteins import ProteinData, Proteins


def labels_of(row: Row, task: TaskSpec) -> Iterable[str]:
    """The classes that a protein or its counted residues have."""
    if task.level == "residue":
        return map(str, residues.counted(row))
    return label_set(row.target) if task.kind == "multilabel" else (row.target,)


def label_set(text: str) -> tuple[str, ...]:
    """Labels of a multi-label protein: ``a;b``, or ``-`` for none."""
    if text == NO_LABELS:
        return ()
    return tuple(label.strip() for label in text.split(LABEL_SEPARATOR) if label.strip())


def classes_of(task: TaskSpec, train: Sequence[Row], notes: list[str]) -> tuple[str, ...]:
    """Classes in order: by name, but for a binary task with its positive one last."""
    if task.kind == "regression":
        return ()
    classes = sorted({label for row in train for label in labels_of(row, task)})
    if task.kind == "binary":
        positive = classes[-1] if task.positive is None else task.positive
        classes = [*(name for name in classes if name != positive), positive]
        notes.append(f"binary: '{positive}' is the positive class")
    return tuple(classes)


def of_proteins(rows: Sequence[Row], kind: Kind, classes: Sequence[str]) -> NDArray[Any]:
    """(n,) values or class numbers; (n, labels) of 0 and 1 for multi-label."""
    if kind == "regression":
        return np.array([float(row.target) for row in rows], dtype=np.float64)
    number = {name: index for index, name in enumerate(classes)}
    if kind != "multilabel":
        return np.array([number[row.target] for row in rows], dtype=np.int64)
    table = np.zeros((len(rows), len(classes)), dtype=np.int64)
    for n, row in enumerate(rows):
        table[n, [number[label] for label in label_set(row.target)]] = 1
    return table


def of_residues(rows: Sequence[Row], kind: Kind, classes: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(residues,) targets of all proteins, end to end, 0 where a residue does not count; and whether it does."""
    counted = np.frombuffer("".join(row.mask or "" for row in rows).encode(), np.uint8) == ord("1")
    labels = [label for row in rows for label in row.labels]
    if kind == "regression":
        return np.where(counted, np.array(labels, dtype=np.float64), 0.0), counted
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number.get(label, 0) for label in labels], dtype=np.int64) * counted, counted


def as_text(data: ProteinData, part: Proteins) -> Iterator[tuple[str, str | None]]:
    """Target and mask of every protein as a table has them: what ``data split`` writes and ``load_data`` reads."""
    if part.counted is None:
        yield from ((_label_text(data, target), None) for target in part.targets)
        return
    ends = np.cumsum([len(sequence) for sequence in part.sequences])
    for targets, counted in zip(np.split(part.targets, ends[:-1]), np.split(part.counted, ends[:-1]), strict=True):
        mask = "".join("1" if counts else "0" for counts in counted)
        yield " ".join(_label_text(data, target) for target in targets), mask


def _label_text(data: ProteinData, target: Any) -> str:
    if data.kind == "regression":
        return repr(float(target))
    if data.kind == "multilabel":
        named = [name for name, has in zip(data.classes, target, strict=True) if has]
        return LABEL_SEPARATOR.join(named) or NO_LABELS
    return data.classes[int(target)]


def parts_hash(parts: Mapping[SplitName, Proteins]) -> str:
    """Of what training sees: sequences and targets of every split; of residues also which of them count."""
    named = sorted(parts.items())
    if all(part.counted is None for _, part in named):
        return content_hash([[name, list(part.sequences), part.targets.tolist()] for name, part in named])
    digest = hashlib.sha256()
    for name, part in named:
        assert part.counted is not None
        digest.update(content_hash([name, list(part.sequences)]).encode())
        digest.update(part.targets.tobytes() + part.counted.tobytes())
    return digest.hexdigest()
