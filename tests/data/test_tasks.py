"""Residue tasks, kinds of labels and the published data sets: what is read is what is written, masks and splits too."""

from __future__ import annotations

import functools
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy import stats

from plmray.config.catalog.tasks import KNOWN_TASKS
from plmray.config.fields.task import TaskSpec
from plmray.data import fetch
from plmray.data.batches import collate
from plmray.data.datasets import load_data
from plmray.data.encoded import resplit
from plmray.data.files.fasta import read_fasta
from plmray.data.known import SOURCES
from plmray.data.proteins import ProteinData
from plmray.errors import DataError
from plmray.metrics import score
from tests.examples import tiny_data, tiny_sweep

ROWS = [
    ("a", "MKVA", "HHEC", "0111", "train", ""),
    ("b", "MKLAG", "HECCC", "11111", "train", "False"),
    ("c", "MKAA", "HHEE", "1101", "train", "True"),
    ("d", "MKW", "EEC", "111", "train", "True"),
    ("e", "MKP", "EEH", "110", "test", ""),
    ("f", "MKWA", "HCEH", "1111", "test", ""),
]
NAMES = ("id", "sequence", "target", "mask", "set", "validation")


def load(folder: Path, **task: Any) -> ProteinData:
    return load_data(TaskSpec.model_validate(task), folder)


def write(folder: Path, form: str) -> dict[str, Any]:
    """The rows in one of the forms that residue labels come in; the task that reads them."""
    task: dict[str, Any] = {"level": "residue", "kind": "classification"}
    if form == "flip":
        texts = {"p": "", "l": "", "m": ""}
        for name, sequence, labels, mask, split, validation in ROWS:
            texts["p"] += f">{name}\n{sequence}\n"
            texts["l"] += f">{name} SET={split} VALIDATION={validation or 'False'}\n{labels}\n"
            texts["m"] += f">{name}\n{mask}\n"
        for name, text in texts.items():
            (folder / f"{name}.fasta").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        return task | {"files": "p.fasta", "labels": "l.fasta", "masks": "m.fasta"}
    table = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
    if form == "parquet":
        lists = [list(labels) for labels in table["target"]]
        parquet.write_table(pa.table(table | {"target": lists}), folder / "p.parquet")
        return task | {"files": "p.parquet"}
    separator = "," if form == "csv" else "\t"
    lines = [separator.join(NAMES), *(separator.join(row) for row in ROWS)]
    (folder / f"p.{form}").write_text("\n".join(lines) + "\n")
    return task | {"files": f"p.{form}"}


@pytest.mark.parametrize("form", ["flip", "csv", "tsv", "parquet"])
def test_every_form_of_residue_labels_gives_the_same_data(form: str, tmp_path: Path) -> None:
    data, expected = load(tmp_path, **write(tmp_path, form)), load(tmp_path, **write(tmp_path, "csv"))
    assert data.hash == expected.hash and data.classes == ("C", "E", "H")
    train = data.splits["train"]
    assert train.targets.tolist() == [0, 2, 1, 0, 2, 1, 0, 0, 0]  # the first does not count, and is 0
    assert train.counted is not None and train.counted.tolist() == [False] + [True] * 8


def test_values_come_between_spaces_and_nan_does_not_count(tmp_path: Path) -> None:
    rows = ["MKV,1.5 nan -2,train,", "MKL,1;2;3,train,", "MKA,0 1 1,train,True", "MKG,0 2 1,train,True"]
    (tmp_path / "p.csv").write_text("\n".join(["sequence,target,set,validation", *rows]))
    train = load(tmp_path, files="p.csv", level="residue").splits["train"]
    assert train.targets.tolist() == [1.5, 0.0, -2.0, 1.0, 2.0, 3.0]
    assert train.counted is not None and train.counted.tolist() == [True, False, True, True, True, True]


