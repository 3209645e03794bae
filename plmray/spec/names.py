"""Names a sweep file may use without a path: known backbones and data sets."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plmray.errors import nearest_name
from plmray.identity import content_hash, file_hash
from plmray.spec.sweep import BackboneSpec, ShapeSpec

KNOWN_DATASETS = ("gb1", "landscape")


Family = Literal["esm2", "t5"]


@dataclass(frozen=True)
class KnownBackbone:
    """A published encoder. ``parameters``: of the encoder alone."""

    hub_id: str
    family: Family
    layers: int
    width: int
    parameters: float
    shape: ShapeSpec | None = None


def _esm2(checkpoint: str, layers: int, width: int, heads: int, parameters: float) -> KnownBackbone:
    shape = ShapeSpec(layers=layers, width=width, heads=heads, feed_forward=4 * width)
    return KnownBackbone(f"facebook/{checkpoint}", "esm2", layers, width, parameters, shape)


# Sources: the published checkpoints of ESM2 (Lin et al. 2023) and ProtT5 (Elnaggar et al. 2021).
KNOWN_BACKBONES: dict[str, KnownBackbone] = {
    "esm2_t6_8M_UR50D": _esm2("esm2_t6_8M_UR50D", 6, 320, 20, 7.5e6),
    "esm2_t12_35M_UR50D": _esm2("esm2_t12_35M_UR50D", 12, 480, 20, 33.5e6),
    "esm2_t30_150M_UR50D": _esm2("esm2_t30_150M_UR50D", 30, 640, 20, 148e6),
    "esm2_t33_650M_UR50D": _esm2("esm2_t33_650M_UR50D", 33, 1280, 20, 651e6),
    "esm2_t36_3B_UR50D": _esm2("esm2_t36_3B_UR50D", 36, 2560, 40, 2.84e9),
    "prot_t5_xl_uniref50": KnownBackbone("Rostlab/prot_t5_xl_uniref50", "t5", 24, 1024, 1.21e9),
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def local_folder(name: str, folder: Path) -> Path | None:
    """The folder a backbone name means, relative to the sweep file, or None for a known name or a hub id."""
    if name in KNOWN_BACKBONES:
        return None
    path = (folder / name).expanduser()
    return path.resolve() if (path / "config.json").is_file() else None


def known_backbone(name: str) -> KnownBackbone | None:
    by_hub_id = {known.hub_id: known for known in KNOWN_BACKBONES.values()}
    return KNOWN_BACKBONES.get(name) or by_hub_id.get(name)


def family(backbone: BackboneSpec, folder: Path) -> Family:
    """The architecture of a backbone: from its name, or from the model type in its config.json.

    A hub id that is not downloaded yet counts as ESM2 until its configuration is here.
    """
    known = known_backbone(backbone.name)
    if known is not None:
        return known.family
    if backbone.embeddings is not None:
        return "esm2"  # no token is read
    return "t5" if backbone.init == "pretrained" and _model_type(backbone, folder) == "t5" else "esm2"


def _model_type(backbone: BackboneSpec, folder: Path) -> str | None:
    snapshot = local_folder(backbone.name, folder) or cached_snapshot(backbone)
    if snapshot is None:
        return None
    return str(json.loads((snapshot / "config.json").read_text()).get("model_type"))


def backbone_fault(backbone: BackboneSpec, folder: Path) -> str | None:
    """Why a backbone cannot be had, as far as names and folders tell; None where nothing speaks against it."""
    name = backbone.name
    if backbone.embeddings is not None:
        absent = [str(folder / file) for file in backbone.embeddings if not (folder / file).is_file()]
        return f"no such embeddings file: {absent[0]}" if absent else None
    known = known_backbone(name)
    model_type = _model_type(backbone, folder) if backbone.init == "pretrained" else None
    if model_type not in (None, "esm", "t5"):
        return f"'{name}' is a {model_type} model; this version trains esm and t5 encoders"
    if backbone.init == "random" and backbone.shape is None and known and known.shape is None:
        return f"init: random builds ESM2 encoders, found '{name}'; use pretrained weights"
    if backbone.shape is not None or known or local_folder(name, folder):
        return None
    if backbone.init == "random":
        return f"init: random needs a shape or a known name, found '{name}'; {nearest_name(name, KNOWN_BACKBONES)}"
    if name.startswith((".", "/", "~")) or (folder / name).is_dir():
        return f"'{name}' is no model folder (no config.json in {folder / name})"
    if _HUB_ID.fullmatch(name):
        return None
    return f"unknown backbone '{name}'; {nearest_name(name, KNOWN_BACKBONES)}; a hub id reads owner/name"


def weights_hash(backbone: BackboneSpec, folder: Path) -> str:
    """Hash that names a backbone's weights, found without loading them.

    Random weights: of shape and init_seed. Embeddings given as files: of the files. A folder or a cached hub
    snapshot: of its weight files and configuration. A hub id that is not downloaded yet: of its name and revision,
    so the id is provisional.
    """
    if backbone.embeddings is not None:
        return content_hash(["embeddings", *(file_hash(folder / file) for file in backbone.embeddings)])
    if backbone.init == "random":
        known = known_backbone(backbone.name)
        shape = backbone.shape or (known.shape if known else None)
        return content_hash(["random-esm2", shape.model_dump() if shape else None, backbone.init_seed])
    snapshot = local_folder(backbone.name, folder) or cached_snapshot(backbone)
    if snapshot is None:
        known = known_backbone(backbone.name)
        return content_hash(["hub", known.hub_id if known else backbone.name, backbone.revision])
    files = sorted(snapshot.glob("*.safetensors")) or sorted(snapshot.glob("pytorch_model*.bin"))
    return content_hash([file_hash(file) for file in [*files, snapshot / "config.json"]])


def cached_snapshot(backbone: BackboneSpec) -> Path | None:
    """Folder of a hub checkpoint that huggingface_hub has downloaded before, if any."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    known = known_backbone(backbone.name)
    hub_id = known.hub_id if known else backbone.name
    if not _HUB_ID.fullmatch(hub_id):
        return None
    found = try_to_load_from_cache(hub_id, "config.json", revision=backbone.revision)
    if not isinstance(found, str):
        return None
    snapshot = Path(found).parent
    has_weights = any(snapshot.glob("*.safetensors")) or any(snapshot.glob("pytorch_model*.bin"))
    return snapshot if has_weights else None
