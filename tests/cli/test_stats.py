"""`plmray stats` on tables from elsewhere: what it answers, and what it refuses and how."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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


def test_shared_seeds_pair() -> None:
    rows = call(RUNS.replace("B,lora,3,0.66", "B,lora,3,0.6601"), *DELTA, "--pair-by", "seed")
    assert [row["paired"] for row in rows] == [False, True]  # without any residual there is no correlation to see


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
