"""A bundle to predict with from Python: proteins in, a table of pandas out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plmray.bundle.ensemble import Ensemble
from plmray.bundle.folder import BundleFacts
from plmray.bundle.predict import CHUNK, columns, lines
from plmray.bundle.proteins import Limits, require_sound, rows_from

if TYPE_CHECKING:
    import pandas as pd


class Bundle:
    """The seed ensemble of one candidate. ``facts``: task, labels, settings, seeds, scores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ensemble = Ensemble(folder)

    @property
    def facts(self) -> BundleFacts:
        return self.ensemble.facts

    def predict(self, proteins: Any) -> pd.DataFrame:
        """A row a protein, or a residue: id, (position, residue,) prediction or label and probabilities, seed_sd.

        ``proteins``: sequences, a mapping of id to sequence, a table with a column 'sequence' (and 'id'), or the path
        of a FASTA, CSV or TSV file. ``seed_sd``: SD over the seeds of what decided. Raises DataError with every fault.
        """
        import pandas as pd

        rows = rows_from(proteins)
        require_sound(rows, Limits.of(self.facts))
        found: list[list[Any]] = []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            predicted = self.ensemble.predict([row.sequence for row in chunk])
            found += [line for row, own in zip(chunk, predicted, strict=True) for line in lines(self.facts, row, own)]
        return pd.DataFrame(found, columns=columns(self.facts))

    def __repr__(self) -> str:
        facts = self.facts
        what = f"{facts.metric} on {facts.level}s" if facts.level == "residue" else facts.metric
        return f"<Bundle {self.folder}: {facts.name}, candidate {facts.candidate_id}, {len(facts.seeds)} seeds, {what}>"
