"""Which trials may train side by side in one pack: a matter of their settings alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from plmray.config.backbone_names import encoder_size
from plmray.config.catalog.adapters import ADAPTERS
from plmray.config.catalog.families import FAMILIES, Family
from plmray.config.catalog.heads import HEADS
from plmray.config.catalog.tasks import Level
from plmray.config.checks import leaves
from plmray.config.fields.space import Space
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.train import TrainSpec
from plmray.config.parameters import choices_of, with_parameters
from plmray.seeds import derived_rng
from plmray.trials.trial import identifying_settings

RANK_BUCKETS = (4, 8, 16, 64)
# Heads: on a CPU more fall out of a core's cache. Adapters: enough tokens a tick to keep the device busy, and no more,
# because a candidate that waits its turn can still be stopped before it has cost anything.
HEAD_SLOTS = {"cpu": 32, "cuda": 256}
TOKENS_A_TICK = {"cpu": 4096, "cuda": 65536}
ADAPTER_SLOTS_AT_MOST = {"cpu": 16, "cuda": 128}
ALONE = "one trial at a time"
BYTES_PER_NUMBER = 4
DRAWS = 256  # of the space, to name its packs


@dataclass(frozen=True)
class PackShare:
    """One pack of a sweep, in words, and the fraction of blind draws from the space that it takes.

    ``prefix_bytes``: of the states below the lowest adapted layer, kept on every device where only top layers adapt.
    """

    pack: str
    share: float
    prefix_bytes: int = 0


# The settings that may differ within a pack, each proven equal to the lone engine's numbers by
# tests/packed/test_pack_law.py, which walks all fields. Whatever is not listed keeps trials apart.
FREE_OF_HEADS = frozenset(
    {
        *("epochs", "batch_size", "patience", "evaluations_per_epoch", "head.dropout"),
        *(
            f"optimizer.{name}"
            for name in ("lr", "weight_decay", "beta1", "beta2", "eps", "schedule", "warmup", "clip")
        ),
    }
)
# What the words of a pack's name say already.
_IN_WORDS = frozenset({"pooling", "adapter.kind", "adapter.layers", "head.kind", "head.hidden", "head.standardize"})


def pack_key(settings: TrainSpec, level: Level, family: Family) -> str | None:
    """The pack of a trial, in words; None for one that trains alone. Trials of equal keys share a pack.

    ``level`` of the task: heads of residues are not packed. All settings that shape a trial's numbers are in the key
    but the seed, those of FREE_OF_HEADS, and those that the adapter's row says are free.
    """
    if not _can_pack(settings, level, family):
        return None
    adapter, head = settings.adapter, settings.head
    with_adapter = "frozen" if adapter.kind == "none" else adapter.kind
    free_of_adapter = ADAPTERS[adapter.kind].free_in_pack
    rank = f" rank up to {rank_bucket(adapter.rank)}" if "rank" in free_of_adapter else ""
    top = f", top {adapter.layers} layers" if adapter.layers and adapter.kind != "none" else ""
    scaled = ", standardized" if head.standardize else ""
    with_head = f"{head.kind} {head.hidden}" if HEADS[head.kind].has_hidden else head.kind
    free = FREE_OF_HEADS | {f"adapter.{name}" for name in free_of_adapter}
    rest = leaves(identifying_settings(settings, level) | _not_in_identity(settings))
    apart = "".join(f", {k} {rest[k]}" for k in sorted(rest) if k not in free and k not in _IN_WORDS)
    where = f"({settings.pooling}{scaled})"
    return f"{settings.backbone.name} {where} {with_adapter}{rank}{top} + {with_head} head{apart}"


def _can_pack(settings: TrainSpec, level: Level, family: Family) -> bool:
    adapter = settings.adapter
    if level == "residue" or not HEADS[settings.head.kind].packs or settings.class_weights != "none":
        return False
    if settings.pooling == "padded_mean" or not ADAPTERS[adapter.kind].packs:
        return False
    if adapter.kind in ("lora", "dora"):
        # What trains biases, or the head's own layers a second time, is not one addition to a frozen weight.
        plain = adapter.targets == "attention" and adapter.bias == "none"
        if not plain or (adapter.kind == "dora" and adapter.dropout > 0):
            return False
    return adapter.kind == "none" or FAMILIES[family].packs


def _not_in_identity(settings: TrainSpec) -> dict[str, Any]:
    """What an id has in another form, where it is not as by default: a backbone's fields and the precision."""
    backbone = {k: v for k, v in settings.backbone.model_dump(exclude_defaults=True).items() if k != "name"}
    return {"backbone": backbone} | ({} if settings.precision == "auto" else {"precision": settings.precision})


