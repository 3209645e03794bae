"""What a process keeps from trial to trial: a frozen encoder, embeddings, splits. Each under what it is made of.

A process sees many benches, for every candidate brings its own copy; so nothing here is keyed by an object or a name,
and only so much is kept as trials at hand can use.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from plmray.config.backbone_names import encoder_size, family, weights_hash
from plmray.config.catalog.heads import HEADS
from plmray.config.fields.train import BackboneSpec, TrainSpec
from plmray.data.embeddings import EmbeddingCache
from plmray.data.encoded import EncodedData, resplit, standardized, with_embeddings
from plmray.errors import SetupError
from plmray.model.adapters import encoder_layers, lowest_layer
from plmray.model.assemble import encoder_width
from plmray.model.backbones import load_encoder
from plmray.packed.embedder import embedder_of
from plmray.packed.frozen_states import PrefixCache
from plmray.sweep.workers.context import Bench
from plmray.train.embeddings import RESIDUE_LIMIT_BYTES, RESIDUES, Embedder, cached_embeddings, residue_bytes

Made = TypeVar("Made")

POOLED_KEPT = 4  # embeddings of one task by pooling and scaling; states of all residues: one
SPLITS_KEPT = 2


class Kept:
    """The last ``limit`` things made, by keys that say what they are made of."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._things: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Made]) -> Made:
        if key not in self._things:
            while len(self._things) >= self.limit:  # before the next is made: memory is for one more, not for two
                self._things.popitem(last=False)
            self._things[key] = make()
        self._things.move_to_end(key)
        thing: Made = self._things[key]
        return thing


