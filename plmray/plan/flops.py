"""How much arithmetic a trial is, so that a sweep can say what share of its device it used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plmray.config.backbone_names import encoder_size
from plmray.config.catalog.backbones import EncoderSize, known_backbone
from plmray.config.fields.train import BackboneSpec, TrainSpec


def _parameters(backbone: BackboneSpec, size: EncoderSize) -> float:
    """As published; of a shape those of its layers."""
    known = None if backbone.shape else known_backbone(backbone.name)
    return known.parameters if known else float(size.layers * size.layer_weights)


def forward_flops(
    settings: TrainSpec, lengths: NDArray[np.int64], trainable: int, *, by_residue: bool = False
) -> float | None:
    """Floating point operations of one pass over proteins of ``lengths`` tokens, the useful ones alone.

    2 N per token and 4 length · width · layers for attention; of the adapted layers where only the top ones adapt;
    of the head alone, once a protein or ``by_residue``, where the encoder is frozen and its embeddings are cached. None
    where its size is unknown.
    """
    if settings.adapter.kind == "none":
        return 2.0 * trainable * (float(lengths.sum()) if by_residue else len(lengths))
    size = encoder_size(settings.backbone)
    if size is None:
        return None
    adapted = min(1.0, settings.adapter.layers / size.layers) if settings.adapter.layers else 1.0
    tokens, squares = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    return adapted * (2 * _parameters(settings.backbone, size) * tokens + 4 * size.width * size.layers * squares)


def train_flops(
    settings: TrainSpec, lengths: NDArray[np.int64], trainable: int, epochs: float, *, by_residue: bool = False
) -> float | None:
    """Forward and backward of ``epochs`` epochs: with a frozen encoder nothing flows into its weights.

    Adapters: 4 N per token and three times the attention; full: 6 N; a head alone: three times its forward pass.
    """
    forward = forward_flops(settings, lengths, trainable, by_residue=by_residue)
    size = encoder_size(settings.backbone)
    if forward is None or settings.adapter.kind in ("none", "full") or size is None:
        return None if forward is None else 3 * forward * epochs
    adapted = min(1.0, settings.adapter.layers / size.layers) if settings.adapter.layers else 1.0
    weights = adapted * 2 * _parameters(settings.backbone, size) * float(lengths.sum())
    return (2 * weights + 3 * (forward - weights)) * epochs


def arithmetic(
    settings: TrainSpec,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    trainable: int,
    epochs: float,
    *,
    by_residue: bool = False,
) -> dict[str, Any]:
    """What a trial's provenance says of its arithmetic; empty where the encoder's size is unknown."""
    training = train_flops(settings, train, trainable, epochs, by_residue=by_residue)
    judging = forward_flops(settings, validation, trainable, by_residue=by_residue)
    if training is None or judging is None:
        return {}
    return {"train_flops": training, "validation_flops": judging * epochs * settings.evaluations_per_epoch}
