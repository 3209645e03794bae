"""Labels as people bring them (shared cases): each is read as what it says, or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from plmray.cli import cli
from plmray.config.fields.task import TaskSpec
from plmray.data.datasets import load_data
from plmray.data.labels import items_of
from plmray.data.proteins import ProteinData
from plmray.errors import DataError
from tests.examples import sweep_tree, write_sweep


def read(cases: Path, name: str, **task: Any) -> ProteinData:
    spec = {"files": str(cases / "data" / name), "shared_sequences": "allow", **task}
    return load_data(TaskSpec.model_validate(spec), cases)


def notes_of(data: ProteinData) -> str:
    return "\n".join(data.notes)


@pytest.mark.parametrize(
    ("name", "classes"), [("list_string_labels.csv", ("C", "E", "H")), ("list_string_numbers.csv", ("0", "1"))]
)
def test_lists_as_pandas_writes_them_are_lists(cases: Path, name: str, classes: tuple[str, ...]) -> None:
    data = read(cases, name, level="residue", kind="classification")
    assert data.classes == classes
    assert data.splits["train"].counted is not None and data.splits["train"].counted.all()


def test_hugging_faces_ignored_label_does_not_count(cases: Path) -> None:
    data = read(cases, "minus_100_is_ignored.csv", level="residue", kind="classification")
    assert data.classes == ("0", "1", "2") and "labelled -100" in notes_of(data)
    counted = data.splits["train"].counted
    assert counted is not None and counted[:8].tolist() == [True] * 4 + [False] * 2 + [True] * 2
    values = read(cases, "minus_100_is_ignored.csv", level="residue", kind="regression")
    assert values.splits["train"].targets.min() == 0 and "labelled -100" in notes_of(values)


def test_999_is_a_gap_in_a_table_as_in_chezods_own_files(cases: Path) -> None:
    data = read(cases, "chezod_999.csv", level="residue")
    part = data.splits["train"]
    assert part.counted is not None and "labelled 999" in notes_of(data)
    assert part.targets[part.counted].max() == 12.2 and int((~part.counted).sum()) == 4


def test_999_may_be_a_class(tmp_path: Path) -> None:
    rows = [(f"MK{a}{b}", 999 if b in "AC" else 1, a == "W") for a in "LVW" for b in "ACDE"]
    lines = ["sequence,target,set,validation", *(f"{sequence},{t},train,{v}" for sequence, t, v in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert load_data(TaskSpec.model_validate({"files": "t.csv", "kind": "classification"}), tmp_path).classes == (
        "1",
        "999",
    )


def test_label_sets_are_sets_whatever_separates_them(cases: Path) -> None:
    data = read(cases, "label_sets.csv", kind="multilabel")
    assert data.classes == ("Cytoplasm", "Membrane", "Nucleus")
    assert data.splits["train"].targets.tolist() == [[1, 0, 1]] * 3 + [[0, 1, 0]]
    assert "split at '|' and ','" in notes_of(data)


def test_one_set_of_labels_in_two_orders_is_not_two_classes(cases: Path) -> None:
    with pytest.raises(DataError, match="one set of labels written in two ways"):
        read(cases, "label_sets.csv", kind="classification")


def test_the_value_of_a_header_runs_to_the_next_key(cases: Path) -> None:
    assert read(cases, "target_with_spaces.fasta", kind="classification").classes == ("Cell membrane", "Cell wall")


def test_masks_in_headers_are_honoured(cases: Path) -> None:
    data = read(cases, "mask_in_header.fasta", level="residue")
    part = data.splits["train"]
    assert part.counted is not None and part.counted.tolist() == [c == "1" for c in "111110110111"]
    assert part.targets[part.counted].max() < 9.9  # what the mask hides is not trained on


def test_keys_that_are_not_read_are_named(tmp_path: Path) -> None:
    lines = [f">p{n} OS=Homo sapiens SET=train target=1.{n} VALIDATION={n > 2} GN=x\nMK{'ACDEF'[n]}" for n in range(5)]
    (tmp_path / "p.fasta").write_text("\n".join(lines) + "\n")
    data = load_data(TaskSpec.model_validate({"files": "p.fasta"}), tmp_path)
    assert "GN= (5), OS= (5)" in notes_of(data)
    assert data.splits["train"].targets.tolist() == [1.0, 1.1, 1.2]


def test_pairs_of_proteins_are_refused(cases: Path) -> None:
    with pytest.raises(DataError, match=r"'a1' is one of a pair of proteins \(INTERACTOR=\)"):
        read(cases, "pairs_in_header.fasta", kind="binary")


def test_an_objective_that_one_class_leaves_undefined_is_refused(cases: Path, tmp_path: Path) -> None:
    task = {"files": str(cases / "data" / "one_class_in_validation.csv"), "kind": "binary"}
    file = write_sweep(tmp_path, task=task, objective={"metric": "auroc"}, replicate=None)
    for command in ("validate", "plan"):
        done = CliRunner().invoke(cli, [command, str(file)])
        assert done.exit_code == 2 and "auroc is undefined on the validation proteins" in done.output


def test_validate_and_plan_say_what_the_data_are(cases: Path, tmp_path: Path) -> None:
    classes = {"files": str(cases / "data" / "label_sets.csv"), "kind": "multilabel"}
    gaps = {"files": str(cases / "data" / "chezod_999.csv"), "level": "residue"}
    for command in ("validate", "plan"):
        for task, words in (
            (classes, ["3 classes: Cytoplasm 3, Membrane 1, Nucleus 3", "test: none; no test score will be taken"]),
            (gaps, ["12 of 16 residues count", "targets 1.5 to 12.2"]),
        ):
            tree = sweep_tree(task=task, replicate=None)
            done = CliRunner().invoke(cli, [command, str(write_sweep(tmp_path, **tree))])
            assert done.exit_code == 0, done.output
            assert all(word in done.output for word in words), done.output


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['a', 'b']", ["a", "b"]),
        ("['a' 'b']", ["a", "b"]),
        ("['Cell wall, outer', \"x\"]", ["Cell wall, outer", "x"]),
        ("[]", []),
        ("[a, b]", ["a", "b"]),
    ],
)
def test_items_of_lists_as_python_and_numpy_write_them(text: str, items: list[str]) -> None:
    assert items_of(text) == items


def test_label_sets_as_places_are_refused(tmp_path: Path) -> None:
    rows = [f'MKV{a},"[{n % 2}, {(n + 1) % 2}, 1]",train,{n > 2}' for n, a in enumerate("ACDEF")]
    (tmp_path / "t.csv").write_text("\n".join(["sequence,target,set,validation", *rows]) + "\n")
    with pytest.raises(DataError, match="label sets hold 0 and 1 alone"):
        load_data(TaskSpec.model_validate({"files": "t.csv", "kind": "multilabel"}), tmp_path)


def test_lists_of_parquet_are_label_sets(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "sequence": [f"MKV{a}" for a in "ACDEFG"],
        "target": [["A", "B c"], ["B c"], ["A"], [], ["A", "B c"], ["A"]],
        "set": ["train"] * 6,
        "validation": ["False"] * 4 + ["True"] * 2,
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = load_data(TaskSpec.model_validate({"files": "t.parquet", "kind": "multilabel"}), tmp_path)
    assert data.classes == ("A", "B c") and data.splits["train"].targets.tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]


def test_a_list_of_classes_is_no_class(tmp_path: Path) -> None:
    rows = [f"MKV{a},\"['A', 'B']\",train,{n > 2}" for n, a in enumerate("ACDEF")]
    (tmp_path / "t.csv").write_text("\n".join(["sequence,target,set,validation", *rows, "MKW,A,train,False"]) + "\n")
    with pytest.raises(DataError, match="is a list of classes; for label sets set"):
        load_data(TaskSpec.model_validate({"files": "t.csv", "kind": "classification"}), tmp_path)
