"""Embeddings on disk: a cache that several drivers may share, and files that users bring.

An entry is one memory-mapped Arrow file, a record batch a split, under a key that names all that shaped it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plmray.config.fields.task import SplitName
from plmray.data.fetch import cache_folder
from plmray.data.proteins import ProteinData
from plmray.errors import DataError, FolderInUse, LockRefused
from plmray.storage.atomic import atomic_stream
from plmray.storage.lock import FolderLock

if TYPE_CHECKING:
    import pyarrow

Arrays = dict[SplitName, NDArray[np.floating[Any]]]
WAIT_S = 0.2
COLUMN = "embedding"


class EmbeddingCache:
    """A folder of entries. ``get`` reads one, or makes it while every other driver that wants it waits."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "embeddings"

    def get(
        self,
        key: str,
        counts: Mapping[SplitName, int],
        compute: Callable[[], Arrays],
        say: Callable[[str], None] = lambda _: None,
    ) -> Arrays:
        """(n, width) arrays by split. An entry that is cut short or does not fit is made again.

        A folder that cannot be written costs time, not the sweep: ``say`` hears of it, and the arrays are computed.
        """
        path, made = self.folder / f"{key}.arrow", None
        found = read_entry(path, counts)
        if found is not None:
            return found
        try:
            with self._alone(key, say):
                found = read_entry(path, counts)
                if found is None:
                    made = compute()
                    write_entry(path, made)
                    found = read_entry(path, counts)
        except (OSError, LockRefused) as error:
            say(f"embeddings are not kept, so that each process computes its own: {self.folder}: {error}")
        if found is not None:
            return found
        return made if made is not None else compute()

    @contextlib.contextmanager
    def _alone(self, key: str, say: Callable[[str], None]) -> Iterator[None]:
        """Wait for whoever makes the entry. Raises LockRefused where the folder takes no lock."""
        lock, told = FolderLock(self.folder / ".locks" / key), False
        while True:
            try:
                lock.__enter__()
                break
            except FolderInUse as busy:
                if not told:
                    say(f"these embeddings are being computed by {busy.owner}; waiting")
                told = True
                time.sleep(WAIT_S)
        try:
            yield
        finally:
            lock.__exit__(None, None, None)


def write_entry(path: Path, arrays: Mapping[SplitName, NDArray[np.floating[Any]]]) -> None:
    """A batch at a time, for entries hold gigabytes."""
    import pyarrow as pa

    batches = [_batch(array) for array in arrays.values()]
    facts = {"splits": {name: len(array) for name, array in arrays.items()}, "sha256": _checksum(arrays.values())}
    schema = batches[0].schema.with_metadata({"plmray": json.dumps(facts)})
    with atomic_stream(path) as stream, pa.ipc.new_file(stream, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_entry(path: Path, counts: Mapping[SplitName, int]) -> Arrays | None:
    """The arrays of an entry, mapped and not copied; None where it is missing, cut short, or altered."""
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        facts = json.loads(reader.schema.metadata[b"plmray"])
        arrays: Arrays = {name: _array(reader.get_batch(i)) for i, name in enumerate(facts["splits"])}
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None
    fits = {name: len(array) for name, array in arrays.items()} == dict(counts)
    return arrays if fits and _checksum(arrays.values()) == facts["sha256"] else None


def read_precomputed(files: Sequence[Path], data: ProteinData) -> Arrays:
    """Embeddings of a task's proteins from Parquet files with columns ``sequence`` and ``embedding``.

    Looked up by sequence, as trained. Raises DataError where proteins have none, or widths differ.
    """
    known: dict[str, NDArray[np.float32]] = {}
    for file in files:
        known |= _by_sequence(file)
    wanted = [sequence for part in data.splits.values() for sequence in part.sequences]
    missing = [sequence for sequence in wanted if sequence not in known]
    if missing:
        raise _fault(
            f"{len(missing)} of {len(wanted)} proteins have no embedding in {', '.join(f.name for f in files)} (first: "
            f"{missing[0][:12]}…, {len(missing[0])} residues); give files of these very sequences, and no task.window"
        )
    width = next(iter(known.values())).shape[0]
    return {
        name: np.array([known[s] for s in part.sequences], np.float32).reshape(len(part), width)
        for name, part in data.splits.items()
    }


def _by_sequence(file: Path) -> dict[str, NDArray[np.float32]]:
    from pyarrow import parquet

    table = parquet.read_table(file)
    lacking = [name for name in ("sequence", COLUMN) if name not in table.column_names]
    if lacking:
        raise _fault(f"no column '{lacking[0]}', found {table.column_names}; expected sequence and embedding", file)
    rows = [np.asarray(row, dtype=np.float32) for row in table[COLUMN].to_pylist()]
    widths = {row.shape for row in rows}
    if len(widths) != 1 or not all(np.isfinite(row).all() for row in rows):
        raise _fault(f"embeddings must be finite and of one width, found widths {sorted(widths)[:4]}", file)
    return dict(zip(table["sequence"].to_pylist(), rows, strict=True))


def _fault(message: str, file: Path | None = None) -> DataError:
    return DataError.of("train.backbone.embeddings", message, str(file or ""))


def _batch(array: NDArray[np.floating[Any]]) -> pyarrow.RecordBatch:
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.record_batch({COLUMN: pa.FixedSizeListArray.from_arrays(values, array.shape[1])})


def _array(batch: pyarrow.RecordBatch) -> NDArray[np.floating[Any]]:
    column = batch.column(0)
    values: NDArray[np.floating[Any]] = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(column), column.type.list_size)


def _checksum(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
