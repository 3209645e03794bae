"""validate and plan: what a sweep file says, before anything runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plmray.cli.options import FilePath, data_root_option, format_option, print_rows, set_option
from plmray.errors import FaultsError

if TYPE_CHECKING:
    from plmray.config.load import LoadedSweep
    from plmray.plan.plan import Plan


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FilePath)
@set_option
@data_root_option
@format_option
def validate(files: Sequence[Path], overrides: Sequence[str], data_root: Path | None, form: str) -> None:
    """Check sweep files, and their data where it is here; report every fault at once."""
    said: list[str] = []
    faults = [fault for file in files for fault in _faults_of(file, overrides, data_root, said)]
    if form == "json":
        click.echo(json.dumps([fault.to_dict() for fault in faults], indent=1))
    else:
        for line in said:
            click.echo(line)
        for fault in faults:
            click.echo(str(fault), err=True)
        if not faults:
            click.echo(f"{len(files)} file(s) without a fault")
    sys.exit(2 if faults else 0)


def _faults_of(file: Path, overrides: Sequence[str], data_root: Path | None, said: list[str]) -> Iterable[Any]:
    """Faults of a file; what its data are goes to ``said``."""
    from plmray import api

    try:
        said += [f"{file.name}: {line}" for line in api.read_sweep(file, overrides, data_root).validate()]
    except FaultsError as error:
        yield from error.faults


@click.command()
@click.argument("field", default="")
@click.option("--markdown", "form", flag_value="markdown", help="The whole reference as tables.")
@click.option("--json-schema", "form", flag_value="schema", help="A JSON schema, for editors.")
def explain(field: str, form: str | None) -> None:
    """Say what FIELD of a sweep file is: type, default, meaning, example. Without FIELD: the sections."""
    from plmray.config import reference

    if form == "schema":
        click.echo(json.dumps(reference.json_schema(), indent=1))
    elif form == "markdown":
        click.echo(reference.markdown(), nl=False)
    else:
        for own in reference.explained(field):
            click.echo("\n".join(own.lines()))


@click.command()
@click.argument("file", metavar="SWEEP", type=FilePath)
@set_option
@data_root_option
@click.option("--gpu", metavar="SIZE", help="Estimate what fits a GPU of, say, 24GB.")
@format_option
def plan(file: Path, overrides: Sequence[str], data_root: Path | None, gpu: str | None, form: str) -> None:
    """Show what a sweep would do: candidates, trials, phases, ceilings, what its seeds can resolve."""
    from plmray import api

    try:
        sweep = api.read_sweep(file, overrides, data_root)
        made = sweep.plan()
        memory = _memory(sweep.loaded, made, gpu) if gpu else []
    except FaultsError as error:
        if form == "json":
            click.echo(json.dumps([fault.to_dict() for fault in error.faults], indent=1))
            sys.exit(2)
        raise
    if form == "json":
        click.echo(json.dumps(made.to_dict() | ({"memory": memory} if gpu else {}), indent=1))
        return
    click.echo(str(made))
    if gpu:
        click.echo(f"\nestimated GPU memory, {gpu} (not measured; float32 weights, copies under autocast):")
        print_rows(memory, "table")


def _memory(sweep: LoadedSweep, made: Plan, gpu: str) -> list[dict[str, Any]]:
    from plmray.config.catalog.families import FAMILIES
    from plmray.plan.gpu import device_bytes, memory_rows
    from plmray.plan.plan import resolve_precision

    precision = resolve_precision(sweep.spec.train, "bf16" in FAMILIES[sweep.family].precisions)
    return list(memory_rows(sweep.spec, sweep.family, precision, made.data.longest, device_bytes(gpu)))
