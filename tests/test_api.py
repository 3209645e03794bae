"""The Python face: the same numbers as the command line, as tables of pandas."""

from __future__ import annotations

import json
import pydoc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from pyarrow import parquet

import plmray
from plmray.cli import cli
from plmray.config.fields.train import BackboneSpec
from plmray.config.load import load_sweep
from plmray.data.datasets import load_data
from plmray.data.embeddings import read_precomputed
from plmray.model.backbones import load_encoder, load_tokenizer
from plmray.storage import layout
from tests.examples import sweep_tree, write_proteins, write_toy
from tests.golden.make import HERE as GOLDEN

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "GSHMLEDPVE", "ACDEFGHIKLMNPQRSTVWY"]
ENCODER = "esm2_plmray_1.6M"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> plmray.SweepResults:
    """A finished sweep that Python described and ran."""
    folder = tmp_path_factory.mktemp("api")
    tree = sweep_tree(tracking={"uri": f"sqlite:///{folder}/mlflow.db"})
    said: list[str] = []
    results = plmray.run(tree, storage_path=folder, local=True, say=said.append)
    assert said and results.outcome is not None and results.outcome.exit_code == 0
    return results


def test_import_is_light_and_help_is_a_manual_page() -> None:
    heavy = ("torch", "ray", "mlflow", "optuna", "transformers", "pandas", "scipy", "pydantic")
    code = f"import plmray, sys; sys.exit(','.join(m for m in {heavy!r} if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
    page = pydoc.render_doc(plmray, renderer=pydoc.plaintext)
    for name in plmray.__all__:
        assert hasattr(plmray, name) and name in page
    with pytest.raises(AttributeError, match="no attribute 'lood_sweep'"):
        _ = plmray.lood_sweep


def test_a_sweep_is_described_in_python_as_in_a_file(tmp_path: Path) -> None:
    import yaml

    tree = sweep_tree()
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(tree))
    from_file = plmray.load_sweep(str(file), **{"train.epochs": 3, "train.optimizer.lr": 1e-5})
    from_tree = plmray.load_sweep(tree, **{"train.epochs": 3, "train.optimizer.lr": 1e-5})
    assert from_file.spec == from_tree.spec and from_tree.spec.train.optimizer.lr == 1e-5
    assert str(from_tree.plan()) == str(from_file.plan()) and "48 train" in str(from_tree.plan())
    assert from_tree.validate() == from_file.validate() != []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"backbone": "tiny", "epoch": 3}}, "sweep: train.epoch: unknown key; did you mean 'epochs'?"),
        ({"search": {"candidates": "no"}}, "search.candidates: found 'no', expected a whole number"),
        ({"name": object()}, "holds what no sweep file can"),
        ({"name": np.float64(3.0)}, "holds what no sweep file can"),
    ],
)
def test_faults_of_a_mapping_are_those_of_a_file(change: dict[str, object], message: str) -> None:
    with pytest.raises(plmray.SpecError) as raised:
        plmray.load_sweep(sweep_tree(**change))
    assert message in str(raised.value) and "sweep:0" not in str(raised.value)


