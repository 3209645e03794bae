"""Families of encoders: tokens and marks, where adapters go, golden counts of full-size models on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from plmray.config.backbone_names import backbone_fault, family, local_folder
from plmray.config.catalog.backbones import BUNDLED, KNOWN_BACKBONES
from plmray.config.catalog.families import FAMILIES, Family
from plmray.config.catalog.recipes import settings_of
from plmray.config.fields.train import BackboneSpec, HeadSpec, TrainSpec
from plmray.model.assemble import build_model, trainable_count, trainable_parameters
from plmray.model.backbones import load_encoder, load_tokenizer
from plmray.model.dropout import DropoutSource
from plmray.model.prottrans import ScaledLowRankLinear
from plmray.plan.plan import head_parameters
from plmray.seeds import Streams
from tests.model.families import write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("families")
    for name in get_args(Family):
        write_checkpoint(name, made / name)
    return made


@pytest.mark.parametrize("name", get_args(Family))
def test_a_folder_tells_its_family_and_marks(name: Family, folder: Path) -> None:
    backbone = BackboneSpec(name=name)
    assert family(backbone, folder) == name
    assert backbone_fault(backbone, folder) is None
    tokenizer = load_tokenizer(backbone, folder)
    assert (len(tokenizer.front), len(tokenizer.back)) == FAMILIES[name].marks
    rare, x, known = tokenizer.encode(["MOBUZJK", "MXXXXXK", "MACDEFK"])
    assert rare.tolist() == x.tolist() != known.tolist()
    assert len(set(known.tolist())) == len(known)  # residues and marks are all different tokens


@pytest.mark.parametrize("name", ["t5", "prostt5", "ankh", "bert", "esmc"])
def test_tokens_equal_those_of_the_checkpoints_own_tokenizer(name: Family, folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs, rules = AutoTokenizer.from_pretrained(folder / name), FAMILIES[name]
    (mine,) = load_tokenizer(BackboneSpec(name=name), folder).encode(["MKVLAGW"])
    text = " ".join(filter(None, [rules.prefix, "M K V L A G W"])) if rules.joined else list("MKVLAGW")
    assert theirs(text, is_split_into_words=not rules.joined)["input_ids"] == mine.tolist()


def test_the_prefix_of_prostt5_is_no_residue(folder: Path) -> None:
    """A mean over residues leaves it out: it is the mean of the states behind it and before </s>."""
    train = TrainSpec.model_validate({"backbone": "prostt5", "pooling": "mean", "adapter": {"kind": "none"}})
    model = build_model(train, load_encoder(train.backbone, folder), "prostt5", 1, Streams(1)).eval()
    (ids,) = load_tokenizer(train.backbone, folder).encode(["MKVL"])
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    residues = torch.tensor([[False, True, True, True, True, False]])
    states = model.encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    expected = model.classifier(states[:, 1:5].mean(1))
    torch.testing.assert_close(model(tokens, torch.ones_like(tokens), residues), expected)


def test_a_family_may_be_named_and_must_fit(folder: Path) -> None:
    assert family(BackboneSpec(name="t5", family="prostt5"), folder) == "prostt5"
    assert "family: bert reads a bert model" in str(backbone_fault(BackboneSpec(name="t5", family="bert"), folder))


def meta_t5(**changes: Any) -> Any:
    from transformers import T5Config, T5EncoderModel

    size = {"d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32, "vocab_size": 128}
    with torch.device("meta"):
        return T5EncoderModel(T5Config(**{**size, **changes})).requires_grad_(False)


@pytest.mark.parametrize(
    ("recipe", "level", "outputs", "golden"),
    [
        ("notebook", "protein", 1, 3_016_705),
        ("notebook", "residue", 3, 1_969_155),
        ("prottrans", "residue", 3, 2_510_851),
        ("prottrans", "protein", 1, 3_558_401),
    ],
)
def test_golden_counts_of_prott5(recipe: str, level: Any, outputs: int, golden: int) -> None:
    train = TrainSpec.model_validate({"backbone": "prot_t5_xl_uniref50", **settings_of(recipe, "t5", None)})
    model = build_model(train, meta_t5(), "t5", outputs, Streams(1), level)
    assert trainable_count(model) == golden


@pytest.mark.parametrize(("kind", "percent"), [("lora", 0.25), ("dora", 0.28)])
def test_published_fractions_of_peft_methods(kind: str, percent: float) -> None:
    """With the notebooks' head on ProtT5, in percent of all parameters, as published."""
    tree = settings_of("notebook", "t5", None) | {"adapter": {"kind": kind, "targets": "notebook"}}
    model = build_model(TrainSpec.model_validate({"backbone": "x", **tree}), meta_t5(), "t5", 1, Streams(1))
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert round(100 * trainable_count(model) / whole, 2) == percent


def test_scaled_low_rank_linear_is_what_it_says() -> None:
    torch.manual_seed(0)
    base = torch.nn.Linear(6, 4).double()
    layer = ScaledLowRankLinear(base, 2).double()
    with torch.no_grad():
        layer.lora_B.normal_()
        layer.scale_b.normal_()
    x = torch.randn(5, 6, dtype=torch.float64)
    scaled = base.weight * (layer.scale_b[:, None] @ layer.scale_a[None]) + layer.lora_B @ layer.lora_A / 2
    torch.testing.assert_close(layer(x), x @ scaled.T + base.bias)


