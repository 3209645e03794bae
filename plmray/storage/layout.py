"""The names of a sweep folder's files. Nothing else spells them; a test holds that.

<storage>/<sweep name>/resolved.yaml candidates.jsonl decisions.jsonl data.json tracking.json costs.json …
<storage>/<sweep name>/trials/<trial id>/result.json curve.parquet test_outputs.parquet adapter/
"""

from __future__ import annotations

from pathlib import Path

RESOLVED = "resolved.yaml"  # the sweep's settings in full; where it is, a sweep has begun
CANDIDATES = "candidates.jsonl"
DECISIONS = "decisions.jsonl"
DATA = "data.json"  # what the data were: hash, counts, classes, tokens
TRACKING = "tracking.json"
COSTS = "costs.json"
IMPORTANCE = "importance.json"
TABLE = "results.parquet"
LOG = "sweep.log"
LOCK = "lock.json"
REPORT, PAGE, REPORT_DATA = "report.md", "report.html", "report.json"
REPORT_FILES = (REPORT, PAGE, REPORT_DATA)

TRIALS = "trials"
RESULT = "result.json"
CURVE = "curve.parquet"
TEST_OUTPUTS = "test_outputs.parquet"
ADAPTER = "adapter"
WEIGHTS = (ADAPTER, TEST_OUTPUTS)  # of a trial what only export reads


def trial_folder(folder: Path, trial_id: str) -> Path:
    return folder / TRIALS / trial_id


def is_weight(name: str) -> bool:
    """Whether a file, named from its sweep folder with slashes, is of a trial's WEIGHTS."""
    parts = name.split("/")
    return parts[0] == TRIALS and len(parts) > 2 and parts[2] in WEIGHTS
