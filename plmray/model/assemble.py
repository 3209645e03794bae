"""Encoder, adapter and head as one module, initialised from the trial's own stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plmray.model.adapters import apply_adapter
from plmray.model.backbones import shared_copy
from plmray.model.dropout import DropoutSource
from plmray.model.heads import HEADS
from plmray.seeds import Streams
from plmray.spec.names import Family
from plmray.spec.sweep import TrainSpec


class ProteinModel(nn.Module):
    """Tokens to predictions. The head is called ``classifier``, as in the notebooks whose counts we match."""

    def __init__(self, encoder: nn.Module | None, head: nn.Module, pooling: str, source: DropoutSource) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = head
        self.pooling = pooling
        self.dropout_source = source
        self.autocast_dtype: torch.dtype | None = None

    def forward(self, tokens: Tensor, attention: Tensor, residues: Tensor, pooled: Tensor | None = None) -> Tensor:
        """(n, length) tokens and masks, or (n, width) embeddings, to (n, outputs) in at least float32."""
        if pooled is None:
            assert self.encoder is not None
            pooled = embed(self.encoder, tokens, attention, residues, self.pooling, self.autocast_dtype)
        out: Tensor = self.classifier(pooled.to(next(self.classifier.parameters()).dtype))
        return out


def embed(
    encoder: nn.Module,
    tokens: Tensor,
    attention: Tensor,
    residues: Tensor,
    pooling: str,
    autocast_dtype: torch.dtype | None,
) -> Tensor:
    """(n, length) tokens to (n, width) pooled embeddings in at least float32, the encoder under autocast if asked."""
    # Here and not around the whole model, because DeepSpeed switches off an autocast it did not set up.
    with torch.autocast(tokens.device.type, autocast_dtype, enabled=autocast_dtype is not None):
        hidden = encoder(input_ids=tokens, attention_mask=attention).last_hidden_state
    hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
    return hidden[:, 0] if pooling == "cls" else masked_mean(hidden, residues)


def masked_mean(hidden: Tensor, residues: Tensor) -> Tensor:
    """Mean of (n, length, width) over residues only: marks and padding do not count."""
    weights = residues.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def build_model(
    settings: TrainSpec, encoder: nn.Module, family: Family, num_outputs: int, streams: Streams
) -> ProteinModel:
    """A trial's model over a frozen ``encoder``, whose weights it shares wherever it does not train them.

    Adapter and head start from the 'init' stream; the process's random state is left as it was.
    """
    source = DropoutSource(streams, settings.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.integer("init"))
        head = HEADS[settings.head.kind](encoder_width(encoder), num_outputs, settings.head, source)
        model = ProteinModel(shared_copy(encoder), head, settings.pooling, source)
        apply_adapter(model, settings.adapter, family, source)
    model.classifier.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone()  # trained here, so no longer shared
    return model


def build_head_model(settings: TrainSpec, width: int, num_outputs: int, streams: Streams) -> ProteinModel:
    """A frozen trial's model on embeddings: the head that ``build_model`` would make, and no encoder."""
    source = DropoutSource(streams, settings.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.integer("init"))
        head = HEADS[settings.head.kind](width, num_outputs, settings.head, source)
    return ProteinModel(None, head, settings.pooling, source)


def encoder_width(encoder: nn.Module) -> int:
    config = encoder.config
    return int(getattr(config, "d_model", None) or config.hidden_size)  # type: ignore[union-attr,arg-type]


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trainable_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in trainable_parameters(model).values())
