"""The sweep file as types. Every field a person may write is here, with its default and its unit."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from plmray.metrics import METRICS
from plmray.spec.space import Domain, Value

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
SplitName = Literal["train", "validation", "test"]
Precision = Literal["auto", "fp32", "bf16", "fp64"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ColumnsSpec(Strict):
    """Names of the columns of a table. ``split`` and ``validation`` follow FLIP's ``set`` and ``validation``.

    Only ``sequence`` and ``target`` must be there; one that is named in the sweep file must be there too.
    """

    id: str | None = "id"
    sequence: str = "sequence"
    target: str = "target"
    split: str | None = "set"
    validation: str | None = "validation"


class LandscapeSpec(Strict):
    """A generated mutational landscape with known truth: additive and pairwise effects plus noise."""

    length: int = Field(default=28, ge=4, le=2000, description="residues")
    positions: int = Field(default=4, ge=1, le=20, description="mutated positions")
    train: int = Field(default=192, ge=8)
    validation: int = Field(default=64, ge=4)
    test: int = Field(default=64, ge=4)
    epistasis: float = Field(default=0.3, ge=0, description="SD of pairwise effects; additive effects have SD 1")
    noise: float = Field(default=0.2, ge=0, description="SD of the measurement")
    seed: Seed = 0


def _as_files(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TaskSpec(Strict):
    """What is predicted from what."""

    dataset: str | None = Field(default=None, description="a known data set, or 'landscape'")
    files: Annotated[Union[list[str], dict[SplitName, str], None], BeforeValidator(_as_files)] = None
    columns: ColumnsSpec = ColumnsSpec()
    landscape: LandscapeSpec = LandscapeSpec()
    kind: Literal["regression", "classification"] = "regression"
    level: Literal["protein"] = "protein"
    window: Union[Literal["auto"], list[int], None] = Field(
        default=None, description="residues kept: around the mutated positions, or [first, last], 1-based"
    )
    max_length: int = Field(default=1022, ge=1, description="residues; the limit of ESM2 without its two marks")
    over_length: Literal["refuse", "cut", "drop"] = "refuse"
    shared_sequences: Literal["refuse", "allow"] = "refuse"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    split_seed: Seed = 0

    @model_validator(mode="after")
    def _one_source(self) -> TaskSpec:
        if (self.dataset is None) == (self.files is None):
            raise ValueError("give either dataset: NAME or files: …, one of the two")
        if isinstance(self.window, list) and (len(self.window) != 2 or not 1 <= self.window[0] <= self.window[1]):
            raise ValueError(f"window: {self.window} is not [first, last] with 1 <= first <= last")
        return self


class ShapeSpec(Strict):
    """Size of a randomly initialised ESM2 encoder."""

    layers: int = Field(ge=1)
    width: int = Field(ge=4)
    heads: int = Field(ge=1)
    feed_forward: int = Field(ge=4)

    @model_validator(mode="after")
    def _divides(self) -> ShapeSpec:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads} (rotary pairs)")
        return self


class BackboneSpec(Strict):
    name: str = Field(min_length=1, description="a known name, a hub id, a local folder, or any label for a shape")
    init: Literal["pretrained", "random"] = "pretrained"
    init_seed: Seed = Field(default=0, description="seed of the weights of init: random")
    shape: ShapeSpec | None = Field(default=None, description="with init: random only")
    revision: str | None = Field(default=None, description="hub commit or tag")
    embeddings: Annotated[Union[list[str], None], BeforeValidator(_as_files)] = Field(
        default=None, description="Parquet files (sequence, embedding) that stand for this backbone's output"
    )

    @model_validator(mode="after")
    def _shape_is_random(self) -> BackboneSpec:
        if self.embeddings is not None and (self.init == "random" or self.revision is not None):
            raise ValueError("embeddings stand for the backbone: drop init, init_seed, shape and revision")
        if self.shape is not None and self.init != "random":
            raise ValueError("shape needs init: random; pretrained weights have the shape of their checkpoint")
        if self.init == "random" and self.revision is not None:
            raise ValueError("revision needs init: pretrained; random weights come from init_seed")
        return self


class AdapterSpec(Strict):
    """How the encoder may change: not at all (frozen), by LoRA, DoRA or IA3, or in full."""

    kind: Literal["none", "lora", "dora", "ia3", "full"] = "lora"
    rank: int = Field(default=4, ge=1, le=1024)
    alpha: float = Field(default=1, gt=0)
    dropout: Fraction = 0.0
    targets: Union[Literal["attention", "notebook"], list[str]] = Field(
        default="attention",
        description="attention: query, key, value, output; notebook: also feed-forward and the head's dense layer",
    )
    bias: Literal["none", "all"] = "none"
    layers: int | None = Field(default=None, ge=1, description="adapt the top so many layers only; default all")


class HeadSpec(Strict):
    kind: Literal["linear", "dense", "notebook"] = "dense"
    hidden: int = Field(default=32, ge=1)
    dropout: Fraction = 0.0
    standardize: bool = Field(default=False, description="embeddings to mean 0, SD 1 of training; adapter none only")


class OptimizerSpec(Strict):
    """AdamW. The rate rises over ``warmup`` (a fraction of all steps), then follows ``schedule``."""

    lr: float = Field(default=3e-4, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: float = Field(default=1e-8, gt=0)
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    warmup: Fraction = 0.0
    clip: float | None = Field(default=1.0, gt=0, description="largest gradient norm; null clips nothing")


def _as_backbone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class TrainSpec(Strict):
    """Train settings: the fields a space may search over."""

    backbone: Annotated[BackboneSpec, BeforeValidator(_as_backbone)]
    adapter: AdapterSpec = AdapterSpec()
    head: HeadSpec = HeadSpec()
    pooling: Literal["cls", "mean"] = "cls"
    optimizer: OptimizerSpec = OptimizerSpec()
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=8, ge=1, description="effective: examples per optimizer step")
    evaluations_per_epoch: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1, description="evaluations without a lower validation loss")
    precision: Precision = "auto"


def _known_metric(name: str) -> str:
    from plmray.errors import nearest_name

    if name not in METRICS:
        raise ValueError(f"unknown metric '{name}'; {nearest_name(name, METRICS)}")
    return name


class ObjectiveSpec(Strict):
    metric: Annotated[str, BeforeValidator(_known_metric)] = "spearman"


def _distinct_seeds(seeds: list[int]) -> list[int]:
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise ValueError(f"seed {twice[0]} is listed twice; every seed is one repetition")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1)]


class SearchSpec(Strict):
    candidates: int | None = Field(default=None, ge=1, description="given ones included; a grid may leave it out")
    seeds: Seeds = [0]
    sampler: Literal["tpe", "random", "sobol", "cmaes", "gp", "grid"] = "tpe"
    sampler_seed: Seed = 0
    scheduler: Literal["asha", "median", "none"] = "none"
    min_epochs: int | None = Field(default=None, ge=1, description="first rung; default a quarter of the epochs")
    reduction_factor: int = Field(default=2, ge=2, description="of every so many candidates one goes on (asha)")
    given: list[dict[str, Value]] = Field(default_factory=list, description="settings to try first")

    @model_validator(mode="after")
    def _sensible(self) -> SearchSpec:
        _distinct_seeds(self.seeds)
        if self.sampler != "grid" and self.candidates is None:
            raise ValueError("candidates is missing: how many settings to try")
        if self.sampler in ("cmaes", "gp") and self.scheduler != "none":
            raise ValueError(
                f"sampler {self.sampler} learns nothing from pruned candidates; use scheduler: none, or sampler: tpe"
            )
        if self.candidates is not None and len(self.given) > self.candidates:
            raise ValueError(f"{len(self.given)} given settings exceed candidates: {self.candidates}")
        return self


CONFIRM = 5  # seeds
CONFIRMED = 2  # candidates: the leader and its rival


class BudgetSpec(Strict):
    trials: int = Field(ge=1)


class ReplicateSpec(Strict):
    top: int = Field(default=0, ge=0, description="best candidates of the search")
    random: int = Field(default=0, ge=0, description="anchors: drawn blindly, the only ones that feed variance shares")
    seeds: Seeds
    allocation: Literal["fixed", "adaptive"] = Field(
        default="fixed", description="adaptive: statistics choose which of the top candidates runs its next seed"
    )
    budget: BudgetSpec | None = Field(default=None, description="of the adaptive part")
    indifference: float | None = Field(
        default=None, gt=0, description="adaptive: stop where picking the leader loses less, in the score's unit"
    )
    confirm: int | None = Field(
        default=None, ge=2, description="adaptive: fresh seeds of the two best at the end, for the intervals; default 5"
    )
    vary: list[Literal["init", "order", "dropout", "split"]] = Field(
        default_factory=list,
        description="random streams to move one at a time, the others held at the first seed; of the top candidates",
    )

    @model_validator(mode="after")
    def _something(self) -> ReplicateSpec:
        _distinct_seeds(self.seeds)
        if self.top + self.random == 0:
            raise ValueError("top and random are both 0; leave replicate out instead")
        if len(set(self.vary)) < len(self.vary):
            raise ValueError(f"vary lists a stream twice: {self.vary}")
        if self.vary and len(self.seeds) < 2:
            raise ValueError("vary needs two seeds or more: the first holds the other streams")
        return self

    @model_validator(mode="after")
    def _adaptive(self) -> ReplicateSpec:
        own = [name for name in ("budget", "indifference", "confirm") if getattr(self, name) is not None]
        if self.allocation == "fixed" and own:
            raise ValueError(f"{own[0]} belongs to allocation: adaptive; add that, or drop {own[0]}")
        if self.allocation == "adaptive":
            if self.budget is None:
                raise ValueError("allocation: adaptive needs budget: {trials: N}, the most it may run")
            if self.top < 2:
                raise ValueError(f"allocation: adaptive chooses among top candidates; top is {self.top}, expected 2+")
            if self.budget.trials < 2 * self.top:
                raise ValueError(
                    f"budget: {self.budget.trials} trials are fewer than two for each of {self.top} top candidates"
                )
        return self

    @property
    def confirmation_seeds(self) -> int:
        return 0 if self.allocation == "fixed" else CONFIRM if self.confirm is None else self.confirm


class DeepSpeedSpec(Strict):
    stage: Literal[0, 1, 2, 3] = 2
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @model_validator(mode="after")
    def _supported(self) -> DeepSpeedSpec:
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer needs stage 1, 2 or 3; stage 0 keeps the optimizer whole")
        if self.offload_parameters and self.stage != 3:
            raise ValueError(f"offload_parameters needs stage 3, found stage {self.stage}")
        return self


class ResourcesSpec(Strict):
    """Where and how trials run. Nothing here changes a trial's numbers or its id."""

    engine: Literal["auto", "torch", "packed", "deepspeed"] = "auto"
    workers: int = Field(default=1, ge=1, description="processes of one trial")
    cpus_per_worker: int = Field(default=1, ge=1)
    gpus_per_trial: Union[Literal["auto"], Annotated[float, Field(ge=0)]] = "auto"
    max_concurrent: Union[Literal["auto"], Annotated[int, Field(ge=1)]] = "auto"
    max_hours_per_trial: float | None = Field(default=None, gt=0)
    micro_batch: Union[Literal["auto"], Annotated[int, Field(ge=1)]] = "auto"
    gradient_checkpointing: bool = False
    retries: int = Field(default=1, ge=0, description="restarts after a crash of the infrastructure")
    keep: Literal["best", "replicate", "none"] = Field(default="replicate", description="adapters and heads kept")
    deepspeed: DeepSpeedSpec = DeepSpeedSpec()

    @model_validator(mode="after")
    def _engine_fits(self) -> ResourcesSpec:
        if self.engine in ("torch", "packed") and self.workers > 1:
            raise ValueError(
                f"engine {self.engine} is one process, found workers: {self.workers}; use engine: deepspeed"
            )
        gpus = self.gpus_per_trial
        if gpus != "auto" and gpus > 0 and (gpus % self.workers if self.workers > 1 else gpus > 1):
            raise ValueError(f"gpus_per_trial: {gpus:g} does not fit workers: {self.workers}; each worker uses one GPU")
        return self


class TrackingSpec(Strict):
    experiment: str = Field(default="plmray", min_length=1)
    uri: str | None = Field(default=None, description="MLflow tracking URI; default MLFLOW_TRACKING_URI, then SQLite")


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _folder_name(name: Any) -> Any:
    if isinstance(name, str) and not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no folder name; use letters, digits, '.', '_' and '-', at most 100")
    return name


class SweepSpec(Strict):
    """One experiment: a task, train settings, a space over them, and how to search and repeat."""

    name: Annotated[str, BeforeValidator(_folder_name)]
    task: TaskSpec
    train: TrainSpec
    space: dict[str, Domain] = Field(default_factory=dict)
    objective: ObjectiveSpec = ObjectiveSpec()
    search: SearchSpec
    replicate: ReplicateSpec | None = None
    resources: ResourcesSpec = ResourcesSpec()
    tracking: TrackingSpec = TrackingSpec()
