"""The train settings of a sweep: the fields that a space may search over."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from plmray.config.catalog.adapters import AdapterKind, PeftMethod
from plmray.config.catalog.backbones import EncoderSize
from plmray.config.catalog.families import Family
from plmray.config.catalog.heads import HEADS, HeadKind
from plmray.config.fields.space import Value
from plmray.config.fields.task import Seed, Strict, as_files

Fraction = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["auto", "fp32", "bf16", "fp64"]


class ShapeSpec(Strict):
    """Size of a randomly initialised ESM2 encoder."""

    layers: int = Field(ge=1, le=200, examples=[2], description="transformer layers")
    width: int = Field(ge=4, le=20_000, examples=[64], description="of a residue's state")
    heads: int = Field(ge=1, le=1_000, examples=[4], description="of attention")
    feed_forward: int = Field(ge=4, le=100_000, examples=[256], description="width of the layer between")

    @model_validator(mode="after")
    def _divides(self) -> ShapeSpec:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be an even multiple of heads {self.heads} (rotary pairs)")
        return self

    @property
    def size(self) -> EncoderSize:
        return EncoderSize(self.layers, self.width, self.width, self.feed_forward, self.heads)


class BackboneSpec(Strict):
    """The encoder. ``backbone: NAME`` stands for ``backbone: {name: NAME}``."""

    name: str = Field(
        min_length=1,
        examples=["esm2_t6_8M_UR50D"],
        description="a known name, a hub id, a local folder, or any label for a shape",
    )
    init: Literal["pretrained", "random"] = Field(default="pretrained", description="published weights, or drawn ones")
    init_seed: Seed = Field(default=0, description="seed of the weights of init: random")
    shape: ShapeSpec | None = Field(
        default=None,
        examples=[{"layers": 2, "width": 64, "heads": 4, "feed_forward": 256}],
        description="with init: random only",
    )
    revision: str | None = Field(default=None, examples=["main"], description="hub commit or tag")
    family: Family | None = Field(
        default=None, examples=["esm2"], description="of a folder or hub id that does not tell by itself"
    )
    embeddings: Annotated[Union[list[str], None], BeforeValidator(as_files)] = Field(
        default=None,
        examples=["embeddings.parquet"],
        description="Parquet files (sequence, embedding) that stand for this backbone's output: see plmray embed",
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

    kind: AdapterKind = Field(default="lora", description="none: frozen; full: every weight trains")
    rank: int = Field(default=4, ge=1, le=1024, description="adalora: the mean rank it ends with")
    alpha: float = Field(default=1, gt=0, description="scale of the low-rank update, over its rank")
    dropout: Fraction = Field(default=0.0, description="of what enters the low-rank update")
    targets: Union[Literal["attention", "notebook"], list[str]] = Field(
        default="attention",
        description="attention: query, key, value, output; notebook: also feed-forward and the head's dense layer",
    )
    bias: Literal["none", "all"] = Field(default="none", description="all: biases of the whole encoder train too")
    layers: int | None = Field(
        default=None, ge=1, examples=[2], description="adapt the top so many layers only; default all"
    )
    tokens: int = Field(default=20, ge=1, le=1000, description="prefix: keys and values before those of residues")
    method: PeftMethod | None = Field(
        default=None, examples=["loha"], description="kind peft: any method of that library listed here"
    )
    options: dict[str, Value] = Field(
        default_factory=dict, examples=[{"r": 4}], description="kind peft: of the method's configuration"
    )


class HeadSpec(Strict):
    """What predicts from the encoder's states."""

    kind: HeadKind = Field(
        default="dense", description="cnn_seth, cnn_prottrans: of residues; light_attention: of proteins by residues"
    )
    hidden: int = Field(default=32, ge=1, le=1_000_000, description="of dense and light_attention")
    dropout: Fraction | None = Field(
        default=None, examples=[0.2], description="default .25 for cnn_prottrans, light_attention, else 0"
    )
    standardize: bool = Field(default=False, description="embeddings to mean 0, SD 1 of training; adapter none only")

    @property
    def dropout_rate(self) -> float:
        return HEADS[self.kind].dropout if self.dropout is None else self.dropout


class OptimizerSpec(Strict):
    """AdamW. The rate rises over ``warmup`` (a fraction of all steps), then follows ``schedule``."""

    lr: float = Field(default=3e-4, gt=0, le=1, description="the highest learning rate")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled, times the rate, a step")
    beta1: Fraction = Field(default=0.9, description="decay of the mean of gradients")
    beta2: Fraction = Field(default=0.999, description="decay of the mean of their squares")
    eps: float = Field(default=1e-8, gt=0, description="added to the root of the mean square")
    schedule: Literal["linear", "constant", "cosine"] = Field(
        default="linear", description="how the rate falls to 0 by the last step, if it does"
    )
    warmup: Fraction = Field(default=0.0, description="fraction of all steps over which the rate rises")
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
    epochs: int = Field(default=10, ge=1, description="passes over the training proteins")
    batch_size: int = Field(default=8, ge=1, description="effective: examples per optimizer step")
    evaluations_per_epoch: int = Field(default=1, ge=1, description="looks at validation; the lowest loss is kept")
    patience: int | None = Field(
        default=None, ge=1, examples=[5], description="stop after so many evaluations without a lower validation loss"
    )
    precision: Precision = Field(
        default="auto", description="auto: bf16 on a GPU where the encoder bears it, else fp32"
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: rare classes weigh more in the loss, as n / (classes · n of the class)"
    )
