"""The sweep folder: the truth about a sweep. Everything else can be rebuilt from it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

from plmray.errors import FolderError
from plmray.files import FolderLock, append_json_line, read_json_lines, write_atomic
from plmray.identity import content_hash
from plmray.results import TrialResult, read_results, write_result
from plmray.spec.sweep import SweepSpec
from plmray.trial import Candidate, Phase

_FREE_TO_CHANGE = ("resources", "tracking", "name")


class SweepFolder:
    """Writes for one driver, who holds ``lock``; reads for anybody.

    Candidates are recorded before they start and decisions before they act, so that a killed sweep
    goes on, and a finished one can be replayed.
    """

    def __init__(self, path: Path, lock: FolderLock | None = None) -> None:
        self.path = path
        self.lock = lock
        self.results: dict[str, TrialResult] = {result.trial_id: result for result in read_results(path)}
        self.candidates = list(read_json_lines(path / "candidates.jsonl"))
        self.decisions = list(read_json_lines(path / "decisions.jsonl"))

    def start(self, spec: SweepSpec, *, resume: bool, base: Path) -> None:
        """Write ``resolved.yaml``, or check that a resumed sweep is still the same one."""
        file = self.path / "resolved.yaml"
        if not file.exists() or not (self.candidates or self.results or resume):
            self._write(file, yaml.safe_dump(_resolved(spec, base), sort_keys=False))
            return
        if not resume:
            raise FolderError(
                f"{self.path} holds a sweep with {len(self.results)} finished trials. Add --resume to go on with it, "
                "or choose another name or --storage-path."
            )
        before, now = _complete(yaml.safe_load(file.read_text())["sweep"]), _resolved(spec, base)["sweep"]
        changed = [k for k in now if k not in _FREE_TO_CHANGE and content_hash(before.get(k)) != content_hash(now[k])]
        if changed:
            raise FolderError(
                f"{self.path}: the sweep file changed since this sweep began ({', '.join(changed)}). "
                "Undo the change, or give the changed sweep another name."
            )

    @property
    def sweep_id(self) -> str:
        return str(yaml.safe_load((self.path / "resolved.yaml").read_text())["sweep_id"])

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """``data.json``: what of the data a bundle needs, so that exporting one does not."""
        self._write(self.path / "data.json", json.dumps(facts, indent=1))

    def record_candidate(self, candidate: Candidate, phase: Phase, index: int, number: int | None = None) -> None:
        record = {
            "index": index,
            "number": number,
            "id": candidate.id,
            "phase": phase,
            "origin": candidate.origin,
            "parameters": dict(candidate.parameters),
        }
        self._append("candidates.jsonl", record)
        self.candidates.append(record)

    def record_decision(self, record: Mapping[str, Any]) -> None:
        self._append("decisions.jsonl", record)
        self.decisions.append(dict(record))

    def write_trial(self, result: TrialResult, curve: Iterable[Mapping[str, Any]]) -> None:
        """Curve first, result last: a trial is finished when its result.json is there."""
        rows = list(curve)
        self._check()
        if rows:
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.Table.from_pylist(rows), sink)
            write_atomic(self.trial_folder(result.trial_id) / "curve.parquet", sink.getvalue().to_pybytes())
        write_result(self.path, result)
        self.results[result.trial_id] = result

    def read_curve(self, trial_id: str) -> list[dict[str, Any]]:
        file = self.trial_folder(trial_id) / "curve.parquet"
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist() if file.exists() else []
        return rows

    def trial_folder(self, trial_id: str) -> Path:
        return self.path / "trials" / trial_id

    def forget_failed(self) -> int:
        """Failed trials of an earlier run get another chance on resume; returns how many."""
        failed = [trial_id for trial_id, result in self.results.items() if result.state == "FAILED"]
        for trial_id in failed:
            shutil.rmtree(self.trial_folder(trial_id), ignore_errors=True)
            del self.results[trial_id]
        return len(failed)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        self._check()
        append_json_line(self.path / name, {**record, "owner": self.lock.token[:8] if self.lock else ""})

    def _write(self, path: Path, content: str) -> None:
        self._check()
        write_atomic(path, content)

    def _check(self) -> None:
        if self.lock is not None:
            self.lock.check()


def _complete(tree: dict[str, Any]) -> dict[str, Any]:
    """A sweep as an earlier version wrote it, with the defaults of the fields it did not know."""
    try:
        return SweepSpec.model_validate_json(json.dumps(tree)).model_dump(mode="json")
    except ValueError:
        return tree


def _resolved(spec: SweepSpec, base: Path) -> dict[str, Any]:
    return {"sweep_id": uuid.uuid4().hex[:12], "folder": str(base), "sweep": spec.model_dump(mode="json")}
