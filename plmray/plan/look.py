"""Looking at a file of proteins that nobody has described: level, kind, split, lengths, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plmray.config.catalog.tasks import Level
from plmray.config.fields.task import ColumnsSpec
from plmray.data.files.formats import FASTA_SUFFIXES, Row
from plmray.data.files.tables import REQUIRED, Cells, column_places, read_cells, suffix_of
from plmray.data.labels import LABEL_SEPARATOR, OTHER_SEPARATORS, words_of
from plmray.data.residues import read_labelled
from plmray.errors import DataError
from plmray.metrics import Kind
from plmray.text import as_decimal

GROUP_NAMES = ("family", "cluster", "group", "superfamily", "plate", "batch", "date", "species")
FEW_CLASSES = 30
DOMINANT = 0.6  # share of one class from which accuracy says little
ALIKE = 0.9  # of proteins that differ from the commonest residues in few places: variants of one
LONGEST = 1022
FEWEST, SMALL = 8, 40  # proteins to split at all, and to give a quarter to test and to validation


@dataclass(frozen=True)
class Look:
    """What was found, and in ``reasons`` why, one line each. ``columns``: what differs from the default names."""

    rows: Sequence[Row]
    level: Level
    kind: Kind
    columns: dict[str, str | None]
    split: dict[str, Any] | None
    metric: str
    balanced: bool
    over_length: bool
    notes: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def longest(self) -> int:
        return max(len(row.sequence) for row in self.rows)


def look_at(file: Path, labels: Path | None = None, columns: ColumnsSpec | None = None) -> Look:
    """Raises DataError where the file cannot be read, a column cannot be told, or too few proteins are left."""
    notes: list[str] = []
    given = columns or ColumnsSpec()
    rows = read_labelled(file, labels, None, given, notes)
    with_target = [row for row in rows if row.target]
    if len(with_target) < FEWEST:
        message = f"{len(with_target)} proteins with a target are too few to train, validate and test"
        raise DataError.of("", message, str(file))
    level = _level(with_target)
    kind, why = _kind(with_target, level)
    named, group = _columns(file, given)
    split, how = _split(with_target, level, kind, group)
    if split and len(with_target) < SMALL:
        split |= {"test": 0.25, "validation": 0.25}
    metric, balanced, measured = _metric(with_target, level, kind)
    lengths = [len(row.sequence) for row in with_target]
    over = sum(length > LONGEST for length in lengths)
    reasons = [
        f"{len(lengths):,} proteins of {min(lengths):,} to {max(lengths):,} residues",
        f"level {level}: " + ("a label for each residue" if level == "residue" else "a target for each protein"),
        f"kind {kind}: {why}",
        f"metric {metric}: {measured}",
        f"split: {how}",
    ]
    if over:
        reasons.append(f"{over:,} proteins are longer than {LONGEST} residues: cut, as ESM2 has positions for no more")
    if split is not None and split.get("by") == "group":
        named["group"] = group
    return Look(with_target, level, kind, named, split, metric, balanced, over > 0, tuple(notes), tuple(reasons))


def _level(rows: Sequence[Row]) -> Level:
    """Residue where every target has as many labels as its protein residues."""
    long = [row for row in rows if len(row.sequence) > 1]
    as_many = all(len(row.sequence) in (len(row.target), len(words_of(row.target))) for row in long)
    return "residue" if long and as_many else "protein"


def _kind(rows: Sequence[Row], level: Level) -> tuple[Kind, str]:
    if level == "residue":
        words = {word for row in rows[:200] for word in _residue_labels(row)}
        numbers = all(_is_number(word) for word in words)
        if numbers and len(words) > FEW_CLASSES:
            return "regression", "labels are numbers"
        return "classification", f"{len(words)} different labels"
    targets = [row.target for row in rows]
    values = set(targets)
    if all(map(_is_number, values)) and (len(values) > FEW_CLASSES or any("." in v or "," in v for v in values)):
        return "regression", f"targets are numbers, {len(values):,} different ones"
    sets = [mark for mark in LABEL_SEPARATOR + OTHER_SEPARATORS if sum(mark in target for target in targets) > 0]
    if sets and len(values) > 2:
        return "multilabel", f"some proteins have several labels, parted by '{sets[0]}'"
    if len(values) == 2:
        return "binary", f"two classes, {' and '.join(sorted(values))}"
    if len(values) < 2 or len(values) > len(rows) / 3:
        message = f"the targets hold {len(values)} different texts in {len(rows)} rows: neither classes nor numbers"
        raise DataError.of("", message, rows[0].file)
    return "classification", f"{len(values)} classes"


def _residue_labels(row: Row) -> list[str]:
    return list(row.target) if len(row.target) == len(row.sequence) else words_of(row.target)


def _is_number(text: str) -> bool:
    try:
        as_decimal(text)
    except ValueError:
        return False
    return True


def _metric(rows: Sequence[Row], level: Level, kind: Kind) -> tuple[str, bool, str]:
    """Metric, whether to weigh classes, and why."""
    if kind == "regression":
        return "spearman", False, "ranks matter most, and units do not"
    if kind == "multilabel":
        return "f1", False, "the mean over labels"
    labels = [w for row in rows for w in _residue_labels(row)] if level == "residue" else [row.target for row in rows]
    share = Counter(labels).most_common(1)[0][1] / len(labels)
    if share > DOMINANT:
        found = "auprc" if kind == "binary" else "mcc"
        return found, True, f"{100 * share:.0f} % are of one class: accuracy would say little; classes are weighed"
    return ("auroc" if kind == "binary" else "accuracy"), False, "classes are of like size"


def _columns(file: Path, given: ColumnsSpec) -> tuple[dict[str, str | None], str | None]:
    """Columns whose names are not the default ones, so that the sweep file says it all; and one of families, plates or
    dates, if there is one."""
    if suffix_of(file) in FASTA_SUFFIXES:
        return {}, None
    cells = read_cells(file)
    places = column_places(file, cells, given, [], REQUIRED)
    default = ColumnsSpec()
    found = {field: cells.header[place] for field, place in places.items()}
    named = {field: name for field, name in found.items() if name != getattr(default, field)}
    return dict(named), _group(cells)


def _group(cells: Cells) -> str | None:
    plain = {re.sub(r"[^a-z]", "", name.lower()): place for place, name in enumerate(cells.header)}
    for name in GROUP_NAMES:
        place = plain.get(name)
        if place is not None and 3 <= len({row[place] for _, row in cells.rows}) <= len(cells.rows) / 2:
            return cells.header[place]
    return None


def _split(rows: Sequence[Row], level: Level, kind: Kind, group: str | None) -> tuple[dict[str, Any] | None, str]:
    marks = Counter((row.split or "").lower() for row in rows)
    validating = any((row.validation or "").lower() in ("true", "1") for row in rows)
    if any(name.startswith("test") for name in marks):
        held = validating or any(name.startswith("val") for name in marks)
        return (None, "as the file marks it") if held else ({}, "as the file marks it; validation drawn")
    if group is not None:
        return {"by": "group"}, f"by '{group}', so that no group is on two sides"
    if _are_variants(rows):
        by = "stratified" if level == "protein" else "random"
        return {"by": by}, "variants of one protein, drawn " + (
            "from every tenth of targets" if kind == "regression" and by == "stratified" else "at random"
        )
    return {"by": "identity", "threshold": 0.3}, "by identity (MMseqs2): nothing in the test is 30 % kin to training"


def _are_variants(rows: Sequence[Row]) -> bool:
    lengths = Counter(len(row.sequence) for row in rows)
    length, count = lengths.most_common(1)[0]
    if count < ALIKE * len(rows):
        return False
    same = [row.sequence for row in rows if len(row.sequence) == length][:500]
    commonest = [Counter(column).most_common(1)[0][0] for column in zip(*same, strict=True)]
    near = sum(sum(a != b for a, b in zip(s, commonest, strict=True)) <= 0.5 * length for s in same)
    return bool(near >= ALIKE * len(same))
