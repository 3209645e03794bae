"""The selected weights on disk: adapter and head only, as safetensors, never a frozen backbone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from plmray.spec.sweep import AdapterSpec

ADAPTER_FILE = "adapter_model.safetensors"
HEAD_FILE = "head.safetensors"


def save(folder: Path, state: Mapping[str, Tensor], adapter: AdapterSpec, targets: list[str] | str) -> int:
    """Write a checkpoint folder whole or not at all; returns its bytes.

    LoRA is written as peft does (``adapter_model.safetensors``, ``adapter_config.json``), so that
    ``PeftModel.from_pretrained(encoder, folder)`` reads it; the head lies beside it.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    head = {n.removeprefix("classifier."): t.contiguous() for n, t in state.items() if n.startswith("classifier.")}
    save_file(head, temporary / HEAD_FILE)
    encoder = {_peft_name(n): t.contiguous() for n, t in state.items() if n.startswith("encoder.")}
    if encoder:
        save_file(encoder, temporary / ADAPTER_FILE)
    if adapter.kind == "lora":
        (temporary / "adapter_config.json").write_text(json.dumps(_peft_config(adapter, targets), indent=2))
    size = sum(file.stat().st_size for file in temporary.iterdir())
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
    return size


def load(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names of the model's own parameters."""
    state = {f"classifier.{name}": tensor for name, tensor in load_file(folder / HEAD_FILE).items()}
    if (folder / ADAPTER_FILE).exists():
        for name, tensor in load_file(folder / ADAPTER_FILE).items():
            state[_own_name(name)] = tensor
    return state


def _peft_name(name: str) -> str:
    inner = (
        name.removeprefix("encoder.").replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")
    )
    return f"base_model.model.{inner}"


def _own_name(name: str) -> str:
    inner = name.removeprefix("base_model.model.")
    inner = inner.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.")
    return f"encoder.{inner}"


def _peft_config(adapter: AdapterSpec, targets: list[str] | str) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": targets,
        "bias": adapter.bias,
        "inference_mode": True,
    }
