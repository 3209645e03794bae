from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plmray.config.fields.train import BackboneSpec, ShapeSpec, TrainSpec
from plmray.model.assemble import build_model, masked_mean, trainable_count, trainable_parameters
from plmray.model.backbones import load_encoder
from plmray.model.tokens import esm2_tokenizer
from plmray.plan.plan import trainable_estimate
from plmray.seeds import Streams
from tests.model.families import esm_alphabet

SHAPE = {"layers": 2, "width": 16, "heads": 2, "feed_forward": 32}
NOTEBOOK = {
    "adapter": {"kind": "lora", "rank": 4, "alpha": 1, "targets": "notebook", "bias": "all"},
    "head": {"kind": "notebook"},
}


def settings(**changes: Any) -> TrainSpec:
    return TrainSpec.model_validate({"backbone": {"name": "tiny", "init": "random", "shape": SHAPE}, **changes})


def built(train: TrainSpec, seed: int = 1) -> Any:
    return build_model(train, load_encoder(train.backbone, Path()), "esm2", 1, Streams(seed))


@pytest.mark.parametrize(
    ("name", "golden"),
    [("esm2_t6_8M_UR50D", 265_282), ("esm2_t12_35M_UR50D", 713_762), ("esm2_t30_150M_UR50D", 2_010_242)],
)
def test_golden_trainable_counts_of_the_notebooks(name: str, golden: int) -> None:
    train = TrainSpec.model_validate({"backbone": {"name": name, "init": "random"}, **NOTEBOOK})
    model = built(train)
    assert trainable_count(model) == golden
    head = sum(p.numel() for n, p in trainable_parameters(model).items() if "classifier.dense.base_layer" in n)
    paper = {"esm2_t6_8M_UR50D": 162_562, "esm2_t12_35M_UR50D": 482_882, "esm2_t30_150M_UR50D": 1_600_002}
    assert golden - head == paper[name]


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("head", ["linear", "dense", "notebook"])
def test_planned_counts_equal_built_ones(adapter: str, head: str) -> None:
    train = settings(adapter={"kind": adapter, "rank": 3}, head={"kind": head, "hidden": 5})
    assert trainable_estimate(ShapeSpec(**SHAPE).size, train) == trainable_count(built(train))


def test_trials_share_the_frozen_encoder_and_nothing_else() -> None:
    train = settings(adapter={"kind": "lora", "targets": "notebook", "bias": "all"}, head={"kind": "notebook"})
    encoder = load_encoder(train.backbone, Path())
    one, two = (build_model(train, encoder, "esm2", 1, Streams(seed)) for seed in (1, 2))
    for (name, mine), theirs in zip(one.named_parameters(), two.parameters(), strict=True):
        assert (mine.data_ptr() == theirs.data_ptr()) == (not mine.requires_grad), name
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_start_depends_on_the_seed_alone() -> None:
    train = settings()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, same, other = built(train, 1), built(train, 1), built(train, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, parameter in trainable_parameters(first).items():
        assert torch.equal(parameter, trainable_parameters(same)[name])
    assert not torch.equal(first.classifier.dense.weight, other.classifier.dense.weight)


def test_random_weights_come_from_init_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        backbone = BackboneSpec.model_validate({"name": "t", "init": "random", "init_seed": seed, "shape": SHAPE})
        return load_encoder(backbone, Path()).get_parameter("embeddings.word_embeddings.weight")

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_tokens_equal_those_of_the_transformers_tokenizer(tmp_path: Path) -> None:
    from transformers import EsmTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(esm_alphabet()))
    theirs = EsmTokenizer(str(tmp_path / "vocab.txt"))
    sequences = ["MKVLAG", "ACDEFGHIKLMNPQRSTVWY", "MXX"]
    for sequence, mine in zip(sequences, esm2_tokenizer().encode(sequences), strict=True):
        assert theirs(sequence)["input_ids"] == mine.tolist()


def test_unusual_residues_become_x_and_the_rest_is_refused() -> None:
    rows = esm2_tokenizer().encode(["MOBUZJ", "MXXXXX"])
    assert rows[0].tolist() == rows[1].tolist()
    with pytest.raises(ValueError, match="'-' is no residue"):
        esm2_tokenizer().encode(["MK-V"])


def test_prediction_does_not_depend_on_padding() -> None:
    model = built(settings(pooling="mean")).eval()
    tokens = torch.tensor([[0, 5, 6, 7, 2]])
    padded = torch.cat([tokens, torch.ones(1, 4, dtype=torch.long)], dim=1)
    with torch.no_grad():
        short = model(tokens, tokens != 1, (tokens > 3))
        long = model(padded, padded != 1, (padded > 3))
    assert torch.allclose(short, long, atol=1e-6)


def test_masked_mean_is_over_residues_only() -> None:
    hidden = torch.arange(6.0).reshape(1, 3, 2)
    mask = torch.tensor([[False, True, True]])
    assert masked_mean(hidden, mask).tolist() == [[3.0, 4.0]]


def test_pretrained_folder_is_loaded_with_its_weights(tmp_path: Path) -> None:
    saved = load_encoder(settings().backbone, Path())
    saved.save_pretrained(tmp_path / "mine")  # type: ignore[operator]
    loaded = load_encoder(BackboneSpec(name="mine"), tmp_path)
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file, save_file

    from plmray.config.backbone_names import backbone_fault
    from plmray.errors import SetupError

    load_encoder(settings().backbone, Path()).save_pretrained(tmp_path / "other")  # type: ignore[operator]
    weights = tmp_path / "other" / "model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if "layer.1." not in k}, weights, {"format": "pt"})
    with pytest.raises(SetupError, match="lacks 16 weights of a EsmModel"):
        load_encoder(BackboneSpec(name="other"), tmp_path)
    file = tmp_path / "other" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "gpt2"}))
    assert "is a gpt2 model" in (backbone_fault(BackboneSpec(name="other"), tmp_path) or "")
