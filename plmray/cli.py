"""The command line. Every command imports what it needs when it is called, so that --help is quick."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plmray import __version__
from plmray.errors import FaultsError, PlmrayError

if TYPE_CHECKING:
    from plmray.data.datasets import ProteinData
    from plmray.plan import Plan
    from plmray.results import TrialResult
    from plmray.spec.load import LoadedSweep

FilePath = click.Path(path_type=Path)
format_option = click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
table_option = click.option("-f", "--format", "form", type=click.Choice(["table", "json", "csv"]), default="table")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field of the file.")
data_root_option = click.option("--data-root", type=FilePath, help="Folder of known data sets (or PLMRAY_DATA).")
sweep_folder = click.argument("folder", metavar="DIR", type=FilePath)


class _Group(click.Group):
    """Turns our own errors into a message and exit code 2; everything else stays a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except PlmrayError as error:
            click.echo(f"plmray: {error}" if not isinstance(error, FaultsError) else str(error), err=True)
            context.exit(2)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # in the order of a sweep's life, not of the alphabet


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="plmray")
def cli() -> None:
    """Hyperparameter and seed sweeps for fine-tuning protein language models."""


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FilePath)
@set_option
@data_root_option
@format_option
def validate(files: Sequence[Path], overrides: Sequence[str], data_root: Path | None, form: str) -> None:
    """Check sweep files, and their data where it is here; report every fault at once."""
    faults = [fault for file in files for fault in _faults_of(file, overrides, data_root)]
    if form == "json":
        click.echo(json.dumps([fault.to_dict() for fault in faults], indent=1))
    else:
        for fault in faults:
            click.echo(str(fault), err=True)
        if not faults:
            click.echo(f"{len(files)} file(s) without a fault")
    sys.exit(2 if faults else 0)


def _faults_of(file: Path, overrides: Sequence[str], data_root: Path | None) -> Iterable[Any]:
    from plmray.data.datasets import load_data
    from plmray.spec.load import load_sweep

    try:
        sweep = load_sweep(file, overrides)
        if not _data_is_elsewhere(sweep, data_root):
            load_data(sweep.spec.task, sweep.folder, data_root, may_fetch=False)
    except FaultsError as error:
        yield from error.faults


def _data_is_elsewhere(sweep: LoadedSweep, data_root: Path | None) -> bool:
    from plmray.data.datasets import data_roots
    from plmray.data.fetch import SOURCES

    name = sweep.spec.task.dataset
    return name in SOURCES and not any((root / SOURCES[name].path).is_file() for root in data_roots(data_root))


@cli.command()
@click.argument("file", metavar="SWEEP", type=FilePath)
@set_option
@data_root_option
@format_option
def plan(file: Path, overrides: Sequence[str], data_root: Path | None, form: str) -> None:
    """Show what a sweep would do: candidates, trials, phases, ceilings, what its seeds can resolve."""
    from plmray.spec.load import load_sweep

    try:
        made = _plan(load_sweep(file, overrides), data_root)
    except FaultsError as error:
        if form == "json":
            click.echo(json.dumps([fault.to_dict() for fault in error.faults], indent=1))
            sys.exit(2)
        raise
    click.echo(json.dumps(made.to_dict(), indent=1) if form == "json" else "\n".join(_plan_lines(made)))


def _plan(sweep: LoadedSweep, data_root: Path | None) -> Plan:
    from plmray.data.datasets import load_data
    from plmray.errors import DataError
    from plmray.orchestrate.prepare import plan_without_data, prepare

    if _data_is_elsewhere(sweep, data_root):
        try:
            load_data(sweep.spec.task, sweep.folder, data_root, may_fetch=False)
        except DataError as error:
            return plan_without_data(sweep, error)
    return prepare(sweep, data_root).plan


