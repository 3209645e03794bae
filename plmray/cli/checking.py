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
    from plmray.config.load import load_sweep
    from plmray.data.profile import profile_lines, undefined_notes
    from plmray.plan.prepare import load_checked

    try:
        sweep = load_sweep(file, overrides)
        if not data_is_elsewhere(sweep, data_root):
            data = load_checked(sweep, data_root, may_fetch=False)
            notes = (*data.notes, *undefined_notes(data, sweep.spec.objective.metric))
            said += [f"{file.name}: {line}" for line in (*profile_lines(data), *(f"note: {note}" for note in notes))]
    except FaultsError as error:
        yield from error.faults


def data_is_elsewhere(sweep: LoadedSweep, data_root: Path | None) -> bool:
    from plmray.data.datasets import data_roots
    from plmray.data.fetch import located
    from plmray.data.known import SOURCES

    name = sweep.spec.task.dataset
    return name in SOURCES and located(name, data_roots(data_root)) is None


@click.command()
@click.argument("file", metavar="SWEEP", type=FilePath)
@set_option
@data_root_option
@click.option("--gpu", metavar="SIZE", help="Estimate what fits a GPU of, say, 24GB.")
@format_option
def plan(file: Path, overrides: Sequence[str], data_root: Path | None, gpu: str | None, form: str) -> None:
    """Show what a sweep would do: candidates, trials, phases, ceilings, what its seeds can resolve."""
    from plmray.config.load import load_sweep

    try:
        sweep = load_sweep(file, overrides)
        made = make_plan(sweep, data_root)
        memory = _memory(sweep, made, gpu) if gpu else []
    except FaultsError as error:
        if form == "json":
            click.echo(json.dumps([fault.to_dict() for fault in error.faults], indent=1))
            sys.exit(2)
        raise
    if form == "json":
        click.echo(json.dumps(made.to_dict() | ({"memory": memory} if gpu else {}), indent=1))
        return
    click.echo("\n".join(plan_lines(made)))
    if gpu:
        click.echo(f"\nestimated GPU memory, {gpu} (not measured; float32 weights, copies under autocast):")
        print_rows(memory, "table")


def _memory(sweep: LoadedSweep, made: Plan, gpu: str) -> list[dict[str, Any]]:
    from plmray.config.catalog.families import FAMILIES
    from plmray.plan.gpu import device_bytes, memory_rows
    from plmray.plan.plan import resolve_precision

    precision = resolve_precision(sweep.spec.train, "bf16" in FAMILIES[sweep.family].precisions)
    return list(memory_rows(sweep.spec, sweep.family, precision, made.data.longest, device_bytes(gpu)))


def make_plan(sweep: LoadedSweep, data_root: Path | None) -> Plan:
    from plmray.data.datasets import load_data
    from plmray.errors import DataError
    from plmray.plan.prepare import plan_without_data, prepare

    if data_is_elsewhere(sweep, data_root):
        try:
            load_data(sweep.spec.task, sweep.folder, data_root, may_fetch=False)
        except DataError as error:
            return plan_without_data(sweep, error)
    return prepare(sweep, data_root).plan


def plan_lines(plan: Plan) -> Iterable[str]:
    from plmray.report.text import table

    counts = ", ".join(f"{count:,} {name}" for name, count in plan.data.counts.items())
    yield f"{plan.name}: {counts} proteins; {plan.precision}; engine {plan.engine} ({plan.engine_reason})"
    rows = [
        (
            p.name,
            str(p.candidates),
            str(p.seeds or "-"),
            str(p.trials),
            f"{p.epochs_ceiling:,}",
            f"{p.train_tokens_ceiling:,}",
        )
        for p in plan.phases
    ]
    yield from table(("phase", "candidates", "seeds", "trials", "epochs at most", "train tokens at most"), rows)
    if plan.seed_resolution is not None:
        found = plan.seed_resolution
        yield (
            f"seed spread: {found.degrees} degrees of freedom; a seed SD of 1 would be known to "
            f"[{found.low:.2f}, {found.high:.2f}] (95 %)"
        )
    if plan.kept_bytes_ceiling:
        yield f"kept adapters and heads: at most {plan.kept_bytes_ceiling / 1e6:.1f} MB"
    for pack in plan.packs:
        cached = f"; {pack.prefix_bytes / 2**30:.2f} GiB of cached states" if pack.prefix_bytes else ""
        yield f"pack: {pack.pack} ({100 * pack.share:.0f} % of blind draws){cached}"
    for anchor in plan.anchors:
        settings = ", ".join(f"{key}={_short(value)}" for key, value in anchor.parameters.items())
        yield f"anchor {anchor.id}: {settings}"
    yield from plan.data.profile
    for note in (*plan.data.notes, *plan.notes):
        yield f"note: {note}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
