"""What the loop needs of an engine, and the plain one: torch in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.config.catalog.heads import HEADS
from plmray.config.fields.train import OptimizerSpec, TrainSpec
from plmray.data.batches import Batch, collate, sorted_batches
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.errors import SetupError
from plmray.model.assemble import ProteinModel, load_tensors, selected_tensors, trainable_parameters
from plmray.train.losses import class_weights, loss_per_unit, weighted

EVALUATION_TOKENS = 8192

State = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """One optimizer step: which training proteins, at which rate."""

    index: int
    rows: NDArray[np.int64]
    learning_rate: float


class Engine(Protocol):
    """Computes steps and predictions. Every engine gives the same numbers (tests/train/conformance.py)."""

    def train_step(self, step: Step) -> float:
        """Mean loss of the effective batch before the update, NaN or infinite where training diverged."""

    def predict(self, split: EncodedSplit) -> NDArray[np.float64]:
        """(units, outputs) predictions in the split's order; on every worker."""

    def state(self) -> State:
        """Copies of all trainable tensors on the CPU, by name; on every worker."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put weights back, to predict with them. Training does not go on after it."""

    def provenance(self) -> dict[str, Any]:
        """What computed the numbers: never part of a trial's identity."""

    def close(self) -> None: ...


class TorchEngine:
    """One process, the plain way: micro-batches, backward, clip, AdamW.

    Out of memory halves the micro-batch and repeats the step: the effective batch stays.
    """

    def __init__(
        self,
        model: ProteinModel,
        settings: TrainSpec,
        data: EncodedData,
        *,
        precision: str,
        device: torch.device,
        micro_batch: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.model = prepare(model, precision, device, gradient_checkpointing)
        self.data, self.settings, self.device = data, settings, device
        self.trainable = trainable_parameters(self.model)
        self.optimizer = torch.optim.AdamW(list(self.trainable.values()), **adamw_options(settings.optimizer))
        self.micro_batch = micro_batch or settings.batch_size
        self.out_of_memory_halvings = 0
        self.real_tokens = self.padded_tokens = 0
        self.weights = class_weights(settings, data)
        # What normalises over the batch, or pads to its longest, must see it whole.
        self.batch_is_whole = HEADS[settings.head.kind].needs_whole_batch or settings.pooling == "padded_mean"
        if self.batch_is_whole and self.micro_batch < settings.batch_size:
            raise SetupError(
                f"micro_batch: {self.micro_batch} of {settings.batch_size}: this trial needs its whole batch"
            )

    def train_step(self, step: Step) -> float:
        while True:
            try:
                loss = self._accumulate(step)
                break
            except torch.OutOfMemoryError:
                self.optimizer.zero_grad(set_to_none=True)
                if self.micro_batch == 1 or self.batch_is_whole:
                    raise
                self.micro_batch = (self.micro_batch + 1) // 2
                self.out_of_memory_halvings += 1
                torch.cuda.empty_cache()
        self._update(step)  # outside the retry: an update must not happen twice
        return loss

    def _accumulate(self, step: Step) -> float:
        """Gradients of the effective batch; returns its loss."""
        if not self.model.training:
            self.model.train()
        total, units = 0.0, self.data.splits["train"].num_counted(step.rows)
        for micro in micro_batches(self.data, step.rows, self.micro_batch):
            losses = self._losses(step, micro)
            loss = losses.sum() / units
            if self.model.rank_schedule is not None:
                loss = loss + self.model.rank_schedule.penalty() * len(micro.batch.tokens) / len(step.rows)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _update(self, step: Step) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = step.learning_rate
        if self.settings.optimizer.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(self.trainable.values()), self.settings.optimizer.clip)
        self.optimizer.step()
        if self.model.rank_schedule is not None:
            self.model.rank_schedule.after_update(step.index)
        self.optimizer.zero_grad(set_to_none=True)

    def _losses(self, step: Step, micro: MicroBatch) -> Tensor:
        select_dropout(self.model, self.data, step, micro)
        self.real_tokens += int(micro.batch.attention.sum())
        self.padded_tokens += micro.batch.tokens.numel()
        batch = micro.batch.to(self.device)
        outputs = self.model(batch.tokens, batch.attention, batch.residues, batch.embedded)
        losses = loss_per_unit(self.data.kind, outputs, batch.targets)
        return weighted(losses, batch.targets, self.weights, batch.counted)

    def predict(self, split: EncodedSplit) -> NDArray[np.float64]:
        self.model.eval()
        outputs = np.zeros((split.num_units, self.data.num_outputs))
        for rows in sorted_batches(split, EVALUATION_TOKENS):
            outputs[split.units(rows)] = predict_rows(self.model, self.data, split, rows, self.device)
        return outputs

    def state(self) -> State:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in selected_tensors(self.model).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        load_tensors(self.model, state)

    def provenance(self) -> dict[str, Any]:
        return {
            "engine_class": type(self).__name__,
            "world_size": 1,
            "device": device_name(self.device),
            "micro_batch": self.micro_batch,
            "out_of_memory_halvings": self.out_of_memory_halvings,
            **({"padding_ratio": self.padded_tokens / self.real_tokens} if self.real_tokens else {}),
        }

    def close(self) -> None:
        del self.optimizer, self.model, self.trainable


@dataclass(frozen=True)
class MicroBatch:
    """Rows ``first`` … of an effective batch."""

    first: int
    batch: Batch


def micro_batches(data: EncodedData, rows: NDArray[np.int64], size: int) -> Iterator[MicroBatch]:
    for first in range(0, len(rows), size):
        yield MicroBatch(first, collate(data, data.splits["train"], rows[first : first + size]))


def select_dropout(model: ProteinModel, data: EncodedData, step: Step, micro: MicroBatch) -> None:
    longest = int(data.splits["train"].lengths[step.rows].max())
    model.dropout_source.select(step=step.index, batch_rows=len(step.rows), batch_length=longest, first_row=micro.first)


def prepare(model: ProteinModel, precision: str, device: torch.device, gradient_checkpointing: bool) -> ProteinModel:
    """Move to the device; float64 throughout for fp64, float32 weights under autocast for bf16."""
    if gradient_checkpointing and model.encoder is not None:
        encoder: Any = model.encoder
        encoder.gradient_checkpointing_enable({"use_reentrant": False})
    model.autocast_dtype = torch.bfloat16 if precision == "bf16" else None
    return model.to(device=device, dtype=torch.float64 if precision == "fp64" else torch.float32)


def adamw_options(spec: OptimizerSpec) -> dict[str, Any]:
    return {
        "lr": spec.lr,
        "betas": (spec.beta1, spec.beta2),
        "eps": spec.eps,
        "weight_decay": spec.weight_decay,
    }


@torch.no_grad()
def predict_rows(
    model: torch.nn.Module, data: EncodedData, split: EncodedSplit, rows: NDArray[np.int64], device: torch.device
) -> NDArray[np.float64]:
    """(units, outputs) predictions of one batch."""
    batch = collate(data, split, rows).to(device)
    outputs: Tensor = model(batch.tokens, batch.attention, batch.residues, batch.embedded)
    return outputs.double().cpu().numpy()


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
