"""doctor and prebuild: is this machine ready?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from plmray.cli.options import Place, format_option, require
from plmray.storage.object_store import Location


@click.command()
@click.option("--storage-path", type=Place, default=Path("plmray_runs"), show_default=True)
@click.option("--address", help="Ray cluster to look at.")
@format_option
def doctor(storage_path: Location, address: str | None, form: str) -> None:
    """Check devices, Ray, authentication, storage, MLflow and memory, and say what to do."""
    from plmray.sweep.doctor import examine

    findings = list(examine(storage_path, address))
    if form == "json":
        click.echo(json.dumps([finding.to_dict() for finding in findings], indent=1))
    else:
        for finding in findings:
            advice = f"  → {finding.advice}" if finding.advice else ""
            click.echo(f"{finding.state:4}  {finding.what}: {finding.found}{advice}")
    sys.exit(1 if any(finding.state == "bad" for finding in findings) else 0)


@click.command()
def prebuild() -> None:
    """Compile DeepSpeed's CPU parts once, so that no trial waits for a compiler."""
    require("torch", "deepspeed")
    from plmray.train.prebuild import prebuild_deepspeed

    for line in prebuild_deepspeed():
        click.echo(line)
