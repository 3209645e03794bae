"""Candidates and trials: one hyperparameter setting, and that setting with a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from plmray.config.catalog.adapters import ADAPTERS
from plmray.config.catalog.heads import HEADS, own_kind
from plmray.config.catalog.tasks import Level
from plmray.config.fields.space import Parameters
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.task import TaskSpec
from plmray.config.fields.train import BackboneSpec, TrainSpec
from plmray.config.parameters import with_parameters
from plmray.seeds import StreamName, Streams
from plmray.trials.identity import candidate_id, trial_id

Origin = Literal["searched", "random", "given"]
Phase = Literal["search", "replicate"]

# Reasons that a verdict reads: trials whose number no score has chosen, and those that check what was chosen.
FIXED_GRID, CONFIRMATION = "fixed grid", "confirmation"


@dataclass(frozen=True)
class Candidate:
    """One hyperparameter setting. ``parameters`` are what differs from the sweep's train settings."""

    id: str
    parameters: Parameters
    origins: tuple[Origin, ...]

    @property
    def origin(self) -> str:
        """All origins in one word: an anchor that the search proposed too reads 'searched+random'."""
        return "+".join(self.origins)


@dataclass(frozen=True)
class Trial:
    """``reason``: why it runs, kept with its result. ``varied``: the only random stream that ``seed`` moves, the others
    being held at ``held``; None where the seed moves them all."""

    candidate: Candidate
    seed: int
    phase: Phase
    reason: str = ""
    varied: StreamName | None = None
    held: int | None = None

    @property
    def id(self) -> str:
        return trial_id(self.candidate.id, self.seed, self.varied, self.held)

    @property
    def streams(self) -> Streams:
        if self.varied is None or self.held is None:
            return Streams(self.seed)
        return Streams(self.held, {self.varied: self.seed})

    @property
    def split_seed(self) -> int | None:
        """The seed of the split between training and validation, where this trial draws its own."""
        return self.seed if self.varied == "split" else None


@dataclass(frozen=True)
class Identifier:
    """Makes candidates of one sweep: knows the parts of an id that all its candidates share."""

    spec: SweepSpec
    data_hash: str
    precision: str
    weights_hash: Callable[[BackboneSpec], str]
    known: dict[str, Candidate] = field(default_factory=dict)

    def candidate_id(self, parameters: Mapping[str, Any]) -> str:
        settings = with_parameters(self.spec.train, parameters)
        return candidate_id(
            settings=identifying_settings(settings, self.spec.task.level),
            task=identifying_task(self.spec.task) | {"metric": self.spec.objective.metric},
            data_hash=self.data_hash,
            weights_hash=self.weights_hash(settings.backbone),
            precision=self.precision,
        )

    def candidate(self, parameters: Mapping[str, Any], origin: Origin) -> Candidate:
        """The candidate of these parameters; one seen before gains the origin instead of a twin."""
        identity = self.candidate_id(parameters)
        before = self.known.get(identity)
        origins = before.origins if before else ()
        origins = origins if origin in origins else (*origins, origin)
        candidate = Candidate(identity, before.parameters if before else dict(parameters), origins)
        self.known[identity] = candidate
        return candidate


def identifying_settings(settings: TrainSpec, level: Level) -> dict[str, Any]:
    """Train settings that shape a trial's numbers and differ from their defaults.

    Left out: the backbone (its weights hash stands for it), the precision (resolved elsewhere), and
    what the chosen adapter and head do not read.
    """
    tree = _non_default(settings)
    tree.pop("backbone", None)
    if settings.backbone.family is not None:
        tree["backbone"] = {"family": settings.backbone.family}  # it decides how the same weights read a protein
    tree.pop("precision", None)
    if settings.backbone.embeddings is not None:
        tree.pop("pooling", None)
    read = ADAPTERS[settings.adapter.kind].reads
    read = tuple(key for key in read if key != "targets") if settings.adapter.method == "ln_tuning" else read
    adapter = {key: value for key, value in tree.get("adapter", {}).items() if key in read}
    tree["adapter"] = {"kind": settings.adapter.kind, **adapter} if settings.adapter.kind != "lora" else adapter
    head = tree.get("head", {})
    if HEADS[settings.head.kind].reads_residues or level == "residue":
        tree.pop("pooling", None)
    if own_kind(settings.head.kind, level) != settings.head.kind:
        head["kind"] = own_kind(settings.head.kind, level)
    if not HEADS[settings.head.kind].has_hidden:
        head.pop("hidden", None)
    if settings.head.dropout_rate == HEADS[settings.head.kind].dropout:
        head.pop("dropout", None)
    return {key: value for key, value in tree.items() if value != {}}


def identifying_task(task: TaskSpec) -> dict[str, Any]:
    """What of the task is not already in the hash of its data."""
    return {"kind": task.kind, "level": task.level}


def _non_default(model: BaseModel) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            changed[name] = _non_default(value)
        elif info.is_required() or value != info.default:
            changed[name] = value
    return changed