def test_prottrans_trains_every_norm_and_starts_near_the_encoder(folder: Path) -> None:
    encoder = load_encoder(BackboneSpec(name="t5"), folder)
    train = TrainSpec.model_validate({"backbone": "t5", "pooling": "mean", "adapter": {"kind": "prottrans"}})
    model = build_model(train, encoder, "t5", 1, Streams(1))
    norms = [name for name in trainable_parameters(model) if "norm" in name]
    assert len(norms) == 3  # two in the block, one behind it
    tokens = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        before, after = (e(input_ids=tokens).last_hidden_state for e in (encoder, model.encoder))
    assert 0 < (before - after).abs().max() < 0.2


@pytest.mark.parametrize("name", get_args(Family))
def test_prefixes_are_seen_by_every_adapted_layer(name: Family, folder: Path) -> None:
    """Changing one prefix value changes the output; without prefixes the wrapped attention is the plain one."""
    write_checkpoint(name, folder / f"{name}-two", layers=2)
    encoder = load_encoder(BackboneSpec(name=f"{name}-two"), folder)
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        for layer in (None, 1):
            adapter = {"kind": "prefix", "tokens": 2, "layers": layer}
            train = TrainSpec.model_validate({"backbone": "x", "adapter": adapter, "pooling": "mean"})
            own = build_model(train, encoder, name, 1, Streams(1)).encoder
            assert own is not None
            values = {n: p for n, p in own.named_parameters() if n.endswith("prefix_values")}
            assert len(values) == (1 if layer else 2)
            for prefix in values.values():
                before = own(input_ids=tokens).last_hidden_state
                prefix += 1.0
                assert not torch.allclose(own(input_ids=tokens).last_hidden_state, before)
        torch.testing.assert_close(
            encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state, plain
        )


def test_prefix_attention_without_prefixes_is_plain_attention(folder: Path) -> None:
    from plmray.model.prefix_tuning import add_prefixes

    for name in get_args(Family):
        encoder = load_encoder(BackboneSpec(name=name), folder)
        tokens, attention = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 1, 1, 0]])
        with torch.no_grad():
            plain = encoder(input_ids=tokens, attention_mask=attention).last_hidden_state
            add_prefixes(encoder, "no such layer", 2)
            wrapped = encoder(input_ids=tokens, attention_mask=attention).last_hidden_state
        torch.testing.assert_close(wrapped[:, :3], plain[:, :3])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cnn_seth", (1024 * 5 * 28 + 28) + (28 * 5 * 3 + 3)),
        ("cnn_prottrans", (1024 * 7 * 32 + 32) + (32 * 7 * 3 + 3)),
        ("light_attention", 2 * (1024 * 1024 * 9 + 1024) + (2048 * 32 + 32) + 2 * 32 + (32 * 3 + 3)),
    ],
)
def test_heads_have_the_published_layer_sizes(kind: Any, expected: int) -> None:
    from plmray.model.heads import build_head

    level: Any = "protein" if kind == "light_attention" else "residue"
    head = build_head(1024, 3, HeadSpec(kind=kind), level, DropoutSource(Streams(0), 8))
    assert sum(p.numel() for p in head.parameters()) == expected == head_parameters(1024, HeadSpec(kind=kind), 3, level)


def test_light_attentions_maximum_does_not_see_padding() -> None:
    from plmray.model.heads import build_head

    head = build_head(4, 1, HeadSpec(kind="light_attention"), "protein", DropoutSource(Streams(0), 8)).eval()
    with torch.no_grad():
        head.features.weight.zero_()  # type: ignore[union-attr,operator]
        head.features.bias.fill_(-3.0)  # type: ignore[union-attr,operator]
        states, residues = torch.randn(1, 6, 4), torch.tensor([[True] * 3 + [False] * 3])
        short = head(states[:, :3], residues[:, :3])
        torch.testing.assert_close(head(states, residues), short)


def test_adalora_ends_with_the_rank_it_was_given(folder: Path) -> None:
    """After the last steps as many singular values are left as the mean rank allows."""
    adapter = {"kind": "adalora", "rank": 2, "alpha": 4}
    train = TrainSpec.model_validate({"backbone": "esm2", "adapter": adapter, "pooling": "mean"})
    model = build_model(train, load_encoder(train.backbone, folder), "esm2", 1, Streams(1), "protein", 40)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01)
    tokens = torch.tensor([[0, 5, 6, 7, 2]])
    assert model.rank_schedule is not None
    for step in range(40):
        out = model(tokens, torch.ones_like(tokens), tokens > 3)
        ((out - 1) ** 2).sum().add(model.rank_schedule.penalty()).backward()
        optimizer.step()
        model.rank_schedule.after_update(step)
        optimizer.zero_grad()
    values = [p for n, p in model.named_parameters() if "lora_E" in n]
    assert len(values) == 4 and sum(int((v != 0).sum()) for v in values) == 4 * 2
    assert sum(v.numel() for v in values) == 4 * 3


def test_known_backbones_name_families_and_the_bundled_one_is_a_folder() -> None:
    assert {known.family for known in KNOWN_BACKBONES.values()} == set(get_args(Family)) - {"esmc"}
    assert (local_folder(BUNDLED, Path()) or Path()) == KNOWN_BACKBONES[BUNDLED].bundled
