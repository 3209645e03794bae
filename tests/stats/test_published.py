"""The published runs, through the command line: Figure 1's tiles, the seed's spread, and which scores test chose."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from plmray.cli import cli

RUNS, CURVES = "individual_runs.csv", "learning_curves.parquet"
FIGURE_1 = ["--factor", "training", "--baseline", "frozen", "--by", "task", "--by", "model"]


@pytest.fixture
def stats(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(data_root / "published_runs")
    return run_stats


def run_stats(*arguments: str) -> Any:
    result = CliRunner().invoke(cli, ["stats", *arguments, "-f", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_64_tiles_of_figure_1(stats: Callable[..., Any]) -> None:
    started = time.perf_counter()
    tiles = stats("delta", RUNS, *FIGURE_1, "--mode", "paper")
    assert time.perf_counter() - started < 2
    assert Counter(tile["verdict"] for tile in tiles) == {"positive": 48, "undecided": 11, "negative": 5}
    stability = {tile["model"]: tile for tile in tiles if tile["task"] == "Stability"}
    published = {"ProtT5": (4.6, 3.3), "ESM2 8M": (1.5, 3.98), "ESM2 150M": (-5.1, 3.11), "Ankh large": (11.3, 6.64)}
    for model, (value, half_width) in published.items():
        assert stability[model]["delta"] == value
        assert stability[model]["half_width"] == pytest.approx(half_width, abs=0.011)


@pytest.mark.parametrize(
    ("task", "frozen", "finetuned"),
    [("Stability", 2.63, 2.28), ("AAV", 2.48, 1.77), ("GB1", 0.655, 0.645), ("Secondary Structure", 0.048, 0.081)],
)
def test_seed_sd_in_percentage_points(data_root: Path, task: str, frozen: float, finetuned: float) -> None:
    from plmray.report.tables.table import read_runs
    from plmray.stats.spread import pooled_seed_sd

    runs = read_runs(data_root / "published_runs" / RUNS)
    cells = {key: own.numbers("score") * 100 for key, own in runs.groups(["task", "training", "model"])}
    for training, published in (("frozen", frozen), ("finetuned", finetuned)):
        scores = [values for key, values in cells.items() if key[:2] == (task, training)]
        assert pooled_seed_sd(scores).sd.value == pytest.approx(published, rel=0.012)


def test_shares_of_the_eight_tasks(stats: Callable[..., Any]) -> None:
    rows = stats("shares", RUNS, "--factor", "model", "--factor", "training", "--by", "task")
    assert len(rows) == 8
    for row in rows:
        assert set(row["shares"]) == {"model", "training", "model:training", "seed"}
        assert sum(row["shares"].values()) == pytest.approx(1.0)
        low, high = row["seed_interval"]
        assert low < row["shares"]["seed"] < high
    by_task = {row["task"]: row["shares"] for row in rows}
    assert by_task["Stability"]["seed"] > 0.15 > 0.01 > by_task["Secondary Structure"]["seed"]


def test_audit_finds_the_model_whose_scores_test_chose(stats: Callable[..., Any]) -> None:
    """ESM2 3B's scores are the best test score over epochs in every task, and so are those of two arms whose logs have
    no validation loss; everyone else's are validation's choice."""
    key = "training=mode:frozen=frozen,finetuned=full|lora"
    tree = stats("audit", RUNS, "--curves", CURVES, "--curve-key", key)
    findings = tree["summary"]["findings"]
    assert findings["no-curve"] == findings["unexplained"] == 0
    assert {run["model"] for run in tree["runs"] if run["finding"] == "test-selected"} >= {"ESM2 3B"}
    verdicts = {(g["task"], g["model"], g["training"]): g for g in tree["summary"]["groups"]}
    chosen_by_test = {group for group, found in verdicts.items() if found["verdict"] == "test-selected"}
    ankh = {("Subcellular Location", model, "finetuned") for model in ("Ankh base", "Ankh large")}
    assert chosen_by_test == {group for group in verdicts if group[1] == "ESM2 3B"} | ankh
    assert {run["note"] for run in tree["runs"] if run["at_lowest_valid"] is None} == {"its log has no validation loss"}
    assert verdicts["AAV", "ESM2 150M", "finetuned"]["unreported_seeds"] == ["98"]  # collapsed, replaced by 96


def test_seeds_needed_keeps_the_delta_rows(stats: Callable[..., Any]) -> None:
    rows = stats("seeds-needed", RUNS, *FIGURE_1, "--power", "0.8", "--alpha", "0.05", "--effect", "2")
    assert len(rows) == 64
    for row in rows:
        assert {"delta", "half_width", "verdict", "n_observed", "n_effect"} <= set(row)
        assert row["n_effect_cautious"] is None or row["n_effect_cautious"] >= row["n_effect"] >= 2


def test_ranks_within_tasks(stats: Callable[..., Any]) -> None:
    rows = stats("rank", RUNS, "--candidate", "model", "--candidate", "training", "--by", "task")
    for task in {row["task"] for row in rows}:
        own = [row for row in rows if row["task"] == task]
        assert len(own) == 16
        assert sum(row["p_best"] for row in own) == pytest.approx(1.0)
        assert np.all(np.diff([row["mean"] for row in own]) <= 0)