class Device:
    """Owned by whoever trains in this process: a host, a worker, a reused process of Ray Tune.

    ``say`` hears what takes long.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.say = say
        self._hashes: dict[str, str] = {}
        self._layers: dict[str, int] = {}
        self._encoders = Kept(1)
        self._pooled, self._residues = Kept(POOLED_KEPT), Kept(1)
        self._splits = Kept(SPLITS_KEPT)
        self._prefixes = Kept(SPLITS_KEPT)
        self._peaks: dict[str, float] = {}

    def weights_of(self, bench: Bench, backbone: BackboneSpec) -> str:
        """The hash of a backbone's weights and tokens; files are read once."""
        place = f"{bench.base} {backbone.model_dump_json()}"
        if place not in self._hashes:
            self._hashes[place] = weights_hash(backbone, bench.base)
        return self._hashes[place]

    def encoder(self, bench: Bench, backbone: BackboneSpec) -> torch.nn.Module:
        """A frozen encoder on its device, whose weights all trials of the process share."""
        device = device_of(bench)
        key = (self.weights_of(bench, backbone), family(backbone, bench.base), bench.precision, str(device))
        return self._encoders.get(key, lambda: load_encoder(backbone, bench.base).to(device))

    def layers_of(self, bench: Bench, backbone: BackboneSpec) -> int:
        weights = self.weights_of(bench, backbone)
        if weights not in self._layers:
            self._layers[weights] = encoder_layers(self.encoder(bench, backbone))
        return self._layers[weights]

    def prefix(self, bench: Bench, settings: TrainSpec, make: Callable[[], PrefixCache]) -> PrefixCache | None:
        """States below the lowest adapted layer; packs whose ranks, heads and splits differ share them. None where all
        layers are adapted."""
        layer = lowest_layer(settings.adapter, self.layers_of(bench, settings.backbone))
        key = (self.weights_of(bench, settings.backbone), bench.precision, str(device_of(bench)), layer)
        return self._prefixes.get(key, make) if layer else None

    def data(self, bench: Bench, split_seed: int | None) -> EncodedData:
        """The task, or the task with its validation proteins drawn by another seed."""
        if split_seed is None:
            return bench.data
        return self._splits.get((bench.data_key, split_seed), lambda: _with_split(bench, bench.data, split_seed))

    def embedded(self, bench: Bench, settings: TrainSpec, split_seed: int | None = None) -> EncodedData:
        """The task on embeddings of a frozen encoder: read from the cache, or computed into it."""
        if split_seed is not None:
            unscaled = settings.head.model_copy(update={"standardize": False})
            whole = self.embedded(bench, settings.model_copy(update={"head": unscaled}))
            own = _with_split(bench, whole, split_seed)
            return standardized(own) if settings.head.standardize else own
        read = RESIDUES if reads_residues(bench, settings) else settings.pooling
        weights = self.weights_of(bench, settings.backbone)
        key = (bench.data_key, weights, read, settings.head.standardize, bench.precision, str(device_of(bench)))
        kept = self._residues if read == RESIDUES else self._pooled
        return kept.get(key, lambda: self._embedded(bench, settings, read))

    def _embedded(self, bench: Bench, settings: TrainSpec, read: str) -> EncodedData:
        data = bench.data
        if not data.has_embeddings:
            arrays = cached_embeddings(
                EmbeddingCache(),
                data,
                lambda: self._embedder(bench, settings.backbone, read),
                weights=self.weights_of(bench, settings.backbone),
                pooling=read,
                precision=bench.precision,
                device=device_of(bench),
                say=self.say,
            )
            # A copy in memory: what is mapped from disk cannot be handed to torch.
            copies = {name: np.array(array) for name, array in arrays.items()}
            data = with_embeddings(data, copies, by_residue=read == RESIDUES)
        return standardized(data) if settings.head.standardize else data

    def _embedder(self, bench: Bench, backbone: BackboneSpec, read: str) -> Embedder:
        encoder, device = self.encoder(bench, backbone), device_of(bench)
        return embedder_of(encoder, family(backbone, bench.base), read, bench.precision, device)

    def may_cache(self, bench: Bench, settings: TrainSpec) -> bool:
        """Whether a frozen trial trains on embeddings that were computed before.

        Not where there are too many, nor where they depend on the longest protein of a batch.
        """
        if bench.data.has_embeddings:
            return True
        if not reads_residues(bench, settings):
            return settings.pooling != "padded_mean"
        size = encoder_size(settings.backbone)  # where it is in a table, nothing has to be loaded
        width = size.width if size else encoder_width(self.encoder(bench, settings.backbone))
        return residue_bytes(bench.data, width, bench.precision) <= RESIDUE_LIMIT_BYTES

    def peak_flops(self, bench: Bench) -> float:
        """Operations a second of a large matrix product here: what the sweep's share is a share of."""
        device, precision = device_of(bench), bench.precision
        key = f"{device} {precision}"
        if key not in self._peaks:
            dtype = {"bf16": torch.bfloat16, "fp64": torch.float64}.get(precision, torch.float32)
            size = 8192 if device.type == "cuda" else 768
            matrix = torch.ones(size, size, device=device, dtype=dtype)
            self._peaks[key] = 2 * size**3 / min(_product_s(matrix) for _ in range(4))
        return self._peaks[key]


def device_of(bench: Bench) -> torch.device:
    """The GPU that Ray gave this process, where the sweep uses one. Raises SetupError when there is none."""
    if not bench.use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SetupError("the sweep asks for a GPU (resources.gpus_per_trial) and this process sees none")
    return torch.device("cuda", torch.cuda.current_device())


def reads_residues(bench: Bench, settings: TrainSpec) -> bool:
    """Whether a trial's head wants the states of all residues."""
    return bench.data.level == "residue" or HEADS[settings.head.kind].reads_residues


def _product_s(matrix: torch.Tensor) -> float:
    started = time.perf_counter()
    float((matrix @ matrix)[0, 0])  # reading a number waits for the device
    return time.perf_counter() - started


def _with_split(bench: Bench, data: EncodedData, split_seed: int) -> EncodedData:
    task = bench.spec.task
    assert task.validation_fraction is not None  # refused where the sweep is read
    return resplit(data, task.validation_fraction, task.split_seed, split_seed)
