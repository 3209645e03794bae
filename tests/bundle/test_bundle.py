"""From a finished sweep to a bundle and its predictions: the same numbers as the sweep took on its test proteins."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pyarrow import parquet
from scipy.special import expit, softmax

from plmray.bundle import predict as predicting
from plmray.bundle.ensemble import Ensemble
from plmray.bundle.export import export
from plmray.bundle.folder import BundleFacts
from plmray.bundle.predict import predict_file
from plmray.cli import cli
from plmray.data.datasets import load_data
from plmray.errors import FolderError
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.options import RunOptions
from tests.examples import tiny_sweep, write_toy
from tests.model.families import write_checkpoint

SHAPE = {"layers": 2, "width": 16, "heads": 2, "feed_forward": 32}
RANDOM = {"name": "tiny", "init": "random", "shape": SHAPE}
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lora": ("protein", "regression", {"adapter": {"kind": "lora", "rank": 2, "alpha": 8}}),
    "standardized": ("protein", "binary", {"adapter": {"kind": "none"}, "head": {"standardize": True, "dropout": 0.2}}),
    "residues": ("residue", "classification", {"adapter": {"kind": "full"}, "head": {"kind": "cnn_seth"}}),
    "frozen residues": ("residue", "regression", {"adapter": {"kind": "none"}, "head": {"kind": "cnn_prottrans"}}),
    "light attention": ("protein", "multilabel", {"adapter": {"kind": "prefix"}, "head": {"kind": "light_attention"}}),
}


@dataclass(frozen=True)
class Made:
    """A finished sweep, its bundle, and its test proteins as FASTA."""

    sweep: Path
    bundle: Path
    fasta: Path
    kind: str
    level: str


@pytest.fixture(scope="module", params=WAYS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    level, kind, train = WAYS[request.param]
    return make(tmp_path_factory.mktemp("bundle"), level, kind, {"backbone": RANDOM, **train})


def make(folder: Path, level: str, kind: str, train: dict[str, Any]) -> Made:
    write_toy(folder / "toy.csv", level, kind)
    task = {"files": "toy.csv", "level": level, "kind": kind, "shared_sequences": "allow"}
    train = {"pooling": "mean", "epochs": 2, "optimizer": {"lr": 0.01}, **train}
    replicate = {"random": 1, "seeds": [101, 102, 103]}
    search = {"candidates": 1, "seeds": [0], "sampler": "random"}
    sweep = tiny_sweep(folder, task=task, train=train, replicate=replicate, search=search)
    tracking = sweep.spec.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"})
    sweep = type(sweep)(sweep.spec.model_copy(update={"tracking": tracking}), sweep.file)
    outcome = run_sweep(sweep, RunOptions(storage_path=folder / "runs", local=True), lambda text: None)
    assert outcome.exit_code == 0
    export(outcome.folder, folder / "bundle")
    proteins = load_data(sweep.spec.task, folder).splits["test"]
    lines = [f">p{n}\n{sequence}\n" for n, sequence in enumerate(proteins.sequences)]
    (folder / "test.fasta").write_text("".join(lines))
    return Made(outcome.folder, folder / "bundle", folder / "test.fasta", kind, level)


def kept_outputs(sweep: Path) -> np.ndarray:
    """(seeds, units, outputs) that the replicate trials gave for the test proteins, as the sweep kept them."""
    trials = sorted((r for r in read_results(sweep) if r.phase == "replicate"), key=lambda r: r.seed)
    tables = [parquet.read_table(sweep / "trials" / r.trial_id / "test_outputs.parquet") for r in trials]
    return np.array([np.array(table["outputs"].to_pylist()) for table in tables])


def test_predictions_are_those_of_the_sweep(made: Made) -> None:
    outputs = kept_outputs(made.sweep)
    likely = {"regression": lambda x: x, "classification": lambda x: softmax(x, axis=-1)}.get(made.kind, expit)(outputs)
    predicted = Ensemble(made.bundle).predict([row[1] for row in fasta(made.fasta)])
    np.testing.assert_allclose(np.concatenate([p.values for p in predicted]), likely.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.concatenate([p.spread for p in predicted]), likely.std(0, ddof=1), atol=1e-5)


def test_predictions_do_not_depend_on_the_batch(made: Made) -> None:
    ensemble, sequences = Ensemble(made.bundle), [row[1] for row in fasta(made.fasta)]
    together = ensemble.predict(sequences)
    for sequence, beside in zip(reversed(sequences), reversed(together), strict=True):
        (alone,) = ensemble.predict([sequence])
        np.testing.assert_allclose(alone.values, beside.values, atol=1e-5)


def test_the_table_has_a_row_a_protein_or_residue(made: Made, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["predict", str(made.bundle), str(made.fasta), "-o", "out.csv"])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    proteins = fasta(made.fasta)
    if made.level == "residue":
        expected = [(name, str(p), letter) for name, s in proteins for p, letter in enumerate(s, start=1)]
        assert [(row["id"], row["position"], row["residue"]) for row in rows] == expected
    else:
        assert [row["id"] for row in rows] == [name for name, _ in proteins]
    facts = BundleFacts.read(made.bundle)
    if made.kind in ("binary", "classification"):
        assert all(
            sum(float(row[f"probability.{c}"]) for c in facts.classes) == pytest.approx(1, abs=1e-4) for row in rows
        )
        assert {row["label"] for row in rows} <= set(facts.classes)
    assert all(float(row["seed_sd"]) >= 0 for row in rows)


def test_the_card_and_the_facts(made: Made) -> None:
    facts, card = BundleFacts.read(made.bundle), (made.bundle / "README.md").read_text()
    results = [r for r in read_results(made.sweep) if r.phase == "replicate"]
    scores = [r.score for r in results if r.score is not None]
    assert facts.scores["mean"] == pytest.approx(np.mean(scores))
    assert facts.scores["seed_sd"] == pytest.approx(np.std(scores, ddof=1))
    assert f"{np.mean(scores):.4f}" in card and facts.data_hash[:16] in card
    assert facts.scores["test_scores"][facts.metric] == pytest.approx(np.mean([r.test_score for r in results]))


def test_as_an_mlflow_model(made: Made) -> None:
    import mlflow
    import pandas as pd

    proteins = fasta(made.fasta)[:3]
    table = pd.DataFrame(proteins, columns=["id", "sequence"])
    found = mlflow.pyfunc.load_model(str(made.bundle)).predict(table)
    (first, *_), column = Ensemble(made.bundle).predict([s for _, s in proteins]), found.columns[-2]
    assert float(found[column].iloc[0]) == pytest.approx(first.values[0, -1], abs=1e-4)


def test_a_stopped_prediction_goes_on(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "CHUNK", 5)
    predict_file(made.bundle, made.fasta, tmp_path / "whole.csv", echo=lambda text: None)
    plain, calls = Ensemble.predict, []

    def stop_at_third(self: Ensemble, sequences: Any) -> Any:
        calls.append(len(sequences))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, sequences)

    monkeypatch.setattr(Ensemble, "predict", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        predict_file(made.bundle, made.fasta, tmp_path / "out.csv", echo=lambda text: None)
    unfinished = tmp_path / ".out.csv.unfinished"
    with unfinished.open("a") as stream:
        stream.write("p10,half a li")  # as a stop in the middle of a write leaves it
    assert not (tmp_path / "out.csv").exists()
    told: list[str] = []
    predict_file(made.bundle, made.fasta, tmp_path / "out.csv", echo=told.append)
    assert told[0] == "10 of 16 proteins were predicted before"
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not unfinished.exists()
    with pytest.raises(FolderError, match="is there already"):
        predict_file(made.bundle, made.fasta, tmp_path / "out.csv", echo=told.append)


def test_other_proteins_do_not_go_on(tmp_path: Path, made: Made) -> None:
    (tmp_path / ".out.csv.unfinished").write_text("id\n")
    (tmp_path / ".out.csv.unfinished.json").write_text(
        '{"owner": {"bundle": "", "proteins": ""}, "done": 1, "bytes": 3}'
    )
    with pytest.raises(FolderError, match="other proteins or another bundle"):
        predict_file(made.bundle, made.fasta, tmp_path / "out.csv", echo=lambda text: None)


def test_an_adapter_loads_through_peft_alone(tmp_path: Path) -> None:
    """transformers and peft, no plmray: the encoder of the bundle with a seed's adapter gives the same states."""
    from peft import PeftModel
    from transformers import EsmModel

    write_checkpoint("esm2", tmp_path / "mine", layers=2)
    train = {"backbone": "mine", "adapter": {"kind": "lora", "rank": 2, "alpha": 8}}
    made = make(tmp_path, "protein", "regression", train)
    ensemble = Ensemble(made.bundle)
    assert (made.bundle / "backbone" / "model.safetensors").is_file()  # it came from a folder, so it goes along
    plain = EsmModel.from_pretrained(made.bundle / "backbone", add_pooling_layer=False).eval()
    adapted = PeftModel.from_pretrained(plain, str(made.bundle / "seeds" / "101")).eval()
    tokens = torch.tensor([[0, 5, 6, 7, 2]])
    with torch.no_grad():
        theirs = adapted(input_ids=tokens).last_hidden_state
        mine = ensemble.models[0].encoder(input_ids=tokens).last_hidden_state  # type: ignore[misc]
    torch.testing.assert_close(theirs, mine, atol=1e-6, rtol=1e-5)
    weights = made.bundle / "backbone" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(FolderError, match="are not those"):
        Ensemble(made.bundle)


def test_what_cannot_be_exported(made: Made, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no finished candidate 'c0'"):
        export(made.sweep, tmp_path / "other", "c0")
    with pytest.raises(FolderError, match="is there already"):
        export(made.sweep, made.bundle)
    with pytest.raises(FolderError, match="is no sweep folder"):
        export(tmp_path, tmp_path / "other")


def test_a_sweep_that_kept_nothing(tmp_path: Path) -> None:
    sweep = tiny_sweep(tmp_path, resources={"keep": "none"}, replicate={"top": 1, "seeds": [101, 102]})
    outcome = run_sweep(sweep, RunOptions(storage_path=tmp_path / "runs", local=True), lambda text: None)
    with pytest.raises(FolderError, match="no weights were kept"):
        export(outcome.folder, tmp_path / "bundle")


def fasta(file: Path) -> list[tuple[str, str]]:
    lines = file.read_text().splitlines()
    return [(name[1:], sequence) for name, sequence in zip(lines[::2], lines[1::2], strict=True)]
