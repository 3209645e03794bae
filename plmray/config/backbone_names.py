"""Names of backbones that a sweep file may use without a path, and what a name, folder or hub id stands for."""

from __future__ import annotations

import re
from pathlib import Path

from plmray.config.catalog.backbones import KNOWN_BACKBONES, EncoderSize, known_backbone
from plmray.config.catalog.families import FAMILIES, Family
from plmray.config.checkpoints import files_fault, longest_protein, read_config, weight_files
from plmray.config.fields.train import BackboneSpec
from plmray.config.vocabulary import TOKENIZER_FILES, ResidueTokens, built_in_tokens, checkpoint_tokens
from plmray.errors import nearest_name
from plmray.hashing import content_hash, file_hash

LONGEST_HUB_ID = 96
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def local_folder(name: str, folder: Path) -> Path | None:
    """The folder a backbone name means, relative to the sweep file, or None for a hub id and what comes from there."""
    known = known_backbone(name)
    if known is not None:
        return known.bundled
    try:
        path = (folder / name).expanduser()
        return path.resolve() if (path / "config.json").is_file() else None
    except (OSError, ValueError, RuntimeError):  # no name of a folder: too long, a NUL, nobody's home
        return None


def is_there(path: Path) -> bool:
    """Whether something is at a path; nothing is at one that cannot be."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def family(backbone: BackboneSpec, folder: Path) -> Family:
    """The architecture of a backbone: as the sweep file says, from its name, or from the files of its checkpoint.

    A hub id that is not downloaded yet counts as ESM2 until its configuration is here.
    """
    known = known_backbone(backbone.name)
    if backbone.embeddings is not None:
        return "esm2"  # no token is read
    if backbone.family is not None:
        return backbone.family
    if known is not None:
        return known.family
    if backbone.init == "random":
        return "esm2"
    snapshot = _snapshot(backbone, folder)
    return (snapshot and _family_of(snapshot)) or "esm2"


def _snapshot(backbone: BackboneSpec, folder: Path) -> Path | None:
    return local_folder(backbone.name, folder) or cached_snapshot(backbone)


def _read_snapshot(backbone: BackboneSpec, folder: Path) -> Path | None:
    """The folder that a backbone is read from; None for random weights, given embeddings, and what is not here."""
    return _snapshot(backbone, folder) if backbone.init == "pretrained" and not backbone.embeddings else None


def _family_of(snapshot: Path) -> Family | None:
    """The family of a checkpoint folder; None for an architecture that is none of them, or a broken configuration."""
    try:
        config = read_config(snapshot)
    except ValueError:
        return None
    kind = config.get("model_type")
    if kind == "esm":
        return "esm1b" if config.get("position_embedding_type") == "absolute" else "esm2"
    if kind == "t5":
        if any(_mentions(file, "<AA2fold>") for file in snapshot.glob("*token*.json")):
            return "prostt5"
        return "ankh" if str(config.get("feed_forward_proj", "relu")).startswith("gated") else "t5"
    named: dict[str, Family] = {"esmc": "esmc", "bert": "bert"}
    return named.get(str(kind))


def _mentions(file: Path, text: str) -> bool:
    return text in file.read_text(encoding="utf-8", errors="replace")


def backbone_fault(backbone: BackboneSpec, folder: Path) -> str | None:
    """Why a backbone cannot be had, as far as names and folders tell; None where nothing speaks against it."""
    name = backbone.name
    if backbone.embeddings is not None:
        absent = [
            str(folder / file)
            for file in backbone.embeddings
            if not (is_there(folder / file) and (folder / file).is_file())
        ]
        return f"no such embeddings file: {absent[0]}" if absent else None
    known = known_backbone(name)
    snapshot = _snapshot(backbone, folder) if backbone.init == "pretrained" else None
    if snapshot is not None and (message := _checkpoint_fault(backbone, snapshot)):
        return message
    shapeless = known is not None and esm2_size(backbone) is None
    if backbone.init == "random" and (shapeless or backbone.family not in (None, "esm2")):
        return f"init: random builds ESM2 encoders, found '{name}'; use pretrained weights"
    if backbone.shape is not None or known or snapshot:
        return None
    if backbone.init == "random":
        return f"init: random needs a shape or a known name, found '{name}'; {nearest_name(name, KNOWN_BACKBONES)}"
    if name.startswith((".", "/", "~")) or is_there(folder / name):
        return f"'{name}' is no model folder (no config.json in {folder / name})"
    if _HUB_ID.fullmatch(name) and not any(part in name for part in ("--", "..")) and len(name) <= LONGEST_HUB_ID:
        return None
    return f"unknown backbone '{name}'; {nearest_name(name, KNOWN_BACKBONES)}; a hub id reads owner/name"


def _checkpoint_fault(backbone: BackboneSpec, snapshot: Path) -> str | None:
    """Why the files of a checkpoint cannot be trained on."""
    name = backbone.name
    try:
        kind = str(read_config(snapshot).get("model_type"))
        if _family_of(snapshot) is None:
            trained = ", ".join(sorted({rules.model_type for rules in FAMILIES.values()}))
            return f"'{name}' is a {kind} model; this version trains {trained} encoders"
        if backbone.family is not None and FAMILIES[backbone.family].model_type != kind:
            return f"family: {backbone.family} reads a {FAMILIES[backbone.family].model_type} model, '{name}' is {kind}"
        _esm_tokens_of(snapshot)
    except ValueError as error:
        return f"'{name}': {error}"
    return files_fault(snapshot)


def esm_tokens(backbone: BackboneSpec, folder: Path) -> ResidueTokens | None:
    """The residue tokens of an ESM encoder; None where only transformers can read its tokenizer. Raises ValueError."""
    snapshot = _read_snapshot(backbone, folder)
    return built_in_tokens() if snapshot is None else _esm_tokens_of(snapshot)


def _esm_tokens_of(snapshot: Path) -> ResidueTokens | None:
    config = read_config(snapshot)
    if config.get("model_type") != "esm":
        return None
    return checkpoint_tokens(snapshot, int(config.get("vocab_size") or 0))


def tokens_key(backbone: BackboneSpec, folder: Path) -> str | None:
    """Hash of which token a backbone reads each residue as; None where that is not here yet, or cannot be read."""
    own = FAMILIES[family(backbone, folder)]
    try:
        tokens = esm_tokens(backbone, folder) if own.model_type == "esm" else None
    except ValueError:
        return None
    if tokens is not None:
        return content_hash(tokens.as_list())
    snapshot = _snapshot(backbone, folder)
    return None if snapshot is None else content_hash(_tokenizer_hashes(snapshot))


def _tokenizer_hashes(snapshot: Path) -> list[list[str]]:
    files = (snapshot / name for name in TOKENIZER_FILES)
    return [[file.name, file_hash(file)] for file in files if file.is_file()]


def longest_residues(backbone: BackboneSpec, folder: Path) -> int | None:
    """The longest protein that an encoder has positions for; None where there is no such limit."""
    own = FAMILIES[family(backbone, folder)]
    snapshot = _read_snapshot(backbone, folder)
    if snapshot is None:
        return own.max_residues
    try:
        return longest_protein(read_config(snapshot), sum(own.marks))
    except ValueError:  # told as a fault of the backbone
        return None


def encoder_size(backbone: BackboneSpec) -> EncoderSize | None:
    """From the shape or the published table; None for a folder or hub id that is in neither."""
    known = known_backbone(backbone.name)
    return backbone.shape.size if backbone.shape else known.size if known else None


def esm2_size(backbone: BackboneSpec) -> EncoderSize | None:
    """Of an ESM2 encoder that can be built without a checkpoint: by its shape or known name."""
    known = known_backbone(backbone.name)
    return encoder_size(backbone) if backbone.shape or (known and known.family == "esm2") else None


def weights_hash(backbone: BackboneSpec, folder: Path) -> str:
    """Hash that names a backbone's weights and the tokens they read, found without loading them.

    Random weights: of shape and init_seed. Embeddings given as files: of the files. A folder or a cached hub
    snapshot: of its weight files, configuration and vocabulary. A hub id that is not downloaded yet: of its name and
    revision, so the id is provisional.
    """
    if backbone.embeddings is not None:
        return content_hash(["embeddings", *(file_hash(folder / file) for file in backbone.embeddings)])
    if backbone.init == "random":
        size = esm2_size(backbone)
        shape = size and {name: getattr(size, name) for name in ("layers", "width", "heads", "feed_forward")}
        return content_hash(["random-esm2", shape, backbone.init_seed])
    snapshot = _snapshot(backbone, folder)
    if snapshot is None:
        known = known_backbone(backbone.name)
        return content_hash(["hub", known.hub_id if known else backbone.name, backbone.revision])
    files = [file_hash(file) for file in [*weight_files(snapshot), snapshot / "config.json"]]
    tokens = _esm_tokens_of(snapshot)
    if tokens is not None:
        return content_hash([*files, tokens.as_list()])
    return content_hash([*files, *_tokenizer_hashes(snapshot)])


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
    try:
        found = try_to_load_from_cache(hub_id, "config.json", revision=backbone.revision)
    except ValueError:  # no name that the hub allows
        return None
    if not isinstance(found, str):
        return None
    snapshot = Path(found).parent
    return snapshot if weight_files(snapshot) else None
