"""Known data sets: found under a data root, or fetched into one and checked."""

from __future__ import annotations

import http.client
import io
import json
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from plmray.config.catalog.tasks import KNOWN_TASKS
from plmray.data.files.formats import Row
from plmray.data.known import SOURCES, rows_hash
from plmray.data.splits import by_columns
from plmray.errors import DataError, FolderError
from plmray.storage.atomic import read_json, user_cache, write_atomic

TIMEOUT_S = 60.0
LARGEST_MEMBER = 2**30
CHECKSUMS = "checksums.json"


def cache_folder() -> Path:
    return user_cache() / "plmray" / "data"


def located(name: str, roots: Sequence[Path]) -> Path | None:
    """The first root that has all files of a known data set."""
    return next((root for root in roots if SOURCES[name].is_under(root)), None)


def find(name: str, roots: Sequence[Path], *, may_fetch: bool) -> Path:
    """The root that has a known data set, the last of ``roots`` after fetching it. Raises DataError."""
    root = located(name, roots)
    if root is not None:
        return root
    if may_fetch:
        return fetch(name, roots[-1])
    searched = ", ".join(str(root) for root in roots)
    raise _fault(f"{name} is not under {searched}; give --data-root, set PLMRAY_DATA, or run: plmray data fetch {name}")


def fetch(name: str, root: Path, urls: Mapping[str, str] | None = None) -> Path:
    """Download a known data set into ``root`` and check its content. Raises DataError; leaves no half file.

    ``urls``: other addresses in the place of known ones.
    """
    source = SOURCES[name]
    by_hand = [file.path for file in source.files if file.url is None and not (root / file.path).exists()]
    if by_hand:
        raise _fault(
            f"{name} is not offered as files; put {', '.join(by_hand)} ({source.licence}) under {root}, or give "
            "--data-root or PLMRAY_DATA"
        )
    arrived: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="plmray-fetch-") as folder:
        for file in source.files:
            if file.url is None:
                continue
            address = (urls or {}).get(file.url, file.url)
            if address not in arrived:
                arrived[address] = _download(name, address, root)
            write_atomic(Path(folder) / file.path, _member(name, address, arrived[address], file.member))
        check_content(name, source.read(Path(folder)), root)
        for file in source.files:
            write_atomic(root / file.path, (Path(folder) / file.path).read_bytes())
    return root


def _download(name: str, address: str, root: Path) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
            content: bytes = response.read()
            return content
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        raise _fault(
            f"{name} could not be fetched from {address} ({error}); put its files under {root}, or give --data-root or "
            "PLMRAY_DATA"
        ) from error


def _member(name: str, address: str, content: bytes, member: str | None) -> bytes:
    """A file, or one member of a zip or tar archive."""
    if member is None:
        return content
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)).open(member) as stream:
                return _within_limit(stream.read(LARGEST_MEMBER + 1))
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            found = archive.extractfile(member)
            assert found is not None
            return _within_limit(found.read(LARGEST_MEMBER + 1))
    except Exception as error:  # what a damaged archive raises is open-ended, and all of it means the same
        raise _fault(f"{name}: {address} holds no {member} ({error}); it may have moved") from error


def _within_limit(content: bytes) -> bytes:
    if len(content) > LARGEST_MEMBER:
        raise ValueError(f"it unpacks to more than {LARGEST_MEMBER} bytes")
    return content


def verify(name: str, rows: list[Row], root: Path) -> None:
    """Raise DataError where a copy under ``root`` is not the known one, as far as one is known."""
    found, expected = rows_hash(rows), SOURCES[name].content or _first_copy(root).get(name)
    if expected is not None and found != expected:
        raise _fault(f"{name}: content {found[:16]}… is not the known {expected[:16]}…; fetch it again", root)


def check_content(name: str, rows: list[Row], root: Path) -> None:
    """Raise DataError when ``rows`` are not the known ones, or not those of the copy that came first."""
    verify(name, rows, root)
    if SOURCES[name].content is None and name not in _first_copy(root):
        _check_counts(name, rows, root)
        write_atomic(root / CHECKSUMS, json.dumps({**_first_copy(root), name: rows_hash(rows)}, indent=1))


def _check_counts(name: str, rows: list[Row], root: Path) -> None:
    counts = Counter({split: len(group) for split, group in by_columns(rows)[0].items()})
    expected = KNOWN_TASKS[name].counts
    if dict(counts) != expected:
        raise _fault(f"{name}: found {dict(counts)} proteins, the published splits have {expected}", root)


def _first_copy(root: Path) -> dict[str, str]:
    file = root / CHECKSUMS
    try:
        return read_json(file, "remove it") if file.is_file() else {}
    except FolderError as error:
        raise _fault("cannot be read; remove it, and the data are checked by their number alone", file) from error


def _fault(message: str, file: Path | None = None) -> DataError:
    return DataError.of("task.dataset", message, str(file or ""))
