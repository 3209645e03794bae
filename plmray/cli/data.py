"""data: known data sets, and checks of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plmray.cli.options import FilePath, data_root_option, print_rows, set_option

if TYPE_CHECKING:
    from plmray.data.clean import Cleaned
    from plmray.data.proteins import ProteinData


@click.group()
def data() -> None:
    """Known data sets, and checks of your own."""


@data.command("list")
@data_root_option
def data_list(data_root: Path | None) -> None:
    """Known data sets and where they lie."""
    from plmray.config.catalog.tasks import KNOWN_TASKS
    from plmray.data.datasets import data_roots
    from plmray.data.fetch import located
    from plmray.data.known import SOURCES

    rows = []
    for name, source in SOURCES.items():
        task, found = KNOWN_TASKS[name], located(name, data_roots(data_root))
        sizes = " / ".join(f"{count:,}" for count in task.proteins)
        what = {"name": name, "level": task.level, "kind": task.kind, "metric": task.metric}
        where = {"licence": source.licence, "under": str(found or "not here")}
        rows.append({**what, "train / validation / test": sizes, **where})
    print_rows(rows, "table")


@data.command("fetch")
@click.argument("name")
@data_root_option
def data_fetch(name: str, data_root: Path | None) -> None:
    """Download a known data set and check its content."""
    from plmray.data import fetch
    from plmray.data.known import SOURCES
    from plmray.errors import DataError, nearest_name

    if name not in SOURCES:
        raise DataError.of("", f"unknown data set '{name}'; {nearest_name(name, SOURCES)}")
    click.echo(f"{name}: under {fetch.fetch(name, data_root or fetch.cache_folder())}")


@data.command("check")
@click.argument("file", metavar="SWEEP", type=FilePath)
@click.option("--identity", type=click.FloatRange(0.1, 1), help="Also count kin across splits, from this identity on.")
@set_option
@data_root_option
def data_check(file: Path, identity: float | None, overrides: Sequence[str], data_root: Path | None) -> None:
    """Check the data of a sweep, row by row, and say what they are; with --identity, what leaks between splits."""
    from plmray.data.profile import leakage_lines, profile_lines

    loaded = _loaded_data(file, overrides, data_root)
    click.echo(f"{loaded.name}: {loaded.counts()}, content {loaded.hash[:16]}")
    for line in (*profile_lines(loaded), *(f"note: {note}" for note in loaded.notes)):
        click.echo(line)
    for line in leakage_lines(loaded, identity) if identity is not None else ():
        click.echo(line)


@data.command("clean")
@click.argument("file", metavar="IN", type=FilePath)
@click.option("-o", "--out", type=FilePath, required=True, help="CSV or FASTA to write; OUT.aside.csv has the rest.")
@click.option("--sequence", metavar="COLUMN", help="Residues, where the file does not tell.")
@click.option("--target", metavar="COLUMN", help="What is predicted, where the file does not tell.")
@click.option(
    "--duplicates",
    type=click.Choice(["mean", "first", "drop", "keep"]),
    default="mean",
    show_default=True,
    help="Of a sequence with different targets.",
)
def data_clean(file: Path, out: Path, sequence: str | None, target: str | None, duplicates: Any) -> None:
    """Mend proteins by rule: upper case, stops, gaps, spaces, rows without a sequence or target, repeats."""
    from plmray.config.fields.task import ColumnsSpec
    from plmray.data.clean import clean
    from plmray.data.files.formats import FASTA_SUFFIXES
    from plmray.errors import DataError
    from plmray.storage.atomic import write_atomic

    if out.exists():
        raise DataError.of("--out", f"{out} is there already; give another name")
    named = {key: value for key, value in (("target", target), ("sequence", sequence)) if value is not None}
    notes: list[str] = []
    found = clean(file, ColumnsSpec(**named), duplicates, notes)
    as_fasta = out.suffix.lower() in FASTA_SUFFIXES
    write_atomic(out, _fasta(found) if as_fasta else _csv(found.header, found.rows))
    if found.aside:
        write_atomic(out.with_name(f"{out.name}.aside.csv"), _csv(["reason", *found.header], found.aside))
    for line in (*(f"note: {note}" for note in notes), *found.report(), f"written: {out}"):
        click.echo(line)


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _fasta(found: Cleaned) -> str:
    """Of a FASTA file's own columns: id, sequence, description."""
    if found.header != ["id", "sequence", "description"]:
        raise click.UsageError("a table is written as a table: give --out the ending .csv")
    return "".join(f">{name} {rest}".rstrip() + f"\n{sequence}\n" for name, sequence, rest in found.rows)


@data.command("split")
@click.argument("file", metavar="SWEEP", type=FilePath)
@click.option("--out", type=FilePath, required=True, help="CSV to write: id, sequence, target (mask), set, validation.")
@set_option
@data_root_option
def data_split(file: Path, out: Path, overrides: Sequence[str], data_root: Path | None) -> None:
    """Write the split a sweep would use as a FLIP-style CSV."""
    import csv
    import io

    from plmray.data.targets import as_text
    from plmray.storage.atomic import write_atomic

    loaded = _loaded_data(file, overrides, data_root)
    text = io.StringIO()
    writer = csv.writer(text)
    masked = ["mask"] if loaded.level == "residue" else []
    writer.writerow(["id", "sequence", "target", *masked, "set", "validation"])
    for name, part in loaded.splits.items():
        marks = ("test", "False") if name == "test" else ("train", str(name == "validation"))
        for identity, sequence, (target, mask) in zip(part.ids, part.sequences, as_text(loaded, part), strict=True):
            writer.writerow([identity, sequence, target, *([mask] if masked else []), *marks])
    write_atomic(out, text.getvalue())
    click.echo(f"{out}: {loaded.counts()}")


def _loaded_data(file: Path, overrides: Sequence[str], data_root: Path | None) -> ProteinData:
    from plmray.config.load import load_sweep
    from plmray.data.datasets import load_data

    sweep = load_sweep(file, overrides)
    return load_data(sweep.spec.task, sweep.folder, data_root)
