"""The train settings of a sweep: the fields that a space may search over."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from plmray.config.catalog.adapters import AdapterKind, PeftMethod
from plmray.config.catalog.backbones import EncoderSize
from plmray.config.catalog.families import Family
from plmray.config.catalog.heads import HEADS, HeadKind
from plmray.config.space import Value
from plmray.config.task import Seed, Strict, as_files

Fraction = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["auto", "fp32", "bf16", "fp64"]


class ShapeSpec(Strict):
    """Size of a randomly initialised ESM2 encoder."""

    layers: int = Field(ge=1, le=200)
    width: int = Field(ge=4, le=20_000)
    heads: int = Field(ge=1, le=1_000)
    feed_forward: int = Field(ge=4, le=100_000)

    @model_validator(mode="after")
    def _divides(self) -> ShapeSpec:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads} (rotary pairs)")
        return self

    @property
    def size(self) -> EncoderSize:
        return EncoderSize(self.layers, self.width, self.width, self.feed_forward, self.heads)


class BackboneSpec(Strict):
    name: str = Field(min_length=1, description="a known name, a hub id, a local folder, or any label for a shape")
    init: Literal["pretrained", "random"] = "pretrained"
    init_seed: Seed = Field(default=0, description="seed of the weights of init: random")
    shape: ShapeSpec | None = Field(default=None, description="with init: random only")
    revision: str | None = Field(default=None, description="hub commit or tag")
    family: Family | None = Field(default=None, description="of a folder or hub id that does not tell by itself")
    embeddings: Annotated[Union[list[str], None], BeforeValidator(as_files)] = Field(
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
    """How the encoder may change: not at all (none), by a parameter-efficient method, or in full."""

    kind: AdapterKind = "lora"
    rank: int = Field(default=4, ge=1, le=1024, description="adalora: the mean rank it ends with")
    alpha: float = Field(default=1, gt=0)
    dropout: Fraction = 0.0
    targets: Union[Literal["attention", "notebook"], list[str]] = Field(
        default="attention",
        description="attention: query, key, value, output; notebook: also feed-forward and the head's dense layer",
    )
    bias: Literal["none", "all"] = "none"
    layers: int | None = Field(default=None, ge=1, description="adapt the top so many layers only; default all")
    tokens: int = Field(default=20, ge=1, le=1000, description="prefix: keys and values before those of residues")
    method: PeftMethod | None = Field(default=None, description="kind peft: any method of that library listed here")
    options: dict[str, Value] = Field(default_factory=dict, description="kind peft: of the method's configuration")


class HeadSpec(Strict):
    kind: HeadKind = "dense"
    hidden: int = Field(default=32, ge=1, le=1_000_000, description="of dense and light_attention")
    dropout: Fraction | None = Field(default=None, description="default .25 for cnn_prottrans, light_attention, else 0")
    standardize: bool = Field(default=False, description="embeddings to mean 0, SD 1 of training; adapter none only")

    @property
    def dropout_rate(self) -> float:
        return HEADS[self.kind].dropout if self.dropout is None else self.dropout


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
    pooling: Literal["cls", "mean", "padded_mean"] = Field(
        default="cls", description="padded_mean runs over padding and marks, as the notebooks did: for comparison alone"
    )
    optimizer: OptimizerSpec = OptimizerSpec()
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=8, ge=1, description="effective: examples per optimizer step")
    evaluations_per_epoch: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1, description="evaluations without a lower validation loss")
    precision: Precision = "auto"
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: rare classes weigh more in the loss, as n / (classes · n of the class)"
    )
