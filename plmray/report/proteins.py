"""The test score over other seeds and other proteins, from what the replicate trials gave for each test protein."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plmray.errors import DataError, first_line
from plmray.metrics import METRICS, Kind, score
from plmray.report.verdict import OverProteins, Verdict
from plmray.seeds import derived_rng
from plmray.stats.effects import welch_error
from plmray.stats.intervals import Array, Estimate, Resampler, family_resampler, two_way_interval, within
from plmray.storage import layout
from plmray.trials import selection
from plmray.trials.result import TrialResult

WORK, FEWEST, MOST = 6_000_000, 60, 400  # units scored in all; resamples
SAME = 1e-3  # how near the kept outputs, of float32, come to the recorded score


def over_proteins(
    folder: Path, verdict: Verdict, results: Sequence[TrialResult], families: Mapping[str, str] | None = None
) -> OverProteins | None:
    """None where the best candidate's test outputs are not kept (``resources.keep``) for two seeds, or do not give the
    recorded scores. ``families``: by protein id; who is in none is one of its own. Raises DataError where no protein is
    in any."""
    arms = [arm for row in verdict.candidates[:2] if (arm := _Arm.read(folder, row.candidate_id, results, verdict))]
    if not arms or arms[0].candidate_id != verdict.candidates[0].candidate_id:
        return None
    arms = [arm for arm in arms if np.array_equal(arm.proteins, arms[0].proteins)]
    ids = arms[0].ids
    if families is not None and not families.keys() & set(ids):
        message = (
            f"no test protein is in it; the first are {', '.join(ids[:3])}, and it has {', '.join([*families][:3])}"
        )
        raise DataError.of("--families", message)
    resample = family_resampler(len(ids), [families.get(i, i) for i in ids] if families else None)
    work = sum(arm.outputs.size for arm in arms)
    drawn = _resampled(arms, resample, int(np.clip(WORK // max(work, 1), FEWEST, MOST)), verdict.metric)
    found = {
        arm.candidate_id: _interval(arm, own, resample.units, verdict) for arm, own in zip(arms, drawn, strict=True)
    }
    delta = _difference(arms, drawn, resample.units, verdict.confidence) if len(arms) > 1 else None
    return OverProteins(found, delta, resample.units, bool(families), len(drawn[0]))


def read_families(file: Path) -> dict[str, str]:
    """Family by protein id: MMseqs2's cluster table (representative and member, tabs, no header), or a table whose
    header names ``id`` and ``family``. Raises DataError where it is neither."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError.of("--families", f"cannot be read: {first_line(str(error))}", str(file)) from error
    rows = list(csv.reader(lines, delimiter=max("\t,;", key=lines[0].count))) if lines else []
    header = [name.strip().lower() for name in rows[0]] if rows else []
    named = {"id", "family"} <= set(header)
    places = (header.index("id"), header.index("family")) if named else (1, 0)
    found = {}
    for number, row in enumerate(rows[named:], start=1 + named):
        if len(row) <= max(places) or (not named and len(row) != 2):
            message = (
                f"line {number} has {len(row)} columns; expected id and family, or MMseqs2's representative, member"
            )
            raise DataError.of("--families", message, str(file))
        found[row[places[0]].strip()] = row[places[1]].strip()
    return found


