"""Readers of files that people bring, as functions of bytes: each may refuse with an error of ours, nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from plmray.bundle.folder import BundleFacts
from plmray.bundle.proteins import read_stream
from plmray.config.fields.task import TaskSpec
from plmray.config.load import load_sweep
from plmray.data.datasets import load_data
from plmray.errors import PlmrayError
from plmray.report.tables.table import read_runs
from plmray.storage.atomic import read_json_lines
from plmray.sweep.folder.costs import read_costs
from plmray.sweep.folder.reader import load_resolved, read_curve, read_importance, read_results, recorded_tracking
from plmray.sweep.folder.records import read_candidates, read_decisions
from plmray.sweep.folder.writer import SweepFolder

CORPUS = Path(__file__).parent / "corpus"
Reader = Callable[[bytes, Path], object]


def sweep_yaml(content: bytes, folder: Path) -> object:
    (folder / "sweep.yaml").write_bytes(content)
    return load_sweep(folder / "sweep.yaml")


def override(content: bytes, folder: Path) -> object:
    (folder / "sweep.yaml").write_bytes((CORPUS / "yaml" / "plain.yaml").read_bytes())
    return load_sweep(folder / "sweep.yaml", [content.decode("utf-8", "surrogateescape")])


def proteins(suffix: str) -> Reader:
    def read(content: bytes, folder: Path) -> object:
        file = folder / f"proteins{suffix}"
        file.write_bytes(content)
        list(read_stream(file)) if suffix != ".parquet" else None
        return load_data(TaskSpec(files=[file.name], validation_fraction=0.2), folder)

    return read


def residue_labels(content: bytes, folder: Path) -> object:
    (folder / "p.fasta").write_text(">a SET=train\nACDE\n>b SET=train\nCDEF\n>c SET=test\nACD\n")
    (folder / "labels.fasta").write_bytes(content)
    task = TaskSpec(files=["p.fasta"], labels=["labels.fasta"], level="residue", kind="classification")
    return load_data(task, folder)


def runs(suffix: str) -> Reader:
    def read(content: bytes, folder: Path) -> object:
        (folder / f"runs{suffix}").write_bytes(content)
        table = read_runs(folder / f"runs{suffix}")
        return [table.numbers(name) for name in table.columns]

    return read


def bundle_facts(content: bytes, folder: Path) -> object:
    (folder / "bundle.json").write_bytes(content)
    return BundleFacts.read(folder)


def result_json(content: bytes, folder: Path) -> object:
    file = folder / "trials" / "c1-s0" / "result.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    found = read_results(folder)
    assert all(result.trial_id == "c1-s0" for result in found), "a result of another folder was taken"
    return found


def records(content: bytes, folder: Path) -> object:
    """Lines of a sweep folder. What is read must be what was written by lines, and nothing else."""
    for name in ("candidates.jsonl", "decisions.jsonl"):
        (folder / name).write_bytes(content)
    list(read_json_lines(folder / "candidates.jsonl"))
    for read in (read_candidates, read_decisions):
        try:
            read(folder / ("candidates.jsonl" if read is read_candidates else "decisions.jsonl"))
        except PlmrayError:
            continue
    return None


def sweep_files(content: bytes, folder: Path) -> object:
    """Every single JSON or YAML file of a sweep folder, one after the other."""
    for name, read in (
        ("resolved.yaml", load_resolved),
        ("costs.json", read_costs),
        ("importance.json", read_importance),
        ("tracking.json", recorded_tracking),
    ):
        (folder / name).write_bytes(content)
        try:
            read(folder)
        except PlmrayError:
            continue
    return None


def curve(content: bytes, folder: Path) -> object:
    (folder / "curve.parquet").write_bytes(content)
    return [(float(row["epoch"]), float(row["score"])) for row in read_curve(folder / "curve.parquet")]


def forget(content: bytes, folder: Path) -> object:
    """A resumed sweep removes what failed: that, and nothing beside it."""
    keep = folder / "beside"
    keep.mkdir(exist_ok=True)
    (keep / "file").write_text("")
    sweep = folder / "sweep"
    file = sweep / "trials" / "c1-s0" / "result.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    SweepFolder(sweep).forget_failed()
    assert (keep / "file").exists()
    assert (sweep / "trials").exists()
    return None


READERS: dict[str, dict[str, Reader]] = {
    "yaml": {"sweep": sweep_yaml, "resolved and the like": sweep_files},
    "override": {"--set": override},
    "fasta": {"task": proteins(".fasta"), "labels": residue_labels},
    "csv": {"task": proteins(".csv"), "tab-separated": proteins(".tsv"), "runs": runs(".csv")},
    "parquet": {"task": proteins(".parquet"), "runs": runs(".parquet"), "curve": curve},
    "bundle": {"bundle.json": bundle_facts},
    "result": {"result.json": result_json, "resume": forget},
    "records": {"lines": records, "files": sweep_files},
}


def reads(reader: Reader, content: bytes, folder: Path) -> bool:
    """Whether a reader takes it. Anything but an error of ours goes through."""
    try:
        reader(content, folder)
    except PlmrayError as error:
        assert str(error), "an error without a message"
        return False
    return True


def parquet_of(columns: dict[str, list[object]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


def good_result() -> dict[str, object]:
    """A result as a sweep writes it."""
    text = (CORPUS / "result" / "complete.json").read_text()
    tree: dict[str, object] = json.loads(text)
    return tree
