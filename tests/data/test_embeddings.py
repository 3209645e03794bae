"""Embeddings on disk: shared by drivers, made once, and made again where a file is damaged."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from plmray.data.datasets import load_data
from plmray.data.embeddings import Arrays, EmbeddingCache, read_entry, read_precomputed
from plmray.errors import DataError
from tests.examples import tiny_sweep

COUNTS = {"train": 5, "validation": 3, "test": 0}


class Source:
    """Embeddings that count how often they were computed."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls, self.seconds = 0, seconds

    def __call__(self) -> Arrays:
        self.calls += 1
        time.sleep(self.seconds)
        rng = np.random.default_rng(0)
        return {name: rng.normal(size=(n, 4)).astype(np.float32) for name, n in COUNTS.items()}  # type: ignore[misc]


def equal(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_an_entry_is_computed_once_and_read_by_later_sweeps(tmp_path: Path) -> None:
    source = Source()
    first = EmbeddingCache(tmp_path).get("key", COUNTS, source)
    again = EmbeddingCache(tmp_path).get("key", COUNTS, source)
    assert source.calls == 1
    assert equal(first, again) and equal(first, Source()())
    assert EmbeddingCache(tmp_path).get("other", COUNTS, source) and source.calls == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other proteins"])
def test_a_damaged_entry_is_made_again(damage: str, tmp_path: Path) -> None:
    cache, source = EmbeddingCache(tmp_path), Source()
    whole = {name: array.copy() for name, array in cache.get("key", COUNTS, source).items()}
    path = tmp_path / "key.arrow"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        position = content.index(whole["train"].tobytes())
        content[position + 3] ^= 0xFF
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    counts = {**COUNTS, "train": 4} if damage == "other proteins" else COUNTS
    assert read_entry(path, counts) is None
    if damage != "other proteins":
        assert equal(cache.get("key", COUNTS, source), whole)
        assert source.calls == 2


def test_two_drivers_that_want_the_same_entry_compute_it_once(tmp_path: Path) -> None:
    source, found = Source(seconds=0.5), []
    threads = [
        threading.Thread(target=lambda: found.append(EmbeddingCache(tmp_path).get("key", COUNTS, source)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.calls == 1
    assert len(found) == 3 and all(equal(found[0], other) for other in found)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("plmray.data.embeddings.write_entry", full)
    source = Source()
    assert equal(EmbeddingCache(tmp_path).get("key", COUNTS, source), Source()())


def given_file(folder: Path, sequences: list[str], rows: list[list[float]], name: str = "embedding") -> Path:
    file = folder / "given.parquet"
    parquet.write_table(pa.table({"sequence": sequences, name: rows}), file)
    return file


def test_embeddings_that_a_user_gives_are_found_by_sequence(tmp_path: Path) -> None:
    data = load_data(tiny_sweep(tmp_path).spec.task, tmp_path)
    everyone = sorted({sequence for part in data.splits.values() for sequence in part.sequences})
    numbers = {sequence: [float(i), 1.0] for i, sequence in enumerate(everyone)}
    file = given_file(tmp_path, everyone, [numbers[sequence] for sequence in everyone])
    found = read_precomputed([file], data)
    for name, part in data.splits.items():
        assert found[name].tolist() == [numbers[sequence] for sequence in part.sequences]


@pytest.mark.parametrize(
    ("sequences", "rows", "column", "message"),
    [
        (["MKV"], [[1.0, 2.0]], "embedding", "96 of 96 proteins have no embedding in given.parquet"),
        (["MKV", "MKL"], [[1.0, 2.0], [1.0]], "embedding", "of one width"),
        (["MKV"], [[float("nan")]], "embedding", "must be finite"),
        (["MKV"], [[1.0]], "vector", "no column 'embedding'"),
    ],
)
def test_bad_embeddings(
    sequences: list[str], rows: list[list[float]], column: str, message: str, tmp_path: Path
) -> None:
    data = load_data(tiny_sweep(tmp_path).spec.task, tmp_path)
    with pytest.raises(DataError, match=message):
        read_precomputed([given_file(tmp_path, sequences, rows, column)], data)


def test_a_cache_folder_that_cannot_be_made_is_told_and_not_waited_for(tmp_path: Path) -> None:
    """A file in the place of the folder: version 0.1.0 took it for a lock that somebody holds, and waited for ever."""
    (tmp_path / "cache").write_text("no folder")
    said: list[str] = []
    source = Source()
    found = EmbeddingCache(tmp_path / "cache" / "embeddings").get("key", COUNTS, source, said.append)
    assert equal(found, Source()()) and source.calls == 1
    assert len(said) == 1 and "embeddings are not kept" in said[0]


def test_a_full_disk_costs_no_second_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, arrays: Arrays) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plmray.data.embeddings.write_entry", full)
    said: list[str] = []
    source = Source()
    found = EmbeddingCache(tmp_path).get("key", COUNTS, source, said.append)
    assert equal(found, Source()()) and source.calls == 1 and "No space left" in said[0]


def test_an_entry_that_another_process_makes_is_waited_for_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    slow = threading.Thread(target=lambda: EmbeddingCache(tmp_path).get("key", COUNTS, Source(1.0)))
    slow.start()
    time.sleep(0.3)
    second = Source()
    EmbeddingCache(tmp_path).get("key", COUNTS, second, said.append)
    slow.join()
    assert second.calls == 0 and len(said) == 1 and "being computed by process" in said[0]
