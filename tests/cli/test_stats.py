"""`plmray stats` on tables from elsewhere: what it answers, and what it refuses and how."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from plmray.cli import cli

HEADER = "model,training,seed,score\n"
RUNS = HEADER + "".join(
    f"{model},{training},{seed},{0.5 + 0.1 * (training == 'lora') + 0.01 * seed + 0.03 * (model == 'B')}\n"
    for model in "AB"
    for training in ("frozen", "lora")
    for seed in (1, 2, 3)
)


def call(text: str, *arguments: str, code: int = 0) -> Any:
    Path("runs.csv").write_text(text)
    result = CliRunner().invoke(cli, ["stats", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stderr if code else json.loads(result.stdout)


DELTA = ("delta", "runs.csv", "--factor", "training", "--baseline", "frozen", "--by", "model", "-f", "json")


def test_parquet_and_csv_say_the_same() -> None:
    from_csv = call(RUNS, *DELTA)
    rows = [line.split(",") for line in RUNS.splitlines()[1:]]
    columns = dict(zip(HEADER.strip().split(","), zip(*rows, strict=True), strict=True))
    columns["score"] = [float(value) for value in columns["score"]]
    parquet.write_table(pa.table({name: list(values) for name, values in columns.items()}), "runs.parquet")
    assert call(RUNS, "delta", "runs.parquet", *DELTA[2:]) == from_csv
    assert [row["delta"] for row in from_csv] == pytest.approx([10.0, 10.0])


@pytest.mark.parametrize(
    "text",
    [
        RUNS.replace(",", ";"),
        RUNS.replace(",", "\t"),
        RUNS.replace(",", ";").replace(".", ","),
        re.sub(r"(0\.\d+)$", lambda found: f"{100 * float(found[1]):.6g} %", RUNS, flags=re.M),
    ],
    ids=["semicolons", "tabs", "decimal commas", "percent signs"],
)
def test_tables_as_people_write_them(text: str) -> None:
    for found, expected in zip(call(text, *DELTA), call(RUNS, *DELTA), strict=True):
        assert found["delta"] == pytest.approx(expected["delta"]) and found["verdict"] == expected["verdict"]


def test_commas_that_may_part_thousands_are_refused() -> None:
    message = call("arm;score\na;1,234\na;1,301\nb;2,001\n", "rank", "runs.csv", "--candidate", "arm", code=2)
    assert "row 1 holds '1,234': a decimal comma, or thousands?" in message
    assert call("arm;score\na;1,234\na;1,3\nb;2,001\n", "rank", "runs.csv", "--candidate", "arm", "-f", "json")


def test_some_percent_signs_are_refused() -> None:
    message = call(RUNS + "A,lora,4,61 %\n", *DELTA, code=2)
    assert "row 1 has no % and others have" in message


def test_a_wide_table_is_told_how_to_become_long() -> None:
    wide = "model,training,seed_1,seed_2,seed_3\nA,frozen,.5,.6,.7\nA,lora,.6,.7,.8\n"
    message = call(wide, *DELTA, code=2)
    assert "pandas.melt(table, id_vars=['model', 'training'], var_name='seed', value_name='score')" in message
    melted = pd.melt(pd.read_csv("runs.csv"), id_vars=["model", "training"], var_name="seed", value_name="score")
    melted.to_csv("long.csv", index=False)
    assert call(RUNS, DELTA[0], "long.csv", *DELTA[2:])[0]["delta"] == pytest.approx(10.0)


def test_a_column_that_nobody_named_is_minded() -> None:
    """The published runs without --by task gave the seed 93 %."""
    text = "task,training,seed,score\n" + "".join(
        f"{task},{arm},{seed},{0.3 * n + 0.01 * seed + 0.05 * (arm == 'lora')}\n"
        for n, task in enumerate(("gb1", "aav", "gfp"))
        for arm in ("frozen", "lora")
        for seed in (1, 2, 3)
    )
    Path("runs.csv").write_text(text)

    def told(*options: str) -> str:
        return CliRunner().invoke(cli, ["stats", "shares", "runs.csv", "--factor", "training", *options]).stderr

    assert "mind: 'task' has up to 3 values among runs that count as repetitions" in told()
    assert "mind" not in told("--by", "task") and "mind" not in told("--factor", "task")


def test_errors_are_ranked_smallest_first() -> None:
    Path("runs.csv").write_text(RUNS.replace("score", "test_rmse"))
    arguments = ["stats", "rank", "runs.csv", "--candidate", "training", "--score", "test_rmse", "-f", "json"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert json.loads(result.stdout)[0]["training"] == "frozen" and "smaller is taken to be better" in result.stderr


def test_scores_beyond_one_keep_their_unit() -> None:
    large = RUNS.replace(",0.", ",7.")
    assert call(large, *DELTA)[0]["delta"] == pytest.approx(0.1)


def test_named_seeds_pair_in_every_row_and_what_that_is_worth_is_told() -> None:
    rows = call(RUNS.replace("B,lora,3,0.66", "B,lora,3,0.6601"), *DELTA, "--pair-by", "seed")
    assert [row["paired"] for row in rows] == [True, True]
    rng = np.random.default_rng(0)
    apart = "arm,seed,score\n" + "".join(f"{arm},{seed},{rng.normal()}\n" for arm in "ab" for seed in range(8))
    Path("runs.csv").write_text(apart)
    arguments = ["stats", "delta", "runs.csv", "--factor", "arm", "--baseline", "a", "--pair-by", "seed"]
    assert "that pairing pays is not shown" in CliRunner().invoke(cli, arguments, catch_exceptions=False).stderr


def test_a_seed_that_moves_all_candidates_is_taken_out_of_a_ranking() -> None:
    """Candidates .1 apart under seeds that move all of them by 3."""
    rng = np.random.default_rng(1)
    moved = 3 * rng.normal(size=5)
    text = "arm,seed,score\n" + "".join(
        f"{arm},{seed},{0.1 * n + moved[seed] + 0.02 * rng.normal()}\n"
        for n, arm in enumerate("abc")
        for seed in range(5)
    )
    arguments = ("rank", "runs.csv", "--candidate", "arm", "-f", "json")
    assert call(text, *arguments)[0]["p_best"] < 0.7
    assert call(text, *arguments, "--pair-by", "seed")[0]["p_best"] > 0.99
    Path("runs.csv").write_text(text.rstrip("\n").rpartition("\n")[0])
    result = CliRunner().invoke(cli, ["stats", *arguments, "--pair-by", "seed"])
    assert result.exit_code != 0 and "arm = c has no run with seed = 4" in result.stderr


def test_one_run_borrows_its_spread_and_says_so() -> None:
    text = "arm,seed,score\na,1,0.5\na,2,0.6\nb,1,0.7\n"
    rows = call(text, "rank", "runs.csv", "--candidate", "arm", "-f", "json")
    assert {row["arm"]: row["sd_borrowed"] for row in rows} == {"a": False, "b": True}


def test_a_collapsed_run_of_a_table_is_told() -> None:
    """As in the published AAV runs: one of them moves the seed's share from 71 % to 100 %."""
    rng = np.random.default_rng(2)
    scores = [
        (arm, seed, 0.7 + 0.01 * n + 0.004 * rng.normal()) for n, arm in enumerate("abcdefgh") for seed in range(3)
    ]
    text = "arm,seed,score\n" + "".join(f"{a},{s},{0.1 if (a, s) == ('c', 1) else v}\n" for a, s, v in scores)
    Path("runs.csv").write_text(text)
    result = CliRunner().invoke(cli, ["stats", "rank", "runs.csv", "--candidate", "arm"], catch_exceptions=False)
    assert "a run of arm = c seems to have collapsed: 0.1 beside 0.7" in result.stderr


