"""Which backbone, adapter, head, engine and task go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from plmray.config.backbone_names import backbone_fault, encoder_size, family, is_there, longest_residues, tokens_key
from plmray.config.catalog.adapters import PeftMethod
from plmray.config.catalog.families import FAMILIES, Family
from plmray.config.catalog.heads import HEADS
from plmray.config.catalog.tasks import KNOWN_DATASETS, KNOWN_TASKS
from plmray.config.fields.space import ChoiceDomain, OrdinalDomain
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.train import BackboneSpec
from plmray.config.parameters import Found, _bounds, choices_of, most_of
from plmray.config.strict_yaml import Place
from plmray.errors import nearest_name


def model_faults(spec: SweepSpec, folder: Path) -> Found:
    yield from _backbone_faults(spec, folder)
    yield from _engine_faults(spec)
    yield from _task_faults(spec, folder)
    yield from _head_faults(spec)
    yield from _adapter_faults(spec)


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
    heads = choices_of(spec, "head.kind", spec.train.head.kind)
    pools = (
        spec.task.level == "protein" and embeddings is None and not all(HEADS[head].reads_residues for head in heads)
    )
    if "cls" in choices_of(spec, "pooling", spec.train.pooling) and not rules.has_cls and pools:
        yield ("train", "pooling"), "a T5 encoder has no <cls> token; use pooling: mean"
    if spec.train.precision not in rules.precisions and embeddings is None:
        yield (
            ("train", "precision"),
            f"{own} encoders lose accuracy in {spec.train.precision}; expected {', '.join(rules.precisions)}",
        )


def _embeddings_faults(spec: SweepSpec) -> Found:
    """What only a frozen encoder's embeddings allow."""
    others = [kind for kind in choices_of(spec, "adapter.kind", spec.train.adapter.kind) if kind != "none"]
    if spec.train.backbone.embeddings is not None:
        if others:
            yield (
                ("train", "adapter", "kind"),
                f"embeddings are fixed, found adapter {others[0]}; use adapter: {{kind: none}}",
            )
        for key in (k for k in spec.space if k == "pooling" or k.startswith("backbone.")):
            yield ("space", key), "embeddings are given, so this changes nothing; drop it"
    if others and True in choices_of(spec, "head.standardize", spec.train.head.standardize):
        yield (
            ("train", "head", "standardize"),
            f"needs fixed embeddings, and adapter {others[0]} changes them; use adapter: {{kind: none}} alone",
        )


def _layers_faults(spec: SweepSpec) -> Found:
    """adapter.layers beyond what the backbone has, as far as its layers are known here."""
    backbone = spec.train.backbone
    size = encoder_size(backbone)
    there = size.layers if size else None
    domain = spec.space.get("adapter.layers")
    wanted = most_of(domain) if domain is not None else spec.train.adapter.layers
    if there is not None and wanted is not None and wanted > there:
        place: Place = ("space", "adapter.layers") if domain is not None else ("train", "adapter", "layers")
        yield place, f"found {wanted} layers to adapt, {backbone.name} has {there}"


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
        elif family(backbone, folder) != own or not _same_tokens(spec.train.backbone, backbone, folder):
            yield place, f"{name} and {spec.train.backbone.name} read different tokens; give each its own sweep"


def _same_tokens(one: BackboneSpec, other: BackboneSpec, folder: Path) -> bool:
    """As far as both are here: a checkpoint that is not is looked at once it has been fetched."""
    keys = [tokens_key(backbone, folder) for backbone in (one, other)]
    return None in keys or keys[0] == keys[1]


def _engine_faults(spec: SweepSpec) -> Found:
    if spec.resources.engine == "packed" and choices_of(spec, "adapter.kind", spec.train.adapter.kind) == ["full"]:
        yield ("resources", "engine"), "full fine-tuning changes every weight: nothing to share; use engine: auto"
    if spec.resources.in_groups and spec.train.precision == "fp64":
        yield ("train", "precision"), "DeepSpeed computes in float32 at most; use fp32, or one worker and engine: torch"


