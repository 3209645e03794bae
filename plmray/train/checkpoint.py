"""The selected weights on disk: adapter and head only, as safetensors, never a frozen backbone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

ADAPTER_FILE = "adapter_model.safetensors"
HEAD_FILE = "head.safetensors"


def save(folder: Path, state: Mapping[str, Tensor], peft_config: Mapping[str, Any] | None) -> int:
    """Write a checkpoint folder whole or not at all; returns its bytes.

    An adapter is written as peft does (``adapter_model.safetensors``, ``adapter_config.json``), so that
    ``PeftModel.from_pretrained(encoder, folder)`` reads it; the head lies beside it.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    head = {n.removeprefix("classifier."): t.contiguous() for n, t in state.items() if n.startswith("classifier.")}
    save_file(head, temporary / HEAD_FILE)
    encoder = {_peft_name(n): t.contiguous() for n, t in state.items() if n.startswith("encoder.")}
    if encoder:
        save_file(encoder, temporary / ADAPTER_FILE)
    if peft_config is not None:
        (temporary / "adapter_config.json").write_text(json.dumps(peft_config, indent=2))
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


# How peft names an adapter's tensors in memory, and in its files.
_ENDINGS = {
    ".lora_A.default.weight": ".lora_A.weight",
    ".lora_B.default.weight": ".lora_B.weight",
    ".lora_magnitude_vector.default.weight": ".lora_magnitude_vector",
    ".ia3_l.default": ".ia3_l",
}


def _peft_name(name: str) -> str:
    inner = name.removeprefix("encoder.")
    for own, saved in _ENDINGS.items():
        inner = inner.removesuffix(own) + saved if inner.endswith(own) else inner
    return f"base_model.model.{inner}"


def _own_name(name: str) -> str:
    inner = name.removeprefix("base_model.model.")
    for own, saved in _ENDINGS.items():
        inner = inner.removesuffix(saved) + own if inner.endswith(saved) else inner
    return f"encoder.{inner}"
