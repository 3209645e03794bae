"""What a task's data are, in lines that a person checks before anything trains; and whether they can be scored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from plmray.config.fields.task import SplitName
from plmray.data.identity import with_kin
from plmray.data.proteins import ProteinData, Proteins
from plmray.errors import DataError
from plmray.metrics import METRICS

CLASSES_SHOWN = 12
COVERAGE = 0.8  # of both proteins, by an alignment that makes them kin
JUDGING: tuple[SplitName, ...] = ("validation", "test")


def profile_lines(data: ProteinData) -> Iterator[str]:
    """Of every split: proteins, residues that count, classes with their counts or the range of targets."""
    for name, part in data.splits.items():
        if not len(part):
            yield f"{name}: none" + (NO_TEST if name == "test" else "")
            continue
        lengths = [len(sequence) for sequence in part.sequences]
        sizes = (
            f"{min(lengths)} to {max(lengths)} residues" if min(lengths) < max(lengths) else f"{lengths[0]} residues"
        )
        yield f"{name}: {len(part):,} proteins of {sizes}{_counted(part)}; {_targets(data, part)}"


def leakage_lines(data: ProteinData, threshold: float) -> Iterator[str]:
    """How many validation and test proteins are in training as they are, and how many have kin there."""
    train = data.splits["train"].sequences
    for name in JUDGING:
        own = data.splits[name].sequences
        if not len(own):
            continue
        same = len(set(own) & set(train))
        kin = len(with_kin(own, train, threshold, COVERAGE))
        yield (
            f"{name}: {same:,} of {len(own):,} proteins are in training as they are, {kin:,} have kin there (identity "
            f"{threshold:g} or more over {COVERAGE:g} of both)"
        )


NO_TEST = "; no test score will be taken. Mark test proteins (set = test) to know how good the winner is on unseen ones"


def _counted(part: Proteins) -> str:
    if part.counted is None:
        return ""
    return f", {int(part.counted.sum()):,} of {len(part.counted):,} residues count"


def _targets(data: ProteinData, part: Proteins) -> str:
    targets = part.targets if part.counted is None else part.targets[part.counted]
    if data.kind == "regression":
        return f"targets {targets.min():.4g} to {targets.max():.4g}, mean {targets.mean():.4g}"
    if data.kind == "multilabel":
        counts, bare = targets.sum(0), int((targets.sum(1) == 0).sum())
        rest = f", {bare:,} without a label" if bare else ""
    else:
        counts, rest = np.bincount(targets, minlength=len(data.classes)), ""
    named = [f"{label} {int(count):,}" for label, count in zip(data.classes, counts, strict=True)]
    more = f", … and {len(named) - CLASSES_SHOWN} more" if len(named) > CLASSES_SHOWN else ""
    return f"{len(named)} classes: {', '.join(named[:CLASSES_SHOWN])}{more}{rest}"


def require_defined(data: ProteinData, metric: str) -> None:
    """Raise DataError where the objective cannot be computed on the validation proteins, whatever is predicted."""
    if not _is_defined(data, metric, "validation"):
        raise DataError.of("objective.metric", _undefined(metric, "validation"))


def undefined_notes(data: ProteinData, metric: str) -> Iterator[str]:
    """The same for the test proteins, which decide nothing."""
    if len(data.splits["test"]) and not _is_defined(data, metric, "test"):
        yield _undefined(metric, "test")


def _undefined(metric: str, split: SplitName) -> str:
    return (
        f"{metric} is undefined on the {split} proteins: their targets are all alike, or hold no positive one. Choose "
        "another metric, or another split"
    )


def _is_defined(data: ProteinData, metric: str, split: SplitName) -> bool:
    part = data.splits[split]
    targets = part.targets if part.counted is None else part.targets[part.counted]
    return METRICS[metric].is_defined(targets, data.kind)
