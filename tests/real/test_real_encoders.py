"""Encoders that this project did not make: tokens, states, embeddings and whole sweeps against outside sources.

The ESM2 8M is a published one that was tuned on peptides since (../shared/models/README.md); the study's embeddings of
GB1 are those of the published weights, so that the two are close and not equal.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from plmray.config.backbone_names import backbone_fault, longest_residues
from plmray.config.fields.task import TaskSpec
from plmray.config.fields.train import BackboneSpec
from plmray.data.datasets import load_data
from plmray.data.encoded import encode_data
from plmray.data.proteins import ProteinData
from plmray.model.backbones import load_encoder, load_tokenizer
from plmray.packed.embedder import Unpadded
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.options import RunOptions
from plmray.sweep.workers.context import make_bench
from plmray.sweep.workers.device import Device
from plmray.train.embeddings import RESIDUES, Padded, compute_embeddings
from tests.examples import CPU, tiny_sweep

PROTEINS = 40
PROTEIN = "MQYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"  # GB1, wild type


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def published_embeddings(data_root: Path) -> tuple[list[str], np.ndarray]:
    """The study's mean embeddings of GB1's validation proteins, float16: sequences and (n, 320)."""
    table = parquet.read_table(data_root / "gb1" / "esm2_8m_mean_embeddings_valid.parquet").slice(0, PROTEINS)
    return table["sequence"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float64)


def centred_pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Of two sets of embeddings less their means over proteins: how alike what tells proteins apart is."""
    parts = [(own - own.mean(0)).ravel() for own in (one, other)]
    return float(np.corrcoef(*parts)[0, 1])


@pytest.mark.parametrize("engine", ["packed", "torch"])
def test_mean_embeddings_of_gb1_are_the_published_ones(
    engine: str, real_esm2: Path, data_root: Path, tmp_path: Path
) -> None:
    """Through plmray's own path: file, tokens, device, cache. With the letters of version 0.1.0: .17."""
    sequences, published = published_embeddings(data_root)
    lines = [f"{s},{n},{'train' if n < 30 else 'test'},{n >= 20}" for n, s in enumerate(sequences)]
    lines = [line.replace("test,True", "test,False") for line in lines]
    (tmp_path / "gb1.csv").write_text("sequence,target,set,validation\n" + "\n".join(lines) + "\n")
    train = {"backbone": str(real_esm2), "adapter": {"kind": "none"}, "pooling": "mean"}
    sweep = tiny_sweep(tmp_path, task={"files": "gb1.csv"}, train=train, resources={"engine": engine})
    bench = make_bench(sweep, load_data(sweep.spec.task, sweep.folder), "fp32", None, has_gpu=False)
    found = Device().embedded(bench, sweep.spec.train)
    again = Device().embedded(bench, sweep.spec.train)  # from the cache on disk
    rows = np.concatenate([found.splits[name].embeddings for name in ("train", "validation", "test")])  # type: ignore[arg-type]
    assert centred_pearson(rows, published) >= 0.90
    for name, split in found.splits.items():
        np.testing.assert_array_equal(split.embeddings, again.splits[name].embeddings)


def test_tokens_equal_those_of_the_checkpoints_own_tokenizer(real_esm2: Path) -> None:
    from transformers import EsmTokenizer

    theirs = EsmTokenizer.from_pretrained(real_esm2)
    mine = load_tokenizer(BackboneSpec(name=str(real_esm2)), Path())
    for sequence, row in zip((PROTEIN, "ACDEFGHIKLMNPQRSTVWYX"), mine.encode((PROTEIN, "ACDEFGHIKLMNPQRSTVWYX")), strict=True):  # fmt: skip # noqa: E501
        assert theirs(sequence)["input_ids"] == row.tolist()


def encoded(folder: Path, tokenizer: Any, sequences: list[str]) -> Any:
    """Proteins of several lengths, so that some are padded."""
    lines = [f"{s},{n},{'train' if n < 4 else 'test'},{n in (2, 3)}" for n, s in enumerate(sequences)]
    (folder / "t.csv").write_text("sequence,target,set,validation\n" + "\n".join(lines) + "\n")
    data: ProteinData = load_data(TaskSpec.model_validate({"files": "t.csv"}), folder)
    front, back = len(tokenizer.front), len(tokenizer.back)
    return encode_data(data, tokenizer.encode, pad_id=tokenizer.pad_id, front=front, back=back)


LENGTHS = [PROTEIN, PROTEIN[:40], PROTEIN[5:], PROTEIN[:-7], PROTEIN[10:44], PROTEIN[3:21]]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp64", 1e-12)])
@pytest.mark.parametrize("embedder", [Padded, Unpadded])
def test_hidden_states_equal_those_of_transformers(
    embedder: Any, precision: str, tolerance: float, real_esm2: Path, tmp_path: Path
) -> None:
    """Loaded and called as its documentation says, one protein at a time; of the largest number."""
    from transformers import EsmModel, EsmTokenizer

    theirs, tokenizer = EsmModel.from_pretrained(real_esm2).eval(), EsmTokenizer.from_pretrained(real_esm2)
    backbone = BackboneSpec(name=str(real_esm2))
    data = encoded(tmp_path, load_tokenizer(backbone, Path()), LENGTHS)
    states = compute_embeddings(data, embedder(load_encoder(backbone, Path()), precision, CPU), RESIDUES, precision)
    theirs = theirs.double() if precision == "fp64" else theirs.float()
    for name, proteins in (("train", LENGTHS[:2]), ("validation", LENGTHS[2:4]), ("test", LENGTHS[4:])):
        with torch.no_grad():
            own = [theirs(**tokenizer(p, return_tensors="pt")).last_hidden_state[0, 1:-1] for p in proteins]
        expected = torch.cat(own).numpy()
        np.testing.assert_allclose(states[name], expected, rtol=0, atol=tolerance * np.abs(expected).max())  # type: ignore[index]


