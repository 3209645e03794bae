from __future__ import annotations

import functools
import http.server
import threading
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from plmray.config.catalog.tasks import KNOWN_TASKS
from plmray.config.fields.task import TaskSpec
from plmray.data import fetch
from plmray.data.batches import collate, sorted_batches
from plmray.data.datasets import load_data
from plmray.data.encoded import EncodedData, resplit, with_embeddings
from plmray.data.known import SOURCES
from plmray.errors import DataError
from tests.examples import tiny_data, tiny_sweep, write_proteins

ROWS = [
    ("a", "MKVA", "1.0", "train", ""),
    ("b", "MKLA", "2.0", "train", "False"),
    ("c", "MKAA", "1.5", "train", "True"),
    ("d", "MKGA", "1.7", "train", "True"),
    ("e", "MKPA", "0.1", "test", ""),
    ("f", "MKWA", "0.2", "test", ""),
]
NAMES = ("id", "sequence", "target", "set", "validation")


def write(folder: Path, suffix: str) -> str:
    file = folder / f"proteins{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.table({name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}), file)
    elif suffix == ".fasta":
        lines = [f">{i} SET={s} TARGET={t} VALIDATION={v or 'False'}\n{q[:2]}\n{q[2:]}\n" for i, q, t, s, v in ROWS]
        file.write_text("".join(lines))
    else:
        separator = "," if suffix == ".csv" else "\t"
        text = "\n".join(separator.join(row) for row in [NAMES, *ROWS])
        file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())  # as a spreadsheet saves it
    return file.name


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".fasta"])
def test_every_format_gives_the_same_data(suffix: str, tmp_path: Path) -> None:
    task = {"columns": {"id": "id"}} if suffix != ".fasta" else {}
    data = load_data(TaskSpec.model_validate({"files": write(tmp_path, suffix), **task}), tmp_path)
    expected = load_data(TaskSpec.model_validate({"files": write(tmp_path, ".csv"), "columns": {"id": "id"}}), tmp_path)
    assert data.hash == expected.hash
    assert data.counts() == {"train": 2, "validation": 2, "test": 2}
    assert list(data.splits["train"].ids) == ["a", "b"]
    assert data.splits["validation"].targets.tolist() == [1.5, 1.7]


def test_columns_are_mapped_and_files_may_be_splits(tmp_path: Path) -> None:
    for name, start in (("train", 0), ("validation", 2), ("test", 4)):
        rows = [f"{q},{t}" for _, q, t, _, _ in ROWS[start : start + 2]]
        (tmp_path / f"{name}.csv").write_text("\n".join(["protein,fitness", *rows]))
    files = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    task = TaskSpec.model_validate({"files": files, "columns": {"sequence": "protein", "target": "fitness"}})
    assert load_data(task, tmp_path).counts() == {"train": 2, "validation": 2, "test": 2}


def test_gb1_is_the_published_one(data_root: Path) -> None:
    data = load_data(TaskSpec(dataset="gb1"), Path(), data_root, may_fetch=False)
    assert data.counts() == KNOWN_TASKS["gb1"].counts


def test_window_keeps_the_mutated_positions_of_gb1(data_root: Path) -> None:
    whole = load_data(TaskSpec(dataset="gb1"), Path(), data_root)
    cut = load_data(TaskSpec(dataset="gb1", window="auto"), Path(), data_root)
    assert {len(sequence) for sequence in cut.splits["train"].sequences} == {32}
    same = load_data(TaskSpec(dataset="gb1", window=[31, 62]), Path(), data_root)
    assert same.hash == cut.hash != whole.hash
    # The four sites of Wu et al.: V39, D40, G41, V54. No two variants become one.
    assert len(set(cut.splits["test"].sequences)) == len(set(whole.splits["test"].sequences))


@pytest.mark.parametrize(("choice", "train"), [("cut", 3), ("drop", 2)])
def test_over_long_sequences_are_counted_and_cut_or_dropped(choice: str, train: int, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "sequence,target,set,validation\nMKV,1,train,\nMKL,2,train,\nMKWWWW,3,train,\nMKA,1,train,True\nMKG,2,train,True\n"
    )
    data = load_data(TaskSpec.model_validate({"files": "p.csv", "max_length": 4, "over_length": choice}), tmp_path)
    assert len(data.splits["train"]) == train
    assert "1 of 3 train proteins exceed 4 residues (by 2 in all)" in data.notes[0]
    assert max(len(sequence) for sequence in data.splits["train"].sequences) <= 4


def test_splits_are_judged_as_training_sees_them(tmp_path: Path) -> None:
    rows = ["MKVAAA,1,train,", "MKLAAA,2,train,", "MKVCCC,1,train,True", "MKGCCC,2,train,True"]
    (tmp_path / "p.csv").write_text("\n".join(["sequence,target,set,validation", *rows]))
    task = {"files": "p.csv", "window": [1, 3]}
    with pytest.raises(DataError, match="is also in train"):
        load_data(TaskSpec.model_validate(task), tmp_path)
    dropped = {"files": "q.csv", "max_length": 4, "over_length": "drop"}
    rows = ["MKVA,1,train,", "MKLA,2,train,", "MKVCCC,1,train,True", "MKGCCC,2,train,True"]
    (tmp_path / "q.csv").write_text("\n".join(["sequence,target,set,validation", *rows]))
    with pytest.raises(DataError, match="no validation proteins"):
        load_data(TaskSpec.model_validate(dropped), tmp_path)


