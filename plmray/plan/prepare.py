"""From a sweep file to everything a run needs, without torch, Ray, Optuna or MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plmray.config.backbone_names import weights_hash
from plmray.config.catalog.families import FAMILIES
from plmray.config.catalog.tasks import KNOWN_TASKS
from plmray.config.load import LoadedSweep
from plmray.data.datasets import data_roots, load_data
from plmray.data.fetch import located
from plmray.data.known import SOURCES
from plmray.data.profile import profile_lines, require_defined, undefined_notes
from plmray.data.proteins import ProteinData
from plmray.errors import DataError
from plmray.plan.plan import DataFacts, Plan, local_gpu_count, make_plan, memoised, resolve_precision
from plmray.trials.trial import Identifier


@dataclass(frozen=True)
class Prepared:
    """A checked sweep: its data, its plan, and the maker of its ids."""

    sweep: LoadedSweep
    data: ProteinData
    identifier: Identifier
    plan: Plan


def prepare(sweep: LoadedSweep, data_root: Path | None, *, has_gpu: bool | None = None) -> Prepared:
    """Load and check the data, resolve the precision, plan. Raises DataError with every fault."""
    data = load_checked(sweep, data_root)
    identifier = make_identifier(sweep, data.hash, has_gpu)
    return Prepared(sweep, data, identifier, make_plan(sweep.spec, data_facts(sweep, data), identifier, sweep.family))


def plan_of(sweep: LoadedSweep, data_root: Path | None) -> tuple[Plan, ProteinData | None]:
    """The plan of a sweep on this machine, and its data; from published counts where its known data set is not here."""
    if data_is_elsewhere(sweep, data_root):
        try:
            load_data(sweep.spec.task, sweep.folder, data_root, may_fetch=False)
        except DataError as error:
            return plan_without_data(sweep, error), None
    prepared = prepare(sweep, data_root)
    return prepared.plan, prepared.data


def data_is_elsewhere(sweep: LoadedSweep, data_root: Path | None) -> bool:
    """Whether a sweep's known data set would have to be fetched."""
    name = sweep.spec.task.dataset
    return name in SOURCES and located(name, data_roots(data_root)) is None


def data_lines(sweep: LoadedSweep, data_root: Path | None) -> list[str]:
    """What the data of a sweep are, as far as they are here. Raises DataError with every fault."""
    if data_is_elsewhere(sweep, data_root):
        return [f"note: {sweep.spec.task.dataset} is not on this machine: its data are not looked at"]
    data = load_checked(sweep, data_root, may_fetch=False)
    notes = (*data.notes, *undefined_notes(data, sweep.spec.objective.metric))
    return [*profile_lines(data), *(f"note: {note}" for note in notes)]


def load_checked(sweep: LoadedSweep, data_root: Path | None, *, may_fetch: bool = True) -> ProteinData:
    """The data of a sweep. Raises DataError with every fault, and where its objective is undefined on them."""
    data = load_data(sweep.spec.task, sweep.folder, data_root, may_fetch=may_fetch)
    require_defined(data, sweep.spec.objective.metric)
    return data


def plan_without_data(sweep: LoadedSweep, error: DataError) -> Plan:
    """A plan from the published counts of a known data set that is not here yet; ids are provisional."""
    name = sweep.spec.task.dataset
    if name not in KNOWN_TASKS:
        raise error
    known = KNOWN_TASKS[name]
    length = min(known.length, sweep.spec.task.max_length) + _marks(sweep)
    facts = DataFacts(
        hash="",
        counts=known.counts,
        tokens={split: count * length for split, count in known.counts.items()},
        longest=length,
        notes=(f"{name} is not on this machine: published counts, provisional candidate ids",),
    )
    return make_plan(sweep.spec, facts, make_identifier(sweep, "", None), sweep.family)


def make_identifier(sweep: LoadedSweep, data_hash: str, has_gpu: bool | None) -> Identifier:
    gpu_here = local_gpu_count() > 0 if has_gpu is None else has_gpu
    has_bf16 = "bf16" in FAMILIES[sweep.family].precisions
    precision = resolve_precision(sweep.spec.train, wants_gpu(sweep, gpu_here) and has_bf16)
    return Identifier(sweep.spec, data_hash, precision, memoised(lambda b: weights_hash(b, sweep.folder)))


def wants_gpu(sweep: LoadedSweep, has_gpu: bool) -> bool:
    """Whether trials run on a GPU: where there is one, unless the sweep says how many."""
    gpus = sweep.spec.resources.gpus_per_trial
    return has_gpu if gpus == "auto" else gpus > 0


def data_facts(sweep: LoadedSweep, data: ProteinData) -> DataFacts:
    marks = _marks(sweep)
    tokens = {
        name: int(np.sum([len(s) for s in part.sequences], dtype=np.int64)) + marks * len(part)
        for name, part in data.splits.items()
    }
    longest = max((len(s) for part in data.splits.values() for s in part.sequences), default=0) + marks
    counts = {str(name): count for name, count in tokens.items()}
    notes = (*data.notes, *undefined_notes(data, sweep.spec.objective.metric))
    profile = tuple(profile_lines(data))
    return DataFacts(data.hash, data.counts(), counts, longest, data.num_outputs, data.level, notes, profile)


def _marks(sweep: LoadedSweep) -> int:
    """Tokens around each sequence: <cls> and <eos> for ESM2, </s> for T5."""
    return sum(FAMILIES[sweep.family].marks)
