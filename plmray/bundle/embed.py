"""Embeddings of proteins by an encoder as it is, in tables that ``backbone.embeddings`` reads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from plmray.bundle.proteins import Limits, checked, column_notes, read_stream, require_sound
from plmray.config.backbone_names import backbone_fault, family, longest_residues, weights_hash
from plmray.config.catalog.families import FAMILIES
from plmray.config.fields.train import BackboneSpec
from plmray.data.encoded import EncodedData, encode_sequences
from plmray.data.files.formats import Row
from plmray.errors import FolderError, SetupError
from plmray.model.backbones import fetch_weights, load_encoder, load_tokenizer
from plmray.packed.embedder import embedder_of
from plmray.train.embeddings import compute_embeddings

CHUNK = 256  # proteins that are sorted by length, computed and written together
Pooling = Literal["mean", "cls"]
Said = Callable[[str], None]


class FrozenEncoder:
    """An encoder, its tokens and its device. Raises SetupError where it cannot be had or read.

    ``name``: a known backbone, a hub id, or a local folder, relative to ``base``. In bf16 on a GPU that has it, else
    float32, as a sweep with ``precision: auto`` computes.
    """

    def __init__(self, name: str, pooling: Pooling = "mean", base: Path = Path()) -> None:
        backbone = BackboneSpec(name=name)
        _require(backbone, base)
        fetch_weights(backbone, base)
        _require(backbone, base)  # again: what was fetched may be no encoder
        self.family, self.pooling = family(backbone, base), pooling
        if pooling == "cls" and not FAMILIES[self.family].has_cls:
            raise SetupError(f"encoders of family {self.family} have no <cls> state; use --pooling mean")
        self.limits = Limits(longest=longest_residues(backbone, base))
        self.tokenizer = load_tokenizer(backbone, base)
        self.weights = weights_hash(backbone, base)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        half = device.type == "cuda" and torch.cuda.is_bf16_supported() and "bf16" in FAMILIES[self.family].precisions
        self.precision = "bf16" if half else "fp32"
        self._embedder = embedder_of(load_encoder(backbone, base), self.family, pooling, self.precision, device)

    @property
    def width(self) -> int:
        return self._embedder.width

    def embed(self, sequences: list[str]) -> NDArray[np.float32]:
        """(n, width) pooled last states, each whatever stands beside it."""
        front, back = len(self.tokenizer.front), len(self.tokenizer.back)
        split = encode_sequences(sequences, self.tokenizer.encode, front + back)
        data = EncodedData({"test": split}, "regression", (), 1, self.tokenizer.pad_id, front, back)
        found: NDArray[Any] = compute_embeddings(data, self._embedder, self.pooling, self.precision)["test"]
        return found.astype(np.float32)


def _require(backbone: BackboneSpec, base: Path) -> None:
    if fault := backbone_fault(backbone, base):
        raise SetupError(f"backbone: {fault}")


def embed_rows(encoder: FrozenEncoder, rows: Iterable[Row]) -> Iterator[tuple[list[Row], NDArray[np.float32]]]:
    """Proteins and their embeddings, a chunk at a time, in their order."""
    remaining = iter(rows)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        yield chunk, encoder.embed([row.sequence for row in chunk])


def embed_file(encoder: FrozenEncoder, proteins: Path, out: Path, say: Said) -> int:
    """Write ``out``, a Parquet file of id, sequence, embedding; returns the number of proteins.

    Raises DataError with every fault of ``proteins`` before anything is computed, FolderError where ``out`` exists. The
    file appears whole or not at all.
    """
    from pyarrow import parquet

    if out.exists():
        raise FolderError(f"{out} is there already; give another name, or remove it")
    for note in column_notes(proteins, None):
        say(note)
    count, _ = checked(proteins, encoder.limits)
    schema, done = _schema(encoder), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with parquet.ParquetWriter(temporary, schema) as writer:
            for rows, found in embed_rows(encoder, read_stream(proteins)):
                writer.write_table(_table(rows, found, schema))
                done += len(rows)
                say(f"{done} of {count} proteins")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def embed_table(encoder: FrozenEncoder, rows: list[Row]) -> Any:
    """The same as a table of pandas, ``embedding`` a numpy row each."""
    import pandas as pd

    require_sound(rows, encoder.limits)
    found = [embedding for _, chunk in embed_rows(encoder, rows) for embedding in chunk]
    columns = {"id": [row.id for row in rows], "sequence": [row.sequence for row in rows], "embedding": found}
    return pd.DataFrame(columns)


def _schema(encoder: FrozenEncoder) -> Any:
    import pyarrow as pa

    fields = [("id", pa.string()), ("sequence", pa.string()), ("embedding", pa.list_(pa.float32(), encoder.width))]
    facts = {"weights": encoder.weights, "pooling": encoder.pooling, "precision": encoder.precision}
    return pa.schema(fields, metadata={f"plmray.{name}": value for name, value in facts.items()})


def _table(rows: list[Row], found: NDArray[np.float32], schema: Any) -> Any:
    import pyarrow as pa

    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), found.shape[1])
    return pa.table([[row.id for row in rows], [row.sequence for row in rows], embeddings], schema=schema)
