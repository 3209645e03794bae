"""A reader takes a file or says what is wrong with it, whatever it holds. What once broke one is kept in corpus/."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import ROOT
from tests.fuzz.readers import CORPUS, READERS, good_result, parquet_of, reads

SEEDS = sorted((kind, file) for kind in READERS for file in (CORPUS / kind).glob("*"))
MUST_BE_TAKEN = ("plain", "complete")  # seeds that are as they should be


@pytest.mark.parametrize(("kind", "seed"), SEEDS, ids=lambda v: v.name if isinstance(v, Path) else v)
def test_kept_seeds(kind: str, seed: Path, tmp_path: Path) -> None:
    taken = [reads(reader, seed.read_bytes(), tmp_path) for reader in READERS[kind].values()]
    assert not seed.stem.startswith(MUST_BE_TAKEN) or any(taken)


def test_every_reader_has_seeds() -> None:
    assert {kind for kind, _ in SEEDS} | {"parquet"} == set(READERS)


def mutated(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Pieces of a good file replaced: (where, how many bytes, by what)."""
    for place, length, piece in edits:
        at = place % (len(content) + 1)
        content = content[:at] + piece + content[at + length :]
    return content


TOKENS = st.sampled_from(
    [
        b"",
        b"\0",
        b"\xff",
        b'"',
        b"'",
        b"{",
        b"[",
        b"]",
        b":",
        b",",
        b"\n",
        b"&a *a",
        b"- ",
        b"1e400",
        b"NaN",
        b"-1",
        b"../",
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 8), TOKENS | st.binary(max_size=4)), max_size=3)


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "parquet"])
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutations_of_seeds(kind: str, data: st.DataObject) -> None:
    seeds = [seed for own, seed in SEEDS if own == kind and seed.stat().st_size < 20_000]
    content = mutated(data.draw(st.sampled_from(seeds)).read_bytes(), data.draw(EDITS))
    with tempfile.TemporaryDirectory() as folder:
        for reader in READERS[kind].values():
            reads(reader, content, Path(folder))


def test_flipped_bytes_of_parquet_files(tmp_path: Path) -> None:
    """What a failing disk or a broken transfer makes of a table."""
    rng = np.random.default_rng(0)
    letters = ["ACDEF", "CDEFG", "DEFGH", "EFGHI"] * 5
    good = parquet_of({"sequence": letters, "target": list(range(20)), "set": ["train"] * 15 + ["test"] * 5})
    bad = 0
    for _ in range(400):
        content = bytearray(good)
        for place in rng.integers(0, len(good), size=int(rng.integers(1, 5))):
            content[place] ^= int(rng.integers(1, 256))
        for reader in READERS["parquet"].values():
            bad += not reads(reader, bytes(content), tmp_path)
    assert bad > 200
    for reader in READERS["parquet"].values():
        assert not reads(reader, good[:100], tmp_path) or reader is READERS["parquet"]["curve"]


WRONG: list[Any] = [
    None,
    "x",
    "",
    [1],
    {"a": 1},
    True,
    -1,
    10**400,
    math.nan,
    math.inf,
    1e308,
    "../../x",
    [{"a": 1}],
    [[1]],
]


def test_every_field_of_a_result_with_every_wrong_value(tmp_path: Path) -> None:
    """A folder with such a result can be listed, judged and reported, whatever was made of the result."""
    from click.testing import CliRunner

    from plmray.cli import cli

    base, folder = good_result(), tmp_path / "sweep"
    shutil.copytree(CORPUS / "sweep", folder)
    file = folder / "trials" / str(base["trial_id"]) / "result.json"
    for (key, _), wrong in itertools.product(base.items(), WRONG):
        try:
            file.write_text(json.dumps({**base, key: wrong}))
        except ValueError:  # too many digits for Python, not for a file
            file.write_text(json.dumps({**base, key: 0})[:-1] + "}")
        for command in ("trials", "best"):
            done = CliRunner().invoke(cli, [command, str(folder)])
            assert done.exit_code in (0, 2), (key, wrong, command, done.exception)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_atheris_finds_nothing(kind: str, tmp_path: Path) -> None:
    """Coverage-guided, from the kept seeds, for a few seconds a reader; what it finds is kept as a seed."""
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for own, seed in SEEDS:
        if own == kind:
            shutil.copy(seed, corpus)
    if kind == "parquet":
        (corpus / "good").write_bytes(parquet_of({"sequence": ["AC", "CD"], "target": [1, 2]}))
    options = ["-max_total_time=15", "-max_len=2000", "-timeout=20", "-rss_limit_mb=4000", "-seed=1"]
    command = [sys.executable, "-m", "tests.fuzz.run_atheris", kind, str(corpus), *options]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    found = [file.read_bytes() for file in tmp_path.glob("*-*") if file.is_file()]
    assert done.returncode == 0, f"{found}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