def test_one_number_in_two_spellings_is_one_level() -> None:
    text = "rate,seed,score\n0.001,1,0.5\n1e-3,2,0.6\n1e-2,1,0.7\n0.01,2,0.8\n"
    rows = call(text, "rank", "runs.csv", "--candidate", "rate", "-f", "json")
    assert {row["rate"]: row["n_seeds"] for row in rows} == {"0.001": 2, "1e-2": 2}


def test_improvement_is_over_tasks() -> None:
    arguments = ("improvement", "runs.csv", "--factor", "training", "--baseline", "frozen", "-f", "json")
    (row,) = call(RUNS, *arguments, "--by", "model")
    assert row["level"] == "lora" and row["tasks"] == 2 and 0 <= row["p_low"] <= row["p_improvement"] <= row["p_high"]
    deltas = call(RUNS, *DELTA)
    assert row["mean_delta"] == pytest.approx(np.mean([own["delta"] for own in deltas]))
    assert CliRunner().invoke(cli, ["stats", *arguments]).exit_code == 2


def test_labels_are_read_as_written_and_all_rows_have_one_unit() -> None:
    text = "task,arm,seed,score\n" + "".join(
        f"{task},{arm},{seed},{scale * (0.5 + 0.1 * (arm == 'false') + 0.01 * seed)}\n"
        for task, scale in (("a", 1), ("b", 10))
        for arm in ("1e-3", "false")
        for seed in (1, 2, 3)
    )
    rows = call(text, "delta", "runs.csv", "--factor", "arm", "--baseline", "0.001", "--by", "task", "-f", "json")
    assert [row["level"] for row in rows] == ["false", "false"]
    # One unit for all rows: points in one and raw numbers in the next would be compared by eye.
    assert [row["delta"] for row in rows] == pytest.approx([0.1, 1.0])
    assert {row["unit"] for row in rows} == {"score"}
    assert {row["unit"] for row in call(RUNS, *DELTA)} == {"points"}


