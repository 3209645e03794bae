"""DeepSpeed under the same loop: ZeRO 0-3, offload, one or several workers, the same numbers.

The raw engine is used, inside a process group that Ray Train (or a test) has opened. Every method is
collective: all workers call it, in the same order.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from plmray.config.fields.sweep import DeepSpeedSpec
from plmray.config.fields.train import TrainSpec
from plmray.data.batches import sorted_batches
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.model.assemble import ProteinModel, trainable_parameters
from plmray.train.engines import (
    EVALUATION_TOKENS,
    MicroBatch,
    State,
    Step,
    adamw_options,
    device_name,
    micro_batches,
    predict_rows,
    prepare,
    select_dropout,
)
from plmray.train.losses import class_weights, loss_per_unit, weighted
from plmray.train.prebuild import prepare_environment


class DeepSpeedEngine:
    """An Engine on ``deepspeed.initialize``. Raises RuntimeError where DeepSpeed built something else."""

    def __init__(
        self,
        model: ProteinModel,
        settings: TrainSpec,
        data: EncodedData,
        zero: DeepSpeedSpec,
        *,
        precision: str,
        device: torch.device,
        micro_batch: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        deepspeed = quiet_deepspeed(device)
        ensure_process_group(device)
        self.rank, self.world_size = distributed.get_rank(), distributed.get_world_size()
        self.settings, self.data, self.zero, self.device = settings, data, zero, device
        self.micro_batch = micro_batch or math.ceil(settings.batch_size / self.world_size)
        self.weights = class_weights(settings, data)
        self.model = prepare(model, precision, device, gradient_checkpointing)
        if zero.stage == 3:
            _own_all_weights(self.model)
        self.names = list(trainable_parameters(self.model))
        parameters = list(trainable_parameters(self.model).values())
        self.engine, *_ = deepspeed.initialize(
            model=self.model,
            optimizer=_optimizer(parameters, settings, zero),
            model_parameters=parameters,
            config=_config(settings, zero, self.micro_batch),
            dist_init_required=False,
        )
        if type(self.engine).__name__ != "DeepSpeedEngine" or self.engine.zero_optimization_stage() != zero.stage:
            raise RuntimeError(f"expected a DeepSpeedEngine at ZeRO {zero.stage}, DeepSpeed built {self.engine!r}")

    def train_step(self, step: Step) -> float:
        if not self.engine.module.training:  # the engine's own flag says nothing: eval() leaves it as it is
            self.engine.train()
        total = torch.zeros((), dtype=torch.float64)
        units = self.data.splits["train"].num_counted(step.rows)
        for micro, weight in self._share_of(step):
            select_dropout(self.model, self.data, step, micro)
            batch = micro.batch.to(self.device)
            outputs = self.engine(batch.tokens, batch.attention, batch.residues, batch.embedded)
            losses = loss_per_unit(self.data.kind, outputs, batch.targets)
            losses = weighted(losses, batch.targets, self.weights, batch.counted)
            loss = weight * losses.sum() / units
            # DeepSpeed averages gradients over workers; ours is a sum over the effective batch.
            self.engine.backward(loss * self.world_size, scale_wrt_gas=False)
            total += loss.detach().double().cpu()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = step.learning_rate
        self.engine.step()
        return float(self._sum_over_workers(total))

    def _share_of(self, step: Step) -> Iterator[tuple[MicroBatch, float]]:
        """This worker's micro-batches. All workers get equally many: a spare one computes with weight 0."""
        pieces = list(micro_batches(self.data, step.rows, self.micro_batch))
        rounds = math.ceil(len(pieces) / self.world_size)
        for number in range(rounds):
            index = number * self.world_size + self.rank
            yield (pieces[index], 1.0) if index < len(pieces) else (pieces[0], 0.0)

    def predict(self, split: EncodedSplit) -> NDArray[np.float64]:
        self.engine.eval()
        batches = list(sorted_batches(split, EVALUATION_TOKENS))
        outputs = np.zeros((split.num_units, self.data.num_outputs))
        for number in range(math.ceil(len(batches) / self.world_size)):
            index = number * self.world_size + self.rank
            rows = batches[min(index, len(batches) - 1)]  # ZeRO-3 wants as many forward passes on every worker
            predicted = predict_rows(self.engine, self.data, split, rows, self.device)
            if index < len(batches):
                outputs[split.units(rows)] = predicted
        return self._sum_over_workers(torch.from_numpy(outputs)).numpy()

    def state(self) -> State:
        with self._whole_parameters(modifier_rank=None) as named:
            return {name: named[name].detach().to("cpu", copy=True) for name in self.names}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        with self._whole_parameters(modifier_rank=0) as named, torch.no_grad():
            for name in self.names:
                named[name].copy_(state[name])

    def provenance(self) -> dict[str, Any]:
        optimizer = self.engine.optimizer
        return {
            "engine_class": type(self.engine).__name__,
            "zero_stage": self.engine.zero_optimization_stage(),
            "zero_optimizer": type(optimizer).__name__,
            "optimizer_class": type(getattr(optimizer, "optimizer", optimizer)).__name__,
            "offload_optimizer": self.zero.offload_optimizer,
            "offload_parameters": self.zero.offload_parameters,
            "world_size": self.world_size,
            "device": device_name(self.device),
            "micro_batch": self.micro_batch,
        }

    def close(self) -> None:
        engine, self.engine = self.engine, None
        engine.destroy()
        if self.zero.stage == 3:
            _forget_modules(engine.module)
        del engine, self.model
        gc.collect()

    @contextlib.contextmanager
    def _whole_parameters(self, modifier_rank: int | None) -> Iterator[dict[str, torch.nn.Parameter]]:
        """Parameters by name, gathered from all workers where ZeRO-3 has cut them up."""
        import deepspeed

        named = dict(self.engine.module.named_parameters())
        if self.zero.stage < 3:
            yield named
            return
        with deepspeed.zero.GatheredParameters([named[name] for name in self.names], modifier_rank=modifier_rank):
            yield named

    def _sum_over_workers(self, values: Tensor) -> Tensor:
        """Sum in float64; workers without a share add zeros, so the order of workers does not matter."""
        on_device = values.to(self.device)
        distributed.all_reduce(on_device)
        return on_device.cpu()


