"""The sweep file as types. Every field a person may write is here or in ``task`` and ``train``, with its default."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from plmray.config.catalog.engines import ENGINES, EngineName
from plmray.config.catalog.tasks import KNOWN_TASKS
from plmray.config.fields.space import Domain, Value
from plmray.config.fields.task import Seed, Strict, TaskSpec
from plmray.config.fields.train import TrainSpec
from plmray.metrics import DEFAULT_METRIC, METRICS


def _known_metric(name: str) -> str:
    from plmray.errors import nearest_name

    if not isinstance(name, str):
        raise ValueError(f"found {name!r}, expected the name of a metric")
    if name not in METRICS:
        raise ValueError(f"unknown metric '{name}'; {nearest_name(name, METRICS)}")
    return name


class ObjectiveSpec(Strict):
    """``metric``: default is the data set's own, else spearman, auroc (binary), accuracy (classes) or f1 (labels)."""

    metric: Annotated[str, BeforeValidator(_known_metric)] = Field(
        default="spearman", description="what ranks candidates, on validation; default the data set's or its kind's own"
    )


def _distinct_seeds(seeds: list[int]) -> list[int]:
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise ValueError(f"seed {twice[0]} is listed twice; every seed is one repetition")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1)]


class SearchSpec(Strict):
    """The first phase: which settings are tried, with which seeds, and which are stopped early."""

    candidates: int | None = Field(
        default=None, ge=1, examples=[32], description="settings to try, given ones included; a grid may leave it out"
    )
    seeds: Seeds = Field(default=[0], description="seeds of every candidate; it is judged by their mean")
    sampler: Literal["tpe", "random", "sobol", "cmaes", "gp", "grid"] = Field(
        default="tpe", description="what proposes settings: Optuna's tpe, random, sobol, cmaes, gp, or all of a grid"
    )
    sampler_seed: Seed = Field(default=0, description="seed of the sampler and of the anchors")
    scheduler: Literal["asha", "median", "none"] = Field(
        default="none", description="what stops hopeless candidates early: successive halving, the median rule, nothing"
    )
    min_epochs: int | None = Field(
        default=None, ge=1, examples=[2], description="first rung; default a quarter of the epochs"
    )
    reduction_factor: int = Field(default=2, ge=2, description="of every so many candidates one goes on (asha)")
    given: list[dict[str, Value]] = Field(
        default_factory=list, examples=[[{"optimizer.lr": 0.001}]], description="settings to try first"
    )

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
    """The most that allocation: adaptive may spend."""

    trials: int = Field(ge=1, examples=[60], description="trials of the adaptive part, confirmation left out")


