"""The selected weights on disk: adapter and head only, as safetensors, never a frozen backbone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from plmray.errors import FolderError

ADAPTER_FILE = "adapter_model.safetensors"
HEAD_FILE = "head.safetensors"
SCALING_FILE = "scaling.safetensors"


def save(
    folder: Path,
    state: Mapping[str, Tensor],
    peft_config: Mapping[str, Any] | None,
    scaling: tuple[Tensor, Tensor] | None = None,
) -> int:
    """Write a checkpoint folder whole or not at all; returns its bytes.

    An adapter is written as peft does (``adapter_model.safetensors``, ``adapter_config.json``), so that
    ``PeftModel.from_pretrained(encoder, folder)`` reads it; the head lies beside it. ``scaling``: mean and SD of
    the embeddings that a standardising head was trained on.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    head = {n.removeprefix("classifier."): t.contiguous() for n, t in state.items() if n.startswith("classifier.")}
    save_file(head, temporary / HEAD_FILE)
    encoder = {_peft_name(n): t.contiguous() for n, t in state.items() if n.startswith("encoder.")}
    if encoder:
        save_file(encoder, temporary / ADAPTER_FILE)
    if scaling is not None:
        save_file({"mean": scaling[0].contiguous(), "sd": scaling[1].contiguous()}, temporary / SCALING_FILE)
    if peft_config is not None:
        (temporary / "adapter_config.json").write_text(json.dumps(peft_config, indent=2))
    size = sum(file.stat().st_size for file in temporary.iterdir())
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
    return size


def load_scaling(folder: Path) -> tuple[Tensor, Tensor] | None:
    """Mean and SD as saved; None where embeddings are read as they are."""
    file = folder / SCALING_FILE
    if not file.exists():
        return None
    found = load_file(file)
    return found["mean"], found["sd"]


def load(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under ``names``, those of the model. Raises FolderError where one is missing."""
    try:
        head = load_file(folder / HEAD_FILE)
        encoder = load_file(folder / ADAPTER_FILE) if (folder / ADAPTER_FILE).exists() else {}
    except (OSError, SafetensorError) as error:
        raise FolderError(f"{folder} has no readable weights ({error})") from error
    state = {}
    for name in names:
        part, own = (
            (head, name.removeprefix("classifier.")) if name.startswith("classifier.") else (encoder, _peft_name(name))
        )
        if own not in part:
            raise FolderError(
                f"{folder} has no weights '{own}'; it is not a checkpoint of these settings, or is cut short"
            )
        state[name] = part[own]
    return state


def _peft_name(name: str) -> str:
    """How peft calls a tensor of its default adapter in its files."""
    inner = name.removeprefix("encoder.").replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector")
    return "base_model.model." + inner.replace(".default", "")
