"""Splits as token ids and targets in numpy, ready to be cut into batches.

Letters in shapes: n proteins, T tokens of all of them end to end, D width of an embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plmray.config.catalog.tasks import Level
from plmray.config.fields.task import SplitName
from plmray.data import splits
from plmray.data.proteins import ProteinData
from plmray.metrics import Kind

Encode = Callable[[Sequence[str]], list[NDArray[np.int16]]]


@dataclass(frozen=True)
class EncodedSplit:
    """Token ids of n proteins, end to end. ``offsets``: (n + 1,); ``marks``: tokens of each that are no residue.

    ``targets``: of the units that are predicted, (units,) or (units, labels): proteins, or residues of all, end to
    end, where ``counted`` says which residues have a label. ``embeddings``: outputs of a frozen encoder where they
    take the place of tokens, (n, width), or (residues, width) where ``by_residue``. ``ids``: of the n proteins.
    """

    tokens: NDArray[np.int16]
    offsets: NDArray[np.int64]
    targets: NDArray[Any]
    embeddings: NDArray[np.floating[Any]] | None = None
    counted: NDArray[np.bool_] | None = None
    marks: int = 0
    by_residue: bool = False
    ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per protein, marks included."""
        return np.diff(self.offsets)

    @cached_property
    def residue_offsets(self) -> NDArray[np.int64]:
        """(n + 1,) where the residues of each protein begin among those of all."""
        return self.offsets - self.marks * np.arange(len(self.offsets))

    @cached_property
    def tokens_key(self) -> str:
        """Hash of what an encoder reads of the split."""
        return hashlib.sha256(self.offsets.tobytes() + self.tokens.tobytes()).hexdigest()

    @property
    def content_key(self) -> str:
        """Hash of names, tokens, targets, what counts, and given embeddings."""
        parts = (self.targets, self.counted, self.embeddings)
        digest = hashlib.sha256("\n".join((self.tokens_key, *self.ids)).encode())
        for part in parts:
            digest.update(b"-" if part is None else f"{part.dtype} {part.shape}".encode())
            if part is not None and part.size:
                digest.update(np.ascontiguousarray(part).data)  # as it lies: it may be gigabytes
        return digest.hexdigest()

    @property
    def num_units(self) -> int:
        return len(self.targets)

    def residues(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the residues of some proteins, end to end."""
        offsets = self.residue_offsets
        return np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in rows])

    def units(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of what is predicted of some proteins: themselves, or their residues."""
        return rows if self.counted is None else self.residues(rows)

    def num_counted(self, rows: NDArray[np.int64]) -> int:
        """How many units of some proteins a loss is the mean of; never 0."""
        return len(rows) if self.counted is None else max(1, int(self.counted[self.residues(rows)].sum()))

    def judged(self, outputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Targets and outputs of the units that count."""
        return (self.targets, outputs) if self.counted is None else (self.targets[self.counted], outputs[self.counted])


@dataclass(frozen=True)
class EncodedData:
    """A task ready for a model. ``front`` and ``back`` count the marks around each sequence."""

    splits: dict[SplitName, EncodedSplit]
    kind: Kind
    classes: tuple[str, ...]
    num_outputs: int
    pad_id: int
    front: int
    back: int
    level: Level = "protein"
    scaling: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # mean, SD of embeddings

    @property
    def has_embeddings(self) -> bool:
        return self.splits["train"].embeddings is not None

    @property
    def mean_length(self) -> float:
        """Tokens of a training protein, marks included."""
        return float(self.splits["train"].lengths.mean())

    @property
    def width(self) -> int:
        """Width of the embeddings that take the place of tokens."""
        return int(_embeddings(self.splits["train"]).shape[1])


def encode_data(data: ProteinData, encode: Encode, *, pad_id: int, front: int, back: int) -> EncodedData:
    """Turn sequences into token ids with the backbone's own ``encode`` (marks included)."""
    encoded: dict[SplitName, EncodedSplit] = {}
    for name, proteins in data.splits.items():
        split = encode_sequences(proteins.sequences, encode, front + back, proteins.ids)
        encoded[name] = replace(split, targets=proteins.targets, counted=proteins.counted)
    return EncodedData(encoded, data.kind, data.classes, data.num_outputs, pad_id, front, back, data.level)


def encode_sequences(sequences: Sequence[str], encode: Encode, marks: int, ids: Sequence[str] = ()) -> EncodedSplit:
    """Token ids of n proteins whose targets nobody knows: (n,) zeros stand for them."""
    rows = encode(sequences)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    tokens = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int16)
    return EncodedSplit(tokens, offsets, np.zeros(len(rows)), marks=marks, ids=tuple(ids))


def with_embeddings(
    data: EncodedData, arrays: Mapping[SplitName, NDArray[np.floating[Any]]], *, by_residue: bool = False
) -> EncodedData:
    """The same task on embeddings: ``arrays`` hold (n, width) or (residues, width) for every split."""
    parts = {
        name: replace(split, embeddings=arrays[name], by_residue=by_residue) for name, split in data.splits.items()
    }
    return replace(data, splits=parts)


def resplit(data: EncodedData, fraction: float, drawn_by: int, seed: int) -> EncodedData:
    """The task as if its validation proteins, drawn by seed ``drawn_by``, had been drawn by ``seed``.

    Test proteins stay. Source: ``splits.draw_validation``, whose draw this undoes and repeats.
    """
    train, validation = data.splits["train"], data.splits["validation"]
    total = len(train) + len(validation)
    before, after = (splits.drawn_rows(total, fraction, own) for own in (drawn_by, seed))
    places = np.concatenate([np.flatnonzero(~before), np.flatnonzero(before)])  # of what lies end to end now
    whole = _rows(_joined(train, validation), np.argsort(places))
    drawn: dict[SplitName, EncodedSplit] = {
        "train": _rows(whole, np.flatnonzero(~after)),
        "validation": _rows(whole, np.flatnonzero(after)),
    }
    return replace(data, splits=data.splits | drawn)


def _joined(first: EncodedSplit, second: EncodedSplit) -> EncodedSplit:
    both = None if first.embeddings is None else np.concatenate([first.embeddings, _embeddings(second)])
    counted = None if first.counted is None else np.concatenate([first.counted, _counted(second)])
    return replace(
        first,
        tokens=np.concatenate([first.tokens, second.tokens]),
        offsets=np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        targets=np.concatenate([first.targets, second.targets]),
        embeddings=both,
        counted=counted,
        ids=(*first.ids, *second.ids),
    )


def _rows(split: EncodedSplit, rows: NDArray[np.int64]) -> EncodedSplit:
    parts = [split.tokens[split.offsets[row] : split.offsets[row + 1]] for row in rows]
    units = split.units(rows)
    embedded = split.residues(rows) if split.by_residue else rows
    return replace(
        split,
        tokens=np.concatenate(parts),
        offsets=np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64),
        targets=split.targets[units],
        embeddings=None if split.embeddings is None else split.embeddings[embedded],
        counted=None if split.counted is None else split.counted[units],
        ids=tuple(split.ids[row] for row in rows) if split.ids else (),
    )


def _counted(split: EncodedSplit) -> NDArray[np.bool_]:
    assert split.counted is not None
    return split.counted


def standardized(data: EncodedData) -> EncodedData:
    """Embeddings with the training proteins' mean 0 and SD 1 in every dimension; constant ones become 0."""
    train = _embeddings(data.splits["train"]).astype(np.float64)
    mean, spread = train.mean(0), train.std(0)
    spread[spread == 0] = 1.0
    arrays = {
        name: ((_embeddings(split) - mean) / spread).astype(_embeddings(split).dtype)
        for name, split in data.splits.items()
    }
    scaled = with_embeddings(data, arrays, by_residue=data.splits["train"].by_residue)
    return replace(scaled, scaling=(mean, spread))


def _embeddings(split: EncodedSplit) -> NDArray[np.floating[Any]]:
    assert split.embeddings is not None
    return split.embeddings
