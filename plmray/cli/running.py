"""run and trial: computing."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plmray.cli.options import FilePath, Place, data_root_option, require, set_option
from plmray.storage import layout
from plmray.storage.home import holds_sweep

if TYPE_CHECKING:
    from plmray.config.load import LoadedSweep


@click.command()
@click.argument("file", metavar="SWEEP", type=FilePath)
@click.option("--address", help="Ray cluster to join (default: RAY_ADDRESS, else a private local one).")
@click.option(
    "--storage-path",
    type=Place,
    default=Path("plmray_runs"),
    show_default=True,
    help="Folder, or s3://bucket/prefix (gs://, az://).",
)
@click.option("--resume", is_flag=True, help="Go on with a sweep that was stopped; nothing finished runs again.")
@click.option("--replay", is_flag=True, help="Follow the folder's recorded candidates and decisions exactly.")
@click.option("--replay-from", type=Place, help="Follow the records of another sweep folder, in a new one.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Jobs at a time (default: what fits).")
@click.option(
    "--wait-for-gpus",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Ask an autoscaling cluster for N GPUs first.",
)
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
    from plmray.config.load import load_sweep

    sweep = load_sweep(file, overrides)
    if smoke_test:
        sweep = load_sweep(file, [*overrides, *_smoke_overrides(sweep)])
    require("torch", "optuna", *([] if options["local"] else ["ray"]))
    from plmray.plan.prepare import plan_of
    from plmray.sweep.driver import run_sweep
    from plmray.sweep.on_ray.job_environment import inside_ray_job
    from plmray.sweep.options import RunOptions, check_paths

    choices = RunOptions(data_root=data_root, **options)
    check_paths(sweep, choices)
    data = None
    if not holds_sweep(choices.storage_path, sweep.spec.name):
        planned, data = plan_of(sweep, data_root)
        click.echo(str(planned))
        if choices.address or inside_ray_job():
            click.echo("note: planned for this machine; where the cluster has GPUs, precision and ids may differ")
    if not yes and sys.stdin.isatty():
        click.confirm("Start?", default=True, abort=True)
    try:
        outcome = run_sweep(sweep, choices, click.echo, data)
    except KeyboardInterrupt:
        click.echo("interrupted; finished trials are safe. Go on with --resume", err=True)
        sys.exit(130)
    for line in _outcome_lines(outcome):
        click.echo(line)
    sys.exit(outcome.exit_code)


def _smoke_overrides(sweep: LoadedSweep) -> list[str]:
    spec = sweep.spec
    # A name of its own, so that a smoke test can be repeated and disturbs no sweep.
    name = f"{spec.name}-smoke-{time.strftime('%Y%m%d-%H%M%S')}"
    changes = [f"name={name}", "train.epochs=1", f"search.seeds=[{spec.search.seeds[0]}]"]
    if "epochs" in spec.space:
        changes.append("space.epochs={kind: choice, values: [1]}")
    if spec.search.sampler == "grid":
        changes.append("search.sampler=random")
    changes += ["search.candidates=2", "search.scheduler=none", "search.min_epochs=null", "search.given=[]"]
    if spec.replicate is not None:
        seeds = ", ".join(str(seed) for seed in spec.replicate.seeds[:2])
        adaptive = spec.replicate.allocation == "adaptive"
        changes += ["replicate.budget={trials: 4}", "replicate.confirm=2"] if adaptive else []
        changes += [
            f"replicate.top={2 if adaptive else min(1, spec.replicate.top)}",
            f"replicate.random={min(1, spec.replicate.random)}",
            f"replicate.seeds=[{seeds}]",
        ]
    return changes


def _outcome_lines(outcome: Any) -> Iterable[str]:
    costs = outcome.costs
    yield ""
    yield outcome.headline
    yield (
        f"overhead: driver {costs['driver_s_per_trial']:.3f} s per trial; {costs['worker_starts']:.0f} starts of "
        f"{costs['worker_start_s_mean']:.1f} s; {100 * costs['training_share_of_wall']:.0f} % of the wall time "
        f"({costs['wall_s']:.0f} s) spent training"
    )
    yield "throughput: " + ", ".join(throughput(costs))
    if outcome.interrupted:
        yield f"interrupted; finished trials are safe in {outcome.address}. Go on with --resume"
    elif outcome.num_failed:
        yield f"{outcome.num_failed} trial(s) failed; the report says why, --resume tries them again"
    yield f"report: {outcome.address}/{layout.REPORT}"
    # The full path where the environment is not activated, so that the line can be copied as it is.
    mlflow = "mlflow" if shutil.which("mlflow") else str(Path(sys.executable).parent / "mlflow")
    yield f"tracking: {mlflow} ui --backend-store-uri {outcome.tracking_uri}"


@click.command()
@click.argument("file", metavar="SWEEP", type=FilePath)
@click.option("--params", default="{}", help="Parameters as JSON, such as '{\"optimizer.lr\": 0.001}'.")
@click.option("--seed", type=click.IntRange(min=0), required=True)
@click.option("--test", "take_test", is_flag=True, help="Also take the test score at the selected checkpoint.")
@set_option
@data_root_option
def trial(
    file: Path, params: str, seed: int, take_test: bool, overrides: Sequence[str], data_root: Path | None
) -> None:
    """Run one trial in this process, without Ray, and print its result as JSON."""
    from plmray.config.load import load_sweep, parse_parameters
    from plmray.errors import SpecError

    sweep = load_sweep(file, overrides)
    try:
        given = json.loads(params)
        if not isinstance(given, dict):
            raise ValueError("expected an object")
    except ValueError as error:
        raise SpecError.of("--params", f'is no JSON object ({error}); expected {{"key": value}}') from error
    parameters = parse_parameters(given, sweep.spec)
    require("torch")
    from plmray.sweep.workers.single_trial import run_trial

    result = run_trial(sweep, parameters, seed, data_root, take_test=take_test, echo=_echo_to_stderr)
    click.echo(json.dumps(result.to_dict(), indent=1))
    sys.exit(0 if result.state == "COMPLETE" else 1)


def _echo_to_stderr(text: str) -> None:
    click.echo(text, err=True)


def throughput(costs: Mapping[str, float]) -> Iterable[str]:
    yield f"{costs['trials_per_hour']:.0f} trials per hour"
    yield f"{costs['train_tokens_per_s']:,.0f} real tokens per second"
    if "padding_ratio" in costs:
        yield f"{costs['padding_ratio']:.2f} padded tokens per real one"
    if "mfu" in costs:
        judging = f"{100 * costs['mfu_validation']:.1f} % judging"
        yield f"{100 * costs['mfu']:.1f} % of the devices' peak in training, {judging}"
    if "pack_occupancy" in costs:
        yield f"{100 * costs['pack_occupancy']:.0f} % of the packs' slots in use"
