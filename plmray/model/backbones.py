"""Protein encoders: loaded from a folder or the hub, or built at random from a size."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plmray.config.backbone_names import cached_snapshot, esm2_size, esm_tokens, family, local_folder
from plmray.config.catalog.backbones import EncoderSize, known_backbone
from plmray.config.catalog.families import FAMILIES
from plmray.config.fields.train import BackboneSpec
from plmray.config.vocabulary import ESM_TOKENS, TOKENIZER_FILES
from plmray.errors import SetupError, first_line
from plmray.model.tokens import ResidueTokenizer, tokenizer_by_rules, tokenizer_of

# Dropout of the encoder's own by the names that architectures give it.
_NO_DROPOUT: dict[str, dict[str, float]] = {
    "esm": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "esmc": {"attention_dropout": 0.0},
    "t5": {"dropout_rate": 0.0},
}


def load_encoder(backbone: BackboneSpec, folder: Path) -> nn.Module:
    """A frozen encoder in float32 whose own dropout is 0. Raises SetupError when its weights cannot be had."""
    if backbone.init == "random":
        encoder = _random(backbone)
    else:
        import transformers

        kind = FAMILIES[family(backbone, folder)].model_type
        classes = {"esm": "EsmModel", "bert": "BertModel", "esmc": "EsmcModel", "t5": "T5EncoderModel"}
        pooler = {"add_pooling_layer": False} if kind in ("esm", "bert") else {}
        encoder = _pretrained(getattr(transformers, classes[kind]), backbone, folder, **pooler, **_NO_DROPOUT[kind])
    encoder.requires_grad_(False)
    return encoder.eval()


def load_tokenizer(backbone: BackboneSpec, folder: Path) -> ResidueTokenizer:
    """The residue table of a backbone, by its checkpoint's own vocabulary. Raises SetupError where it has none."""
    own = family(backbone, folder)
    source, revision = source_of(backbone, folder)
    try:
        tokens = esm_tokens(backbone, folder) if FAMILIES[own].model_type == "esm" else None
        if tokens is not None:
            return tokenizer_of(tokens)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        return tokenizer_by_rules(tokenizer, FAMILIES[own])
    except (OSError, ValueError) as error:
        raise _not_loaded(source, error) from error


def fetch_weights(backbone: BackboneSpec, folder: Path) -> None:
    """Have a hub checkpoint on this machine before ids are made of it. Raises SetupError when it cannot be had."""
    if backbone.embeddings or backbone.init == "random" or local_folder(backbone.name, folder):
        return
    snapshot = cached_snapshot(backbone)
    if snapshot is not None and any((snapshot / name).is_file() for name in TOKENIZER_FILES):
        return  # whole: without its tokenizer another program fetched it, for its weights alone
    from huggingface_hub import snapshot_download

    source, revision = source_of(backbone, folder)
    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        found = Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
        if not any(found.glob("*.safetensors")):
            snapshot_download(source, revision=revision, allow_patterns=["pytorch_model*.bin"])
    except Exception as error:  # the hub's own errors share no base class
        raise _not_loaded(source, error) from error


def source_of(backbone: BackboneSpec, folder: Path) -> tuple[str, str | None]:
    """Folder or hub id of pretrained weights, with the revision."""
    path = local_folder(backbone.name, folder)
    known = known_backbone(backbone.name)
    return str(path) if path else known.hub_id if known else backbone.name, backbone.revision


def esm2_config(size: EncoderSize) -> Any:
    """transformers' configuration of an ESM2 encoder."""
    from transformers import EsmConfig

    return EsmConfig(
        vocab_size=len(ESM_TOKENS),
        pad_token_id=ESM_TOKENS.index("<pad>"),
        mask_token_id=ESM_TOKENS.index("<mask>"),
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.feed_forward,
        position_embedding_type="rotary",
        token_dropout=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=1026,
    )


def random_esm2(size: EncoderSize, seed: int) -> nn.Module:
    """An ESM2 encoder with weights from ``seed`` alone; the caller's random state is left as it was."""
    from transformers import EsmModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder: nn.Module = EsmModel(esm2_config(size), add_pooling_layer=False)
    return encoder


def shared_copy(encoder: nn.Module) -> nn.Module:
    """A module tree of its own over the same weight storage, so that trials can share one frozen encoder."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.data, requires_grad=False) for parameter in encoder.parameters()
    }
    return copy.deepcopy(encoder, memo)


def _random(backbone: BackboneSpec) -> nn.Module:
    size = esm2_size(backbone)
    assert size is not None  # the spec's checks refuse a random backbone without a shape
    return random_esm2(size, backbone.init_seed)


def _pretrained(kind: Any, backbone: BackboneSpec, folder: Path, **options: Any) -> nn.Module:
    source, revision = source_of(backbone, folder)
    encoder: nn.Module
    try:
        encoder, found = kind.from_pretrained(
            source,
            revision=revision,
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(source, error) from error
    missing = [key for key in found["missing_keys"] if not _may_be_missing(key)]
    if missing:
        # transformers would start these at random, differently each time, and train on noise.
        raise SetupError(
            f"train.backbone: '{source}' lacks {len(missing)} weights of a {kind.__name__} (first: {missing[0]}); "
            "it is a checkpoint of another architecture"
        )
    return encoder


def _may_be_missing(key: str) -> bool:
    """Parts that embeddings do not pass through."""
    return any(part in key for part in ("contact_head", "pooler", "position_ids", "inv_freq", "encoder.embed_tokens"))


def _not_loaded(source: str, error: Exception) -> SetupError:
    return SetupError(
        f"train.backbone: '{source}' could not be loaded ({first_line(error)}). Download it where there is a network "
        "and give its folder, or try init: random."
    )