def test_logs_that_no_key_tells_apart_are_refused() -> None:
    Path("logs.csv").write_text("model,mode,epoch,valid_loss,test_score\nA,full,1,0.5,0.6\nA,lora,1,0.4,0.7\n")
    message = call(RUNS, "audit", "runs.csv", "--curves", "logs.csv", code=2)
    assert "differ in 'mode'; name it with --curve-key" in message


def test_runs_without_a_score_are_left_out_and_counted() -> None:
    Path("runs.csv").write_text(RUNS + "A,lora,4,\nA,lora,5,NaN\n")
    result = CliRunner().invoke(cli, ["stats", *DELTA], catch_exceptions=False)
    assert "2 runs without a score are left out" in result.stderr
    assert json.loads(result.stdout)[0]["delta"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (RUNS, ("delta", "runs.csv", "--factor", "trainin", "--baseline", "frozen"), "did you mean 'training'"),
        (RUNS, ("delta", "runs.csv", "--factor", "training", "--baseline", "full"), "no run with training = 'full'"),
        (RUNS, ("shares", "runs.csv", "--factor", "model", "--score", "model"), "row 1 holds 'A'; expected a number"),
        (HEADER, DELTA, "holds no run"),
        (HEADER + "A,frozen,1,\n", DELTA, "no run has a score"),
        (HEADER + ",frozen,1,0.5\n", DELTA, "row 1 is empty"),
        (HEADER + "A,frozen,1,0.5,9\n", DELTA, "cannot be read"),
        (RUNS, ("delta", "none.csv", *DELTA[2:]), "not found"),
        (RUNS + "A,lora,1,0.7\n", (*DELTA, "--pair-by", "seed"), "a seed is one repetition"),
        (RUNS, ("shares", "runs.csv", "--factor", "model", "--factor", "training"), "no run for"),
        ("a,score,score\nx,1,2\n", DELTA, "stands in the header twice"),
        (RUNS, ("shares", "runs.csv", "--factor", "seed"), "the seed is what varies within a cell"),
        (RUNS, (*DELTA, "--mode", "paper", "--confidence", "0.5"), "--mode paper knows 95 % alone"),
        (RUNS, ("audit", "runs.csv", "--curves", "runs.csv", "--curve-key", "nonsense"), "cannot be read; expected"),
    ],
)
def test_a_mistake_is_a_message(text: str, arguments: tuple[str, ...], message: str) -> None:
    if message == "no run for":
        text += "C,lora,4,0.3\n"
    assert message in call(text, *arguments, code=2)