def test_cuts_take_labels_and_masks_along(tmp_path: Path) -> None:
    task = write(tmp_path, "csv")
    cut = load(tmp_path, **task, max_length=3, over_length="cut", shared_sequences="allow")
    assert cut.splits["train"].sequences == ["MKV", "MKL"]
    assert cut.splits["train"].targets.tolist() == [0, 2, 1, 2, 1, 0]
    window = load(tmp_path, **task, window=[2, 3], shared_sequences="allow")
    assert window.splits["train"].sequences == ["KV", "KL"]
    assert window.splits["train"].targets.tolist() == [2, 1, 1, 0] and window.window == (1, 3)


def test_binary_and_label_sets(tmp_path: Path) -> None:
    rows = ["MKV,no,train,", "MKL,yes,train,", "MKA,no,train,True", "MKG,yes,train,True"]
    (tmp_path / "b.csv").write_text("\n".join(["sequence,target,set,validation", *rows]))
    data = load(tmp_path, files="b.csv", kind="binary")
    assert data.classes == ("no", "yes") and data.num_outputs == 1
    turned = load(tmp_path, files="b.csv", kind="binary", positive="no")
    assert turned.splits["train"].targets.tolist() == [1, 0] and "'no' is the positive class" in turned.notes[0]
    rows = ["MKV,x;y,train,", "MKL,-,train,", "MKA,y,train,True", "MKG,x,train,True"]
    (tmp_path / "m.csv").write_text("\n".join(["sequence,target,set,validation", *rows]))
    sets = load(tmp_path, files="m.csv", kind="multilabel")
    assert sets.classes == ("x", "y") and sets.splits["train"].targets.tolist() == [[1, 1], [0, 0]]


def test_a_part_of_the_training_proteins(data_root: Path) -> None:
    whole, part, other = (
        load_data(TaskSpec(dataset="gb1", train_fraction=f, split_seed=s), Path(), data_root)
        for f, s in ((1.0, 0), (0.1, 0), (0.1, 1))
    )
    assert part.counts() == {"train": 269, "validation": 299, "test": 5743}
    assert set(part.splits["train"].sequences) < set(whole.splits["train"].sequences)
    assert part.hash != other.hash and part.splits["test"].sequences == whole.splits["test"].sequences


@pytest.mark.parametrize("name", ["gb1", "disorder", "secondary_structure", "subcellular_location_internal"])
def test_published_data_sets_have_the_published_numbers(name: str, data_root: Path) -> None:
    data = load_data(TaskSpec(dataset=name, over_length="cut"), Path(), data_root, may_fetch=False)
    assert data.counts() == KNOWN_TASKS[name].counts
    assert (data.kind, data.level) == (KNOWN_TASKS[name].kind, KNOWN_TASKS[name].level)
    fetch.check_content(name, SOURCES[name].read(data_root), data_root)
    assert any("internal split" in note for note in data.notes) == name.endswith("internal")


def test_masks_of_secondary_structure_equal_an_independent_reading(data_root: Path) -> None:
    """Scores of made-up predictions, ours and by hand from the files: Q3 over resolved residues of test proteins."""
    data = load_data(TaskSpec(dataset="secondary_structure", over_length="cut"), Path(), data_root)
    folder = data_root / "secondary_structure"
    labels = {e.id: e for e in read_fasta(folder / "sampled.fasta")}
    masks = {e.id: e.sequence for e in read_fasta(folder / "mask.fasta")}
    rng, right, asked, outputs = np.random.default_rng(0), 0, 0, []
    for entry in read_fasta(folder / "sequences.fasta"):
        if "SET=test" not in labels[entry.id].description:
            continue
        for state, mask in zip(labels[entry.id].sequence[:1022], masks[entry.id][:1022], strict=True):
            row = rng.normal(size=3)
            outputs.append(row)
            asked += mask == "1"
            right += mask == "1" and "CEH"[int(row.argmax())] == state
    test = data.splits["test"]
    found = score("accuracy", "classification", test.targets[test.counted], np.array(outputs)[test.counted])
    assert found == right / asked and asked == test.counted.sum()  # type: ignore[union-attr]


