"""Known data sets: where their files lie under a data root, and where they come from."""

from __future__ import annotations

import io
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plmray.data.formats import read_rows
from plmray.errors import DataError, Fault
from plmray.files import write_atomic
from plmray.identity import content_hash
from plmray.spec.sweep import ColumnsSpec

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Source:
    """A file of a known data set. ``content`` hashes its rows, so that line endings do not matter."""

    path: str
    url: str
    member: str
    content: str
    proteins: dict[str, int]
    length: int
    licence: str


SOURCES: dict[str, Source] = {
    "gb1": Source(
        path="gb1/three_vs_rest.csv",
        url="https://github.com/J-SNACKKB/FLIP/raw/main/splits/gb1/splits.zip",
        member="splits/three_vs_rest.csv",
        content="a88dc83368b3719e90d88173e20b6407d5ef8827be6d30dae097076be6ec0848",
        proteins={"train": 2691, "validation": 299, "test": 5743},
        length=265,
        licence="FLIP (AFL-3.0); measurements of Wu et al. 2016 (CC BY 4.0)",
    ),
}


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "plmray" / "data"


def find(name: str, roots: Sequence[Path], *, may_fetch: bool) -> Path:
    """The file of a known data set under the first root that has it, else fetched. Raises DataError."""
    source = SOURCES[name]
    for root in roots:
        if (root / source.path).is_file():
            return root / source.path
    if may_fetch:
        return fetch(name, roots[-1])
    searched = ", ".join(str(root) for root in roots)
    raise DataError(
        [
            Fault(
                "task.dataset",
                f"{name} is not under {searched}; give --data-root, set PLMRAY_DATA, or run: plmray data fetch {name}",
            )
        ]
    )


def fetch(name: str, root: Path, url: str | None = None) -> Path:
    """Download a known data set into ``root`` and check its content. Raises DataError; leaves no half file."""
    source = SOURCES[name]
    address = url or source.url
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
            archive = zipfile.ZipFile(io.BytesIO(response.read()))
        content = archive.read(source.member)
    except (urllib.error.URLError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            [
                Fault(
                    "task.dataset",
                    f"{name} could not be fetched from {address} ({error}); put it at {root / source.path}, "
                    "or give --data-root or PLMRAY_DATA",
                )
            ]
        ) from error
    target = root / source.path
    arrived = target.with_name(f"arrived-{os.getpid()}{target.suffix}")
    write_atomic(arrived, content)
    try:
        check_content(name, arrived)
        os.replace(arrived, target)
    finally:
        arrived.unlink(missing_ok=True)
    return target


def check_content(name: str, path: Path) -> None:
    """Raise DataError when the rows of ``path`` are not the known ones."""
    found = rows_hash(path)
    expected = SOURCES[name].content
    if found != expected:
        raise DataError(
            [Fault("task.dataset", f"{name}: content {found[:16]}… is not the known {expected[:16]}…", str(path))]
        )


def rows_hash(path: Path) -> str:
    """Hash over (sequence, target, set, validation) of every row, in order."""
    rows = read_rows(path, ColumnsSpec())
    return content_hash([[row.sequence, row.target, row.split, row.validation] for row in rows])
