"""What of the encoder may change: nothing, low-rank updates by peft, or everything."""

from __future__ import annotations

from torch import nn

from plmray.model.dropout import DropoutSource, StreamDropout
from plmray.spec.names import Family
from plmray.spec.sweep import AdapterSpec

# Source: the study's paper (attention) and notebooks (where "dense" also catches the feed-forward
# layers and the head's own dense layer).
TARGETS: dict[Family, dict[str, list[str] | str]] = {
    "esm2": {
        "attention": r".*attention\.(self\.(query|key|value)|output\.dense)",
        "notebook": ["query", "key", "value", "dense"],
    },
    "t5": {"attention": ["q", "k", "v", "o"], "notebook": ["q", "k", "v", "o"]},
}


def apply_adapter(model: nn.Module, spec: AdapterSpec, family: Family, source: DropoutSource) -> None:
    """Change ``model`` in place: LoRA layers where asked, and requires_grad as the adapter says.

    Expects a model whose encoder is frozen; leaves the head to its owner.
    """
    if spec.kind == "full":
        encoder = model.get_submodule("encoder")
        encoder.requires_grad_(True)
        _freeze_unused(encoder)
    elif spec.kind == "lora":
        _inject_lora(model, spec, family, source)


def _inject_lora(model: nn.Module, spec: AdapterSpec, family: Family, source: DropoutSource) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    targets = TARGETS[family][spec.targets] if isinstance(spec.targets, str) else list(spec.targets)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        bias=spec.bias,
    )
    inject_adapter_in_model(config, model)
    for module in list(model.modules()):
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict) and spec.dropout > 0:
            dropouts["default"] = StreamDropout(spec.dropout, source)


def _freeze_unused(encoder: nn.Module) -> None:
    """ESM2's contact head predicts contacts only: no loss reaches it, so training it would be a false count."""
    contact_head = getattr(encoder, "contact_head", None)
    if contact_head is not None:
        contact_head.requires_grad_(False)
