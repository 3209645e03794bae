"""What types alone cannot say of a sweep: that its parts fit each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from plmray.errors import nearest_name
from plmray.metrics import METRICS
from plmray.spec.explain import explain, field_model
from plmray.spec.families import FAMILIES, Family
from plmray.spec.known_tasks import KNOWN_DATASETS, KNOWN_TASKS
from plmray.spec.names import backbone_fault, family, known_backbone
from plmray.spec.space import ChoiceDomain, FloatDomain, IntDomain, OrdinalDomain, Space, as_list, condition_cycle
from plmray.spec.strict_yaml import Place
from plmray.spec.sweep import SweepSpec
from plmray.spec.train import PROTEIN_HEADS, RESIDUE_HEADS, HeadKind, TrainSpec

AnyDomain = FloatDomain | IntDomain | ChoiceDomain | OrdinalDomain
Found = Iterator[tuple[Place, str]]


def faults(spec: SweepSpec, folder: Path) -> Found:
    yield from _space_faults(spec)
    yield from _search_faults(spec)
    yield from _objective_faults(spec)
    yield from _replicate_faults(spec)
    yield from _backbone_faults(spec, folder)
    yield from _engine_faults(spec)
    yield from _task_faults(spec, folder)
    yield from _head_faults(spec)
    yield from _adapter_faults(spec)


def train_fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all leaves of the train settings."""
    names: list[str] = []
    for name in model.model_fields:
        inner = field_model(model, name)
        names += train_fields(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def with_parameters(train: TrainSpec, parameters: Mapping[str, Any]) -> TrainSpec:
    """Train settings with dotted parameters put in. Raises pydantic's ValidationError where one does not fit."""
    return TrainSpec.model_validate(_merged(train, parameters))


def parameter_faults(train: TrainSpec, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with single parameter values, one message a key."""
    for key, value in parameters.items():
        tree = _merged(train, {key: value})
        try:
            TrainSpec.model_validate(tree)
        except ValidationError as error:
            yield key, next(message for _, message in explain(error, tree))


def without_settled_conditions(spec: SweepSpec) -> SweepSpec:
    """Drop conditions on settings that are fixed in this sweep and hold (the others are faults)."""
    fixed = flat(spec.train)
    space = {}
    for key, domain in spec.space.items():
        open_conditions = {k: wanted for k, wanted in domain.when.items() if k in spec.space or k not in fixed}
        space[key] = domain.model_copy(update={"when": open_conditions})
    return spec.model_copy(update={"space": space})


def flat(model: BaseModel) -> dict[str, Any]:
    """Leaves of settings by dotted key."""
    leaves: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            leaves.update({f"{name}.{key}": leaf for key, leaf in flat(value).items()})
        else:
            leaves[name] = value
    return leaves


def _merged(train: TrainSpec, parameters: Mapping[str, Any]) -> dict[str, Any]:
    tree = train.model_dump()
    for key, value in parameters.items():
        branch = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            branch[parent] = branch[parent] if isinstance(branch.get(parent), dict) else {}
            branch = branch[parent]
        branch[leaf] = value
    return tree


def _space_faults(spec: SweepSpec) -> Found:
    fields, fixed = train_fields(TrainSpec), flat(spec.train)
    for key, domain in spec.space.items():
        if "seed" in key.split("."):
            yield ("space", key), "the seed is never searched; put seeds in search.seeds and replicate.seeds"
        elif key == "precision":
            yield ("space", key), "one sweep computes in one precision; set train.precision, and sweep it by two files"
        elif key not in fields:
            yield ("space", key), f"is no field of the train settings; {nearest_name(key, fields)}"
        else:
            yield from _domain_faults(spec, key, domain)
        yield from _condition_faults(spec, key, domain, fixed)
    cycle = condition_cycle(spec.space)
    if cycle is not None:
        yield ("space", cycle, "when"), f"'{cycle}' depends on itself through 'when'; break the circle"


def _domain_faults(spec: SweepSpec, key: str, domain: AnyDomain) -> Found:
    values = [domain.low, domain.high] if isinstance(domain, (FloatDomain, IntDomain)) else domain.values
    told = set()
    for value in values:
        for _, message in parameter_faults(spec.train, {key: value}):
            if message not in told:
                told.add(message)
                yield ("space", key), message


def _condition_faults(spec: SweepSpec, key: str, domain: AnyDomain, fixed: Mapping[str, Any]) -> Found:
    for other, wanted in domain.when.items():
        place = ("space", key, "when", other)
        if other in spec.space:
            controller = spec.space[other]
            if isinstance(controller, (ChoiceDomain, OrdinalDomain)):
                for value in as_list(wanted):
                    if value not in controller.values:
                        yield place, f"{value!r} is no value of {other}; its values: {controller.values}"
        elif other not in fixed:
            yield place, f"is no parameter and no train setting; {nearest_name(other, [*spec.space, *fixed])}"
        elif fixed[other] not in as_list(wanted):
            yield place, f"never holds: {other} is fixed at {fixed[other]!r}; search over it or drop '{key}'"


def _search_faults(spec: SweepSpec) -> Found:
    search = spec.search
    if search.sampler == "grid":
        yield from _grid_faults(spec)
    for index, given in enumerate(search.given):
        for key, message in _given_faults(spec, given):
            yield ("search", "given", index, key), message
    if search.scheduler != "none" and "epochs" in spec.space:
        yield (
            ("search", "scheduler"),
            f"{search.scheduler} compares candidates at equal epochs, and the space searches over epochs; "
            "use scheduler: none or fix train.epochs",
        )
    if search.min_epochs is not None and search.min_epochs > spec.train.epochs:
        yield (
            ("search", "min_epochs"),
            f"found {search.min_epochs}, expected at most train.epochs ({spec.train.epochs})",
        )


def _given_faults(spec: SweepSpec, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        domain = spec.space.get(key)
        if domain is None:
            yield key, f"is no parameter; {nearest_name(key, spec.space or ['(none)'])}"
        elif not domain.contains(value):
            yield key, f"{value!r} is not in its domain {domain.model_dump(exclude={'when'}, exclude_defaults=True)}"
        elif any(other in given and given[other] not in as_list(wanted) for other, wanted in domain.when.items()):
            yield key, f"does not exist where {', '.join(domain.when)} is as given here; drop it"


def _grid_faults(spec: SweepSpec) -> Found:
    endless = [key for key, d in spec.space.items() if isinstance(d, FloatDomain) and d.step is None]
    for key in endless:
        yield ("space", key), "sampler grid needs a step here, or kind: choice"
    if endless or condition_cycle(spec.space):
        return
    limit = spec.search.candidates
    size = sum(1 for _ in itertools.islice(Space(spec.space).grid(), (limit or 100_000) + 1))
    if limit is not None and size != limit:
        found = f"more than {limit}" if size > limit else str(size)
        yield ("search", "candidates"), f"the grid has {found} points, not {limit}; leave candidates out for all"
    if spec.search.given:
        yield ("search", "given"), "a grid tries every point; drop given"


def _objective_faults(spec: SweepSpec) -> Found:
    metric = METRICS[spec.objective.metric]
    if spec.task.kind not in metric.kinds:
        fitting = ", ".join(name for name, other in METRICS.items() if spec.task.kind in other.kinds)
        yield (
            ("objective", "metric"),
            f"{metric.name} judges {' or '.join(metric.kinds)}, this task is {spec.task.kind}; use one of {fitting}",
        )


def _replicate_faults(spec: SweepSpec) -> Found:
    if spec.replicate is None:
        return
    shared = sorted(set(spec.replicate.seeds) & set(spec.search.seeds))
    if shared:
        yield (
            ("replicate", "seeds"),
            f"seed {shared[0]} was used to search; the winner was lucky with it. Use fresh seeds",
        )
    if spec.search.candidates is not None and spec.replicate.top > spec.search.candidates:
        yield (
            ("replicate", "top"),
            f"found {spec.replicate.top}, expected at most search.candidates ({spec.search.candidates})",
        )
    if "split" in spec.replicate.vary and spec.task.validation_fraction is None:
        yield (
            ("replicate", "vary"),
            "split can be varied where task.validation_fraction draws the validation proteins; this task has its own",
        )
    if spec.replicate.random and not spec.space:
        yield ("replicate", "random"), "random candidates need a space to be drawn from; add space, or random: 0"


def _backbone_faults(spec: SweepSpec, folder: Path) -> Found:
    message = backbone_fault(spec.train.backbone, folder)
    if message:
        yield ("train", "backbone"), message
        return
    yield from _embeddings_faults(spec)
    yield from _layers_faults(spec)
    own = family(spec.train.backbone, folder)
    yield from _family_faults(spec, own)
    domain = spec.space.get("backbone.name")
    if isinstance(domain, (ChoiceDomain, OrdinalDomain)):
        yield from _searched_backbone_faults(spec, domain.values, own, folder)


def _family_faults(spec: SweepSpec, own: Family) -> Found:
    """What the architecture of the backbone does not allow."""
    rules, embeddings = FAMILIES[own], spec.train.backbone.embeddings
    if "cls" in _values(spec, "pooling", spec.train.pooling) and not rules.has_cls and spec.task.level == "protein":
        yield ("train", "pooling"), "a T5 encoder has no <cls> token; use pooling: mean"
    if spec.train.precision not in rules.precisions and embeddings is None:
        yield (
            ("train", "precision"),
            f"{own} encoders lose accuracy in {spec.train.precision}; expected {', '.join(rules.precisions)}",
        )


def _embeddings_faults(spec: SweepSpec) -> Found:
    """What only a frozen encoder's embeddings allow."""
    others = [kind for kind in _values(spec, "adapter.kind", spec.train.adapter.kind) if kind != "none"]
    if spec.train.backbone.embeddings is not None:
        if others:
            yield (
                ("train", "adapter", "kind"),
                f"embeddings are fixed, found adapter {others[0]}; use adapter: {{kind: none}}",
            )
        for key in (k for k in spec.space if k == "pooling" or k.startswith("backbone.")):
            yield ("space", key), "embeddings are given, so this changes nothing; drop it"
    if others and True in _values(spec, "head.standardize", spec.train.head.standardize):
        yield (
            ("train", "head", "standardize"),
            f"needs fixed embeddings, and adapter {others[0]} changes them; use adapter: {{kind: none}} alone",
        )


def _layers_faults(spec: SweepSpec) -> Found:
    """adapter.layers beyond what the backbone has, as far as its layers are known here."""
    backbone = spec.train.backbone
    known = known_backbone(backbone.name)
    there = backbone.shape.layers if backbone.shape else known.layers if known else None
    domain = spec.space.get("adapter.layers")
    wanted = _most(domain) if domain is not None else spec.train.adapter.layers
    if there is not None and wanted is not None and wanted > there:
        place: Place = ("space", "adapter.layers") if domain is not None else ("train", "adapter", "layers")
        yield place, f"found {wanted} layers to adapt, {backbone.name} has {there}"


def _most(domain: AnyDomain) -> int:
    return int(domain.high if isinstance(domain, (FloatDomain, IntDomain)) else max(domain.values))


def _values(spec: SweepSpec, key: str, fixed: Any) -> list[Any]:
    """What a choice can be in this sweep."""
    domain = spec.space.get(key)
    return list(domain.values) if isinstance(domain, (ChoiceDomain, OrdinalDomain)) else [fixed]


def _searched_backbone_faults(spec: SweepSpec, names: list[Any], own: str, folder: Path) -> Found:
    place: Place = ("space", "backbone.name")
    if spec.train.backbone.shape is not None:
        yield place, "a shape is given, so names are only labels; search over backbone.init_seed, or drop the shape"
        return
    for name in names:
        backbone = spec.train.backbone.model_copy(update={"name": name})
        message = backbone_fault(backbone, folder)
        if message:
            yield place, message
        elif family(backbone, folder) != own:
            yield place, f"{name} and {spec.train.backbone.name} read different tokens; give each family its own sweep"


def _engine_faults(spec: SweepSpec) -> Found:
    if spec.resources.engine == "packed" and _values(spec, "adapter.kind", spec.train.adapter.kind) == ["full"]:
        yield ("resources", "engine"), "full fine-tuning changes every weight: nothing to share; use engine: auto"
    with_deepspeed = spec.resources.engine == "deepspeed" or spec.resources.workers > 1
    if with_deepspeed and spec.train.precision == "fp64":
        yield ("train", "precision"), "DeepSpeed computes in float32 at most; use fp32, or one worker and engine: torch"


def _head_faults(spec: SweepSpec) -> Found:
    """Heads that the level of the task, or the way its numbers are computed, does not allow."""
    level, place = spec.task.level, _place_of(spec, "head.kind")
    for kind in _values(spec, "head.kind", spec.train.head.kind):
        if (kind in RESIDUE_HEADS and level == "protein") or (kind in PROTEIN_HEADS and level == "residue"):
            other = "residue" if level == "protein" else "protein"
            fitting = [
                k for k in get_args(HeadKind) if k not in (RESIDUE_HEADS if level == "protein" else PROTEIN_HEADS)
            ]
            yield place, f"{kind} predicts for tasks of level {other}, this one is {level}; use {', '.join(fitting)}"
        elif kind == "light_attention":
            yield from _batch_norm_faults(spec)
    if spec.train.backbone.embeddings is not None and (level == "residue" or _reads_residues(spec)):
        yield (
            ("train", "backbone", "embeddings"),
            "embeddings are one row a protein; a task of residues, and light_attention, need the encoder itself",
        )


def _reads_residues(spec: SweepSpec) -> bool:
    return "light_attention" in _values(spec, "head.kind", spec.train.head.kind)


def _batch_norm_faults(spec: SweepSpec) -> Found:
    """light_attention normalises over the batch, so that a batch in parts would train to other numbers."""
    resources, size = spec.resources, spec.train.batch_size
    if resources.micro_batch != "auto" and resources.micro_batch < size:
        yield ("resources", "micro_batch"), f"light_attention needs its whole batch at once; use auto, or {size}"
    if resources.engine == "deepspeed" or resources.workers > 1:
        yield ("resources", "engine"), "light_attention needs its whole batch in one process; use one worker and auto"
    if 1 in _values(spec, "batch_size", size):
        yield ("train", "batch_size"), "light_attention normalises over a batch; expected 2 or more, found 1"


def _adapter_faults(spec: SweepSpec) -> Found:
    kinds, place = _values(spec, "adapter.kind", spec.train.adapter.kind), _place_of(spec, "adapter.kind")
    with_deepspeed = spec.resources.engine == "deepspeed" or spec.resources.workers > 1
    if "adalora" in kinds and with_deepspeed:
        yield place, "adalora moves ranks by its gradients, which DeepSpeed keeps; use engine: torch and one worker"
    if "prefix" in kinds and spec.resources.gradient_checkpointing:
        yield ("resources", "gradient_checkpointing"), "is not supported with adapter prefix; drop one of the two"
    if spec.train.class_weights != "none" and spec.task.kind not in ("binary", "classification"):
        yield (
            ("train", "class_weights"),
            f"weighs classes, the task is {spec.task.kind}; expected binary or classification",
        )


def _place_of(spec: SweepSpec, key: str) -> Place:
    """Where a setting is decided: in the space, or in the train settings."""
    return ("space", key) if key in spec.space else ("train", *key.split("."))


def _task_faults(spec: SweepSpec, folder: Path) -> Found:
    task = spec.task
    if task.dataset is not None and task.dataset not in KNOWN_DATASETS:
        yield ("task", "dataset"), f"unknown data set '{task.dataset}'; {nearest_name(task.dataset, KNOWN_DATASETS)}"
    for field in ("files", "labels", "masks"):
        given = getattr(task, field)
        for name in given.values() if isinstance(given, dict) else given or []:
            if not (folder / name).exists():
                yield ("task", field), f"no such file: {folder / name}"
    known = KNOWN_TASKS.get(task.dataset or "")
    kind, level = (known.kind, known.level) if known else ("regression", "protein")
    if task.dataset is not None and (task.kind, task.level) != (kind, level):
        yield ("task", "kind"), f"{task.dataset} is a {kind} task of level {level}, found {task.kind}, {task.level}"
