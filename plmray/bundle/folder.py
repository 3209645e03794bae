"""A bundle on disk: JSON, safetensors and text only, so that reading one runs no code of its maker.

BUNDLE/bundle.json           task, labels, tokens, settings, seeds, scores: everything but weights
BUNDLE/seeds/<seed>/         head.safetensors, adapter_model.safetensors, adapter_config.json (what peft loads)
BUNDLE/backbone/             the encoder, where it came from a local folder
BUNDLE/README.md, MLmodel    the model card; what makes the folder an MLflow model
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from plmray.config.catalog.families import Family
from plmray.config.catalog.tasks import Level
from plmray.config.fields.train import TrainSpec
from plmray.errors import FolderError
from plmray.metrics import Kind
from plmray.storage.atomic import read_json, write_atomic

VERSION = 2  # 1: of version 0.1.0, whose tokens of ESM2 were wrong
BUNDLE_FILE = "bundle.json"


@dataclass(frozen=True)
class BundleFacts:
    """``window``: residues that training saw, 0-based, end excluded; ``cut_at``: where longer proteins were cut, if so;
    ``longest``: residues that the encoder has positions for, where that is limited.

    ``tokenizer``: the residue table and marks. ``columns``: of the table that the sweep read, by field.
    ``scores``: mean, SD over seeds and interval, validation and test.
    """

    name: str
    candidate_id: str
    kind: Kind
    level: Level
    metric: str
    classes: tuple[str, ...]
    settings: TrainSpec
    family: Family
    precision: Literal["fp64", "fp32", "bf16"]
    weights_hash: str
    data_hash: str
    tokenizer: dict[str, Any]
    seeds: tuple[int, ...]
    window: tuple[int, int | None] = (0, None)
    cut_at: int | None = None
    longest: int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    @property
    def num_outputs(self) -> int:
        return len(self.classes) if self.kind in ("classification", "multilabel") else 1

    def write(self, folder: Path) -> None:
        tree = asdict(self) | {"settings": self.settings.model_dump(mode="json")}
        write_atomic(folder / BUNDLE_FILE, json.dumps(tree, indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> BundleFacts:
        """Raises FolderError where the folder is no bundle, or one of another version."""
        file = folder / BUNDLE_FILE
        if not file.is_file():
            raise FolderError(f"{folder} is no bundle (no {BUNDLE_FILE}); make one with: plmray export DIR -o BUNDLE")
        advice = "export the bundle again"
        version = read_json(file, advice).get("version")
        if type(version) is not int or version != VERSION:
            old = "it is of plmray 0.1, which read D, T and I of ESM2 as one another: run its sweep anew, then export"
            raise FolderError(
                f"{file}: version {version}, this plmray reads {VERSION}; {old if version == 1 else advice}"
            )
        try:
            facts = _reader().validate_json(file.read_bytes(), strict=True)
            facts.require_sound()
        except ValueError as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise FolderError(f"{file} cannot be read ({' '.join(lines[:3])}); {advice}") from error
        return facts

    def require_sound(self) -> None:
        """Raise ValueError where facts do not fit each other."""
        first, last = self.window
        if first < 0 or (last is not None and last <= first):
            raise ValueError(f"window: {first}, {last}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or not all(0 <= s < 2**32 for s in self.seeds):
            raise ValueError(f"seeds: {self.seeds}")
        if self.cut_at is not None and self.cut_at < 1:
            raise ValueError(f"cut_at: {self.cut_at}")
        fewest, most = _NUM_CLASSES[self.kind]
        if not fewest <= len(self.classes) <= most:
            raise ValueError(f"{len(self.classes)} classes of a {self.kind} task")


_NUM_CLASSES = {"regression": (0, 0), "binary": (2, 2), "classification": (2, 10**6), "multilabel": (1, 10**6)}


@cache
def _reader() -> TypeAdapter[BundleFacts]:
    return TypeAdapter(BundleFacts)


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / "seeds" / str(seed)
