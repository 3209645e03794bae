"""What one process of a sweep holds: its device, the frozen encoder, embeddings, engines."""

from __future__ import annotations

import gc
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plmray.data.batches import EncodedData, resplit, standardized, with_embeddings
from plmray.data.embeddings import EmbeddingCache
from plmray.errors import SetupError
from plmray.model.adapters import BY_PEFT, encoder_layers, saved_config
from plmray.model.assemble import ProteinModel, build_head_model, build_model, encoder_width
from plmray.model.backbones import load_encoder
from plmray.model.heads import READ_RESIDUES
from plmray.orchestrate.bench import Bench
from plmray.seeds import Streams
from plmray.spec.names import family, weights_hash
from plmray.spec.sweep import SweepSpec
from plmray.spec.train import BackboneSpec, HeadSpec, TrainSpec
from plmray.throughput import encoder_size
from plmray.train.embeddings import RESIDUE_LIMIT_BYTES, RESIDUES, cached_embeddings, residue_bytes
from plmray.train.engines import Engine, TorchEngine

_ENCODERS: dict[str, torch.nn.Module] = {}


def frozen_encoder(backbone: BackboneSpec, base: Path, device: torch.device) -> torch.nn.Module:
    """The encoder of this process, loaded once onto its device: all trials of the process share its weights."""
    key = f"{device} {backbone.model_dump_json()}"
    if key not in _ENCODERS:
        _ENCODERS.clear()  # one backbone at a time: memory is for trials
        _ENCODERS[key] = load_encoder(backbone, base).to(device)
    return _ENCODERS[key]


def device_of(bench: Bench) -> torch.device:
    """The GPU that Ray gave this process, where the sweep uses one. Raises SetupError when there is none."""
    if not bench.use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SetupError("the sweep asks for a GPU (resources.gpus_per_trial) and this process sees none")
    return torch.device("cuda", torch.cuda.current_device())


def prepare_process(spec: SweepSpec) -> None:
    """Fixed threads, so that sums are added in the same order wherever a trial runs."""
    torch.set_num_threads(spec.resources.cpus_per_worker)


_PEAKS: dict[str, float] = {}


def peak_flops(bench: Bench) -> float:
    """Floating point operations a second of a large matrix product here: what the sweep's share is a share of."""
    device, precision = device_of(bench), bench.precision
    key = f"{device} {precision}"
    if key not in _PEAKS:
        dtype = {"bf16": torch.bfloat16, "fp64": torch.float64}.get(precision, torch.float32)
        size = 8192 if device.type == "cuda" else 768
        matrix = torch.ones(size, size, device=device, dtype=dtype)
        _PEAKS[key] = 2 * size**3 / min(_product_s(matrix) for _ in range(4))
    return _PEAKS[key]


def _product_s(matrix: torch.Tensor) -> float:
    started = time.perf_counter()
    float((matrix @ matrix)[0, 0])  # reading a number waits for the device
    return time.perf_counter() - started


_EMBEDDED: dict[tuple[int, str], EncodedData] = {}
_RESPLIT: dict[tuple[int, int], EncodedData] = {}


def task_data(bench: Bench, split_seed: int | None) -> EncodedData:
    """The task, or the task with its validation proteins drawn by another seed, once a process."""
    if split_seed is None:
        return bench.data
    key = (id(bench), split_seed)
    if key not in _RESPLIT:
        _RESPLIT[key] = _with_split(bench, bench.data, split_seed)
    return _RESPLIT[key]


def _with_split(bench: Bench, data: EncodedData, split_seed: int) -> EncodedData:
    task = bench.spec.task
    assert task.validation_fraction is not None  # refused where the sweep is read
    return resplit(data, task.validation_fraction, task.split_seed, split_seed)


def embedded_data(bench: Bench, settings: TrainSpec, split_seed: int | None = None) -> EncodedData:
    """The task on embeddings of a frozen encoder: read from the cache, or computed into it, once a process."""
    if split_seed is not None:
        whole = embedded_data(bench, settings.model_copy(update={"head": _unscaled(settings)}))
        own = _with_split(bench, whole, split_seed)
        return standardized(own) if settings.head.standardize else own
    read = RESIDUES if reads_residues(bench, settings) else settings.pooling
    key = (id(bench), f"{settings.backbone.model_dump_json()} {read} {settings.head.standardize}")
    if key not in _EMBEDDED:
        data = bench.data
        if not data.has_embeddings:
            arrays = cached_embeddings(
                EmbeddingCache(),
                data,
                lambda: frozen_encoder(settings.backbone, bench.base, device_of(bench)),
                weights=weights_hash(settings.backbone, bench.base),
                pooling=read,
                precision=bench.precision,
                device=device_of(bench),
            )
            # A copy in memory: what is mapped from disk cannot be handed to torch.
            copies = {name: np.array(array) for name, array in arrays.items()}
            data = with_embeddings(data, copies, by_residue=read == RESIDUES)
        if read == RESIDUES:
            _EMBEDDED.clear()  # states of residues are large: one task's at a time
        _EMBEDDED[key] = standardized(data) if settings.head.standardize else data
    return _EMBEDDED[key]


def reads_residues(bench: Bench, settings: TrainSpec) -> bool:
    """Whether a trial's head wants the states of all residues."""
    return bench.data.level == "residue" or settings.head.kind in READ_RESIDUES


def may_cache(bench: Bench, settings: TrainSpec) -> bool:
    """Whether a frozen trial trains on embeddings that were computed before.

    Not where there are too many, nor where they depend on the longest protein of a batch.
    """
    if bench.data.has_embeddings:
        return True
    if not reads_residues(bench, settings):
        return settings.pooling != "padded_mean"
    size = encoder_size(settings.backbone)  # where it is in a table, nothing has to be loaded
    width = size.width if size else encoder_width(frozen_encoder(settings.backbone, bench.base, device_of(bench)))
    return residue_bytes(bench.data, width, bench.precision) <= RESIDUE_LIMIT_BYTES


def _unscaled(settings: TrainSpec) -> HeadSpec:
    return settings.head.model_copy(update={"standardize": False})


def trial_model(
    bench: Bench, settings: TrainSpec, streams: Streams, split_seed: int | None = None
) -> tuple[ProteinModel, EncodedData]:
    """A trial's model as it starts, with the data it reads: embeddings where the encoder stays frozen."""
    outputs, level = bench.data.num_outputs, bench.data.level
    if settings.adapter.kind == "none" and may_cache(bench, settings):
        data = embedded_data(bench, settings, split_seed)
        return build_head_model(settings, data.width, outputs, streams, level), data
    if settings.head.standardize:
        raise SetupError("head.standardize needs embeddings that are kept, and here they are too many; switch it off")
    data, encoder = task_data(bench, split_seed), frozen_encoder(settings.backbone, bench.base, device_of(bench))
    steps = math.ceil(len(data.splits["train"]) / settings.batch_size) * settings.epochs
    own = family(settings.backbone, bench.base)
    return build_model(settings, encoder, own, outputs, streams, level, steps), data


def adapter_config(bench: Bench, settings: TrainSpec) -> dict[str, Any] | None:
    """What is saved beside an adapter, so that peft can load it."""
    if settings.adapter.kind not in BY_PEFT:
        return None
    encoder = frozen_encoder(settings.backbone, bench.base, device_of(bench))
    return saved_config(settings.adapter, family(settings.backbone, bench.base), encoder_layers(encoder))


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
    if bench.engine == "deepspeed":
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
