"""Test scores over seeds × proteins, from outputs as trials keep them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from plmray.errors import DataError
from plmray.metrics import score
from plmray.report.headline import headline
from plmray.report.judge import judge
from plmray.report.markdown import markdown
from plmray.report.proteins import over_proteins, read_families
from plmray.storage import layout
from plmray.trials.result import TrialResult
from tests.report.test_verdict import trial


def keep(folder: Path, name: str, columns: dict[str, Any]) -> None:
    file = layout.trial_folder(folder, name) / layout.TEST_OUTPUTS
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), file)


def regression(folder: Path, rng: np.random.Generator, sizes: dict[str, int], n: int = 60) -> list[TrialResult]:
    """Candidates by seeds whose predictions are the targets with noise."""
    targets, results = rng.normal(size=n), []
    shared = rng.normal(size=n)
    for place, (name, seeds) in enumerate(sizes.items()):
        for seed in range(seeds):
            outputs = (targets + shared + (0.3 + 0.2 * place) * rng.normal(size=n)).astype(np.float32)
            keep(folder, f"{name}-s{seed}", {
                "id": [f"p{i}" for i in range(n)], "protein": np.arange(n), "target": list(targets),
                "outputs": [[float(v)] for v in outputs],
            })  # fmt: skip
            test = score("spearman", "regression", targets, outputs[:, None])
            results.append(trial(name, seed, 0.9 - 0.1 * place + 0.01 * seed, test))
    return results


def test_the_interval_is_wider_than_that_over_seeds_and_the_difference_is_paired(tmp_path: Path) -> None:
    results = regression(tmp_path, np.random.default_rng(0), {"a": 4, "b": 3})
    verdict = judge(results, "spearman")
    found = over_proteins(tmp_path, verdict, results)
    assert found is not None and list(found.scores) == ["a", "b"] and found.delta is not None and found.units == 60
    assert verdict.best is not None
    assert found.best.value == pytest.approx(verdict.best.test_mean.value)
    assert found.best.low < verdict.best.test_mean.low and found.best.high > verdict.best.test_mean.high
    # The same proteins for both: what is hard for one is hard for the other.
    assert found.delta.high - found.delta.low < (found.best.high - found.best.low) * 0.9
    told = replace(verdict, over_proteins=found)
    assert "over seeds and proteins, on this one split)" in headline(told) and "on these very proteins" in headline(
        verdict
    )
    assert "best - second, both on the same proteins" in markdown(told, "s")
    assert over_proteins(tmp_path, verdict, results) == found


def test_families_come_and_go_together(tmp_path: Path) -> None:
    results = regression(tmp_path, np.random.default_rng(1), {"a": 3})
    verdict = judge(results, "spearman")
    found = over_proteins(tmp_path, verdict, results, {f"p{i}": str(i // 10) for i in range(60)})
    assert found is not None and found.units == 6 and found.are_families and found.delta is None
    assert "families" in headline(replace(verdict, over_proteins=found))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p0\tp0\np0\tp1\np2\tp2\n", None),
        ("family,length,id\nf1,9,p0\nf1,8,p1\nf2,7,p2\n", None),
        ("family;id\n", "no test protein is in it"),
        ("p0\tp0\t3\n", "line 1 has 3 columns; expected id and family"),
        ("q0\tq1\n", "no test protein is in it; the first are p0, p1, p2, and it has q1"),
    ],
)
def test_families_are_read_from_clusters_or_a_table(tmp_path: Path, text: str, message: str | None) -> None:
    results = regression(tmp_path, np.random.default_rng(1), {"a": 3})
    file = tmp_path / "families.txt"
    file.write_text(text)
    if message is None:
        found = over_proteins(tmp_path, judge(results, "spearman"), results, read_families(file))
        assert found is not None and found.units == 59
    else:
        with pytest.raises(DataError, match=re.escape(message)):
            over_proteins(tmp_path, judge(results, "spearman"), results, read_families(file))


def classes(folder: Path, rng: np.random.Generator, residues: bool) -> list[TrialResult]:
    sizes = rng.integers(3, 9, size=25) if residues else np.ones(25, int)
    proteins = np.repeat(np.arange(25), sizes)
    targets = rng.integers(3, size=len(proteins))
    counted = rng.uniform(size=len(proteins)) < 0.8 if residues else np.ones(len(proteins), bool)
    results = []
    for seed in range(3):
        outputs = rng.normal(size=(len(proteins), 3)) + 2 * np.eye(3)[targets]
        columns = {"id": [f"p{i}" for i in proteins], "protein": proteins, "target": targets, "outputs": list(outputs)}
        keep(folder, f"a-s{seed}", columns | ({"counted": counted} if residues else {}))
        own = score("accuracy", "classification", targets[counted], outputs[counted])
        results.append(trial("a", seed, 0.5 + 0.01 * seed, own))
    return results


def labels(folder: Path, rng: np.random.Generator) -> list[TrialResult]:
    targets, results = rng.integers(2, size=(30, 4)), []
    for seed in range(3):
        outputs = rng.normal(size=(30, 4)) + 2 * targets - 1
        columns = {"id": [f"p{i}" for i in range(30)], "protein": np.arange(30), "target": targets.tolist()}
        keep(folder, f"a-s{seed}", columns | {"outputs": outputs.tolist()})
        results.append(trial("a", seed, 0.5 + 0.01 * seed, score("f1", "multilabel", targets, outputs)))
    return results


@pytest.mark.parametrize(
    ("make", "metric"),
    [
        (lambda f, r: classes(f, r, False), "accuracy"),
        (lambda f, r: classes(f, r, True), "accuracy"),
        (labels, "f1"),
    ],
)
def test_every_kind_of_target_gives_its_recorded_score(
    tmp_path: Path, make: Callable[[Path, np.random.Generator], list[TrialResult]], metric: str
) -> None:
    results = make(tmp_path, np.random.default_rng(2))
    found = over_proteins(tmp_path, judge(results, metric), results)
    assert found is not None
    assert found.best.value == pytest.approx(np.mean([r.test_score for r in results]))
    assert 0 <= found.best.low < found.best.value < found.best.high <= 1


def test_outputs_that_do_not_give_the_score_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = regression(tmp_path, np.random.default_rng(3), {"a": 3})
    wrong = [replace(r, test_score=0.1) for r in results]
    assert over_proteins(tmp_path, judge(wrong, "spearman"), wrong) is None
    assert "do not give its scores" in caplog.text


def test_without_kept_outputs_there_is_none(tmp_path: Path) -> None:
    results = [trial("a", s, 0.5 + s / 100) for s in range(3)]
    assert over_proteins(tmp_path, judge(results, "spearman"), results) is None
    damaged = layout.trial_folder(tmp_path, "a-s0") / layout.TEST_OUTPUTS
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not parquet")
    assert over_proteins(tmp_path, judge(results, "spearman"), results) is None
    assert over_proteins(tmp_path, judge([], "spearman"), []) is None
    assert math.isnan(judge(results[:1], "spearman").candidates[0].mean.low)
