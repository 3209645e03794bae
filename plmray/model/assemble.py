"""Encoder, adapter and head as one module, initialised from the trial's own stream."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from plmray.config.catalog.families import Family
from plmray.config.catalog.heads import HEADS
from plmray.config.catalog.tasks import Level
from plmray.config.fields.train import TrainSpec
from plmray.model.adapters import apply_adapter
from plmray.model.backbones import shared_copy
from plmray.model.dropout import DropoutSource
from plmray.model.heads import build_head
from plmray.model.rank_schedule import RankSchedule
from plmray.seeds import Streams


class ProteinModel(nn.Module):
    """Tokens to predictions. The head is called ``classifier``, as in the notebooks whose counts we match."""

    def __init__(
        self,
        encoder: nn.Module | None,
        head: nn.Module,
        settings: TrainSpec,
        level: Level,
        source: DropoutSource,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = head
        self.pooling = settings.pooling
        self.level = level
        self.head_reads_residues = HEADS[settings.head.kind].reads_residues
        self.dropout_source = source
        self.autocast_dtype: torch.dtype | None = None
        self.rank_schedule: RankSchedule | None = None

    def forward(self, tokens: Tensor, attention: Tensor, residues: Tensor, embedded: Tensor | None = None) -> Tensor:
        """(n, length) tokens and masks to (units, outputs) in at least float32.

        ``embedded``: what a frozen encoder would give, (n, width) or (n, length, width). Units are the n proteins, or
        the residues of all of them, end to end.
        """
        reads_states = self.level == "residue" or self.head_reads_residues
        if embedded is None:
            assert self.encoder is not None
            states = encode(self.encoder, tokens, attention, self.autocast_dtype)
            embedded = states if reads_states else pool(states, residues, self.pooling)
        embedded = embedded.to(next(self.classifier.parameters()).dtype)
        out: Tensor = self.classifier(embedded, residues) if self.head_reads_residues else self.classifier(embedded)
        return out[residues] if self.level == "residue" else out


def encode(encoder: nn.Module, tokens: Tensor, attention: Tensor, autocast_dtype: torch.dtype | None) -> Tensor:
    """(n, length) tokens to (n, length, width) last states in at least float32, the encoder under autocast if asked."""
    # Here and not around the whole model, because DeepSpeed switches off an autocast it did not set up.
    with torch.autocast(tokens.device.type, autocast_dtype, enabled=autocast_dtype is not None):
        hidden: Tensor = encoder(input_ids=tokens, attention_mask=attention).last_hidden_state
    return hidden if hidden.dtype == torch.float64 else hidden.float()


def pool(hidden: Tensor, residues: Tensor, pooling: str) -> Tensor:
    """(n, length, width) states to (n, width)."""
    if pooling == "cls":
        return hidden[:, 0]
    return masked_mean(hidden, residues) if pooling == "mean" else hidden.mean(1)


def masked_mean(hidden: Tensor, residues: Tensor) -> Tensor:
    """Mean of (n, length, width) over residues only: marks and padding do not count."""
    weights = residues.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def build_model(
    settings: TrainSpec,
    encoder: nn.Module,
    family: Family,
    num_outputs: int,
    streams: Streams,
    level: Level = "protein",
    total_steps: int = 0,
) -> ProteinModel:
    """A trial's model over a frozen ``encoder``, whose weights it shares wherever it does not train them.

    Adapter and head start from the 'init' stream; the process's random state is left as it was. ``total_steps`` of
    the optimizer: what adalora plans its ranks by.
    """
    source = DropoutSource(streams, settings.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.integer("init"))
        head = build_head(encoder_width(encoder), num_outputs, settings.head, level, source)
        model = ProteinModel(shared_copy(encoder), head, settings, level, source)
        model.rank_schedule = apply_adapter(model, settings.adapter, family, source, total_steps)
    model.classifier.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone()  # trained here, so no longer shared
    return model


def build_head_model(
    settings: TrainSpec, width: int, num_outputs: int, streams: Streams, level: Level = "protein"
) -> ProteinModel:
    """A frozen trial's model on embeddings: the head that ``build_model`` would make, and no encoder."""
    source = DropoutSource(streams, settings.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.integer("init"))
        head = build_head(width, num_outputs, settings.head, level, source)
    return ProteinModel(None, head, settings, level, source)


def encoder_width(encoder: nn.Module) -> int:
    config = encoder.config
    return int(getattr(config, "d_model", None) or config.hidden_size)  # type: ignore[union-attr,arg-type]


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def selected_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds: everything trained, and the running statistics of a head that keeps some."""
    statistics = {
        name: b for name, b in model.named_buffers() if name.startswith("classifier.") and b.is_floating_point()
    }
    return {**trainable_parameters(model), **statistics}


@torch.no_grad()
def load_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put what ``selected_tensors`` names back."""
    for name, tensor in selected_tensors(model).items():
        tensor.copy_(state[name])


def trainable_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in trainable_parameters(model).values())