class ReplicateSpec(Strict):
    """The second phase, which decides: the best and the anchors on fresh seeds, with test scores."""

    top: int = Field(default=0, ge=0, description="best candidates of the search")
    random: int = Field(default=0, ge=0, description="anchors: drawn blindly, the only ones that feed variance shares")
    seeds: Seeds = Field(examples=[[101, 102, 103]], description="fresh ones: none of search.seeds")
    allocation: Literal["fixed", "adaptive"] = Field(
        default="fixed", description="adaptive: statistics choose which of the top candidates runs its next seed"
    )
    budget: BudgetSpec | None = Field(
        default=None, examples=[{"trials": 60}], description="adaptive: the most it may spend"
    )
    indifference: float | None = Field(
        default=None,
        gt=0,
        examples=[0.002],
        description="adaptive: stop where picking the leader loses less, in the score's unit",
    )
    confirm: int | None = Field(
        default=None,
        ge=2,
        examples=[8],
        description="adaptive: fresh seeds of the two best at the end, for the intervals; default 5",
    )
    vary: list[Literal["init", "order", "dropout", "split"]] = Field(
        default_factory=list,
        examples=[["init", "order"]],
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
    """Of engine: deepspeed: what its ZeRO optimizer spreads over workers or moves to the CPU's memory."""

    stage: Literal[0, 1, 2, 3] = Field(
        default=2, description="spreads nothing (0), optimizer state (1), gradients too (2), weights too (3)"
    )
    offload_optimizer: bool = Field(default=False, description="optimizer state in the CPU's memory; stage 1 to 3")
    offload_parameters: bool = Field(default=False, description="weights in the CPU's memory; stage 3")

    @model_validator(mode="after")
    def _supported(self) -> DeepSpeedSpec:
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer needs stage 1, 2 or 3; stage 0 keeps the optimizer whole")
        if self.offload_parameters and self.stage != 3:
            raise ValueError(f"offload_parameters needs stage 3, found stage {self.stage}")
        return self


class ResourcesSpec(Strict):
    """Where and how trials run. Nothing here changes a trial's numbers or its id."""

    engine: Union[Literal["auto"], EngineName] = Field(
        default="auto", description="torch: a trial a process; packed: many on one device; deepspeed: several workers"
    )
    workers: int = Field(default=1, ge=1, description="processes of one trial")
    cpus_per_worker: int = Field(default=1, ge=1, description="threads of each process")
    gpus_per_trial: Union[Literal["auto"], Annotated[float, Field(ge=0)]] = Field(
        default="auto",
        examples=[1],
        description="0 keeps to the CPU; a part of 1 shares a GPU; auto: one if there is one",
    )
    max_concurrent: Union[Literal["auto"], Annotated[int, Field(ge=1)]] = Field(
        default="auto", examples=[4], description="jobs at a time; auto: as many as fit"
    )
    max_hours_per_trial: float | None = Field(
        default=None, gt=0, examples=[2], description="a trial that trains for longer fails"
    )
    micro_batch: Union[Literal["auto"], Annotated[int, Field(ge=1)]] = Field(
        default="auto", examples=[4], description="examples in memory at once; auto: the batch, halved if out of memory"
    )
    gradient_checkpointing: bool = Field(default=False, description="less memory for a third more computing")
    retries: int = Field(default=3, ge=0, description="restarts after a crash of the infrastructure")
    keep: Literal["best", "replicate", "none"] = Field(default="replicate", description="adapters and heads kept")
    deepspeed: DeepSpeedSpec = DeepSpeedSpec()

    @model_validator(mode="after")
    def _engine_fits(self) -> ResourcesSpec:
        if self.engine != "auto" and not ENGINES[self.engine].has_groups and self.workers > 1:
            raise ValueError(
                f"engine {self.engine} is one process, found workers: {self.workers}; use engine: deepspeed"
            )
        gpus = self.gpus_per_trial
        if gpus != "auto" and gpus > 0 and (gpus % self.workers if self.workers > 1 else gpus > 1):
            raise ValueError(f"gpus_per_trial: {gpus:g} does not fit workers: {self.workers}; each worker uses one GPU")
        return self

    @property
    def in_groups(self) -> bool:
        """Whether a trial is a group of workers (DeepSpeed), as far as the file says."""
        return self.workers > 1 or (self.engine != "auto" and ENGINES[self.engine].has_groups)


class TrackingSpec(Strict):
    """Where MLflow mirrors the sweep."""

    experiment: str = Field(default="plmray", min_length=1, description="name of the MLflow experiment")
    uri: str | None = Field(
        default=None,
        examples=["http://127.0.0.1:5000"],
        description="MLflow tracking URI; default MLFLOW_TRACKING_URI, then SQLite",
    )


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _folder_name(name: Any) -> Any:
    if isinstance(name, str) and not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no folder name; use letters, digits, '.', '_' and '-', at most 100")
    return name


class SweepSpec(Strict):
    """One experiment: a task, train settings, a space over them, and how to search and repeat."""

    name: Annotated[str, BeforeValidator(_folder_name)] = Field(
        examples=["gb1-lora"], description="of the sweep and of its folder"
    )
    task: TaskSpec
    train: TrainSpec
    space: dict[str, Domain] = Field(
        default_factory=dict,
        examples=[{"optimizer.lr": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}}],
        description="fields of train by dotted key and what each may be; or the path of a space file, or several",
    )
    objective: ObjectiveSpec = ObjectiveSpec()
    search: SearchSpec
    replicate: ReplicateSpec | None = None
    resources: ResourcesSpec = ResourcesSpec()
    tracking: TrackingSpec = TrackingSpec()

    @model_validator(mode="before")
    @classmethod
    def _metric_of_the_task(cls, tree: Any) -> Any:
        """The metric that the task calls for, where none is named."""
        if not isinstance(tree, dict) or not isinstance(tree.get("task"), dict):
            return tree
        task, objective = tree["task"], tree.get("objective", {})
        if not isinstance(objective, dict) or "metric" in objective:
            return tree
        known = KNOWN_TASKS.get(task["dataset"]) if isinstance(task.get("dataset"), str) else None
        kind = task.get("kind", known.kind if known else "regression")
        if not isinstance(kind, str):
            return tree
        metric = known.metric if known and kind == known.kind else DEFAULT_METRIC.get(kind)  # type: ignore[call-overload]
        return tree if metric is None else {**tree, "objective": {**objective, "metric": metric}}
