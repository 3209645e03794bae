"""What of the encoder may change: nothing, additions by peft or our own, or everything."""

from __future__ import annotations

from typing import Any

from torch import nn

from plmray.config.catalog.adapters import ADAPTERS
from plmray.config.catalog.families import FAMILIES, Family
from plmray.config.fields.train import AdapterSpec
from plmray.errors import SetupError
from plmray.model import prefix_tuning, prottrans
from plmray.model.dropout import DropoutSource, StreamDropout
from plmray.model.rank_schedule import RankSchedule, adalora_options

NORMS = r".*\b\w*(layer_?norm|LayerNorm|norm)\w*"


def targets(spec: AdapterSpec, family: Family, num_layers: int) -> list[str] | str:
    """peft's target_modules: a regular expression of whole module names, or endings of names as a user gave them."""
    rules = FAMILIES[family]
    if spec.kind == "ia3":
        # IA3 rescales keys, values, and what enters the last feed-forward layer (Liu et al. 2022).
        return _in_layers(family, f"({rules.keys_values}|{rules.feed_forward})", spec, num_layers)
    if spec.method == "ln_tuning":
        return _in_layers(family, NORMS, spec, num_layers)
    if spec.targets == "attention":
        return _in_layers(family, rules.attention, spec, num_layers)
    endings = list(rules.notebook) if isinstance(spec.targets, str) else list(spec.targets)
    if spec.layers is None:
        return endings
    return _in_layers(family, r"(.*\.)?(" + "|".join(endings) + ")", spec, num_layers)


def lowest_layer(spec: AdapterSpec, num_layers: int) -> int:
    """The first layer that an adapter changes; raises SetupError where the encoder has fewer layers than asked for."""
    if spec.layers is None:
        return 0
    if spec.layers > num_layers:
        raise SetupError(f"adapter.layers: {spec.layers} layers to adapt, the backbone has {num_layers}")
    return num_layers - spec.layers


def _in_layers(family: Family, inner: str, spec: AdapterSpec, num_layers: int) -> str:
    numbers = "|".join(str(number) for number in range(lowest_layer(spec, num_layers), num_layers))
    return rf"(.*\.)?{FAMILIES[family].layer}({numbers})\.{inner}"


def apply_adapter(
    model: nn.Module, spec: AdapterSpec, family: Family, source: DropoutSource, total_steps: int
) -> RankSchedule | None:
    """Change ``model`` in place: adapter layers where asked, and requires_grad as the adapter says.

    Expects a model whose encoder is frozen; leaves the head to its owner. Returns what adalora does beside its layers.
    """
    encoder = model.get_submodule("encoder")
    num_layers = encoder_layers(encoder)
    if spec.kind == "full":
        encoder.requires_grad_(True)
        _freeze_unused(encoder)
    elif spec.kind == "prefix":
        attention = _in_layers(family, FAMILIES[family].attention_module, spec, num_layers)
        prefix_tuning.add_prefixes(encoder, attention, spec.tokens)
    elif spec.kind == "prottrans":
        norms = NORMS if spec.layers is None else _in_layers(family, NORMS, spec, num_layers)
        prottrans.wrap(encoder, _in_layers(family, FAMILIES[family].attention, spec, num_layers), norms, spec.rank)
    elif ADAPTERS[spec.kind].by_peft:
        return _inject(model, spec, family, source, num_layers, total_steps)
    return None


def peft_config(spec: AdapterSpec, family: Family, num_layers: int, total_steps: int = 0) -> Any:
    """The peft configuration of an adapter: how it is built, and what is written beside its weights."""
    from peft import AdaLoraConfig, IA3Config, LoraConfig, get_peft_config

    wanted = targets(spec, family, num_layers)
    if spec.kind == "ia3":
        feed_forward = _in_layers(family, FAMILIES[family].feed_forward, spec, num_layers)
        return IA3Config(target_modules=wanted, feedforward_modules=feed_forward)
    if spec.kind == "peft":
        if spec.method is None:
            raise SetupError("train.adapter: kind: peft needs its method")
        return get_peft_config({"peft_type": str(spec.method).upper(), "target_modules": wanted, **spec.options})
    shared = {"lora_alpha": spec.alpha, "lora_dropout": spec.dropout, "target_modules": wanted, "bias": spec.bias}
    if spec.kind == "adalora":
        return AdaLoraConfig(**shared, **adalora_options(spec.rank, max(total_steps, 10)))
    return LoraConfig(r=spec.rank, use_dora=spec.kind == "dora", **shared)


def saved_config(spec: AdapterSpec, family: Family, num_layers: int) -> dict[str, Any] | None:
    """What peft reads as ``adapter_config.json``; None where nothing of peft is in the model."""
    if not ADAPTERS[spec.kind].by_peft:
        return None
    tree = peft_config(spec, family, num_layers).to_dict()
    listed = {key: sorted(value) if isinstance(value, set) else value for key, value in tree.items()}
    return {**listed, "inference_mode": True}


def encoder_layers(encoder: nn.Module) -> int:
    config: Any = encoder.config
    return int(getattr(config, "num_layers", None) or config.num_hidden_layers)


def _inject(
    model: nn.Module, spec: AdapterSpec, family: Family, source: DropoutSource, num_layers: int, total_steps: int
) -> RankSchedule | None:
    from peft import inject_adapter_in_model

    config = peft_config(spec, family, num_layers, total_steps)
    try:
        inject_adapter_in_model(config, model)
    except (ValueError, TypeError) as error:
        raise SetupError(f"train.adapter: peft refuses {spec.method or spec.kind} here: {error}") from error
    for module in list(model.modules()):
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict) and spec.kind in ("lora", "dora", "adalora") and spec.dropout > 0:
            dropouts["default"] = StreamDropout(spec.dropout, source)
    return RankSchedule(model, config) if spec.kind == "adalora" else None


def _freeze_unused(encoder: nn.Module) -> None:
    """ESM2's contact head predicts contacts only: no loss reaches it, so training it would be a false count."""
    contact_head = getattr(encoder, "contact_head", None)
    if contact_head is not None:
        contact_head.requires_grad_(False)