def _plan_lines(plan: Plan) -> Iterable[str]:
    from plmray.report.write import table

    counts = ", ".join(f"{count:,} {name}" for name, count in plan.data.counts.items())
    yield f"{plan.name}: {counts} proteins; {plan.precision}; engine {plan.engine} ({plan.engine_reason})"
    rows = [
        (p.name, str(p.candidates), str(p.seeds), str(p.trials), f"{p.epochs_ceiling:,}", f"{p.train_tokens_ceiling:,}")
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
    for anchor in plan.anchors:
        settings = ", ".join(f"{key}={_short(value)}" for key, value in anchor.parameters.items())
        yield f"anchor {anchor.id}: {settings}"
    for note in (*plan.data.notes, *plan.notes):
        yield f"note: {note}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@cli.command()
@click.argument("file", metavar="SWEEP", type=FilePath)
@click.option("--address", help="Ray cluster to join (default: RAY_ADDRESS, else a private local one).")
@click.option("--storage-path", type=FilePath, default=Path("plmray_runs"), show_default=True)
@click.option("--resume", is_flag=True, help="Go on with a sweep that was stopped; nothing finished runs again.")
@click.option("--replay", is_flag=True, help="Follow the folder's recorded candidates and decisions exactly.")
@click.option("--replay-from", type=FilePath, help="Follow the records of another sweep folder, in a new one.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Jobs at a time (default: what fits).")
@click.option("--local", is_flag=True, help="In this process, without Ray, one trial after the other.")
@click.option("--smoke-test", is_flag=True, help="Two candidates, one epoch: does everything work?")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before starting.")
@set_option
@data_root_option
def run(
    file: Path,
    overrides: Sequence[str],
    data_root: Path | None,
    smoke_test: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Run a sweep: search, then replicate the best and the anchors, then report."""
    from plmray.spec.load import load_sweep

    sweep = load_sweep(file, overrides)
    if smoke_test:
        sweep = load_sweep(file, [*overrides, *_smoke_overrides(sweep)])
    _require("ray", "torch")
    from plmray.orchestrate.driver import RunOptions, check_paths, run_sweep

    choices = RunOptions(data_root=data_root, **options)
    check_paths(sweep, choices)
    if not _is_resumed(choices):
        click.echo("\n".join(_plan_lines(_plan(sweep, data_root))))
    if not yes and sys.stdin.isatty():
        click.confirm("Start?", default=True, abort=True)
    outcome = run_sweep(sweep, choices, click.echo)
    for line in _outcome_lines(outcome):
        click.echo(line)
    sys.exit(outcome.exit_code)


def _is_resumed(options: Any) -> bool:
    return bool(options.resume or options.replay)


def _smoke_overrides(sweep: LoadedSweep) -> list[str]:
    spec = sweep.spec
    changes = [f"name={spec.name}-smoke", "train.epochs=1", f"search.seeds=[{spec.search.seeds[0]}]"]
    if spec.search.sampler == "grid":
        changes.append("search.sampler=random")
    changes += ["search.candidates=2", "search.scheduler=none", "search.min_epochs=null", "search.given=[]"]
    if spec.replicate is not None:
        seeds = ", ".join(str(seed) for seed in spec.replicate.seeds[:2])
        changes += ["replicate.top=1", f"replicate.random={min(1, spec.replicate.random)}", f"replicate.seeds=[{seeds}]"]
    return changes


def _outcome_lines(outcome: Any) -> Iterable[str]:
    costs = outcome.costs
    yield ""
    yield outcome.headline
    yield (
        f"overhead: driver {costs['driver_s_per_trial']:.3f} s per trial; {costs['worker_starts']:.0f} worker starts of "
        f"{costs['worker_start_s_mean']:.1f} s; {100 * costs['training_share_of_wall']:.0f} % of the wall time "
        f"({costs['wall_s']:.0f} s) spent training"
    )
    if outcome.interrupted:
        yield f"interrupted; finished trials are safe in {outcome.folder}. Go on with --resume"
    elif outcome.num_failed:
        yield f"{outcome.num_failed} trial(s) failed; the report says why, --resume tries them again"
    yield f"report: {outcome.folder / 'report.md'}"
    yield f"tracking: mlflow ui --backend-store-uri {outcome.tracking_uri}"


def _require(*modules: str) -> None:
    from importlib.util import find_spec

    from plmray.errors import SetupError

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SetupError(f"{', '.join(missing)} is not installed; run: pip install 'plmray[all]'")


@cli.command()
@click.argument("file", metavar="SWEEP", type=FilePath)
@click.option("--params", default="{}", help='Parameters as JSON, such as \'{"optimizer.lr": 0.001}\'.')
@click.option("--seed", type=click.IntRange(min=0), required=True)
@click.option("--test", "take_test", is_flag=True, help="Also take the test score at the selected checkpoint.")
@set_option
@data_root_option
def trial(
    file: Path, params: str, seed: int, take_test: bool, overrides: Sequence[str], data_root: Path | None
) -> None:
    """Run one trial in this process, without Ray, and print its result as JSON."""
    from plmray.errors import Fault, SpecError
    from plmray.spec.load import load_sweep, parse_parameters

    sweep = load_sweep(file, overrides)
    try:
        given = json.loads(params)
        if not isinstance(given, dict):
            raise ValueError("expected an object")
    except ValueError as error:
        raise SpecError([Fault("--params", f"is no JSON object ({error}); expected {{\"key\": value}}")]) from error
    parameters = parse_parameters(given, sweep.spec)
    _require("torch")
    from plmray.orchestrate.one import run_trial

    result = run_trial(sweep, parameters, seed, data_root, take_test=take_test, echo=_echo_to_stderr)
    click.echo(json.dumps(result.to_dict(), indent=1))
    sys.exit(0 if result.state == "COMPLETE" else 1)


def _echo_to_stderr(text: str) -> None:
    click.echo(text, err=True)


@cli.command()
@sweep_folder
@table_option
def trials(folder: Path, form: str) -> None:
    """List the finished trials of a sweep folder."""
    from plmray.results import read_results, require_folder

    results = read_results(require_folder(folder))
    columns = ("trial_id", "origin", "phase", "seed", "state", "score", "test_score", "epochs_run", "seconds")
    _print_rows([{name: getattr(result, name) for name in columns} for result in results], form)


@cli.command()
@sweep_folder
@table_option
def best(folder: Path, form: str) -> None:
    """Rank the candidates of a sweep folder, best first."""
    verdict, _ = _verdict(folder)
    rows = [
        {
            "candidate_id": row.candidate_id,
            "origin": row.origin,
            "score.mean": row.mean.value,
            "score.sd": row.sd,
            "n_seeds": row.num_seeds,
            "test.mean": row.test_mean.value,
            **{f"param.{key}": value for key, value in row.parameters.items()},
        }
        for row in verdict.candidates
    ]
    _print_rows(rows, form)


@cli.command()
@sweep_folder
@click.option("--out", type=FilePath, help="Folder for the report (default: DIR).")
@click.option("--confidence", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True)
def report(folder: Path, out: Path | None, confidence: float) -> None:
    """Write the report of a sweep folder again and print it."""
    from plmray.report.write import markdown, write_report

    verdict, name = _verdict(folder, confidence)
    paths = write_report(folder, verdict, name, out=out)
    click.echo(markdown(verdict, name))
    click.echo(f"written: {', '.join(str(path) for path in paths)}")


def _verdict(folder: Path, confidence: float = 0.95) -> tuple[Any, str]:
    import yaml

    from plmray.report.verdict import judge
    from plmray.results import read_results, require_folder

    sweep = yaml.safe_load((require_folder(folder) / "resolved.yaml").read_text())["sweep"]
    return judge(read_results(folder), sweep["objective"]["metric"], confidence), sweep["name"]


@cli.command()
@sweep_folder
@click.option("--uri", help="MLflow tracking URI (default: the one the sweep used).")
def sync(folder: Path, uri: str | None) -> None:
    """Replay a sweep folder into MLflow; what is there already is left alone."""
    from plmray.results import require_folder

    require_folder(folder)
    _require("mlflow")
    from plmray.orchestrate.sync import sync_folder

    count, where = sync_folder(folder, uri)
    click.echo(f"{count} trials in {where}")


@cli.group()
def data() -> None:
    """Known data sets, and checks of your own."""


@data.command("list")
@data_root_option
def data_list(data_root: Path | None) -> None:
    """Known data sets and where they lie."""
    from plmray.data.datasets import data_roots
    from plmray.data.fetch import SOURCES

    rows = []
    for name, source in SOURCES.items():
        found = next((root / source.path for root in data_roots(data_root) if (root / source.path).is_file()), None)
        sizes = " / ".join(str(count) for count in source.proteins.values())
        rows.append({"name": name, "train / validation / test": sizes, "licence": source.licence, "file": str(found)})
    _print_rows(rows, "table")


@data.command("fetch")
@click.argument("name")
@data_root_option
def data_fetch(name: str, data_root: Path | None) -> None:
    """Download a known data set and check its content."""
    from plmray.data import fetch
    from plmray.errors import DataError, Fault, nearest_name

    if name not in fetch.SOURCES:
        raise DataError([Fault("", f"unknown data set '{name}'; {nearest_name(name, fetch.SOURCES)}")])
    click.echo(f"{name}: {fetch.fetch(name, data_root or fetch.cache_folder())}")


@data.command("check")
@click.argument("file", metavar="SWEEP", type=FilePath)
@set_option
@data_root_option
def data_check(file: Path, overrides: Sequence[str], data_root: Path | None) -> None:
    """Check the data of a sweep, row by row."""
    loaded = _loaded_data(file, overrides, data_root)
    click.echo(f"{loaded.name}: {loaded.counts()}, content {loaded.hash[:16]}")
    for note in loaded.notes:
        click.echo(f"note: {note}")


@data.command("split")
@click.argument("file", metavar="SWEEP", type=FilePath)
@click.option("--out", type=FilePath, required=True, help="CSV to write: id, sequence, target, set, validation.")
@set_option
@data_root_option
def data_split(file: Path, out: Path, overrides: Sequence[str], data_root: Path | None) -> None:
    """Write the split a sweep would use as a FLIP-style CSV."""
    import csv
    import io

    from plmray.files import write_atomic

    loaded = _loaded_data(file, overrides, data_root)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "sequence", "target", "set", "validation"])
    for name, part in loaded.splits.items():
        marks = ("test", "False") if name == "test" else ("train", str(name == "validation"))
        for identity, sequence, target in zip(part.ids, part.sequences, part.targets.tolist(), strict=True):
            writer.writerow([identity, sequence, loaded.classes[target] if loaded.classes else target, *marks])
    write_atomic(out, text.getvalue())
    click.echo(f"{out}: {loaded.counts()}")


def _loaded_data(file: Path, overrides: Sequence[str], data_root: Path | None) -> ProteinData:
    from plmray.data.datasets import load_data
    from plmray.spec.load import load_sweep

    sweep = load_sweep(file, overrides)
    return load_data(sweep.spec.task, sweep.folder, data_root)


@cli.command()
@click.option("--storage-path", type=FilePath, default=Path("plmray_runs"), show_default=True)
@click.option("--address", help="Ray cluster to look at.")
@format_option
def doctor(storage_path: Path, address: str | None, form: str) -> None:
    """Check devices, Ray, authentication, storage, MLflow and memory, and say what to do."""
    from plmray.orchestrate.doctor import examine

    findings = list(examine(storage_path, address))
    if form == "json":
        click.echo(json.dumps([finding.to_dict() for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.state:4}  {finding.what}: {finding.found}" + (f"  → {finding.advice}" * bool(finding.advice)))
    sys.exit(1 if any(finding.state == "bad" for finding in findings) else 0)


@cli.command()
def prebuild() -> None:
    """Compile DeepSpeed's CPU parts once, so that no trial waits for a compiler."""
    _require("torch", "deepspeed")
    from plmray.train.prebuild import prebuild_deepspeed

    for line in prebuild_deepspeed():
        click.echo(line)


@cli.command()
@click.option("--uri", help="MLflow tracking URI (default: MLFLOW_TRACKING_URI, else ./mlflow.db).")
@click.option("--port", type=int, default=5000, show_default=True)
def ui(uri: str | None, port: int) -> None:
    """Open the MLflow user interface on the store that sweeps here write to."""
    import os

    _require("mlflow")
    from plmray.orchestrate.tracking import tracking_uri

    store = tracking_uri(uri, Path.cwd())
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execv(sys.executable, [*command, "--port", str(port)])


def _print_rows(rows: Sequence[dict[str, Any]], form: str) -> None:
    """Rows as a table, JSON or CSV; columns are the union of their keys, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if form == "json":
        click.echo(json.dumps([_finite(row) for row in rows], indent=1))
    elif form == "csv":
        import csv

        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(rows)
    else:
        from plmray.report.write import table

        shown = [[_cell(row.get(column)) for column in columns] for row in rows]
        click.echo("\n".join(table(columns, shown)) if rows else "nothing yet")


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and value != value else value for key, value in row.items()}


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def main() -> None:
    cli()


