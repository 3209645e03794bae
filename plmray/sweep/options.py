"""Before a sweep runs: what the user asked for, what of it cannot be, and the folder it begins or goes on in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plmray.config.load import LoadedSweep
from plmray.data.proteins import ProteinData
from plmray.errors import FolderError, SetupError
from plmray.redact import redacted
from plmray.storage import layout
from plmray.storage.home import local_copy
from plmray.storage.object_store import Location, is_store
from plmray.sweep.folder.reader import require_schema
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.on_ray.job_environment import inside_ray_job, require_lasting, require_lasting_store
from plmray.trials.trial import Identifier


@dataclass(frozen=True)
class RunOptions:
    storage_path: Location = Path("plmray_runs")
    data_root: Path | None = None
    address: str | None = None
    local: bool = False
    resume: bool = False
    replay: bool = False
    replay_from: Location | None = None
    max_concurrent: int | None = None
    wait_for_gpus: int = 0


def open_folder(folder: SweepFolder, sweep: LoadedSweep, data: ProteinData, options: RunOptions) -> None:
    """Begin a sweep in its folder, go on with it, or take another one's records over.

    Nothing of an existing sweep is written here: whether it may go on is known only once its candidates are
    (``require_same``).
    """
    before = folder.facts().get("hash")
    if options.resume and before is not None and before != data.hash:
        raise FolderError(
            f"{folder.address}: the proteins, targets or splits of this sweep are not those it began with. Restore "
            "them, or give the changed sweep another name."
        )
    copy_records(folder, options.replay_from)
    if options.replay and not folder.candidates:
        raise FolderError(
            f"{folder.address} has no {layout.CANDIDATES} to replay; run it without --replay, or --replay-from DIR"
        )
    folder.start(sweep.spec, resume=options.resume or options.replay, base=sweep.folder)


def require_same(folder: SweepFolder, identifier: Identifier) -> None:
    """Raise FolderError where recorded candidates would get other ids now. Call before anything is written."""
    for record in folder.candidates:
        now = identifier.candidate_id(record["parameters"])
        if now != record["id"]:
            raise FolderError(
                f"{folder.address}: candidate {record['id']} of this sweep is {now} now; its data, backbone weights, "
                "vocabulary or precision changed since the sweep began. Restore them, or use another name."
            )


def logged(echo: Callable[[str], None], folder: SweepFolder) -> Callable[[str], None]:
    """Also write every line, with its time, to the sweep's log."""

    def both(text: str) -> None:
        text = redacted(text)
        echo(text)
        folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}")

    return both


def check_paths(sweep: LoadedSweep, options: RunOptions) -> None:
    """Refuse what a Ray job would lose."""
    require_lasting("--storage-path", options.storage_path, "Give an absolute path on storage that every node shares.")
    if options.local and (options.address or options.max_concurrent or options.wait_for_gpus):
        raise SetupError(
            "--local is one process without Ray: drop --address, --max-concurrent and --wait-for-gpus, or --local"
        )
    if options.data_root is not None:
        require_lasting("--data-root", options.data_root, "Give an absolute path.")
    uri = sweep.spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None and inside_ray_job() and is_store(options.storage_path):
        raise SetupError(
            "the MLflow store of a Ray job lies beside its results, and no database lies in an object store: name "
            "a server with MLFLOW_TRACKING_URI (--runtime-env-json '{\"env_vars\": …}') or tracking.uri"
        )
    require_lasting_store(uri)


def copy_records(folder: SweepFolder, source: Location | None) -> None:
    """Take candidates and decisions of another sweep folder over, for an exact replay elsewhere."""
    if source is None:
        return
    if folder.candidates:
        raise FolderError(f"{folder.address} has candidates of its own; replay into a new --storage-path")
    with local_copy(source) as copy:
        if not (copy / layout.CANDIDATES).exists():
            raise FolderError(f"{source} holds no {layout.CANDIDATES} to replay; expected a sweep folder")
        if (copy / layout.RESOLVED).exists():
            require_schema(copy, str(source))
        folder.adopt_records(copy)
