"""Splits that are drawn: as large as asked, the same in any order, and nothing kin on two sides."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plmray.config.fields.task import TaskSpec
from plmray.data.datasets import load_data
from plmray.data.profile import leakage_lines
from plmray.data.proteins import ProteinData
from plmray.errors import DataError

LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))


def write(file: Path, rows: list[tuple[str, str, Any, str]], seed: int | None = None) -> Path:
    order = range(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
    lines = ["id,sequence,target,family", *(",".join(map(str, rows[n])) for n in order)]
    file.write_text("\n".join(lines) + "\n")
    return file


def proteins(count: int, length: int = 30, families: int = 10) -> list[tuple[str, str, Any, str]]:
    rng = np.random.default_rng(0)
    return [
        (f"p{n}", "".join(rng.choice(LETTERS, size=length)), round(float(rng.normal()), 4), f"f{n % families}")
        for n in range(count)
    ]


def read(file: Path, split: dict[str, Any], **task: Any) -> ProteinData:
    return load_data(TaskSpec.model_validate({"files": str(file), "split": split, **task}), file.parent)


def parts(data: ProteinData) -> dict[str, str]:
    return {name: part for part, own in data.splits.items() for name in own.ids}


@pytest.mark.parametrize("by", ["random", "stratified", "group", "mutations"])
def test_a_split_is_the_same_in_any_order_and_as_large_as_asked(tmp_path: Path, by: str) -> None:
    rows = proteins(200)
    if by == "mutations":
        rng, parent = np.random.default_rng(1), rows[0][1]
        rows = [(n, mutated(rng, parent, 1 + i % 4), t, f) for i, (n, _, t, f) in enumerate(rows)]
        rows = list({row[1]: row for row in rows}.values())
    split = {"by": by, "test": 0.2, "validation": 0.1} | ({"max_mutations": 2} if by == "mutations" else {})
    columns = {"columns": {"group": "family"}} if by == "group" else {}
    first = read(write(tmp_path / "a.csv", rows), split, **columns)
    again = read(write(tmp_path / "b.csv", rows, seed=5), split, **columns)
    assert parts(first) == parts(again)
    other = read(write(tmp_path / "a.csv", rows), split | {"seed": 1}, **columns)
    assert parts(first) != parts(other)
    sizes = first.counts()
    if by != "mutations":
        assert abs(sizes["test"] - 40) <= 20 * (by == "group") + 5 and abs(sizes["validation"] - 20) <= 20
    assert any(note.startswith("split by " + by) for note in first.notes)


def mutated(rng: np.random.Generator, parent: str, count: int) -> str:
    letters = list(parent)
    for place in rng.choice(len(parent), size=count, replace=False):
        letters[place] = str(rng.choice(LETTERS[letters[place] != LETTERS]))
    return "".join(letters)


def test_groups_stay_together_and_are_the_reports_families(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", proteins(200)), {"by": "group"}, columns={"group": "family"})
    found = parts(data)
    by_family: dict[int, set[str]] = {}
    for name, part in found.items():
        by_family.setdefault(int(name[1:]) % 10, set()).add(part)
    assert all(len(own) == 1 for own in by_family.values())
    assert set(data.families) == set(data.splits["test"].ids)
    assert len(set(data.families.values())) == sum(own == {"test"} for own in by_family.values())


def test_strata_have_their_share_of_every_part(tmp_path: Path) -> None:
    rows = [(n, s, "rare" if i % 10 == 0 else "common", f) for i, (n, s, _, f) in enumerate(proteins(200))]
    data = read(write(tmp_path / "a.csv", rows), {"by": "stratified"}, kind="classification")
    for part in data.splits.values():
        counts = Counter(data.classes[int(t)] for t in part.targets)
        assert counts["rare"] / len(part) == pytest.approx(0.1, abs=0.04)


def test_a_class_of_one_protein_trains(tmp_path: Path) -> None:
    rows = [(n, s, f"c{i}" if i < 9 else "common", f) for i, (n, s, _, f) in enumerate(proteins(60))]
    data = read(write(tmp_path / "a.csv", rows), {"by": "random"}, kind="classification")
    assert {data.classes[int(t)] for t in data.splits["train"].targets} == set(data.classes)
    assert any("too rare for three parts" in note for note in data.notes)


def test_few_mutations_train_and_more_test(tmp_path: Path) -> None:
    rng, parent = np.random.default_rng(2), "".join(np.random.default_rng(3).choice(LETTERS, size=40))
    rows = [(f"p{n}", mutated(rng, parent, 1 + n % 4), n, "") for n in range(120)]
    rows = list({row[1]: row for row in rows}.values())
    data = read(write(tmp_path / "a.csv", rows), {"by": "mutations", "max_mutations": 2})
    distance = lambda s: sum(a != b for a, b in zip(s, parent, strict=True))  # noqa: E731
    for name, part in data.splits.items():
        assert all((distance(s) > 2) == (name == "test") for s in part.sequences)


def homologues() -> list[tuple[str, str, Any, str]]:
    """Twelve families of six whose members share about 60 % of their residues."""
    rng, rows = np.random.default_rng(4), []
    for family in range(12):
        parent = "".join(rng.choice(LETTERS, size=120))
        rows += [(f"p{family}x{n}", mutated(rng, parent, 40), n + family / 10, "") for n in range(6)]
    return rows


def test_kin_are_on_one_side(tmp_path: Path) -> None:
    """Against an alignment of all pairs by other hands (Biopython would do; identity of equal lengths here)."""
    rows = homologues()
    data = read(write(tmp_path / "a.csv", rows), {"by": "identity", "threshold": 0.3})
    found = parts(data)
    for one, a, _, _ in rows:
        for other, b, _, _ in rows:
            identity = np.mean([x == y for x, y in zip(a, b, strict=True)])
            assert identity < 0.3 or found[one] == found[other], (one, other, identity)
    assert len({name.split("x")[0] for name in data.splits["test"].ids}) == len(set(data.families.values()))
    assert parts(read(write(tmp_path / "b.csv", rows, seed=1), {"by": "identity"})) == found


def test_leakage_is_counted(tmp_path: Path) -> None:
    """Drawn at random, most of the test has kin in training; drawn by identity, none."""
    write(tmp_path / "a.csv", homologues())
    kin = {}
    for by in ("random", "identity"):
        lines = list(leakage_lines(read(tmp_path / "a.csv", {"by": by}), 0.3))
        found = re.fullmatch(
            r"test: 0 of (\d+) proteins are in training as they are, (\d+) have kin there .*", lines[1]
        )
        assert found is not None
        kin[by] = int(found[2]) / int(found[1])
    assert kin["random"] > 0.8 and kin["identity"] == 0


def test_a_split_is_the_same_in_another_locale_and_with_other_threads(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", homologues())
    code = (
        "from pathlib import Path; from plmray.config.fields.task import TaskSpec;"
        "from plmray.data.datasets import load_data;"
        "task = TaskSpec.model_validate({'files': 'a.csv', 'split': {'by': 'identity'}});"
        "print(load_data(task, Path('.')).hash)"
    )
    found = set()
    for extra in ({"LC_ALL": "C", "OMP_NUM_THREADS": "1"}, {"LC_ALL": "tr_TR.UTF-8", "OMP_NUM_THREADS": "2"}):
        environment = os.environ | extra | {"PYTHONHASHSEED": extra["OMP_NUM_THREADS"]}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        found.add(done.stdout.strip() or done.stderr)
    assert len(found) == 1 and len(found.pop()) == 64


@pytest.mark.parametrize(
    ("split", "text", "message"),
    [
        ({}, "id,sequence,target,set\np0,MKTAYIAK,1,train\np1,MKTAYIAR,2,test\n", "row 2 marks its split"),
        ({"by": "group"}, "id,sequence,target,family\np0,MKTAYIAK,1,\n", "the group is empty"),
        ({"by": "group"}, "id,sequence,target,family\np0,MKTAYIAK,1,a\np1,MKTAYIAR,2,a\n", "too few or too large"),
        ({"by": "mutations", "max_mutations": 1}, "id,sequence,target\np0,MKTA,1\np1,MKTAY,2\n", "one length"),
    ],
)
def test_what_cannot_be_split_is_told(tmp_path: Path, split: dict[str, Any], text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    columns = {"columns": {"group": "family"}} if split.get("by") == "group" else {}
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv", split, **columns)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"split": {"by": "mutations"}}, "give both or neither"),
        ({"split": {"by": "group"}}, "columns: {group: NAME}"),
        ({"split": {"test": 0.6, "validation": 0.5}}, "none would train"),
        ({"split": {}, "validation_fraction": 0.1}, "drop validation_fraction"),
        ({"split": {}, "files": {"train": "a.csv"}}, "say themselves which ones test"),
    ],
)
def test_splits_that_contradict_are_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSpec.model_validate({"files": "a.csv", **task})