def test_parameters_keep_the_order_of_a_mapping() -> None:
    """The order of a space decides what is drawn: a mapping gives the anchors of the file that has the same order."""
    import yaml

    domains = {
        "optimizer.lr": {"kind": "float", "low": 0.001, "high": 0.01},
        "batch_size": {"kind": "choice", "values": [4, 8]},
    }
    tree = sweep_tree(space=domains)
    Path("sweep.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    from_tree, from_file = plmray.load_sweep(tree), plmray.load_sweep("sweep.yaml")
    assert list(from_tree.spec.space) == list(from_file.spec.space) == list(domains)
    assert from_tree.plan().anchors == from_file.plan().anchors


def test_results_are_tables(found: plmray.SweepResults) -> None:
    trials = found.trials
    assert len(trials) == len(found.results) == 3 * 2 + len(trials[trials.phase == "replicate"])
    assert {"trial_id", "score", "param.optimizer.lr"} <= set(trials.columns)
    printed = CliRunner().invoke(cli, ["best", str(found.folder), "-f", "json"]).output
    by_command = pd.DataFrame(json.loads(printed))
    pd.testing.assert_frame_equal(found.candidates, by_command, check_dtype=False)
    curve = found.curves.groupby("trial_id").score.count()
    assert set(curve.index) == set(trials.trial_id) and (curve == 2).all()
    outputs = found.test_outputs
    assert len(outputs) == 24 * (trials.phase == "replicate").sum() and outputs.id.notna().all()
    assert found.verdict.metric == "spearman" and found.headline in found._repr_html_().replace("&#x27;", "'")


def test_the_report_is_that_of_the_command(found: plmray.SweepResults, tmp_path: Path) -> None:
    paths = found.report(tmp_path / "mine")
    assert [path.name for path in paths] == list(layout.REPORT_FILES)
    told = CliRunner().invoke(cli, ["report", str(found.folder), "--out", str(tmp_path / "theirs")])
    assert told.exit_code == 0
    for path in paths:
        assert path.read_text() == (tmp_path / "theirs" / path.name).read_text()
    assert "90 %" in (found.report(tmp_path / "less", confidence=0.9)[0]).read_text()


def test_a_folder_of_old_opens(tmp_path: Path) -> None:
    old = plmray.open_sweep(GOLDEN / "sweep")
    assert len(old.trials) == 14 and old.spec.name == "golden"
    with pytest.raises(plmray.FolderError, match="is no sweep folder"):
        plmray.open_sweep(tmp_path)


def test_a_bundle_takes_sequences_tables_and_files(tmp_path: Path) -> None:
    bundle = plmray.load_bundle(GOLDEN / "bundle")
    file = GOLDEN / "proteins.fasta"
    from_file = bundle.predict(file)
    old = pd.read_csv(GOLDEN / "predictions.csv")
    pd.testing.assert_frame_equal(from_file, old, atol=1e-4, rtol=0)
    sequences = [line for line in file.read_text().splitlines() if not line.startswith(">")]
    given = {"id": from_file.id, "sequence": sequences}
    for proteins in (str(file), dict(zip(from_file.id, sequences, strict=True)), pd.DataFrame(given)):
        pd.testing.assert_frame_equal(bundle.predict(proteins), from_file)
    assert list(bundle.predict(sequences).prediction) == list(from_file.prediction)
    with pytest.raises(plmray.DataError, match=r"row 1.*'\?'"):
        bundle.predict(["MK?T"])
    with pytest.raises(plmray.DataError, match="row 1: the sequence is empty"):
        bundle.predict(pd.DataFrame({"sequence": [float("nan"), "MKT"]}))
    with pytest.raises(plmray.DataError, match="expected sequences, a table, or a path"):
        bundle.predict("MKTAYI")
    with pytest.raises(plmray.DataError, match="no column 'sequence'"):
        bundle.predict(pd.DataFrame({"colour": sequences}))


def test_a_finished_sweep_becomes_a_bundle(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy.csv", "residue", "classification")
    task = {"files": str(tmp_path / "toy.csv"), "level": "residue", "kind": "classification"}
    tree = sweep_tree(task=task, objective={"metric": "accuracy"}, tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    bundle = plmray.run(tree, storage_path=tmp_path, local=True, say=lambda text: None).export(tmp_path / "bundle")
    table = bundle.predict(["ACDEFG"])
    assert list(table.residue) == list("ACDEFG") and list(table.position) == [1, 2, 3, 4, 5, 6]
    assert np.allclose(table.filter(like="probability.").sum(axis=1), 1, atol=1e-5) and set(table.label) <= set("HEC")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_are_the_encoders_own(pooling: str, tmp_path: Path) -> None:
    """Against a plain pass of transformers' model, one protein at a time."""
    table = plmray.embed(SEQUENCES, ENCODER, pooling=pooling)  # type: ignore[arg-type]
    spec = BackboneSpec(name=ENCODER)
    encoder, tokenizer = load_encoder(spec, Path()).eval(), load_tokenizer(spec, Path())
    for sequence, embedding in zip(table.sequence, table.embedding, strict=True):
        tokens = torch.tensor(tokenizer.encode([sequence])[0].astype(np.int64))[None]
        with torch.no_grad():
            states = encoder(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0]
        expected = states[0] if pooling == "cls" else states[1:-1].mean(0)
        assert np.abs(embedding - expected.numpy()).max() < 1e-5


def test_embed_writes_what_a_sweep_reads(tmp_path: Path) -> None:
    name = write_proteins(tmp_path / "proteins.csv", train=20, test=8)
    out = tmp_path / "embeddings.parquet"
    told = CliRunner().invoke(cli, ["embed", str(tmp_path / name), "--backbone", ENCODER, "-o", str(out)])
    assert told.exit_code == 0 and "embeddings of 28 proteins, 160 wide" in told.output
    assert parquet.read_schema(out).metadata[b"plmray.pooling"] == b"mean"
    tree = sweep_tree(
        task={"files": str(tmp_path / name), "kind": "regression", "validation_fraction": 0.2},
        train={"backbone": {"name": "mine", "embeddings": str(out)}, "adapter": {"kind": "none"}},
    )
    sweep = load_sweep(tree)
    data = load_data(sweep.spec.task, sweep.folder)
    arrays = read_precomputed([out], data)
    by_python = plmray.embed(dict(enumerate(data.splits["test"].sequences)), ENCODER)
    assert np.allclose(arrays["test"], np.stack(by_python.embedding), atol=1e-6)
    again = CliRunner().invoke(cli, ["embed", str(tmp_path / name), "--backbone", ENCODER, "-o", str(out)])
    assert again.exit_code == 2 and "is there already" in again.output


def test_bad_embeddings_are_told(tmp_path: Path) -> None:
    with pytest.raises(plmray.SetupError, match="unknown backbone 'esm3'"):
        plmray.embed(SEQUENCES, "esm3")
    with pytest.raises(plmray.DataError, match="stands twice"):
        plmray.embed(pd.DataFrame({"id": ["a", "a"], "sequence": SEQUENCES[:2]}), ENCODER)


def test_statistics_take_tables_of_pandas(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"training": arm, "model": model, "seed": seed, "score": 0.5 + 0.1 * (arm == "lora") + rng.normal(0, 0.02)}
        for arm in ("frozen", "lora")
        for model in ("a", "b")
        for seed in range(4)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "runs.csv", index=False)
    delta = plmray.stats.delta(table, factor="training", baseline="frozen", by="model")
    options = ["--factor", "training", "--baseline", "frozen", "--by", "model", "-f", "json"]
    printed = CliRunner().invoke(cli, ["stats", "delta", str(tmp_path / "runs.csv"), *options]).output
    pd.testing.assert_frame_equal(delta, pd.DataFrame(json.loads(printed)), check_dtype=False)
    assert list(delta.verdict) == ["positive", "positive"]
    shares = plmray.stats.shares(table, factors=["model", "training"])
    assert shares["share.training"][0] > 0.7 and shares.filter(like="share.").sum(axis=1)[0] == pytest.approx(1)
    ranked = plmray.stats.rank(table, candidate="training")
    assert ranked.iloc[0]["training"] == "lora"
    needed = plmray.stats.seeds_needed(table, factor="training", baseline="frozen", effect=5.0)
    assert needed.n_effect[0] >= 2
    with pytest.raises(plmray.DataError, match="give candidate"):
        plmray.stats.rank(table)
    with pytest.raises(plmray.DataError, match="no such column; did you mean 'score'"):
        plmray.stats.rank(table, candidate="training", score="scor")


def test_statistics_of_a_sweep_need_no_options(found: plmray.SweepResults) -> None:
    ranked = plmray.stats.rank(found.folder)
    assert set(ranked.candidate_id) <= set(found.candidates.candidate_id)
