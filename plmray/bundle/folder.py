"""A bundle on disk: JSON, safetensors and text only, so that reading one runs no code of its maker.

BUNDLE/bundle.json           task, labels, tokens, settings, seeds, scores: everything but weights
BUNDLE/seeds/<seed>/         head.safetensors, adapter_model.safetensors, adapter_config.json (what peft loads)
BUNDLE/backbone/             the encoder, where it came from a local folder
BUNDLE/README.md, MLmodel    the model card; what makes the folder an MLflow model
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plmray.errors import FolderError
from plmray.files import write_atomic
from plmray.metrics import Kind
from plmray.spec.families import Family
from plmray.spec.known_tasks import Level
from plmray.spec.train import TrainSpec

VERSION = 1
BUNDLE_FILE = "bundle.json"


@dataclass(frozen=True)
class BundleFacts:
    """``window``: residues that training saw, 0-based, end excluded; ``cut_at``: where longer proteins were cut, if so.

    ``tokenizer``: the residue table and marks. ``scores``: mean, SD over seeds and interval, validation and test.
    """

    name: str
    candidate_id: str
    kind: Kind
    level: Level
    metric: str
    classes: tuple[str, ...]
    settings: TrainSpec
    family: Family
    precision: str
    weights_hash: str
    data_hash: str
    tokenizer: dict[str, Any]
    seeds: tuple[int, ...]
    window: tuple[int, int | None] = (0, None)
    cut_at: int | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

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
        try:
            tree: dict[str, Any] = json.loads(file.read_text())
            version = tree.get("version")
            if version != VERSION:
                raise FolderError(f"{file}: version {version}, this plmray reads {VERSION}; export it again")
            tree["settings"] = TrainSpec.model_validate_json(json.dumps(tree["settings"]))
            tree |= {key: tuple(tree[key]) for key in ("classes", "seeds", "window")}
            return cls(**tree)
        except (ValueError, TypeError, KeyError) as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise FolderError(f"{file} cannot be read ({first_line}); export the bundle again") from error


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / "seeds" / str(seed)