def _head_faults(spec: SweepSpec) -> Found:
    """Heads that the level of the task, or the way its numbers are computed, does not allow."""
    level, place = spec.task.level, _place_of(spec, "head.kind")
    for kind in choices_of(spec, "head.kind", spec.train.head.kind):
        if level not in HEADS[kind].levels:
            fitting = ", ".join(name for name, row in HEADS.items() if level in row.levels)
            yield (
                place,
                f"{kind} predicts for tasks of level {HEADS[kind].levels[0]}, this one is {level}; use {fitting}",
            )
        elif HEADS[kind].needs_whole_batch:
            yield from _whole_batch_faults(spec, kind, normalises=True)
    if "padded_mean" in choices_of(spec, "pooling", spec.train.pooling):
        yield from _whole_batch_faults(spec, "pooling padded_mean", normalises=False)
    if level == "residue" and "pooling" in spec.space:
        yield ("space", "pooling"), "residues are not pooled, so this changes nothing; drop it"
    if spec.train.backbone.embeddings is not None and (level == "residue" or _reads_residues(spec)):
        yield (
            ("train", "backbone", "embeddings"),
            "embeddings are one row a protein; a task of residues, and light_attention, need the encoder itself",
        )


def _reads_residues(spec: SweepSpec) -> bool:
    return any(HEADS[kind].reads_residues for kind in choices_of(spec, "head.kind", spec.train.head.kind))


def _whole_batch_faults(spec: SweepSpec, what: str, *, normalises: bool) -> Found:
    """What depends on the batch it is computed in would train to other numbers in parts of one."""
    resources, (least, most) = spec.resources, _bounds(spec, "batch_size", spec.train.batch_size)
    if resources.micro_batch != "auto" and resources.micro_batch < most:
        yield ("resources", "micro_batch"), f"{what} needs its whole batch at once; use auto, or {most}"
    if resources.in_groups:
        yield ("resources", "engine"), f"{what} needs its whole batch in one process; use one worker and auto"
    if normalises and least < 2:
        yield _place_of(spec, "batch_size"), f"{what} normalises over a batch; expected 2 or more, found 1"


def _adapter_faults(spec: SweepSpec) -> Found:
    kinds, place = choices_of(spec, "adapter.kind", spec.train.adapter.kind), _place_of(spec, "adapter.kind")
    if "adalora" in kinds and spec.resources.in_groups:
        yield place, "adalora moves ranks by its gradients, which DeepSpeed keeps; use engine: torch and one worker"
    adapter, named = spec.train.adapter, "adapter.method" in spec.space
    if "peft" in kinds and adapter.method is None and not named:
        yield ("train", "adapter"), "kind: peft needs its method: " + ", ".join(get_args(PeftMethod))
    if "peft" not in kinds and (adapter.method is not None or adapter.options or named):
        yield ("train", "adapter"), "method and options belong to kind: peft; add that, or drop them"
    random = [name for name in adapter.options if "dropout" in name]
    if random:
        yield ("train", "adapter", "options"), f"{random[0]} would draw from no stream of the trial; leave it at 0"
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
    if task.dataset is not None and task.columns.model_fields_set:
        yield ("task", "columns"), f"{task.dataset} has its own columns; drop these, or give files: …"
    for field in ("files", "labels", "masks"):
        given = getattr(task, field)
        for name in given.values() if isinstance(given, dict) else given or []:
            if not is_there(folder / name):
                yield ("task", field), f"no such file: {folder / name}"
    names = choices_of(spec, "backbone.name", spec.train.backbone.name)
    backbones = (spec.train.backbone.model_copy(update={"name": name}) for name in names if isinstance(name, str))
    longest = min((n for b in backbones if (n := longest_residues(b, folder)) is not None), default=None)
    if longest is not None and task.max_length > longest:
        message = (
            f"found {task.max_length}, this encoder has positions for {longest} residues; set max_length: {longest}"
        )
        yield ("task", "max_length"), f"{message}, and over_length: cut or drop where proteins are longer"
    known = KNOWN_TASKS.get(task.dataset or "")
    kind, level = (known.kind, known.level) if known else ("regression", "protein")
    if task.dataset is not None and (task.kind, task.level) != (kind, level):
        yield ("task", "kind"), f"{task.dataset} is a {kind} task of level {level}, found {task.kind}, {task.level}"
