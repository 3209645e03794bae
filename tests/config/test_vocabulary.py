"""Tokens of residues against vocabularies that this project did not write; what a checkpoint folder says of itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plmray.config.backbone_names import backbone_fault, esm_tokens, longest_residues, weights_hash
from plmray.config.catalog.backbones import ASSETS, BUNDLED
from plmray.config.checkpoints import longest_protein
from plmray.config.fields.train import BackboneSpec
from plmray.config.vocabulary import (
    AMINO_ACIDS,
    ESM_TOKENS,
    UNUSUAL,
    built_in_tokens,
    checkpoint_tokens,
    residue_tokens,
)
from tests.model.families import esm_alphabet


def test_the_built_in_tokens_are_those_of_fair_esm() -> None:
    assert list(ESM_TOKENS) == esm_alphabet()


def test_the_built_in_tokens_are_those_of_a_published_checkpoint(real_esm2: Path) -> None:
    assert list(ESM_TOKENS) == (real_esm2 / "vocab.txt").read_text().split()
    assert checkpoint_tokens(real_esm2, 33) == built_in_tokens()


def test_every_residue_is_the_token_that_fair_esm_gives_it() -> None:
    alphabet, tokens = esm_alphabet(), built_in_tokens()
    for letter in AMINO_ACIDS:
        assert alphabet[tokens.letters[letter]] == letter
    assert {alphabet[tokens.letters[letter]] for letter in UNUSUAL} == {"X"}
    assert [alphabet[token] for token in (*tokens.front, *tokens.back, tokens.pad_id)] == ["<cls>", "<eos>", "<pad>"]


def test_the_bundled_encoder_brings_the_published_vocabulary() -> None:
    assert (ASSETS / BUNDLED / "vocab.txt").read_text().split() == esm_alphabet()


@pytest.fixture
def saprot(cases: Path, tmp_path: Path) -> Path:
    return with_weights(cases / "backbones" / "saprot_like", tmp_path / "saprot")


def with_weights(source: Path, target: Path) -> Path:
    """The files of a case and something in the place of weights, for checks that do not load them."""
    target.mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
    (target / "model.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"{}      ")
    return target


def test_a_structure_aware_vocabulary_reads_residues_of_unknown_structure(saprot: Path) -> None:
    tokens, spelled = esm_tokens(BackboneSpec(name=str(saprot)), saprot), (saprot / "vocab.txt").read_text().split()
    assert tokens is not None and backbone_fault(BackboneSpec(name=str(saprot)), saprot) is None
    assert [spelled[tokens.letters[letter]] for letter in "MKTD"] == ["M#", "K#", "T#", "D#"]


def test_a_vocabulary_of_something_else_is_refused(saprot: Path) -> None:
    marks = ["<cls>", "<pad>", "<eos>", "<unk>"]
    triples = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    (saprot / "vocab.txt").write_text("\n".join([*marks, *triples, "A", "C", "G", "T"]))
    rewrite(saprot, vocab_size=72)
    message = str(backbone_fault(BackboneSpec(name=str(saprot)), saprot))
    assert "has no token for the residues D, E, F, H" in message and "one token a residue" in message


def test_a_short_vocabulary_of_residues_is_read_as_it_is() -> None:
    """26 tokens in an order of their own, no X: what is unknown reads as <unk>."""
    own = ["<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "-", *"YWVTSRQPNMLKIHGFEDCA"]
    tokens = residue_tokens(own)
    assert [own[tokens.letters[letter]] for letter in "ACDY"] == list("ACDY")
    assert own[tokens.letters["X"]] == own[tokens.letters["B"]] == "<unk>"
    assert (tokens.pad_id, tokens.front, tokens.back) == (0, (1,), (2,))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["<cls>", "<pad>", "<eos>", *AMINO_ACIDS[:-1]], "neither X nor a token for what is unknown"),
        ([*AMINO_ACIDS, "<pad>", "<unk>"], "has no <cls>, <eos>"),
        ([*ESM_TOKENS, "A"], "names 1 tokens twice"),
    ],
)
def test_a_vocabulary_that_cannot_spell_a_protein(tokens: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        residue_tokens(tokens)


def test_marks_have_the_names_that_the_tokenizer_gives_them(saprot: Path) -> None:
    text = (saprot / "vocab.txt").read_text().replace("<eos>", "</s>")
    (saprot / "vocab.txt").write_text(text)
    assert "has no <eos>" in str(backbone_fault(BackboneSpec(name=str(saprot)), saprot))
    (saprot / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    assert backbone_fault(BackboneSpec(name=str(saprot)), saprot) is None


def test_a_vocabulary_of_another_model_is_refused(saprot: Path) -> None:
    (saprot / "vocab.txt").write_text("\n".join(ESM_TOKENS))
    message = str(backbone_fault(BackboneSpec(name=str(saprot)), saprot))
    assert "vocab.txt has 33 tokens and its weights 446" in message


def test_without_a_vocabulary_only_esm2s_number_of_tokens_is_taken_for_esm2s(saprot: Path) -> None:
    (saprot / "vocab.txt").unlink()
    message = str(backbone_fault(BackboneSpec(name=str(saprot)), saprot))
    assert "brings no vocab.txt and has 446 tokens" in message and "cannot be known" in message
    rewrite(saprot, vocab_size=33)
    assert esm_tokens(BackboneSpec(name=str(saprot)), saprot) == built_in_tokens()


def test_the_vocabulary_is_a_part_of_the_identity(saprot: Path) -> None:
    backbone = BackboneSpec(name=str(saprot))
    before = weights_hash(backbone, saprot)
    lines = (saprot / "vocab.txt").read_text().split()
    (saprot / "vocab.txt").write_text("\r\n".join(lines) + "\n")
    assert weights_hash(backbone, saprot) == before  # the same tokens, written otherwise
    one, other = lines.index("D#"), lines.index("T#")
    lines[one], lines[other] = lines[other], lines[one]
    (saprot / "vocab.txt").write_text("\n".join(lines))
    assert weights_hash(backbone, saprot) != before


def test_a_pointer_in_the_place_of_weights_is_told(cases: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(cases / "backbones" / "lfs_pointer", folder)
    message = str(backbone_fault(BackboneSpec(name=str(folder)), tmp_path))
    assert "git-lfs pointer of 133 bytes" in message and "git lfs pull" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").write_text("<html>"), "config.json is no JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is no JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is empty"),
        (lambda folder: (folder / "special_tokens_map.json").write_text("{"), "special_tokens_map.json is no JSON"),
    ],
)
def test_a_broken_download_is_told(saprot: Path, change: Any, words: str) -> None:
    change(saprot)
    assert words in str(backbone_fault(BackboneSpec(name=str(saprot)), saprot))


def test_the_longest_protein_is_read_from_the_configuration(cases: Path, tmp_path: Path, saprot: Path) -> None:
    bert = with_weights(cases / "backbones" / "bert_64_positions", tmp_path / "bert")
    assert longest_residues(BackboneSpec(name=str(bert)), tmp_path) == 62  # 64 less [CLS] and [SEP]
    assert longest_residues(BackboneSpec(name=str(saprot)), tmp_path) is None  # rotary: no table
    rewrite(saprot, position_embedding_type="absolute")
    assert longest_residues(BackboneSpec(name=str(saprot)), tmp_path) == 1022  # ESM-1b: its published limit


def test_positions_of_transformers_own_encoders() -> None:
    """The longest protein passes, one residue more does not."""
    import torch
    from transformers import BertConfig, BertModel, EsmConfig, EsmModel

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    esm = EsmConfig(
        vocab_size=33, pad_token_id=1, max_position_embeddings=20, position_embedding_type="absolute", **size
    )
    bert = BertConfig(vocab_size=33, max_position_embeddings=20, **size)
    for model in (EsmModel(esm, add_pooling_layer=False), BertModel(bert, add_pooling_layer=False)):
        longest = longest_protein(model.config.to_dict(), marks=2)
        assert longest is not None
        model.eval()(input_ids=torch.full((1, longest + 2), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 3), 5))


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_encoders_of_one_family_and_two_vocabularies_do_not_share_a_sweep(saprot: Path, tmp_path: Path) -> None:
    """All candidates read the tokens of one table: one of another order would train on wrong residues."""
    from plmray.config.load import load_sweep
    from plmray.errors import SpecError
    from tests.examples import write_sweep

    other = tmp_path / "other"
    shutil.copytree(saprot, other)
    space = {"backbone.name": {"kind": "choice", "values": ["saprot", "other"]}}
    train = {"backbone": "saprot", "adapter": {"kind": "none"}, "pooling": "mean"}
    load_sweep(write_sweep(tmp_path, train=train, space=space))
    lines = (other / "vocab.txt").read_text().split()
    one, two = lines.index("D#"), lines.index("T#")
    lines[one], lines[two] = lines[two], lines[one]
    (other / "vocab.txt").write_text("\n".join(lines))
    with pytest.raises(SpecError, match="read different tokens"):
        load_sweep(write_sweep(tmp_path, train=train, space=space))
