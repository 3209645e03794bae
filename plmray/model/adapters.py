"""What of the encoder may change: nothing, small additions by peft, or everything."""

from __future__ import annotations

from typing import Any

from torch import nn

from plmray.errors import SetupError
from plmray.model.dropout import DropoutSource, StreamDropout
from plmray.spec.names import Family
from plmray.spec.sweep import AdapterSpec

# Source: the study's paper (attention) and notebooks (where "dense" also catches the feed-forward
# layers and the head's own dense layer).
NOTEBOOK: dict[Family, list[str]] = {"esm2": ["query", "key", "value", "dense"], "t5": ["q", "k", "v", "o"]}
LAYER: dict[Family, str] = {"esm2": r"encoder\.layer\.", "t5": r"encoder\.block\."}
ATTENTION: dict[Family, str] = {
    "esm2": r"attention\.(self\.(query|key|value)|output\.dense)",
    "t5": r"layer\.0\.SelfAttention\.(q|k|v|o)",
}
# IA3 rescales keys, values, and what enters the last feed-forward layer (Liu et al. 2022).
KEYS_AND_VALUES: dict[Family, str] = {
    "esm2": r"attention\.self\.(key|value)",
    "t5": r"layer\.0\.SelfAttention\.(k|v)",
}
FEED_FORWARD: dict[Family, str] = {"esm2": r"output\.dense", "t5": r"layer\.1\.DenseReluDense\.wo"}


def targets(spec: AdapterSpec, family: Family, num_layers: int) -> list[str] | str:
    """peft's target_modules: a regular expression of whole module names, or endings of names as a user gave them."""
    if spec.kind == "ia3":
        return _in_layers(family, f"({KEYS_AND_VALUES[family]}|{FEED_FORWARD[family]})", spec, num_layers)
    if spec.targets == "attention":
        return _in_layers(family, ATTENTION[family], spec, num_layers)
    endings = NOTEBOOK[family] if isinstance(spec.targets, str) else list(spec.targets)
    if spec.layers is None:
        return endings
    return _in_layers(family, r"(.*\.)?(" + "|".join(endings) + ")", spec, num_layers)


def feed_forward_targets(spec: AdapterSpec, family: Family, num_layers: int) -> str:
    return _in_layers(family, FEED_FORWARD[family], spec, num_layers)


def lowest_layer(spec: AdapterSpec, num_layers: int) -> int:
    """The first layer that an adapter changes; raises SetupError where the encoder has fewer layers than asked for."""
    if spec.layers is None:
        return 0
    if spec.layers > num_layers:
        raise SetupError(f"adapter.layers: {spec.layers} layers to adapt, the backbone has {num_layers}")
    return num_layers - spec.layers


def _in_layers(family: Family, inner: str, spec: AdapterSpec, num_layers: int) -> str:
    numbers = "|".join(str(number) for number in range(lowest_layer(spec, num_layers), num_layers))
    return rf".*{LAYER[family]}({numbers})\.{inner}"


def apply_adapter(model: nn.Module, spec: AdapterSpec, family: Family, source: DropoutSource) -> None:
    """Change ``model`` in place: adapter layers where asked, and requires_grad as the adapter says.

    Expects a model whose encoder is frozen; leaves the head to its owner.
    """
    if spec.kind == "full":
        encoder = model.get_submodule("encoder")
        encoder.requires_grad_(True)
        _freeze_unused(encoder)
    elif spec.kind != "none":
        _inject(model, spec, family, source)


def peft_config(spec: AdapterSpec, family: Family, num_layers: int) -> Any:
    """The peft configuration of an adapter: how it is built, and what is written beside its weights."""
    from peft import IA3Config, LoraConfig

    wanted = targets(spec, family, num_layers)
    if spec.kind == "ia3":
        feed_forward = feed_forward_targets(spec, family, num_layers)
        return IA3Config(target_modules=wanted, feedforward_modules=feed_forward)
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=wanted,
        bias=spec.bias,
        use_dora=spec.kind == "dora",
    )


def saved_config(spec: AdapterSpec, family: Family, num_layers: int) -> dict[str, Any] | None:
    """What peft reads as ``adapter_config.json``; None where nothing of peft is in the model."""
    if spec.kind in ("none", "full"):
        return None
    tree = peft_config(spec, family, num_layers).to_dict()
    listed = {key: sorted(value) if isinstance(value, set) else value for key, value in tree.items()}
    return {**listed, "inference_mode": True}


def encoder_layers(encoder: nn.Module) -> int:
    config: Any = encoder.config
    return int(getattr(config, "num_layers", None) or config.num_hidden_layers)


def _inject(model: nn.Module, spec: AdapterSpec, family: Family, source: DropoutSource) -> None:
    from peft import inject_adapter_in_model

    num_layers = encoder_layers(model.get_submodule("encoder"))
    inject_adapter_in_model(peft_config(spec, family, num_layers), model)
    for module in list(model.modules()):
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict) and spec.kind != "ia3" and spec.dropout > 0:
            dropouts["default"] = StreamDropout(spec.dropout, source)


def _freeze_unused(encoder: nn.Module) -> None:
    """ESM2's contact head predicts contacts only: no loss reaches it, so training it would be a false count."""
    contact_head = getattr(encoder, "contact_head", None)
    if contact_head is not None:
        contact_head.requires_grad_(False)
