"""The published tasks on disk: which files each has under a data root, how they are read, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plmray.config.fields.task import ColumnsSpec
from plmray.data.files.formats import Row, read_rows
from plmray.data.residues import read_labelled
from plmray.errors import DataError
from plmray.hashing import content_hash

_FLIP = "https://github.com/J-SNACKKB/FLIP/raw/main/splits"
_FLIP_LOCATION = "http://data.bioembeddings.com/public/FLIP/scl"
_LOCATION = "https://github.com/HannesStark/protein-localization/raw/master/data_files"
_TAPE = "http://s3.amazonaws.com/songlabdata/proteindata/data_raw_pytorch"


@dataclass(frozen=True)
class RemoteFile:
    """``url``: of the file, or of the archive whose ``member`` it is; None where it has to be put there by hand."""

    path: str
    url: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class Source:
    """``content``: hash of the rows, so that line endings do not matter; None where nobody of us has had the files yet:
    their numbers of proteins are checked, and the hash of the first copy is kept beside them for the next."""

    files: tuple[RemoteFile, ...]
    read: Callable[[Path], list[Row]]
    licence: str
    content: str | None = None

    def is_under(self, root: Path) -> bool:
        return all((root / file.path).exists() for file in self.files)


def rows_hash(rows: list[Row]) -> str:
    """Hash over (sequence, target, set, validation) of every row, in order, and over masks where there are some."""
    return content_hash(
        [[r.sequence, r.target, r.split, r.validation, *([r.mask] if r.mask is not None else [])] for r in rows]
    )


def _flip_table(name: str, member: str) -> tuple[tuple[RemoteFile, ...], Callable[[Path], list[Row]]]:
    path = f"{name}/{Path(member).name}"
    files = (RemoteFile(path, f"{_FLIP}/{name}/splits.zip", member),)
    return files, lambda root: read_rows(root / path, ColumnsSpec())


def _structure(root: Path) -> list[Row]:
    folder = root / "secondary_structure"
    return read_labelled(folder / "sequences.fasta", folder / "sampled.fasta", folder / "mask.fasta", ColumnsSpec())


def _disorder(root: Path) -> list[Row]:
    folder = root / "disorder"
    parts = {
        "train": ("CheZOD1174_training_set_sequences.fasta", "CheZOD1174_training_set_CheZOD_scores.txt"),
        "test": ("CheZOD117_test_set_sequences.fasta", "CheZOD117_test_set_CheZOD_scores"),
    }
    return [
        replace(row, split=split, validation=None)
        for split, (sequences, labels) in parts.items()
        for row in read_labelled(folder / sequences, folder / labels, None, ColumnsSpec())
    ]


def _location(train: str, validation: str | None) -> Callable[[Path], list[Row]]:
    """DeepLoc's FASTA files: ten locations in the headers, setHARD as the test set. Proteins of two locations, which
    DeepLoc writes as one name, count by the first, so that the published numbers of proteins and classes hold."""
    parts = {"train": train, "validation": validation, "test": "setHARD.fasta"}

    def read(root: Path) -> list[Row]:
        folder = root / "subcellular_location"
        rows = [
            replace(row, split=split, validation=None)
            for split, file in parts.items()
            if file is not None
            for row in read_rows(folder / file, ColumnsSpec())
        ]
        return [replace(row, target="Cytoplasm" if row.target == TWO_PLACES else row.target) for row in rows]

    return read


TWO_PLACES = "Cytoplasm-Nucleus"


def _location_files(*names: str) -> tuple[RemoteFile, ...]:
    known = {"deeploc_our_train_set.fasta": f"{_FLIP_LOCATION}/deeploc_our_train_set.fasta"}
    return tuple(RemoteFile(f"subcellular_location/{n}", known.get(n, f"{_LOCATION}/{n}")) for n in names)


def _tape(name: str, target: str) -> tuple[tuple[RemoteFile, ...], Callable[[Path], list[Row]]]:
    splits = {"train": "train", "validation": "valid", "test": "test"}
    files = tuple(
        RemoteFile(f"{name}/{name}_{short}.json", f"{_TAPE}/{name}.tar.gz", f"{name}/{name}_{short}.json")
        for short in splits.values()
    )

    def read(root: Path) -> list[Row]:
        paths = {split: root / name / f"{name}_{short}.json" for split, short in splits.items()}
        return [row for split, path in paths.items() for row in _tape_rows(path, target, split)]

    return files, read


def _tape_rows(path: Path, target: str, split: str) -> list[Row]:
    """TAPE's JSON: a list of records with ``primary`` and a list of one value."""
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(_text(record["primary"]), record[target]) for record in records]
        values = [str(value[0] if isinstance(value, list) else value) for _, value in pairs]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        message = f"is no TAPE file of '{target}' ({type(error).__name__}: {error})"
        raise DataError.of("task.dataset", message, str(path)) from error
    return [
        Row(str(path), n, f"{split}-{n}", sequence, value, split, None)
        for n, ((sequence, _), value) in enumerate(zip(pairs, values, strict=True), start=1)
    ]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a sequence is {value!r}")
    return value


_AFL = "FLIP (AFL-3.0)"
SOURCES: dict[str, Source] = {
    "gb1": Source(
        *_flip_table("gb1", "splits/three_vs_rest.csv"),
        f"{_AFL}; measurements of Wu et al. 2016 (CC BY 4.0)",
        "a88dc83368b3719e90d88173e20b6407d5ef8827be6d30dae097076be6ec0848",
    ),
    "aav": Source(*_flip_table("aav", "splits/two_vs_many.csv"), _AFL),
    "meltome": Source(*_flip_table("meltome", "splits/mixed_split.csv"), _AFL),
    "gfp": Source(*_tape("fluorescence", "log_fluorescence"), "TAPE"),
    "stability": Source(*_tape("stability", "stability_score"), "TAPE"),
    "subcellular_location": Source(
        _location_files("deeploc_our_train_set.fasta", "deeploc_our_val_set.fasta", "setHARD.fasta"),
        _location("deeploc_our_train_set.fasta", "deeploc_our_val_set.fasta"),
        "protein-localization (MIT)",
    ),
    "subcellular_location_internal": Source(
        _location_files("deeploc_our_val_set.fasta", "setHARD.fasta"),
        _location("deeploc_our_val_set.fasta", None),
        "protein-localization (MIT)",
        "4e41a53139c15b2c89502cd673525673d935ddbc6b1d5bac953d7eff0e14753d",
    ),
    "disorder": Source(
        tuple(
            RemoteFile(f"disorder/{name}")  # github.com/DagmarIlz/SETH
            for name in (
                "CheZOD1174_training_set_sequences.fasta",
                "CheZOD1174_training_set_CheZOD_scores.txt",
                "CheZOD117_test_set_sequences.fasta",
                "CheZOD117_test_set_CheZOD_scores",
            )
        ),
        _disorder,
        "SETH",
        "dc75e5ec062496fb88956dfbb902099a349d734d567fdfb3e18d7616987da461",
    ),
    "secondary_structure": Source(
        tuple(
            RemoteFile(f"secondary_structure/{name}", f"{_FLIP}/secondary_structure/splits.zip", f"splits/{name}")
            for name in ("sequences.fasta", "sampled.fasta", "mask.fasta")
        ),
        _structure,
        f"{_AFL}; NetSurfP-2.0",
        "4b06502efdd50d36b45c8e2aa3d535ae062194092e5e0a02548339a8281fbc58",
    ),
}
