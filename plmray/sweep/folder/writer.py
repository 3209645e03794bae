"""The sweep folder: the truth about a sweep. Everything else can be rebuilt from it."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

from plmray.config.fields.sweep import SweepSpec
from plmray.errors import FolderError
from plmray.hashing import SCHEMA_VERSION, content_hash
from plmray.storage import layout
from plmray.storage.atomic import append_json_line, patiently, write_atomic
from plmray.storage.lock import FolderLock
from plmray.storage.object_store import ObjectStore, marks_of
from plmray.sweep.folder.reader import read_curve, read_resolved, read_results, require_schema, write_result
from plmray.sweep.folder.records import read_candidates, read_decisions
from plmray.trials.result import TrialResult
from plmray.trials.trial import Candidate, Phase

_logger = logging.getLogger(__name__)

PUBLISH_S = 60.0  # how often logs and tables go to an object store while a sweep runs
_FREE_TO_CHANGE = ("resources", "tracking", "name")


class SweepFolder:
    """Writes for one driver, who holds ``lock``; reads for anybody.

    Candidates are recorded before they start and decisions before they act, so that a killed sweep
    goes on, and a finished one can be replayed. Writes wait for storage that is away (``patiently``); with an
    object store they return once the store has the file.
    """

    def __init__(
        self,
        path: Path,
        lock: FolderLock | None = None,
        store: ObjectStore | None = None,
        say: Callable[[str], None] = _logger.warning,
    ) -> None:
        self.path = path
        self.lock = lock
        self.store = store
        self.say = say
        self._published: dict[str, tuple[int, int]] = {}
        self._next_publish = time.monotonic() + PUBLISH_S
        self.results: dict[str, TrialResult] = {result.trial_id: result for result in read_results(path)}
        self.candidates = read_candidates(path / layout.CANDIDATES)
        self.decisions = read_decisions(path / layout.DECISIONS)

    @property
    def address(self) -> str:
        """Where the sweep lasts, as messages name it."""
        return self.store.url if self.store else str(self.path)

    def start(self, spec: SweepSpec, *, resume: bool, base: Path) -> None:
        """Write ``resolved.yaml``, or check that a resumed sweep is still the same one."""
        for half in (*self.path.glob(".*.tmp"), *self.path.glob("trials/*/.*.tmp")):  # of a driver that was killed
            if half.is_dir():
                shutil.rmtree(half)
            elif not half.name.startswith(".lock"):  # of another driver that tries the lock
                half.unlink(missing_ok=True)
        file = self.path / layout.RESOLVED
        if file.exists() and (self.candidates or self.results or resume):
            require_schema(self.path, self.address)
        if not file.exists() or not (self.candidates or self.results or resume):
            self.write(file.name, yaml.safe_dump(_resolved(spec, base), sort_keys=False))
            return
        if not resume:
            raise FolderError(
                f"{self.address} holds a sweep with {len(self.results)} finished trials. Add --resume to go on, or "
                "choose another name or --storage-path."
            )
        before, now = _complete(read_resolved(self.path)["sweep"]), _resolved(spec, base)["sweep"]
        changed = [k for k in now if k not in _FREE_TO_CHANGE and content_hash(before.get(k)) != content_hash(now[k])]
        if changed:
            raise FolderError(
                f"{self.address}: the sweep file changed since this sweep began ({', '.join(changed)}). "
                "Undo the change, or give the changed sweep another name."
            )

    @property
    def sweep_id(self) -> str:
        return str(read_resolved(self.path)["sweep_id"])

    def facts(self) -> dict[str, Any]:
        """What ``write_facts`` wrote; empty where nothing has been, or what is there cannot be read."""
        try:
            tree = json.loads((self.path / layout.DATA).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """``data.json``: what of the data a bundle needs, so that exporting one does not."""
        self.write(layout.DATA, json.dumps(facts, indent=1))

    def adopt_records(self, other: Path) -> None:
        """Take candidates and decisions of another sweep over, in memory: ``keep_records`` writes them."""
        self.candidates += read_candidates(other / layout.CANDIDATES)
        self.decisions += read_decisions(other / layout.DECISIONS)

    def keep_records(self) -> None:
        for name, target in ((layout.CANDIDATES, self.candidates), (layout.DECISIONS, self.decisions)):
            if target:
                self.write(name, "".join(json.dumps(line) + "\n" for line in target))

    def record_candidate(self, candidate: Candidate, phase: Phase, index: int, number: int | None = None) -> None:
        record = {
            "index": index,
            "number": number,
            "id": candidate.id,
            "phase": phase,
            "origin": candidate.origin,
            "parameters": dict(candidate.parameters),
        }
        self._append(layout.CANDIDATES, record)
        self.candidates.append(record)

    def record_decision(self, record: Mapping[str, Any]) -> None:
        self._append(layout.DECISIONS, record)
        self.decisions.append(dict(record))

    def write_trial(self, result: TrialResult, curve: Iterable[Mapping[str, Any]]) -> None:
        """Curve first, result last: a trial is finished when its result.json is there."""
        rows, place = list(curve), f"trials/{result.trial_id}"
        if rows:
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.Table.from_pylist(rows), sink)
            self.write(f"{place}/{layout.CURVE}", sink.getvalue().to_pybytes())
        self._lasting(lambda: write_result(self.path, result), f"{place}/{layout.RESULT}")
        self.results[result.trial_id] = result
        if time.monotonic() > self._next_publish:
            self.publish()

    def read_curve(self, trial_id: str) -> list[dict[str, Any]]:
        return read_curve(self.trial_folder(trial_id) / layout.CURVE)

    def trial_folder(self, trial_id: str) -> Path:
        return layout.trial_folder(self.path, trial_id)

    def forget_failed(self) -> int:
        """Failed trials of an earlier run get another chance on resume; returns how many."""
        failed = [trial_id for trial_id, result in self.results.items() if result.state == "FAILED"]
        for trial_id in failed:
            shutil.rmtree(self.trial_folder(trial_id), ignore_errors=True)
            if self.store is not None:
                self.store.delete([f"{layout.TRIALS}/{trial_id}/{layout.RESULT}"])
            del self.results[trial_id]
        return len(failed)

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file of the sweep whole."""
        self._lasting(lambda: write_atomic(self.path / name, content), name)

    def conclude(self, action: Callable[[], None]) -> None:
        """Write tables and reports; what changed is published."""
        self._lasting(action)
        self.publish()

    def publish(self) -> None:
        """Upload what changed beside the trials: tables, reports, the log."""
        self._next_publish = time.monotonic() + PUBLISH_S
        for name, mark in marks_of(self.path).items() if self.store is not None else ():
            if self._published.get(name) != mark:
                self._upload(name)
                self._published[name] = mark

    def log(self, line: str) -> None:
        """Add a line to the sweep's log, unless the storage is away: the log decides nothing."""
        with contextlib.suppress(OSError), (self.path / layout.LOG).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        line = {**record, "owner": self.lock.token[:8] if self.lock else ""}
        self._lasting(lambda: append_json_line(self.path / name, line), name)

    def _lasting(self, action: Callable[[], None], *names: str) -> None:
        """Do a write once the folder is known to be ours, and again until it lasts."""
        if self.store is None:
            patiently(self._checked(action), self.path, self.say)
            return
        patiently(action, self.path, self.say)  # a copy of our own, until it is uploaded
        for name in names:
            self._upload(name)

    def _upload(self, name: str) -> None:
        store = self.store
        if store is not None:
            patiently(self._checked(lambda: store.push(self.path, name)), store.url, self.say)

    def _checked(self, action: Callable[[], None]) -> Callable[[], None]:
        """The lock is looked at in every try: a driver that was cut off may have been replaced meanwhile."""

        def checked() -> None:
            if self.lock is not None:
                self.lock.check()
            action()

        return checked


def _complete(tree: dict[str, Any]) -> dict[str, Any]:
    """A sweep as an earlier version wrote it, with the defaults of the fields it did not know."""
    try:
        return SweepSpec.model_validate_json(json.dumps(tree)).model_dump(mode="json")
    except ValueError:
        return tree


def _resolved(spec: SweepSpec, base: Path) -> dict[str, Any]:
    where = {"schema": SCHEMA_VERSION, "sweep_id": uuid.uuid4().hex[:12], "folder": str(base)}
    return {**where, "sweep": spec.model_dump(mode="json")}
