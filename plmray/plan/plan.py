"""What a sweep will do before it does it: trials, phases, ceilings, and what its seeds can resolve."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plmray.config.backbone_names import esm2_size
from plmray.config.catalog.backbones import EncoderSize
from plmray.config.catalog.engines import ENGINES, EngineName
from plmray.config.catalog.families import Family
from plmray.config.catalog.heads import HEADS, own_kind
from plmray.config.catalog.tasks import Level
from plmray.config.fields.space import ChoiceDomain, FloatDomain, IntDomain, OrdinalDomain, Space
from plmray.config.fields.sweep import CONFIRMED, SweepSpec
from plmray.config.fields.train import BackboneSpec, HeadSpec, TrainSpec
from plmray.plan.packing import PackShare, may_pack, packs_of
from plmray.seeds import derived_rng
from plmray.stats.intervals import sd_interval_factors
from plmray.text import table
from plmray.trials.trial import Candidate, Identifier

BYTES_PER_WEIGHT = 4
DRAWS_PER_ANCHOR = 200  # before a space is taken to hold no more


@dataclass(frozen=True)
class DataFacts:
    """What a plan needs of the data. ``tokens``: of each split, ``longest``: of one protein, marks included;
    ``outputs``: of the head; ``profile``: classes, ranges and sizes, in lines."""

    hash: str
    counts: Mapping[str, int]
    tokens: Mapping[str, int]
    longest: int = 0
    outputs: int = 1
    level: Level = "protein"
    notes: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhasePlan:
    name: str
    candidates: int
    seeds: int
    trials: int
    epochs_ceiling: int
    train_tokens_ceiling: int

    def cells(self) -> tuple[str, ...]:
        """Under PHASE_COLUMNS."""
        most = (f"{self.epochs_ceiling:,}", f"{self.train_tokens_ceiling:,}")
        return (self.name, str(self.candidates), str(self.seeds or "-"), str(self.trials), *most)


PHASE_COLUMNS = ("phase", "candidates", "seeds", "trials", "epochs at most", "train tokens at most")


@dataclass(frozen=True)
class SeedResolution:
    """What a design can say of the seed SD before it is run: the 95 % interval of an SD that comes out as 1."""

    degrees: int
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    name: str
    data: DataFacts
    precision: str
    engine: str
    engine_reason: str
    packs: tuple[PackShare, ...]
    phases: tuple[PhasePlan, ...]
    anchors: tuple[Candidate, ...]
    seed_resolution: SeedResolution | None
    kept_bytes_ceiling: int | None
    notes: tuple[str, ...] = field(default=())

    @property
    def trials(self) -> int:
        return sum(phase.trials for phase in self.phases)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The plan as a person reads it."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.data.counts.items())
        yield f"{self.name}: {counts} proteins; {self.precision}; engine {self.engine} ({self.engine_reason})"
        yield from table(PHASE_COLUMNS, [phase.cells() for phase in self.phases])
        if (found := self.seed_resolution) is not None:
            yield (
                f"seed spread: {found.degrees} degrees of freedom; a seed SD of 1 would be known to "
                f"[{found.low:.2f}, {found.high:.2f}] (95 %)"
            )
        if self.kept_bytes_ceiling:
            yield f"kept adapters and heads: at most {self.kept_bytes_ceiling / 1e6:.1f} MB"
        for pack in self.packs:
            cached = f"; {pack.prefix_bytes / 2**30:.2f} GiB of cached states" if pack.prefix_bytes else ""
            yield f"pack: {pack.pack} ({100 * pack.share:.0f} % of blind draws){cached}"
        for anchor in self.anchors:
            shown = [f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in anchor.parameters.items()]
            yield f"anchor {anchor.id}: {', '.join(shown)}"
        yield from self.data.profile
        yield from (f"note: {note}" for note in (*self.data.notes, *self.notes))

    def to_dict(self) -> dict[str, Any]:
        tree = asdict(self)
        tree["candidates"] = self.phases[0].candidates
        tree["trials"] = self.trials
        tree["epochs_ceiling"] = sum(phase.epochs_ceiling for phase in self.phases)
        tree["train_tokens_ceiling"] = sum(phase.train_tokens_ceiling for phase in self.phases)
        return tree


def make_plan(spec: SweepSpec, data: DataFacts, identifier: Identifier, family: Family) -> Plan:
    engine, reason = choose_engine(spec, family)
    anchors = draw_anchors(spec, identifier)
    phases = tuple(_phases(spec, data, len(anchors)))
    return Plan(
        name=spec.name,
        data=data,
        precision=identifier.precision,
        engine=engine,
        engine_reason=reason,
        packs=tuple(packs_of(spec, sum(data.tokens.values()), family)) if ENGINES[engine].has_hosts else (),
        phases=phases,
        anchors=tuple(anchors),
        seed_resolution=_seed_resolution(phases[-1]),
        kept_bytes_ceiling=_kept_bytes(spec, data, phases),
        notes=tuple(_notes(spec, len(anchors))),
    )


def choose_engine(spec: SweepSpec, family: Family) -> tuple[EngineName, str]:
    """The engine and why: ``auto`` packs what can share a device, and takes deepspeed for several workers."""
    chosen = spec.resources.engine
    if chosen != "auto":
        return chosen, "as the sweep file says"
    if spec.resources.workers > 1:
        return "deepspeed", f"auto: {spec.resources.workers} workers share a trial"
    if may_pack(spec, family):
        return "packed", "auto: trials share the frozen encoder on one device"
    return "torch", "auto: one worker a trial, and nothing that trials could share"


def resolve_precision(train: TrainSpec, use_bf16: bool) -> str:
    """``auto`` is bf16 on a GPU, where the encoder bears it, else fp32. Part of every id, so resolved once a sweep."""
    return train.precision if train.precision != "auto" else "bf16" if use_bf16 else "fp32"


def local_gpu_count() -> int:
    """NVIDIA devices of this machine as the driver lists them, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return len([p for p in Path("/dev").glob("nvidia[0-9]*") if p.name.removeprefix("nvidia").isdigit()])


