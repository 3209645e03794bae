"""The published tasks by name: their level, kind, metric and sizes. Where their files are: ``data/known.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plmray.metrics import Kind

Level = Literal["protein", "residue"]


@dataclass(frozen=True)
class KnownTask:
    """``proteins``: train, validation, test. ``length``: residues of a typical protein, for plans without data.

    ``validation_fraction``: where the published validation proteins are not named and have to be drawn. ``published``:
    whether the split is the study's own; scores of other splits cannot be laid beside published ones.
    """

    level: Level
    kind: Kind
    metric: str
    proteins: tuple[int, int, int]
    length: int
    validation_fraction: float | None = None
    published: bool = True

    @property
    def counts(self) -> dict[str, int]:
        return dict(zip(("train", "validation", "test"), self.proteins, strict=True))


# Source: Schmirler, Heinzinger & Rost 2024, its data of FLIP, TAPE, SETH and protein-localization. Tests count what
# lies in the shared data. Unproven here, as their data were never fetched: counts and lengths of aav, meltome, gfp and
# stability, and the 9,503 training proteins of subcellular_location.
KNOWN_TASKS: dict[str, KnownTask] = {
    "gb1": KnownTask("protein", "regression", "spearman", (2691, 299, 5743), 265),
    "aav": KnownTask("protein", "regression", "spearman", (28626, 3181, 50776), 736),
    "meltome": KnownTask("protein", "regression", "spearman", (22335, 2482, 3134), 545),
    "gfp": KnownTask("protein", "regression", "spearman", (21446, 5362, 27217), 237),
    "stability": KnownTask("protein", "regression", "spearman", (53614, 2512, 12851), 45),
    "subcellular_location": KnownTask("protein", "classification", "accuracy", (9503, 1678, 490), 500),
    # Train and validate within the published validation proteins: for machines without the training proteins.
    "subcellular_location_internal": KnownTask(
        "protein", "classification", "accuracy", (1342, 336, 490), 500, validation_fraction=0.2, published=False
    ),
    # 118 of 1,174; which ones the study took is not published with the data.
    "disorder": KnownTask("residue", "regression", "spearman", (1056, 118, 117), 119, validation_fraction=0.1005),
    "secondary_structure": KnownTask("residue", "classification", "accuracy", (9712, 1080, 364), 255),
}
KNOWN_DATASETS = (*KNOWN_TASKS, "landscape")