def test_disorder_scores_equal_an_independent_reading(data_root: Path) -> None:
    """Spearman over all measured residues, pooled; 999 is no measurement."""
    data = load_data(TaskSpec(dataset="disorder"), Path(), data_root)
    values: list[float] = []
    for entry in read_fasta(data_root / "disorder" / "CheZOD117_test_set_sequences.fasta"):
        file = data_root / "disorder" / "CheZOD117_test_set_CheZOD_scores" / f"zscores{entry.id}.txt"
        values += [float(line.split()[2]) for line in file.read_text().splitlines() if line.strip()]
    guesses = np.random.default_rng(0).normal(size=(len(values), 1)) + np.array(values)[:, None]
    test = data.splits["test"]
    known = np.array(values) < 900
    expected = stats.spearmanr(np.array(values)[known], guesses[known, 0]).statistic
    assert score("spearman", "regression", test.targets[test.counted], guesses[test.counted]) == pytest.approx(expected)
    lines = (data_root / "disorder" / "CheZOD1174_training_set_CheZOD_scores.txt").read_text().splitlines()
    missing = sum(float(v) > 900 for line in lines for v in line.partition(":")[2].split(",") if v.strip())
    uncounted = sum(int((~part.counted).sum()) for n, part in data.splits.items() if n != "test")  # type: ignore[operator]
    assert uncounted == missing > 6000


def test_locations_come_from_the_headers(data_root: Path) -> None:
    data = load_data(TaskSpec(dataset="subcellular_location_internal", over_length="cut"), Path(), data_root)
    assert len(data.classes) == 10 and "Golgi.apparatus" in data.classes
    headers = [e.description.split()[0] for e in read_fasta(data_root / "subcellular_location" / "setHARD.fasta")]
    expected = [header.rpartition("-")[0] for header in headers]
    assert [data.classes[number] for number in data.splits["test"].targets] == expected


def test_batches_of_residues_hold_what_belongs_to_each(tmp_path: Path) -> None:
    data = tiny_data(tiny_sweep(tmp_path, task=write(tmp_path, "csv"), objective={}))
    split, rows = data.splits["train"], np.array([1, 0])
    batch = collate(data, split, rows)
    assert batch.residues.sum(1).tolist() == [5, 4]
    assert batch.targets.tolist() == [2, 1, 0, 0, 0, 0, 2, 1, 0]  # the second protein first, as in the rows
    assert batch.counted is not None and batch.counted.tolist() == [True] * 5 + [False] + [True] * 3
    assert split.num_counted(rows) == 8 and split.num_units == 9


def test_a_varied_split_of_residues_is_the_one_its_seed_would_have_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("ACDEFG"), size=int(rng.integers(5, 9)))) for _ in range(24)]
    lines = [f"{s},{' '.join(str(len(s) - i) for i in range(len(s)))},train" for s in rows]
    (tmp_path / "p.csv").write_text("\n".join(["sequence,target,set", *lines]))
    task = {"files": "p.csv", "level": "residue", "validation_fraction": 0.25, "shared_sequences": "allow"}
    before, wanted = (tiny_data(tiny_sweep(tmp_path, task={**task, "split_seed": seed})) for seed in (0, 7))
    again = resplit(before, 0.25, 0, 7)
    for name in ("train", "validation"):
        for part in ("tokens", "offsets", "targets", "counted"):
            assert np.array_equal(getattr(again.splits[name], part), getattr(wanted.splits[name], part)), (name, part)  # type: ignore[index]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_tape_archives_are_read_counted_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GFP and Stability come as JSON in a tar archive; the hash of the first copy judges the next one."""
    sizes = dict(zip(("train", "valid", "test"), KNOWN_TASKS["stability"].proteins, strict=True))

    def archive(value: float, short: str = "") -> None:
        with tarfile.open(tmp_path / "stability.tar.gz", "w:gz") as tar:
            for split, count in sizes.items():
                records = [{"primary": "MKV", "stability_score": [value]}] * (count - (split == short))
                content = json.dumps(records).encode()
                member = tarfile.TarInfo(f"stability/stability_{split}.json")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    handler = functools.partial(_Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/stability.tar.gz"
    urls = {str(file.url): address for file in SOURCES["stability"].files}
    archive(1.0, short="valid")
    with pytest.raises(DataError, match="published splits have"):
        fetch.fetch("stability", tmp_path / "root", urls)
    archive(1.0)
    fetch.fetch("stability", tmp_path / "root", urls)
    assert SOURCES["stability"].is_under(tmp_path / "root")
    archive(2.0)
    with pytest.raises(DataError, match="is not the known"):
        fetch.fetch("stability", tmp_path / "root", urls)
    server.shutdown()


def test_what_nobody_offers_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="put disorder/CheZOD1174_training_set_sequences"):
        fetch.fetch("disorder", tmp_path)