def draw_anchors(spec: SweepSpec, identifier: Identifier) -> list[Candidate]:
    """The random candidates of the replicate phase: blind draws, the same for the same sampler seed."""
    if spec.replicate is None or spec.replicate.random == 0:
        return []
    rng = derived_rng(spec.search.sampler_seed, "anchors")
    space, anchors = Space(spec.space), dict[str, Candidate]()
    for _ in range(DRAWS_PER_ANCHOR * spec.replicate.random):
        anchor = identifier.candidate(space.sample(rng), "random")
        anchors.setdefault(anchor.id, anchor)
        if len(anchors) == spec.replicate.random:
            break
    return list(anchors.values())


def num_candidates(spec: SweepSpec) -> int:
    if spec.search.candidates is not None:
        return spec.search.candidates
    return sum(1 for _ in Space(spec.space).grid())


def _phases(spec: SweepSpec, data: DataFacts, num_anchors: int) -> Iterator[PhasePlan]:
    yield _phase("search", num_candidates(spec), len(spec.search.seeds), spec, data)
    replicate = spec.replicate
    if replicate is None:
        return
    top = min(replicate.top, num_candidates(spec))
    if replicate.budget is not None:
        yield _phase("adaptive", top, 0, spec, data, replicate.budget.trials)
        yield _phase("confirmation", min(top, CONFIRMED), replicate.confirmation_seeds, spec, data)
    if replicate.vary:
        moved = len(replicate.vary) * (len(replicate.seeds) - 1)
        yield _phase("one stream at a time", top or num_anchors, moved, spec, data)
    on_grid = num_anchors if replicate.budget is not None else top + num_anchors
    if on_grid:
        yield _phase("replicate", on_grid, len(replicate.seeds), spec, data)


