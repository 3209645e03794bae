"""An audit of a table of runs against their training logs: which rule chose the reported scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plmray.errors import DataError
from plmray.report.tables.findings import Row
from plmray.report.tables.table import RunTable
from plmray.stats.run_audit import FINDINGS, Curve, RunAudit, audit_group, audit_run, decimals_of, swapped_with


@dataclass(frozen=True)
class CurveColumns:
    """Names of the logs' columns."""

    seed: str = "seed"
    epoch: str = "epoch"
    valid_loss: str = "valid_loss"
    test_score: str = "test_score"


@dataclass(frozen=True)
class CurveKey:
    """How a column of the table names its logs: ``column`` of the table is ``curve_column`` there, and each value of
    the table stands for one or several values of the logs."""

    column: str
    curve_column: str
    values: dict[str, tuple[str, ...]]

    @classmethod
    def parse(cls, text: str) -> CurveKey:
        names, _, mapping = text.partition(":")
        column, _, curve_column = names.partition("=")
        values = {}
        for part in filter(None, mapping.split(",")):
            own, equals, theirs = part.partition("=")
            if not equals or not own or not theirs:
                column = ""
            values[own.strip()] = tuple(name.strip() for name in theirs.split("|"))
        if not column or not curve_column:
            expected = "expected 'COLUMN=CURVE_COLUMN:VALUE=CURVE_VALUE|CURVE_VALUE,…', like 'training=mode:frozen=frozen,finetuned=full|lora'"  # noqa: E501
            raise DataError.of("--curve-key", f"'{text}' cannot be read; {expected}")
        return cls(column, curve_column, values)

    def stands_for(self, value: str) -> tuple[str, ...]:
        return self.values.get(value, (value,))


def audit_tree(
    table: RunTable, curves: RunTable, score: str, keys: Sequence[CurveKey], columns: CurveColumns
) -> dict[str, Any]:
    """``{"runs": […], "summary": {…}}``: every run's finding, and what that says of groups of runs.

    A run finds its logs by the columns that both tables have, and by ``keys``.
    """
    own_columns = set(columns.__dict__.values()) - {columns.seed} | {score}
    shared = [name for name in table.columns if name in curves.columns and name not in own_columns]
    mapped = {key.column: key for key in keys}
    names = [*(name for name in shared if name not in mapped), *mapped]
    if not names:
        raise DataError.of("--curve-key", "the tables share no column; name one", curves.source)
    logs = _logs(curves, names, mapped, columns)
    rows, audits = [], []
    labels = zip(*(table.texts(name) for name in names), strict=True)
    scores = table.numbers(score).tolist()
    decimals = max(map(decimals_of, scores))
    for values, reported in zip(labels, scores, strict=True):
        key = dict(zip(names, values, strict=True))
        audits.append(audit_run(reported, _logs_of(logs, key, mapped), decimals))
        rows.append({**key, **_as_row(audits[-1])})
    own_scores = [(_name(key), log.at_lowest_valid) for key, log in logs.items()]
    for row, audit in zip(rows, audits, strict=True):
        other = swapped_with(audit, own_scores)
        if other:
            row["note"] = f"equals the score of {other} at its lowest validation loss"
    return {"runs": rows, "summary": _summary(rows, audits, logs, names, mapped, columns)}


LogKey = tuple[tuple[str, str], ...]


def _logs(
    curves: RunTable, names: Sequence[str], mapped: dict[str, CurveKey], columns: CurveColumns
) -> dict[LogKey, Curve]:
    """Every log by its key, under the table's column names."""
    theirs = [mapped[name].curve_column if name in mapped else name for name in names]
    logs = {}
    measures = set(columns.__dict__.values())
    for values, own in curves.groups(theirs):
        key = tuple(zip(names, values, strict=True))
        mixed = [n for n in curves.columns if n not in theirs and n not in measures and _tells_apart(own.column(n))]
        if mixed:
            message = f"several logs of {_name(key)} differ in '{mixed[0]}'; name it with --curve-key"
            raise DataError.of("--curve-key", message, curves.source)
        logs[key] = Curve(_name(key), own.numbers(columns.valid_loss), own.numbers(columns.test_score))
    return logs


def _tells_apart(values: Sequence[Any]) -> bool:
    """Whether a column of labels holds more than one."""
    return len(set(values)) > 1 and all(isinstance(value, str) and not _is_number(value) for value in values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == ""
    return True


def _logs_of(logs: dict[LogKey, Curve], key: dict[str, str], mapped: dict[str, CurveKey]) -> list[Curve]:
    choices: list[LogKey] = [()]
    for name, value in key.items():
        values = mapped[name].stands_for(value) if name in mapped else (value,)
        choices = [(*choice, (name, each)) for choice in choices for each in values]
    return [logs[choice] for choice in choices if choice in logs]


def _name(key: LogKey) -> str:
    return ", ".join(f"{name} {value}" if name == "seed" else value for name, value in key)


def _as_row(audit: RunAudit) -> Row:
    return {
        "reported": audit.reported,
        "at_lowest_valid": audit.at_lowest_valid,
        "best_test": audit.best_test,
        "finding": audit.finding,
        "both": audit.both,
        "curve": audit.curve,
        "note": audit.note,
    }


def _summary(
    rows: Sequence[Row],
    audits: Sequence[RunAudit],
    logs: dict[LogKey, Curve],
    names: Sequence[str],
    mapped: dict[str, CurveKey],
    columns: CurveColumns,
) -> dict[str, Any]:
    counts = Counter(audit.finding for audit in audits)
    grouping = [name for name in names if name != columns.seed]
    members: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(tuple(row[name] for name in grouping), []).append(number)
    groups = []
    for values, numbers in members.items():
        key = dict(zip(grouping, values, strict=True))
        kinds, seeds = _kinds_and_seeds(logs, key, mapped, columns)
        found = audit_group([(rows[n].get(columns.seed, n), audits[n]) for n in numbers], seeds, kinds)
        groups.append(
            {**key, "n_runs": found.runs, "verdict": found.verdict, "findings": dict(found.findings)}
            | {"unreported_seeds": list(found.unreported_seeds)}
        )
    return {
        "n_runs": len(rows),
        "findings": {name: counts.get(name, 0) for name in FINDINGS},
        "both": sum(audit.both for audit in audits),
        "groups": groups,
    }


def _kinds_and_seeds(
    logs: dict[LogKey, Curve], key: dict[str, str], mapped: dict[str, CurveKey], columns: CurveColumns
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Of the logs of one group: their kinds by name (what the mapped columns say), and the seeds of every kind."""
    kinds: dict[str, str] = {}
    seeds: dict[str, list[str]] = {}
    for log_key, log in logs.items():
        own = dict(log_key)
        fits = all(own[n] in (mapped[n].stands_for(v) if n in mapped else (v,)) for n, v in key.items())
        if fits:
            kind = " ".join(own[name] for name in mapped) or "all"
            kinds[log.name] = kind
            seeds.setdefault(kind, []).append(own.get(columns.seed, ""))
    return kinds, seeds
