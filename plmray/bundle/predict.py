"""Predictions of a file of proteins as CSV: streamed, in its order, and resumable after a stop."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plmray.bundle.ensemble import Ensemble, Predicted
from plmray.bundle.folder import BundleFacts
from plmray.bundle.proteins import Limits, checked, column_notes, header_of, read_stream
from plmray.data.files.formats import Row
from plmray.errors import FolderError
from plmray.hashing import file_hash
from plmray.storage.atomic import read_json, write_atomic

CHUNK = 512  # proteins between two lines of progress; a stop loses one chunk


def predict_file(
    bundle: Path,
    proteins: Path,
    out: Path,
    *,
    echo: Callable[[str], None],
    named: Mapping[str, str] | None = None,
) -> int:
    """Write predictions of all proteins to ``out``; returns how many. A call after a stop goes on where it was.

    ``named``: columns ``sequence`` and ``id`` of a table; else those that the sweep's own table had, where they are
    there, else by their names.

    Raises DataError with every fault of the file before anything is predicted, FolderError where the file of a stopped
    call belongs to other proteins or another bundle.
    """
    facts = BundleFacts.read(bundle)
    columns_named = named or trained_columns(facts, proteins)
    for note in column_notes(proteins, columns_named):
        echo(note)
    count, content = checked(proteins, Limits.of(facts), columns_named)
    work = _Unfinished(out, {"bundle": file_hash(bundle / "bundle.json"), "proteins": content})
    done = work.begin(columns(facts))
    if not 0 <= done <= count:
        raise FolderError(f"{work.note} speaks of {done} of {count} proteins; remove it, or give another name")
    if done:
        echo(f"{done} of {count} proteins were predicted before")
    if done < count:
        ensemble = Ensemble(bundle)
        rows = itertools.islice(read_stream(proteins, columns_named), done, None)
        while chunk := list(itertools.islice(rows, CHUNK)):
            predicted = ensemble.predict([row.sequence for row in chunk])
            done += len(chunk)
            work.append(
                [
                    [_text(cell) if isinstance(cell, float) else str(cell) for cell in line]
                    for row, own in zip(chunk, predicted, strict=True)
                    for line in lines(facts, row, own)
                ],
                done,
            )
            echo(f"{done} of {count} proteins")
    work.finish()
    return count


def trained_columns(facts: BundleFacts, proteins: Path) -> dict[str, str]:
    """Columns of the sweep's own table that this file has, too."""
    header = header_of(proteins)
    return {field: name for field, name in facts.columns.items() if name in header}


def columns(facts: BundleFacts) -> list[str]:
    """The header: id (and position, residue), then a value, or a label and the probability of every class."""
    place = ["id", "position", "residue"] if facts.level == "residue" else ["id"]
    if facts.kind == "regression":
        return [*place, "prediction", "seed_sd"]
    return [*place, "label", *(f"probability.{name}" for name in facts.classes), "seed_sd"]


def lines(facts: BundleFacts, row: Row, predicted: Predicted) -> Iterator[list[str | int | float]]:
    """Rows of one protein, as ``columns`` names their cells; numbers of the model are floats.

    ``seed_sd``: of the value, or of the probability that decided (of labels: the largest). Positions are those of the
    protein as given, 1-based.
    """
    first = facts.window[0]
    for number, (values, spread) in enumerate(zip(predicted.values, predicted.spread, strict=True)):
        position = first + number
        residue = facts.level == "residue"
        place: list[str | int | float] = [row.id, position + 1, row.sequence[position]] if residue else [row.id]
        if facts.kind == "regression":
            yield [*place, float(values[0]), float(spread[0])]
        else:
            label, chances, own = _labelled(facts, values, spread)
            yield [*place, label, *map(float, chances), own]


def _labelled(facts: BundleFacts, values: Any, spread: Any) -> tuple[str, Sequence[float], float]:
    """The label, the probability of every class, and the SD over seeds of the one that decided."""
    if facts.kind == "binary":
        likely = float(values[0])
        return facts.classes[int(likely > 0.5)], [1 - likely, likely], float(spread[0])
    if facts.kind == "classification":
        best = int(np.argmax(values))
        return facts.classes[best], list(values), float(spread[best])
    named = [name for name, likely in zip(facts.classes, values, strict=True) if likely > 0.5]
    return ";".join(named) or "-", list(values), float(np.max(spread))


def _text(value: float) -> str:
    return "" if value != value else f"{value:.6g}"


class _Unfinished:
    """``out`` under another name until it is complete, with a note of whose it is and how far it goes."""

    def __init__(self, out: Path, owner: dict[str, str]) -> None:
        self.out, self.owner = out, owner
        self.file = out.with_name(f".{out.name}.unfinished")
        self.note = out.with_name(f".{out.name}.unfinished.json")

    def begin(self, header: list[str]) -> int:
        """How many proteins are in it already."""
        if self.out.exists():
            raise FolderError(f"{self.out} is there already; give another name, or remove it")
        if self.note.is_file() and self.file.is_file():
            advice = f"remove it and {self.file.name}, or give another name"
            known = read_json(self.note, advice)
            if known.get("owner") != self.owner:
                raise FolderError(
                    f"{self.file} is of other proteins or another bundle; remove it, or give another name"
                )
            size, done = known.get("bytes"), known.get("done")
            if type(size) is not int or type(done) is not int or not 0 <= size <= self.file.stat().st_size:
                raise FolderError(f"{self.note} does not fit its file; {advice}")
            with self.file.open("rb+") as stream:
                stream.truncate(size)  # what a stop cut short
            return done
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("", encoding="utf-8")
        self.append([header], 0)
        return 0

    def append(self, rows: list[list[str]], done: int) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        with self.file.open("ab") as stream:
            stream.write(text.getvalue().encode())
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        write_atomic(self.note, json.dumps({"owner": self.owner, "done": done, "bytes": size}))

    def finish(self) -> None:
        self.file.replace(self.out)
        self.note.unlink(missing_ok=True)