def test_a_train_file_may_hold_its_validation(tmp_path: Path) -> None:
    lines = ["MKVA,1,", "MKLA,2,", "MKVC,1,True", "MKGC,2,True"]
    (tmp_path / "a.csv").write_text("\n".join(["sequence,target,validation", *lines]))
    (tmp_path / "b.csv").write_text("sequence,target\nMKWC,1\nMKWD,2\n")
    task = TaskSpec.model_validate({"files": {"train": "a.csv", "test": "b.csv"}})
    assert load_data(task, tmp_path).counts() == {"train": 2, "validation": 2, "test": 2}


def test_drawn_validation_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    rows = [f"MK{a}{b},{i},train" for i, (a, b) in enumerate((a, b) for a in "ACDEF" for b in "GHIKL")]
    (tmp_path / "p.csv").write_text("\n".join(["sequence,target,set", *rows]))
    tasks = [{"files": "p.csv", "validation_fraction": 0.2, "split_seed": seed} for seed in (0, 0, 1)]
    hashes = [load_data(TaskSpec.model_validate(task), tmp_path).hash for task in tasks]
    assert hashes[0] == hashes[1] != hashes[2]


def test_landscape_truth_is_learnable_and_repeatable(tmp_path: Path) -> None:
    task = TaskSpec.model_validate({"dataset": "landscape", "landscape": {"epistasis": 0.0, "noise": 0.0}})
    data = load_data(task, tmp_path)
    assert data.hash == load_data(task, tmp_path).hash
    one_hot = {n: np.array([[r == a for r in s for a in "ACDEFGHIKLMNPQRSTVWY"] for s in p.sequences], float)
               for n, p in data.splits.items()}  # fmt: skip
    weights = np.linalg.lstsq(one_hot["train"], data.splits["train"].targets, rcond=None)[0]
    correlation = np.corrcoef(one_hot["test"] @ weights, data.splits["test"].targets)[0, 1]
    assert correlation > 0.95  # without epistasis and noise the truth is additive


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> str:
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/splits.zip"


def test_fetched_data_are_checked(data_root: Path, served: str, tmp_path: Path) -> None:
    (file,) = SOURCES["gb1"].files
    urls = {str(file.url): served}
    content = (data_root / file.path).read_bytes()
    with zipfile.ZipFile(tmp_path / "splits.zip", "w") as archive:
        archive.writestr(str(file.member), content)
    assert (fetch.fetch("gb1", tmp_path / "root", urls) / file.path).read_bytes() == content
    with zipfile.ZipFile(tmp_path / "splits.zip", "w") as archive:
        archive.writestr(str(file.member), content.replace(b"1.0", b"1.1", 1))
    with pytest.raises(DataError, match="is not the known"):
        fetch.fetch("gb1", tmp_path / "other", urls)
    assert not any((tmp_path / "other").rglob("*.csv"))


def test_unreachable_source_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="PLMRAY_DATA"):
        fetch.fetch("gb1", tmp_path, {str(SOURCES["gb1"].files[0].url): "http://127.0.0.1:9/none.zip"})


def test_batches_pad_and_mask_what_is_no_residue(tmp_path: Path) -> None:
    data = tiny_data(tiny_sweep(tmp_path))
    batch = collate(data, data.splits["train"], np.array([0, 5]))
    assert batch.tokens.shape == (2, 14)
    assert batch.residues.sum(1).tolist() == [12, 12]
    assert not batch.residues[:, 0].any()
    assert not batch.residues[:, -1].any()


def test_sorted_batches_hold_every_row_once_within_the_budget(tmp_path: Path) -> None:
    split = tiny_data(tiny_sweep(tmp_path)).splits["train"]
    batches = list(sorted_batches(split, 100))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(split)))
    assert all(len(rows) * split.lengths[rows].max() <= 100 for rows in batches)


def test_a_varied_split_is_the_one_its_seed_would_have_drawn(tmp_path: Path) -> None:
    """Encoded data split again by seed 7 equals the same task read with ``split_seed: 7``, embeddings included."""
    task = {"files": write_proteins(tmp_path / "proteins.csv"), "validation_fraction": 0.25}

    def data(seed: int) -> EncodedData:
        found = tiny_data(tiny_sweep(tmp_path, task={**task, "split_seed": seed}))
        codes = {n: s.tokens.reshape(len(s), -1).astype(np.float32) for n, s in found.splits.items()}
        return with_embeddings(found, codes)

    again, wanted = resplit(data(0), 0.25, 0, 7), data(7)
    assert len(again.splits["validation"]) == 10
    for name in ("train", "validation", "test"):
        for part in ("tokens", "offsets", "targets", "embeddings"):
            assert np.array_equal(getattr(again.splits[name], part), getattr(wanted.splits[name], part))