@dataclass(frozen=True)
class _Arm:
    """A candidate's test outputs. ``proteins``: (units,) numbers, ascending, of the counted units; ``targets``: (units,
    ...); ``outputs``: (n_seeds, units, outputs); ``scores``: (n_seeds,) as recorded."""

    candidate_id: str
    ids: Sequence[str]
    proteins: NDArray[np.int64]
    targets: NDArray[Any]
    outputs: Array
    scores: Array

    @classmethod
    def read(cls, folder: Path, candidate_id: str, results: Sequence[TrialResult], verdict: Verdict) -> _Arm | None:
        own = selection.scored(selection.main(selection.of(candidate_id, results), "replicate"))
        fallen = {collapse.trial_id for collapse in verdict.losses.collapses}
        speaking = [r for r in selection.confirmed(own) or own if r.test_score is not None and r.trial_id not in fallen]
        tables = [_read(layout.trial_folder(folder, r.trial_id) / layout.TEST_OUTPUTS) for r in speaking]
        known = [table for table in tables if table is not None]
        if len(known) < 2 or len(known) < len(tables):
            return None
        first = known[0]
        counted = np.array(first["counted"]) if "counted" in first.column_names else np.ones(len(first), bool)
        targets, proteins = np.array(first["target"].to_pylist())[counted], np.array(first["protein"])
        outputs = np.array([np.array(table["outputs"].to_pylist())[counted] for table in known])
        ids = list(dict(zip(proteins.tolist(), first["id"].to_pylist(), strict=True)).values())
        scores = [score(verdict.metric, _kind(targets, outputs), targets, seed) for seed in outputs]
        recorded = [r.test_score for r in speaking]
        if not np.allclose(scores, np.array(recorded, dtype=float), rtol=SAME, atol=SAME):
            logging.getLogger(__name__).warning("test outputs of %s do not give its scores: left out", candidate_id)
            return None
        return cls(candidate_id, ids, proteins[counted], targets, outputs, np.array(recorded, dtype=float))

    @property
    def over_seeds(self) -> tuple[float, float]:
        """Variance of the mean, and its degrees of freedom."""
        return float(self.scores.var(ddof=1)) / len(self.scores), len(self.scores) - 1.0

    def score_on(self, chosen: NDArray[np.int64], starts: NDArray[np.int64], metric: str) -> float:
        """Mean over seeds on the chosen proteins, each as often as it was drawn. ``starts``: rows of all proteins."""
        sizes = np.diff(starts)[chosen]
        ends = np.cumsum(sizes)
        rows = np.repeat(starts[chosen] - (ends - sizes), sizes) + np.arange(int(ends[-1]))
        targets, kind = self.targets[rows], _kind(self.targets, self.outputs)
        return float(np.mean([score(metric, kind, targets, seed[rows]) for seed in self.outputs]))


def _resampled(arms: Sequence[_Arm], resample: Resampler, resamples: int, metric: str) -> list[Array]:
    """(resamples,) by arm, all arms on the same proteins."""
    rng, drawn = derived_rng(0, "test proteins"), np.zeros((len(arms), resamples))
    starts = np.searchsorted(arms[0].proteins, np.arange(len(arms[0].ids) + 1))
    for number in range(resamples):
        chosen = resample(rng)
        drawn[:, number] = [arm.score_on(chosen, starts, metric) for arm in arms]
    return list(drawn)


def _interval(arm: _Arm, drawn: Array, units: int, verdict: Verdict) -> Estimate:
    found = two_way_interval(float(arm.scores.mean()), arm.over_seeds, drawn, units, verdict.confidence)
    return within(found, METRICS[verdict.metric].low, METRICS[verdict.metric].high)


def _difference(arms: Sequence[_Arm], drawn: Sequence[Array], units: int, confidence: float) -> Estimate:
    """Best - second: seeds of each by themselves, proteins the same for both."""
    one, other = arms[0].scores, arms[1].scores
    error, degrees = welch_error(float(one.std(ddof=1)), float(other.std(ddof=1)), len(one), len(other))
    over_seeds = error**2, degrees if error > 0 else 1.0
    return two_way_interval(float(one.mean() - other.mean()), over_seeds, drawn[0] - drawn[1], units, confidence)


def _read(file: Path) -> Any:
    """The table of a trial's outputs; None where it is missing or damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(file) if file.is_file() else None
    except (pa.ArrowException, OSError, ValueError):
        return None
    return table if table is not None and {"id", "protein", "target", "outputs"} <= set(table.column_names) else None


def _kind(targets: NDArray[Any], outputs: Array) -> Kind:
    """From what a trial kept: (units, labels) of 0 and 1, floats, or class numbers with one output or several."""
    if targets.ndim == 2:
        return "multilabel"
    if targets.dtype.kind == "f":
        return "regression"
    return "binary" if outputs.shape[-1] == 1 else "classification"
