"""`plmray init` on what people bring: the file it writes runs to a verdict without an edit."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from plmray.cli import cli
from plmray.config.load import load_sweep
from plmray.sweep.driver import run_sweep
from plmray.sweep.options import RunOptions

SHARED = Path(os.environ.get("PLMRAY_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
QUICK = ["train.epochs=1", "search.candidates=2", "replicate.random=2", "replicate.top=1", "replicate.seeds=[101, 102]"]


def started(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["init", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def to_a_verdict(file: Path, tmp_path: Path) -> dict[str, Any]:
    sweep = load_sweep(file, QUICK)
    outcome = run_sweep(sweep, RunOptions(storage_path=tmp_path / "runs", local=True), lambda text: None)
    assert outcome.num_failed == 0 and "best candidate" in outcome.headline
    return {"metric": sweep.spec.objective.metric, "task": sweep.spec.task}


def shared(*parts: str) -> Path:
    file = SHARED.joinpath(*parts)
    if not file.exists():
        pytest.skip(f"{'/'.join(parts)} is not here; PLMRAY_DATA names the folder of real data")
    return file


def test_gb1_without_its_split(tmp_path: Path) -> None:
    rows = list(csv.DictReader(shared("gb1", "three_vs_rest.csv").open()))[:120]
    file = tmp_path / "gb1 variants.csv"
    file.write_text("mutant;seq;Fitness\n" + "".join(f"{n};{r['sequence'][:60]}{'ACDEFGHIKL'[n % 10]}{'MNPQRSTVWY'[n // 12]};{r['target'].replace('.', ',')}\n" for n, r in enumerate(rows)))  # fmt: skip # noqa: E501
    told = started(str(file))
    assert "variants of one protein" in told and "target is column 'Fitness'" in told
    found = to_a_verdict(tmp_path / "gb1-variants.yaml", tmp_path)
    assert found["metric"] == "spearman" and found["task"].split.by == "stratified"
    assert "there already" in started(str(file), code=2)


def test_a_deeploc_fasta(tmp_path: Path) -> None:
    lines = shared("subcellular_location", "setHARD.fasta").read_text().split(">")[1:45]
    file = tmp_path / "locations.fasta"
    file.write_text("".join(f">{entry}" for entry in lines))
    told = started(str(file), "-o", str(tmp_path / "first.yaml"))
    assert "by identity" in told and "kind classification" in told
    to_a_verdict(tmp_path / "first.yaml", tmp_path)


def test_chezod_files(tmp_path: Path) -> None:
    whole = shared("disorder", "CheZOD1174_training_set_sequences.fasta").read_text().split(">")[1:30]
    (tmp_path / "proteins.fasta").write_text("".join(f">{entry}" for entry in whole))
    labels = shared("disorder", "CheZOD1174_training_set_CheZOD_scores.txt")
    told = started(str(tmp_path / "proteins.fasta"), "--labels", str(labels))
    assert "a label for each residue" in told and "kind regression" in told
    assert to_a_verdict(tmp_path / "proteins.yaml", tmp_path)["task"].level == "residue"


def test_a_table_with_families_and_a_rare_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        ("".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=40)), "binder" if n % 8 == 0 else "no", f"fam{n % 12}")
        for n in range(96)
    ]
    file = tmp_path / "hits.csv"
    file.write_text("Protein,Label,Family\n" + "".join(",".join(row) + "\n" for row in rows))
    told = started(str(file))
    assert "by 'Family'" in told and "classes are weighed" in told
    found = to_a_verdict(tmp_path / "hits.yaml", tmp_path)
    assert found["metric"] == "auprc" and found["task"].split.by == "group"


def test_the_case_that_most_people_bring(cases: Path, tmp_path: Path) -> None:
    """No split, a name with brackets, a column of plates: eight variants are too few to learn from, and a sweep none
    the less."""
    (tmp_path / "no_split.csv").write_bytes((cases / "data" / "no_split.csv").read_bytes())
    started(str(tmp_path / "no_split.csv"))
    result = CliRunner().invoke(cli, ["validate", str(tmp_path / "no_split.yaml")])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("card", "backbone"), [("24GB", "esm2_t33_650M"), ("8GB", "esm2_t"), ("1GB", "esm2_t")])
def test_a_card_chooses_the_encoder(tmp_path: Path, card: str, backbone: str) -> None:
    rng = np.random.default_rng(1)
    rows = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=200)) for _ in range(60)]
    (tmp_path / "a.csv").write_text("sequence,target\n" + "".join(f"{s},{n / 7}\n" for n, s in enumerate(rows)))
    assert backbone in started(str(tmp_path / "a.csv"), "-o", str(tmp_path / f"{card}.yaml"), "--gpu", card)
    text = (tmp_path / f"{card}.yaml").read_text()
    assert "kind: lora" in text and load_sweep(tmp_path / f"{card}.yaml").spec.resources.micro_batch in (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sequence,target\n" + "MKTAYIAKQR,1\n" * 3, "too few"),
        ("sequence,target\n" + "".join(f"MKTAYI{c},t{c}\n" for c in "ACDEFGHIKLMN"), "neither classes nor numbers"),
        ("", "is empty"),
        ("alpha,beta\nx,1\n", "has no column 'sequence'"),
        (
            "sequence,target\n" + "".join(f"MKTAYI{c},{n}.5\n" for n, c in enumerate("ACDEFGHIKLMN*-")),
            "plmray data clean",
        ),
    ],
)
def test_what_makes_no_sweep_is_told_and_nothing_written(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert message in started(str(tmp_path / "a.csv"), code=2)
    assert not (tmp_path / "a.yaml").exists()
