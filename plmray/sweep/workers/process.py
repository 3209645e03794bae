"""How a process prepares, builds a trial's model and its engine, and cleans up behind it."""

from __future__ import annotations

import gc
import math
from typing import Any

import torch

from plmray.config.backbone_names import family
from plmray.config.catalog.adapters import ADAPTERS
from plmray.config.catalog.engines import ENGINES
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.train import TrainSpec
from plmray.data.encoded import EncodedData
from plmray.errors import SetupError
from plmray.model.adapters import saved_config
from plmray.model.assemble import ProteinModel, build_head_model, build_model
from plmray.seeds import Streams
from plmray.sweep.workers.context import Bench
from plmray.sweep.workers.device import Device, device_of
from plmray.train.engines import Engine, TorchEngine


def prepare_process(spec: SweepSpec) -> None:
    """Fixed threads, so that sums are added in the same order wherever a trial runs."""
    torch.set_num_threads(spec.resources.cpus_per_worker)


def trial_model(
    device: Device, bench: Bench, settings: TrainSpec, streams: Streams, split_seed: int | None = None
) -> tuple[ProteinModel, EncodedData]:
    """A trial's model as it starts, with the data it reads: embeddings where the encoder stays frozen."""
    outputs, level = bench.data.num_outputs, bench.data.level
    if settings.adapter.kind == "none" and device.may_cache(bench, settings):
        data = device.embedded(bench, settings, split_seed)
        return build_head_model(settings, data.width, outputs, streams, level), data
    if settings.head.standardize:
        raise SetupError("head.standardize needs embeddings that are kept, and here they are too many; switch it off")
    data, encoder = device.data(bench, split_seed), device.encoder(bench, settings.backbone)
    steps = math.ceil(len(data.splits["train"]) / settings.batch_size) * settings.epochs
    own = family(settings.backbone, bench.base)
    return build_model(settings, encoder, own, outputs, streams, level, steps), data


def adapter_config(device: Device, bench: Bench, settings: TrainSpec) -> dict[str, Any] | None:
    """What is saved beside an adapter, so that peft can load it."""
    if not ADAPTERS[settings.adapter.kind].by_peft:
        return None
    layers = device.layers_of(bench, settings.backbone)
    return saved_config(settings.adapter, family(settings.backbone, bench.base), layers)


def make_engine(bench: Bench, model: ProteinModel, settings: TrainSpec, data: EncodedData) -> Engine:
    resources = bench.spec.resources
    device = device_of(bench)
    if bench.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise SetupError(f"{torch.cuda.get_device_name(device)} has no bf16; set train.precision: fp32")
    options: dict[str, Any] = {
        "precision": bench.precision,
        "device": device,
        "micro_batch": None if resources.micro_batch == "auto" else resources.micro_batch,
        "gradient_checkpointing": resources.gradient_checkpointing,
    }
    if ENGINES[bench.engine].has_groups:
        from plmray.train.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, settings, data, resources.deepspeed, **options)
    return TorchEngine(model, settings, data, **options)


def release_memory() -> None:
    """Give freed memory back to the system, so that a reused process does not grow from trial to trial."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        import ctypes

        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass  # not glibc: nothing to trim
