"""What a checkpoint folder says of itself before its weights are loaded: its configuration, its files, its longest
protein. No model library is needed, so that a fault is known before anything starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plmray.config.vocabulary import TOKENIZER_FILES

LFS_POINTER = b"version https://git-lfs"
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def read_config(snapshot: Path) -> dict[str, Any]:
    """``config.json`` of a folder. Raises ValueError, with the remedy, where it is none."""
    file = snapshot / "config.json"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from error
    if content.startswith(LFS_POINTER):
        raise ValueError(_pointer(file, len(content)))
    try:
        config = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); download it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} is no JSON object; download it again")
    return config


def weight_files(snapshot: Path) -> list[Path]:
    """Files of weights: safetensors where there are some, else PyTorch's."""
    return next((found for pattern in WEIGHT_FILES if (found := sorted(snapshot.glob(pattern)))), [])


def files_fault(snapshot: Path) -> str | None:
    """Why the files of a folder are no checkpoint: no weights, or pointers in their place."""
    weights = weight_files(snapshot)
    if not weights:
        return f"{snapshot} has no weights (no {' or '.join(WEIGHT_FILES)}); download the checkpoint whole"
    for file in [*weights, *(snapshot / name for name in TOKENIZER_FILES if (snapshot / name).is_file())]:
        with file.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                return _pointer(file, file.stat().st_size)
        if file.stat().st_size == 0:
            return f"{file} is empty; download it again"
    return None


def _pointer(file: Path, size: int) -> str:
    return f"{file} is a git-lfs pointer of {size} bytes, not the file itself; run git lfs pull in its folder"


def longest_protein(config: Mapping[str, Any], marks: int) -> int | None:
    """Residues for which an encoder has positions; None where they come from no table.

    ESM's positions begin behind its padding token's number; BERT's begin at 0. Both hold the marks too.
    """
    kind = config.get("model_type")
    positions = config.get("max_position_embeddings")
    if kind not in ("esm", "bert") or not isinstance(positions, int):
        return None
    if config.get("position_embedding_type", "absolute") != "absolute":
        return None
    before = int(config.get("pad_token_id") or 0) + 1 if kind == "esm" else 0
    return positions - before - marks
