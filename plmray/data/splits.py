"""Which protein trains, which validates, which tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from plmray.config.fields.task import SplitName
from plmray.data.files.formats import Row, SplitRows
from plmray.errors import Fault
from plmray.seeds import derived_rng

SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")
_SYNONYMS: Mapping[str, SplitName] = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
UNUSED = ("pred", "predict", "prediction", "unused", "ignore")  # proteins of a set that neither trains nor tests
_TRUE, _FALSE = ("true", "1"), ("false", "0", "", "none", "nan")


def by_columns(rows: Sequence[Row]) -> tuple[SplitRows, list[Fault]]:
    """FLIP's rule: ``set`` says train or test, ``validation`` = True takes a training row for validation."""
    splits: SplitRows = {name: [] for name in SPLIT_NAMES}
    faults: list[Fault] = []
    for row in rows:
        if (row.split or "").lower() in UNUSED:
            continue
        name = "train" if row.split is None else _SYNONYMS.get(row.split.lower())
        held_out = (row.validation or "").lower()
        if name is None:
            faults.append(
                row.fault("task.columns.split", f"split '{row.split}' is unknown; expected train, validation or test")
            )
        elif held_out not in _TRUE + _FALSE:
            faults.append(
                row.fault("task.columns.split", f"validation '{row.validation}' is unknown; expected True or False")
            )
        elif held_out in _TRUE and name == "test":
            faults.append(
                row.fault("task.columns.split", "is a test protein marked for validation; it can be one of them only")
            )
        else:
            splits["validation" if held_out in _TRUE else name].append(row)
    return splits, faults


def unused_note(rows: Sequence[Row]) -> Iterator[str]:
    counts = Counter(row.split for row in rows if (row.split or "").lower() in UNUSED)
    for name, count in sorted(counts.items(), key=str):
        yield f"{count:,} proteins are marked '{name}' and left out"


def by_files(files: Mapping[SplitName, list[Row]]) -> tuple[SplitRows, list[Fault]]:
    """A file a split. Where none is given for validation, the train file's own ``validation`` column counts."""
    own_validation = "validation" in files
    named = [
        replace(row, split=name, validation=None if own_validation or name != "train" else row.validation)
        for name, rows in files.items()
        for row in rows
    ]
    return by_columns(named)


def draw_validation(splits: SplitRows, fraction: float, seed: int) -> SplitRows:
    """Move a random ``fraction`` of the training proteins to validation, the same ones for the same seed."""
    train = splits["train"]
    chosen = drawn_rows(len(train), fraction, seed)
    return {
        "train": [row for row, drawn in zip(train, chosen, strict=True) if not drawn],
        "validation": splits["validation"] + [row for row, drawn in zip(train, chosen, strict=True) if drawn],
        "test": splits["test"],
    }


def drawn_rows(total: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """(total,) true for the rows that ``seed`` draws for validation: at least one, where there is any."""
    count = max(1, round(fraction * total)) if total else 0
    chosen = np.zeros(total, dtype=bool)
    chosen[derived_rng(seed, "split").permutation(total)[:count]] = True
    return chosen


def drawn_twice(splits: SplitRows, fraction: float | None) -> Iterator[Fault]:
    if fraction is not None and splits["validation"]:
        yield Fault(
            "task.validation_fraction",
            f"the data already marks {len(splits['validation'])} validation proteins; drop validation_fraction",
        )