def rank_bucket(rank: int) -> int:
    """Slots of a pack hold one rank; lower ones leave the rest zero."""
    return next((size for size in RANK_BUCKETS if rank <= size), rank)


def packs_of(spec: SweepSpec, tokens: int, family: Family) -> list[PackShare]:
    """The packs that a sweep's candidates will form, largest first; what trains alone is called so.

    ``tokens``: of all splits together.
    """
    rng, space = derived_rng(0, "packs"), Space(spec.space)
    drawn = [with_parameters(spec.train, space.sample(rng)) for _ in range(DRAWS if spec.space else 1)]
    by_pack: dict[str, list[TrainSpec]] = {}
    for settings in drawn:
        by_pack.setdefault(pack_key(settings, spec.task.level, family) or ALONE, []).append(settings)
    found = [PackShare(k, len(own) / len(drawn), _prefix_bytes(own[0], tokens)) for k, own in by_pack.items()]
    return sorted(found, key=lambda pack: -pack.share)


def _prefix_bytes(settings: TrainSpec, tokens: int) -> int:
    size = encoder_size(settings.backbone)
    if (
        settings.adapter.kind == "none"
        or not ADAPTERS[settings.adapter.kind].packs
        or settings.adapter.layers is None
        or size is None
    ):
        return 0
    return tokens * size.width * BYTES_PER_NUMBER if settings.adapter.layers < size.layers else 0


def may_pack(spec: SweepSpec, family: Family) -> bool:
    """Whether some candidate of the sweep can share a pack."""
    return any(pack_key(settings, spec.task.level, family) is not None for settings in _kinds(spec))


def _kinds(spec: SweepSpec) -> list[TrainSpec]:
    """Train settings with every kind of adapter and head that the sweep can come upon."""
    adapters = choices_of(spec, "adapter.kind", spec.train.adapter.kind)
    heads = choices_of(spec, "head.kind", spec.train.head.kind)
    return [with_parameters(spec.train, {"adapter.kind": a, "head.kind": h}) for a in adapters for h in heads]


def adapter_slots(batch_size: int, mean_length: float, device: str) -> int:
    """Slots of a pack of adapters whose batches fill a ``device`` ('cpu' or 'cuda'). ``mean_length``: tokens."""
    filling = math.ceil(TOKENS_A_TICK[device] / (batch_size * mean_length))
    return min(max(filling, 1), ADAPTER_SLOTS_AT_MOST[device])


def jobs_at_once(
    spec: SweepSpec, family: Family, hosts: int, mean_length: float, device: str, limit: int | None = None
) -> int:
    """How many candidates, with all their seeds of a phase, fill the slots of ``hosts`` devices."""
    seeds = min(len(spec.search.seeds), len(spec.replicate.seeds) if spec.replicate else len(spec.search.seeds))
    packed = [settings for settings in _kinds(spec) if pack_key(settings, spec.task.level, family) is not None]
    slots = max(
        HEAD_SLOTS[device]
        if settings.adapter.kind == "none"
        else adapter_slots(settings.batch_size, mean_length, device)
        for settings in packed or [spec.train]
    )
    limits = [max(1, math.ceil(hosts * slots / seeds), hosts)]
    limits += [] if limit is None else [limit]
    if spec.resources.max_concurrent != "auto":
        limits.append(spec.resources.max_concurrent)
    return min(limits)


def search_width(spec: SweepSpec) -> int:
    """How many candidates the search has in flight at most: a sampler that learns has its first ten draws for
    nothing, and hears of a quarter of the candidates before it draws the next."""
    if spec.search.sampler not in ("tpe", "gp", "cmaes") or spec.search.candidates is None:
        return 2**31
    return max(10, math.ceil(spec.search.candidates / 4))