def test_headers_end_their_id_at_any_space(tmp_path: Path) -> None:
    (tmp_path / "p.fasta").write_text(">a\tone two\nMK\nV\n>b three\nML\n>\nMA\n")
    found = [(e.id, e.description, e.sequence, e.line) for e in read_fasta(tmp_path / "p.fasta")]
    assert found == [("a", "one two", "MKV", 1), ("b", "three", "ML", 4), ("", "", "MA", 6)]


def test_a_stored_sequence_is_never_changed(tmp_path: Path) -> None:
    rows = ["MKOBUZJ,1,train,", "MKL,2,train,", "MKA,1,train,True", "MKG,3,train,True"]
    (tmp_path / "p.csv").write_text("\n".join(["sequence,target,set,validation", *rows]))
    data = load(tmp_path, files="p.csv")
    assert data.splits["train"].sequences[0] == "MKOBUZJ"


def test_a_mask_counts_beside_what_has_no_value(tmp_path: Path) -> None:
    """CheZOD's 999 stays out although the mask file has a 1 there."""
    names = ("a", "b", "c", "d")
    head = {"c": " VALIDATION=True", "d": " VALIDATION=True"}
    sequences = "".join(f">{n} SET=train{head.get(n, '')}\nMK{x}\n" for n, x in zip(names, "VLAG", strict=True))
    (tmp_path / "p.fasta").write_text(sequences)
    (tmp_path / "l.txt").write_text("".join(f"{n}:\t1.0, 999, 2.{k},\n" for k, n in enumerate(names)))
    (tmp_path / "m.fasta").write_text(
        "".join(f">{n}\n{m}\n" for n, m in zip(names, ["111", "011", "111", "111"], strict=True))
    )
    train = load(tmp_path, files="p.fasta", labels="l.txt", masks="m.fasta", level="residue").splits["train"]
    assert train.counted is not None and train.counted.tolist() == [True, False, True, False, False, True]
    assert train.targets.tolist() == [1.0, 0.0, 2.0, 0.0, 0.0, 2.1]


@pytest.mark.parametrize(
    "kind", ["regression", "binary", "classification", "multilabel", "residue classes", "residue values"]
)
def test_a_written_split_is_read_as_the_same_data(kind: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from plmray.cli import cli
    from tests.examples import write_sweep, write_toy

    level = "residue" if kind.startswith("residue") else "protein"
    kind = {"residue classes": "classification", "residue values": "regression"}.get(kind, kind)
    write_toy(tmp_path / "toy.csv", level, kind)
    task = {"files": "toy.csv", "level": level, "kind": kind, "shared_sequences": "allow"}
    file = write_sweep(tmp_path, task=task, objective={})
    done = CliRunner().invoke(cli, ["data", "split", str(file), "--out", "again.csv"])
    assert done.exit_code == 0, done.output
    assert load(tmp_path, **task | {"files": "again.csv"}).hash == load(tmp_path, **task).hash
