"""The selected weights on disk: adapter and head only, as safetensors, never a frozen backbone."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, isfinite

from plmray.errors import FolderError

ADAPTER_FILE = "adapter_model.safetensors"
HEAD_FILE = "head.safetensors"
SCALING_FILE = "scaling.safetensors"
CHECKPOINT_FILES = (HEAD_FILE, ADAPTER_FILE, SCALING_FILE, "adapter_config.json")


def save(
    folder: Path,
    state: Mapping[str, Tensor],
    peft_config: Mapping[str, Any] | None,
    scaling: tuple[Tensor, Tensor] | None = None,
) -> int:
    """Write a checkpoint folder whole or not at all; returns its bytes.

    An adapter is written as peft does (``adapter_model.safetensors``, ``adapter_config.json``), so that
    ``PeftModel.from_pretrained(encoder, folder)`` reads it; the head lies beside it. ``scaling``: mean and SD of
    the embeddings that a standardising head was trained on. Raises OSError where it cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        _write(temporary, state, peft_config, scaling)
        size = sum(file.stat().st_size for file in temporary.iterdir())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    except SafetensorError as error:  # how it says that a disk is full
        raise OSError(errno.EIO, str(error), str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return size


def _write(
    folder: Path,
    state: Mapping[str, Tensor],
    peft_config: Mapping[str, Any] | None,
    scaling: tuple[Tensor, Tensor] | None,
) -> None:
    head = {n.removeprefix("classifier."): t.contiguous() for n, t in state.items() if n.startswith("classifier.")}
    save_file(head, folder / HEAD_FILE)
    encoder = {_peft_name(n): t.contiguous() for n, t in state.items() if n.startswith("encoder.")}
    if encoder:
        save_file(encoder, folder / ADAPTER_FILE)
    if scaling is not None:
        save_file({"mean": scaling[0].contiguous(), "sd": scaling[1].contiguous()}, folder / SCALING_FILE)
    if peft_config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(peft_config, indent=2), encoding="utf-8")


def load_scaling(folder: Path) -> tuple[Tensor, Tensor] | None:
    """Mean and SD as saved; None where embeddings are read as they are. Raises FolderError where they are damaged."""
    file = folder / SCALING_FILE
    if not file.exists():
        return None
    try:
        found = load_file(file)
        mean, sd = found["mean"], found["sd"]
    except (OSError, SafetensorError, KeyError) as error:
        raise FolderError(f"{file} cannot be read ({error}); export the bundle again") from error
    if mean.ndim != 1 or mean.shape != sd.shape or not (_is_sound(mean) and _is_sound(sd)):
        raise FolderError(f"{file} holds no mean and SD of one width; export the bundle again")
    return mean, sd


def _is_sound(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(isfinite(tensor).all())


def load(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint for ``expected``, those of the model by name.

    Raises FolderError where one is missing, of another shape, or holds anything but finite numbers.
    """
    try:
        head = load_file(folder / HEAD_FILE)
        encoder = load_file(folder / ADAPTER_FILE) if (folder / ADAPTER_FILE).exists() else {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(folder, error) from error
    state = {}
    for name, tensor in expected.items():
        part, own = (
            (head, name.removeprefix("classifier.")) if name.startswith("classifier.") else (encoder, _peft_name(name))
        )
        if own not in part:
            raise FolderError(
                f"{folder} has no weights '{own}'; it is not a checkpoint of these settings, or is cut short"
            )
        if part[own].shape != tensor.shape or not _is_sound(part[own]):
            raise FolderError(
                f"{folder}: weights '{own}' are {tuple(part[own].shape)} of {part[own].dtype}, or not finite; expected "
                f"{tuple(tensor.shape)} numbers. They are not of these settings, or damaged"
            )
        state[name] = part[own]
    return state


def require_whole(folder: Path) -> None:
    """Raises FolderError where a file of the checkpoint is cut short or no safetensors; reads their headers only."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> FolderError:
    return FolderError(
        f"{folder} has no readable weights ({error}); in a sweep folder, remove {folder.parent} and run the sweep "
        "with --resume to make them again"
    )


def _peft_name(name: str) -> str:
    """How peft calls a tensor of its default adapter in its files."""
    inner = name.removeprefix("encoder.").replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector")
    return "base_model.model." + inner.replace(".default", "")