def _phase(
    name: str, candidates: int, seeds: int, spec: SweepSpec, data: DataFacts, trials: int | None = None
) -> PhasePlan:
    """``seeds`` of every candidate; with ``trials``, where the statistics share them out, their number at most."""
    trials = candidates * seeds if trials is None else trials
    epochs = trials * _most_epochs(spec)
    return PhasePlan(name, candidates, seeds, trials, epochs, epochs * data.tokens.get("train", 0))


def _most_epochs(spec: SweepSpec) -> int:
    domain = spec.space.get("epochs")
    if isinstance(domain, (FloatDomain, IntDomain)):
        return int(domain.high)
    return max(int(v) for v in domain.values) if domain else spec.train.epochs


def _seed_resolution(last: PhasePlan) -> SeedResolution | None:
    degrees = last.candidates * (last.seeds - 1)
    if degrees < 1:
        return None
    low, high = sd_interval_factors(degrees)
    return SeedResolution(degrees, low, high)


def trainable_estimate(size: EncoderSize, train: TrainSpec, outputs: int = 1, level: Level = "protein") -> int | None:
    """Trainable parameters of an ESM2 encoder without building it; None where no closed form is kept here."""
    head = head_parameters(size.width, train.head, outputs, level)
    adapter = train.adapter
    if adapter.kind == "none":
        return head
    if adapter.kind == "lora" and adapter.targets == "attention" and adapter.bias == "none":
        return head + (adapter.layers or size.layers) * 4 * 2 * size.width * adapter.rank
    return None


def head_parameters(width: int, head: HeadSpec, outputs: int, level: Level = "protein") -> int:
    """Weights and biases of a head."""
    return HEADS[own_kind(head.kind, level)].count(width, head.hidden, outputs)


def _kept_bytes(spec: SweepSpec, data: DataFacts, phases: tuple[PhasePlan, ...]) -> int | None:
    size = esm2_size(spec.train.backbone)
    kept = {"none": 0, "replicate": sum(p.trials for p in phases[1:]), "best": sum(p.trials for p in phases)}
    number = kept[spec.resources.keep]
    if number == 0:
        return 0
    if size is None or any(key.startswith(("adapter.", "head.", "backbone.")) for key in spec.space):
        return None
    weights = trainable_estimate(size, spec.train, data.outputs, data.level)
    return None if weights is None else number * weights * BYTES_PER_WEIGHT


def _notes(spec: SweepSpec, num_anchors: int) -> Iterator[str]:
    if spec.replicate is None:
        yield "no replicate phase: the winner is judged by the seeds that chose it, and no test score is taken"
    elif num_anchors < spec.replicate.random:
        yield f"the space holds {num_anchors} different candidates for {spec.replicate.random} anchors"
    elif num_anchors == 0:
        yield "no random anchors: seed and candidate variance cannot be compared (replicate.random)"
    elif num_anchors < 10 * len(spec.space):
        yield (
            f"{num_anchors} anchors for {len(spec.space)} parameters: shares are of all hyperparameters together "
            f"(single ones need about {10 * len(spec.space)})"
        )
    yield from _independent_parameters(spec)
    if len(spec.search.seeds) == 1:
        yield "one search seed: candidates are compared by single runs, luck included"


def _independent_parameters(spec: SweepSpec) -> Iterator[str]:
    """Names what a sampler cannot relate to other parameters and draws on its own."""
    unordered = [k for k, d in spec.space.items() if isinstance(d, (ChoiceDomain, OrdinalDomain)) or d.when]
    conditional = [k for k, d in spec.space.items() if d.when]
    alone = {"cmaes": unordered, "sobol": conditional, "gp": conditional}.get(spec.search.sampler, [])
    if alone:
        yield f"sampler {spec.search.sampler} draws these parameters independently: {', '.join(alone)}"


def memoised(function: Callable[[BackboneSpec], str]) -> Callable[[BackboneSpec], str]:
    """Hash each backbone once: a weights file may hold gigabytes."""
    seen: dict[str, str] = {}

    def remembered(backbone: BackboneSpec) -> str:
        key = backbone.model_dump_json()
        if key not in seen:
            seen[key] = function(backbone)
        return seen[key]

    return remembered
