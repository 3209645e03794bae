"""Which proteins test and validate, where nobody has said so: drawn so that the score speaks of what it is for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from plmray.config.fields.task import SplitName, SplitSpec, TaskSpec
from plmray.data.files.formats import Row, SplitRows
from plmray.data.identity import connected, kin_clusters
from plmray.data.targets import labels_of
from plmray.errors import DataError
from plmray.metrics import LABELLED
from plmray.seeds import derived_rng

BINS, FEWEST_IN_A_BIN = 10, 20  # of targets, where values are stratified
Groups = Mapping[str, str]  # by sequence


def drawn(rows: Sequence[Row], task: TaskSpec, notes: list[str]) -> SplitRows:
    """Rows of every split, each with its group; ``notes`` say how they were drawn.

    Sequences are sorted before anything is drawn, so that the order of rows, files and locales changes nothing.
    Raises DataError where the data mark a split themselves, or too few groups are left for three parts.
    """
    spec = task.split
    assert spec is not None
    _refuse_marked(rows)
    groups = _GROUPS[spec.by](rows, task)
    parts = _by_mutations(groups, spec) if spec.by == "mutations" else _assigned(groups, rows, task, spec)
    parts, moved = _with_all_classes(parts, groups, rows, task)
    if moved:
        notes.append(f"{moved} proteins train as the only ones of their class: it is too rare for three parts")
    found: SplitRows = {"train": [], "validation": [], "test": []}
    for row in rows:
        found[parts[row.sequence]].append(replace(row, group=groups[row.sequence]))
    _require_parts(found, spec)
    sizes = ", ".join(f"{len(own):,} {name}" for name, own in found.items())
    kept = len(set(groups.values()))
    what = {"identity": "clusters", "group": "groups"}.get(spec.by, "different sequences")
    notes.append(f"split {_words(spec)}, seed {spec.seed}: {sizes}; {kept:,} {what} stay together")
    return found


def _refuse_marked(rows: Sequence[Row]) -> None:
    marked = next((r for r in rows if r.split or (r.validation or "").lower() in ("true", "1")), None)
    if marked is not None:
        message = (
            f"row {marked.line} marks its split ('{marked.split or 'validation'}'): drop task.split, or leave marks "
            "out with columns: {split: null, validation: null}"
        )
        raise DataError.of("task.split", message, marked.file, marked.line)


def _words(spec: SplitSpec) -> str:
    if spec.by == "identity":
        return f"by identity (kin from {spec.threshold:g} on)"
    return f"by mutations (up to {spec.max_mutations} train)" if spec.by == "mutations" else f"by {spec.by}"


def _alone(rows: Sequence[Row], task: TaskSpec) -> dict[str, str]:  # noqa: ARG001
    return {row.sequence: row.sequence for row in rows}


def _by_group(rows: Sequence[Row], task: TaskSpec) -> dict[str, str]:  # noqa: ARG001
    """Groups, joined where they share a sequence: it cannot be in two parts."""
    empty = next((row for row in rows if not row.group), None)
    if empty is not None:
        raise DataError([empty.fault("task.columns.group", "the group is empty; by: group needs one of every row")])
    return connected([(row.sequence, f"group {row.group}") for row in rows], [row.sequence for row in rows])


def _by_identity(rows: Sequence[Row], task: TaskSpec) -> dict[str, str]:
    assert task.split is not None
    return kin_clusters(sorted({row.sequence for row in rows}), task.split.threshold, task.split.coverage)


_GROUPS: dict[str, Callable[[Sequence[Row], TaskSpec], dict[str, str]]] = {
    "random": _alone,
    "stratified": _alone,
    "mutations": _alone,
    "group": _by_group,
    "identity": _by_identity,
}


def _assigned(groups: Groups, rows: Sequence[Row], task: TaskSpec, spec: SplitSpec) -> dict[str, SplitName]:
    """A part for every sequence, group by group in an order that the seed draws, stratum by stratum."""
    size = Counter(groups[row.sequence] for row in rows)
    strata = _strata(groups, rows, task) if spec.by == "stratified" else dict.fromkeys(size, "")
    parts: dict[str, SplitName] = {}
    for name in sorted(set(strata.values())):
        own = sorted(group for group in size if strata[group] == name)
        parts |= _filled(own, size, spec, name)
    return {sequence: parts[group] for sequence, group in groups.items()}


def _with_all_classes(
    parts: dict[str, SplitName], groups: Groups, rows: Sequence[Row], task: TaskSpec
) -> tuple[dict[str, SplitName], int]:
    """Groups whose class is nowhere in training train, and how many proteins that are: no model predicts a class that
    it has never seen."""
    if task.kind not in LABELLED or task.level == "residue":
        return parts, 0
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[groups[row.sequence]] |= set(labels_of(row, task))
    part_of = {groups[sequence]: part for sequence, part in parts.items()}
    known = {label for group, own in labels.items() if part_of[group] == "train" for label in own}
    for group in sorted(labels):
        if labels[group] - known:
            part_of[group] = "train"
            known |= labels[group]
    moved = sum(parts[row.sequence] != part_of[groups[row.sequence]] for row in rows)
    return {sequence: part_of[group] for sequence, group in groups.items()}, moved


def _filled(own: Sequence[str], size: Mapping[str, int], spec: SplitSpec, stratum: str) -> dict[str, SplitName]:
    """Test, then validation take a group as long as it brings them nearer to their size; the rest trains."""
    total = sum(size[group] for group in own)
    wanted: list[tuple[SplitName, float]] = [("test", spec.test * total), ("validation", spec.validation * total)]
    order = derived_rng(spec.seed, f"split by {spec.by} {stratum}").permutation(len(own))
    has: Counter[str] = Counter()
    parts: dict[str, SplitName] = {}
    for group in (own[n] for n in order):
        lacking = next((name for name, much in wanted if has[name] + size[group] / 2 <= much), "train")
        parts[group] = lacking  # type: ignore[assignment]
        has[lacking] += size[group]
    return parts


def _strata(groups: Groups, rows: Sequence[Row], task: TaskSpec) -> dict[str, str]:
    """Class of every group, or the tenth of targets it lies in."""
    if task.level == "residue":
        raise DataError.of("task.split", "residues have a target each; by: stratified is of whole proteins")
    first = {groups[row.sequence]: row.target for row in reversed(rows)}
    if task.kind in LABELLED:
        return first
    values = np.array([float(target) for target in first.values()])
    bins = max(1, min(BINS, len(values) // FEWEST_IN_A_BIN))
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return {group: f"{int(np.searchsorted(edges, value)):02d}" for group, value in zip(first, values, strict=True)}


def _by_mutations(groups: Groups, spec: SplitSpec) -> dict[str, SplitName]:
    """Variants with few mutations train and validate, all others test: does it extrapolate?"""
    assert spec.max_mutations is not None
    sequences = sorted(groups)
    if len({len(sequence) for sequence in sequences}) != 1:
        raise DataError.of("task.split", "by mutations needs variants of one length, without insertions or deletions")
    letters = np.array([sequence.encode() for sequence in sequences]).view("S1").reshape(len(sequences), -1)
    parent = np.array([_commonest(column) for column in letters.T])
    distant = dict(zip(sequences, (letters != parent).sum(axis=1) > spec.max_mutations, strict=True))
    near = [sequence for sequence in sequences if not distant[sequence]]
    count = max(1, round(spec.validation * len(near))) if near else 0
    order = derived_rng(spec.seed, f"split by {spec.by}").permutation(len(near))
    validating = {near[n] for n in order[:count]}
    return {
        sequence: "test" if distant[sequence] else "validation" if sequence in validating else "train"
        for sequence in sequences
    }


def _commonest(column: Any) -> Any:
    letters, counts = np.unique(column, return_counts=True)
    return letters[counts.argmax()]


def _require_parts(found: SplitRows, spec: SplitSpec) -> None:
    empty = [name for name, own in found.items() if not own and (name != "test" or spec.test > 0)]
    if empty:
        message = f"no {empty[0]} proteins are left: the groups are too few or too large for three parts"
        raise DataError.of("task.split", message)


def families_of(rows: Sequence[Row]) -> dict[str, str]:
    """Families of the proteins of a split that are more than themselves, by protein id, numbered."""
    members: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.group:
            members[row.group].append(row.id)
    kin = sorted(own for own in members.values() if len(own) > 1)
    return {name: f"f{number}" for number, own in enumerate(kin) for name in own}
