"""One trial, in this process, without Ray or MLflow: for debugging, and for machines that have torch alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plmray.config.backbone_names import backbone_fault, tokens_key
from plmray.config.catalog.engines import ENGINES
from plmray.config.load import LoadedSweep
from plmray.config.parameters import with_parameters
from plmray.errors import SetupError
from plmray.model.backbones import fetch_weights
from plmray.plan.prepare import load_checked, make_identifier
from plmray.sweep.workers.context import Bench, make_bench
from plmray.sweep.workers.device import Device
from plmray.sweep.workers.packed import Host
from plmray.sweep.workers.serial import Worker
from plmray.trials.job import Job, Report, short_trace
from plmray.trials.result import TrialResult


def run_trial(
    sweep: LoadedSweep,
    parameters: Mapping[str, Any],
    seed: int,
    data_root: Path | None,
    *,
    take_test: bool = False,
    echo: Callable[[str], None],
) -> TrialResult:
    """Train one candidate with one seed here, to the same numbers a sweep gives it."""
    import torch

    if sweep.spec.resources.workers > 1:
        raise SetupError(f"plmray trial is one process, the sweep asks for {sweep.spec.resources.workers} workers")
    backbone = with_parameters(sweep.spec.train, parameters).backbone
    for needed in (sweep.spec.train.backbone, backbone):
        fetch_weights(needed, sweep.folder)
    fault = backbone_fault(backbone, sweep.folder)
    if fault is None and tokens_key(backbone, sweep.folder) != tokens_key(sweep.spec.train.backbone, sweep.folder):
        fault = f"{backbone.name} reads other tokens than {sweep.spec.train.backbone.name}; give it a sweep of its own"
    if fault is not None:
        raise SetupError(f"train.backbone: {fault}")
    data = load_checked(sweep, data_root)
    identifier = make_identifier(sweep, data.hash, torch.cuda.is_available())
    candidate = identifier.candidate(parameters, "given")
    epochs = int(parameters.get("epochs", sweep.spec.train.epochs))
    job = Job(candidate, (seed,), "replicate", tuple(range(1, epochs + 1)), take_test=take_test)
    bench = make_bench(sweep, data, identifier.precision, None, has_gpu=torch.cuda.is_available())
    return _finished(bench, job, sweep.spec.objective.metric, echo)


def _finished(bench: Bench, job: Job, metric: str, echo: Callable[[str], None]) -> TrialResult:
    report: Report | None = None
    try:
        runner = Host(bench, say=echo) if ENGINES[bench.engine].has_hosts else Worker(bench, device=Device(echo))
        for report in runner.reports(job):
            for evaluation in next(iter(report.curves.values()), []):
                echo(
                    f"epoch {evaluation['epoch']:.2f}: train loss {evaluation['train_loss']:.4f}, validation loss "
                    f"{evaluation['validation_loss']:.4f}, {metric} {evaluation['score']:.4f}"
                )
    except Exception as error:
        return TrialResult.failed(job.trials()[0], short_trace(error), engine=bench.engine)
    assert report is not None
    result = report.results[0]
    if "trainable_parameters" in result.provenance:  # not of a trial that failed before its model was there
        echo(f"trainable parameters: {result.provenance['trainable_parameters']:,}")
    return result