@pytest.fixture
def antiberty(tmp_path: Path) -> Path:
    """A published antibody BERT with a vocabulary of its own, as a folder: 25 tokens, no X, 512 positions."""
    found = importlib.util.find_spec("antiberty")
    if found is None or not found.submodule_search_locations:
        pytest.skip("antiberty is not installed")
    models = Path(next(iter(found.submodule_search_locations))) / "trained_models"
    folder = tmp_path / "antiberty"
    folder.mkdir()
    (folder / "config.json").write_text((models / "AntiBERTy_md_smooth" / "config.json").read_text())
    (folder / "vocab.txt").write_text((models / "vocab.txt").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    )
    (folder / "pytorch_model.bin").symlink_to(models / "AntiBERTy_md_smooth" / "pytorch_model.bin")
    return folder


@pytest.mark.slow
def test_an_antibody_bert_reads_its_own_vocabulary(antiberty: Path, tmp_path: Path) -> None:
    from transformers import BertModel, BertTokenizer

    backbone = BackboneSpec(name=str(antiberty))
    assert backbone_fault(backbone, Path()) is None and longest_residues(backbone, Path()) == 510
    theirs = BertTokenizer(str(antiberty / "vocab.txt"), do_lower_case=False)
    tokenizer = load_tokenizer(backbone, Path())
    for sequence, row in zip((PROTEIN, "MKXV"), tokenizer.encode((PROTEIN, "MKXV")), strict=True):
        assert theirs(" ".join(sequence))["input_ids"] == row.tolist()  # X is [UNK]
    model = BertModel.from_pretrained(antiberty, add_pooling_layer=False).float().eval()
    data = encoded(tmp_path, tokenizer, LENGTHS)
    states = compute_embeddings(data, Padded(load_encoder(backbone, Path()), "fp32", CPU), RESIDUES, "fp32")
    with torch.no_grad():
        own = [model(**theirs(" ".join(p), return_tensors="pt")).last_hidden_state[0, 1:-1] for p in LENGTHS[:2]]
    np.testing.assert_allclose(states["train"], torch.cat(own).numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_frozen_sweep_on_the_antibody_bert_trains(antiberty: Path, tmp_path: Path) -> None:
    lines = [f"{PROTEIN[n:]},{n % 7 + n / 50},train,{n > 20}" for n in range(28)]
    (tmp_path / "t.csv").write_text("sequence,target,set,validation\n" + "\n".join(lines) + "\n")
    train = {"backbone": str(antiberty), "adapter": {"kind": "none"}, "pooling": "mean", "epochs": 3}
    task = {"files": "t.csv", "max_length": 510}
    sweep = tiny_sweep(tmp_path, task=task, train=train, replicate=None)
    outcome = run_sweep(sweep, RunOptions(storage_path=tmp_path / "runs", local=True), lambda text: None)
    assert {r.state for r in read_results(outcome.folder)} == {"COMPLETE"}


@pytest.mark.slow
def test_whole_sweeps_on_the_real_encoder_packed_and_alone(real_esm2: Path, data_root: Path, tmp_path: Path) -> None:
    """Frozen, LoRA and full on GB1's mutated residues: packs give the plain engine's losses and scores.

    Nothing is said of learning: two epochs over a few proteins end above their first loss on one seed in two.
    """
    task = {"dataset": "gb1", "window": [31, 62], "train_fraction": 0.03}
    space = {"adapter.kind": {"kind": "choice", "values": ["none", "lora", "full"]}}
    train = {
        "backbone": str(real_esm2),
        "adapter": {"rank": 4, "alpha": 8},
        "pooling": "mean",
        "epochs": 2,
        "optimizer": {"lr": 0.001},
    }
    found = {}
    for engine in ("packed", "torch"):
        search = {"sampler": "grid", "seeds": [0, 1]}
        resources = {"engine": engine, "keep": "none"}
        changes = {"task": task, "space": space, "train": train, "search": search, "resources": resources}
        sweep = tiny_sweep(tmp_path, **changes, replicate=None)
        options = RunOptions(storage_path=tmp_path / engine, data_root=data_root, local=True)
        found[engine] = {r.trial_id: r for r in read_results(run_sweep(sweep, options, lambda text: None).folder)}
    assert {r.engine for r in found["packed"].values()} == {"packed", "torch"} and len(found["packed"]) == 6
    for trial_id, result in found["packed"].items():
        other = found["torch"][trial_id]
        assert result.state == other.state == "COMPLETE"
        assert result.validation_loss == pytest.approx(other.validation_loss, rel=2e-3)
        assert result.last_train_loss == pytest.approx(other.last_train_loss, rel=2e-3)
        assert result.score == pytest.approx(other.score, abs=5e-3)