def quiet_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed without its banner, and without compiling parts that training does not use."""
    prepare_environment(device.type == "cuda")
    import deepspeed
    import deepspeed.ops

    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        handler.setLevel(logging.ERROR)
    # Its shared-memory collectives serve inference only and take a minute to compile.
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def ensure_process_group(device: torch.device) -> None:
    """Open a group of one where nobody has opened one: ``plmray trial`` with engine deepspeed."""
    if distributed.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(alone)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=0, world_size=1)


def _optimizer(parameters: list[torch.nn.Parameter], settings: TrainSpec, zero: DeepSpeedSpec) -> torch.optim.Optimizer:
    options = adamw_options(settings.optimizer)
    if zero.offload_optimizer:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        optimizer: torch.optim.Optimizer = DeepSpeedCPUAdam(parameters, adamw_mode=True, **options)
        return optimizer
    return torch.optim.AdamW(parameters, **options)


def _config(settings: TrainSpec, zero: DeepSpeedSpec, micro_batch: int) -> dict[str, Any]:
    """No scheduler, no precision, no accumulation of DeepSpeed's own: the loop decides these."""
    section: dict[str, Any] = {"stage": zero.stage}
    if zero.stage == 3:
        section["stage3_param_persistence_threshold"] = 0
    if zero.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if zero.offload_parameters:
        section["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": settings.optimizer.clip or 0.0,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "zero_optimization": section,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _own_all_weights(model: torch.nn.Module) -> None:
    """ZeRO-3 cuts up every weight, frozen ones too: it must not cut the encoder that trials share."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def _forget_modules(module: torch.nn.Module) -> None:
    """DeepSpeed 0.19 keeps the modules of a destroyed ZeRO-3 engine in a global list: a leak per trial."""
    from deepspeed.runtime.zero import parameter_offload

    stack = getattr(parameter_offload, "FWD_MODULE_STACK", None)
    if stack is not None:
        own = {id(part) for part in module.modules()}
        stack[:] = [part for part in stack if id(part) not in own]
