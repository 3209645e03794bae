"""A small randomly initialised checkpoint of every family, with a real tokenizer of its kind, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plmray.config.catalog.families import Family

WIDTH = 16
LETTERS = "LAGVSERDTIPKQNFYMHWCXBUZO"  # of small tokenizers made here; in no model's order


def esm_alphabet() -> list[str]:
    """ESM-1b's and ESM2's tokens in order, as their authors' own package has them."""
    esm = pytest.importorskip("esm", reason="fair-esm is not installed")
    return list(esm.data.Alphabet.from_architecture("ESM-1b").all_toks)


def write_checkpoint(family: Family, folder: Path, layers: int = 1) -> Path:
    """Weights, configuration and tokenizer files as the hub would have them; the folder."""
    torch.manual_seed(1)
    _model(family, layers).save_pretrained(folder)
    if family in ("esm2", "esm1b"):
        (folder / "vocab.txt").write_text("\n".join(esm_alphabet()))
    else:
        _tokenizer(family, folder).save_pretrained(folder)
    return folder


def _model(family: Family, layers: int) -> Any:
    import transformers

    size = {"hidden_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    if family in ("esm2", "esm1b"):
        kind = "rotary" if family == "esm2" else "absolute"
        config = transformers.EsmConfig(
            vocab_size=33,
            pad_token_id=1,
            mask_token_id=32,
            position_embedding_type=kind,
            token_dropout=True,
            emb_layer_norm_before=family == "esm1b",
            max_position_embeddings=1026,
            **size,
        )
        return transformers.EsmModel(config, add_pooling_layer=False)
    if family == "esmc":
        return transformers.EsmcModel(transformers.EsmcConfig(**size))
    if family == "bert":
        return transformers.BertModel(transformers.BertConfig(vocab_size=30, **size), add_pooling_layer=False)
    gated = "gated-gelu" if family == "ankh" else "relu"
    t5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": layers, "num_heads": 2}
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=160, feed_forward_proj=gated, **t5))


def _tokenizer(family: Family, folder: Path) -> Any:
    import transformers

    if family == "esmc":
        return transformers.EsmcTokenizer()
    if family == "bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
        (folder / "vocab.txt").write_text("\n".join(words))
        return transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False)
    return _ankh_tokenizer() if family == "ankh" else _prott5_tokenizer(family, folder)


def _prott5_tokenizer(family: Family, folder: Path) -> Any:
    """A sentencepiece model of single residues, trained here; ProstT5 adds its two directions as tokens."""
    import sentencepiece
    from transformers import AutoTokenizer

    lines = [" ".join(LETTERS[i:] + LETTERS[:i]) for i in range(len(LETTERS))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "spiece"),
        vocab_size=len(LETTERS) + 4,
        model_type="word",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}')
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if family == "prostt5":
        tokenizer.add_tokens(["<AA2fold>", "<fold2AA>"], special_tokens=True)
    return tokenizer


def _ankh_tokenizer() -> Any:
    """Residues side by side, each its own piece, and </s> behind."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
