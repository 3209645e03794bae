"""init: a first sweep file for one's own proteins."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from plmray.cli.options import FilePath


@click.command()
@click.argument("data", metavar="DATA", type=FilePath)
@click.option("-o", "--out", type=FilePath, help="Sweep file to write (default: beside DATA); never overwritten.")
@click.option("--gpu", metavar="SIZE", help="The card it is for, such as 24GB: chooses the encoder. Default: a CPU.")
@click.option("--labels", type=FilePath, help="Residue labels beside a FASTA file: a FASTA, text, or CheZOD's folder.")
@click.option("--target", metavar="COLUMN", help="What is predicted, where the file does not tell.")
@click.option("--sequence", metavar="COLUMN", help="Residues, where the file does not tell.")
@click.option("--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Fresh seeds of the verdict.")
def init(
    data: Path,
    out: Path | None,
    gpu: str | None,
    labels: Path | None,
    target: str | None,
    sequence: str | None,
    seeds: int,
) -> None:
    """Look at DATA (CSV, Excel, Parquet, FASTA) and write a commented sweep file that runs as it is."""
    from plmray.config.fields.task import ColumnsSpec
    from plmray.config.load import load_sweep
    from plmray.errors import DataError, SpecError
    from plmray.plan.first_sweep import choose, sweep_text
    from plmray.plan.gpu import device_bytes
    from plmray.plan.look import look_at
    from plmray.plan.prepare import plan_of
    from plmray.storage.atomic import write_atomic

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", data.name.partition(".")[0]).strip("-.")[:60] or "sweep"
    file = out or data.with_name(f"{name}.yaml")
    if file.exists():
        raise SpecError.of("--out", f"{file} is there already; give another name with -o")
    named = {key: value for key, value in (("target", target), ("sequence", sequence)) if value is not None}
    look = look_at(data, labels, ColumnsSpec(**named))
    choice = choose(look, device_bytes(gpu) if gpu is not None else None)
    paths = [os.path.relpath(path.resolve(), file.resolve().parent) for path in (data, labels) if path is not None]
    text = sweep_text(look, choice, paths[0], name, paths[1] if labels is not None else None, seeds)
    write_atomic(file, text)
    for reason in (*look.reasons, *choice.reasons, *(f"note: {note}" for note in look.notes)):
        click.echo(reason)
    try:
        found, _ = plan_of(load_sweep(file), None)
    except DataError as error:
        file.unlink()  # what does not run is not left behind
        if any(fault.key.startswith("task.columns") for fault in error.faults):
            click.echo(f"plmray data clean {data} -o FILE mends many such rows", err=True)
        raise error
    trials = sum(phase.trials for phase in found.phases)
    click.echo(f"written: {file}, {trials} trials. Then: plmray plan {file}; plmray run {file}")
