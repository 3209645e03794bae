"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from plmray.storage.home import local_copy
from plmray.storage.object_store import Location, is_store

FilePath = click.Path(path_type=Path)


Command = Callable[..., None]


class LocationType(click.ParamType[Location]):
    """A folder, or the address of one in an object store."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:  # noqa: ARG002
        return value if is_store(value) else Path(value).expanduser()


Place = LocationType()
format_option = click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
table_option = click.option("-f", "--format", "form", type=click.Choice(["table", "json", "csv"]), default="table")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field.")
data_root_option = click.option("--data-root", type=FilePath, help="Folder of known data sets (or PLMRAY_DATA).")


def _sweep_folder(command: Command, weights: bool) -> Command:
    @click.argument("folder", metavar="DIR", type=Place)
    @wraps(command)
    def with_copy(*arguments: Any, folder: Location, **options: Any) -> None:
        with local_copy(folder, weights=weights) as copy:
            command(*arguments, folder=copy, **options)

    return with_copy


def sweep_folder(command: Command) -> Command:
    """The argument DIR: a sweep folder, or its address in an object store, of which the command gets a copy."""
    return _sweep_folder(command, weights=False)


def sweep_folder_with_weights(command: Command) -> Command:
    """The same; the copy has the weights of the trials too."""
    return _sweep_folder(command, weights=True)


def given_folder() -> Location:
    """DIR as it was given to the running command."""
    place: Location = click.get_current_context().params["folder"]
    return place


def require(*modules: str) -> None:
    """Raise SetupError naming what to install, before a command fails half-way."""
    from importlib.util import find_spec

    from plmray.errors import SetupError

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SetupError(f"{', '.join(missing)} is not installed; run, in the checkout: pip install '.[all]'")


def print_rows(rows: Sequence[dict[str, Any]], form: str) -> None:
    """Rows as a table, JSON or CSV; columns are the union of their keys, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if form == "json":
        print_tree(list(rows))
    elif form == "csv":
        import csv

        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(rows)
    else:
        from plmray.text import table

        shown = [[_cell(row.get(column)) for column in columns] for row in rows]
        click.echo("\n".join(table(columns, shown)) if rows else "nothing yet")


def print_tree(tree: Any) -> None:
    """As JSON; what is no number is null."""
    from plmray.report.text import without_nan

    click.echo(json.dumps(without_nan(tree), indent=1))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
