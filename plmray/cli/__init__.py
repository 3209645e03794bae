"""The command line. Commands import what they need when they are called, so that --help is quick."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from plmray import __version__
from plmray.cli import checking, data, looking, machine, running, starting, stats, using
from plmray.errors import FaultsError, PlmrayError


class _Group(click.Group):
    """Turns our own errors into a message and exit code 2; everything else stays a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except PlmrayError as error:
            click.echo(str(error) if isinstance(error, FaultsError) else f"plmray: {error}", err=True)
            context.exit(2)

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)  # in the order of a sweep's life, not of the alphabet


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="plmray")
def cli() -> None:
    """Hyperparameter and seed sweeps for fine-tuning protein language models."""


for command in (
    starting.init,
    checking.validate,
    checking.plan,
    checking.explain,
    running.run,
    running.trial,
    looking.trials,
    looking.best,
    looking.report,
    stats.stats,
    using.export,
    using.predict,
    using.embed,
    looking.sync,
    data.data,
    machine.doctor,
    machine.prebuild,
    looking.ui,
):
    cli.add_command(command)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another encoding shows "?" for a ±, and no traceback
            stream.reconfigure(errors="replace")
    cli()
