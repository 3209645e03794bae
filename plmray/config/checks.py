"""What types alone cannot say of a sweep: that its parts fit each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plmray.config.fields.space import (
    ChoiceDomain,
    FloatDomain,
    IntDomain,
    OrdinalDomain,
    Space,
    as_list,
    condition_cycle,
)
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.train import TrainSpec
from plmray.config.model_checks import model_faults
from plmray.config.parameters import AnyDomain, Found, flat, parameter_faults, train_fields
from plmray.errors import nearest_name
from plmray.metrics import METRICS
from plmray.redact import has_secret

LARGEST_GRID = 100_000


def faults(spec: SweepSpec, folder: Path) -> Found:
    yield from _space_faults(spec)
    yield from _search_faults(spec)
    yield from _objective_faults(spec)
    yield from _tracking_faults(spec)
    yield from _replicate_faults(spec)
    yield from model_faults(spec, folder)


def without_settled_conditions(spec: SweepSpec) -> SweepSpec:
    """Drop conditions on settings that are fixed in this sweep and hold (the others are faults)."""
    fixed = flat(spec.train)
    space = {}
    for key, domain in spec.space.items():
        open_conditions = {k: wanted for k, wanted in domain.when.items() if k in spec.space or k not in fixed}
        space[key] = domain.model_copy(update={"when": open_conditions})
    return spec.model_copy(update={"space": space})


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of plain settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return found


def _space_faults(spec: SweepSpec) -> Found:
    fields, fixed = train_fields(TrainSpec), flat(spec.train)
    for key, domain in spec.space.items():
        if "seed" in key.split("."):
            yield ("space", key), "the seed is never searched; put seeds in search.seeds and replicate.seeds"
        elif key == "precision":
            yield ("space", key), "one sweep computes in one precision; set train.precision, and sweep it by two files"
        elif key not in fields:
            yield ("space", key), f"is no field of the train settings; {nearest_name(key, fields)}"
        else:
            yield from _domain_faults(spec, key, domain)
        yield from _condition_faults(spec, key, domain, fixed)
    cycle = condition_cycle(spec.space)
    if cycle is not None:
        yield ("space", cycle, "when"), f"'{cycle}' depends on itself through 'when'; break the circle"


def _domain_faults(spec: SweepSpec, key: str, domain: AnyDomain) -> Found:
    values = [domain.low, domain.high] if isinstance(domain, (FloatDomain, IntDomain)) else domain.values
    told = set()
    for value in values:
        for _, message in parameter_faults(spec.train, {key: value}):
            if message not in told:
                told.add(message)
                yield ("space", key), message


def _condition_faults(spec: SweepSpec, key: str, domain: AnyDomain, fixed: Mapping[str, Any]) -> Found:
    for other, wanted in domain.when.items():
        place = ("space", key, "when", other)
        if other in spec.space:
            controller = spec.space[other]
            if isinstance(controller, (ChoiceDomain, OrdinalDomain)):
                for value in as_list(wanted):
                    if value not in controller.values:
                        yield place, f"{value!r} is no value of {other}; its values: {controller.values}"
        elif other not in fixed:
            yield place, f"is no parameter and no train setting; {nearest_name(other, [*spec.space, *fixed])}"
        elif fixed[other] not in as_list(wanted):
            yield place, f"never holds: {other} is fixed at {fixed[other]!r}; search over it or drop '{key}'"


def _search_faults(spec: SweepSpec) -> Found:
    search = spec.search
    if search.sampler == "grid":
        yield from _grid_faults(spec)
    for index, given in enumerate(search.given):
        for key, message in _given_faults(spec, given):
            yield ("search", "given", index, key), message
    if search.scheduler != "none" and "epochs" in spec.space:
        yield (
            ("search", "scheduler"),
            f"{search.scheduler} compares candidates at equal epochs, and the space searches over epochs; "
            "use scheduler: none or fix train.epochs",
        )
    if search.min_epochs is not None and search.min_epochs > spec.train.epochs:
        yield (
            ("search", "min_epochs"),
            f"found {search.min_epochs}, expected at most train.epochs ({spec.train.epochs})",
        )


def _given_faults(spec: SweepSpec, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        domain = spec.space.get(key)
        if domain is None:
            yield key, f"is no parameter; {nearest_name(key, spec.space or ['(none)'])}"
        elif not domain.contains(value):
            yield key, f"{value!r} is not in its domain {domain.model_dump(exclude={'when'}, exclude_defaults=True)}"
        elif any(other in given and given[other] not in as_list(wanted) for other, wanted in domain.when.items()):
            yield key, f"does not exist where {', '.join(domain.when)} is as given here; drop it"


def _grid_faults(spec: SweepSpec) -> Found:
    endless = [key for key, d in spec.space.items() if isinstance(d, FloatDomain) and d.step is None]
    for key in endless:
        yield ("space", key), "sampler grid needs a step here, or kind: choice"
    if endless or condition_cycle(spec.space):
        return
    limit, space = spec.search.candidates, Space(without_settled_conditions(spec).space)
    if (most := space.grid_points_at_most()) > LARGEST_GRID:
        yield ("space",), f"the grid has up to {most:.3g} points; expected at most {LARGEST_GRID}. Use another sampler"
        return
    size = sum(1 for _ in itertools.islice(space.grid(), (limit or LARGEST_GRID) + 1))
    if limit is not None and size != limit:
        found = f"more than {limit}" if size > limit else str(size)
        yield ("search", "candidates"), f"the grid has {found} points, not {limit}; leave candidates out for all"
    if spec.search.given:
        yield ("search", "given"), "a grid tries every point; drop given"


def _tracking_faults(spec: SweepSpec) -> Found:
    if has_secret(spec.tracking.uri or ""):
        yield (
            ("tracking", "uri"),
            "holds a password or token, which would be kept with every result; leave it out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or all of MLFLOW_TRACKING_URI, in the environment",
        )


def _objective_faults(spec: SweepSpec) -> Found:
    metric = METRICS[spec.objective.metric]
    if spec.task.kind not in metric.kinds:
        fitting = ", ".join(name for name, other in METRICS.items() if spec.task.kind in other.kinds)
        yield (
            ("objective", "metric"),
            f"{metric.name} judges {' or '.join(metric.kinds)}, this task is {spec.task.kind}; use one of {fitting}",
        )


def _replicate_faults(spec: SweepSpec) -> Found:
    if spec.replicate is None:
        return
    shared = sorted(set(spec.replicate.seeds) & set(spec.search.seeds))
    if shared:
        yield (
            ("replicate", "seeds"),
            f"seed {shared[0]} was used to search; the winner was lucky with it. Use fresh seeds",
        )
    if spec.search.candidates is not None and spec.replicate.top > spec.search.candidates:
        yield (
            ("replicate", "top"),
            f"found {spec.replicate.top}, expected at most search.candidates ({spec.search.candidates})",
        )
    if "split" in spec.replicate.vary and spec.task.validation_fraction is None:
        yield (
            ("replicate", "vary"),
            "split can be varied where task.validation_fraction draws the validation proteins; this task has its own",
        )
    if "split" in spec.replicate.vary and (spec.task.train_fraction < 1 or spec.task.over_length == "drop"):
        yield (
            ("replicate", "vary"),
            "split cannot be varied where training proteins are left out after the draw; use train_fraction: 1 and "
            "over_length: cut or refuse",
        )
    if spec.replicate.random and not spec.space:
        yield ("replicate", "random"), "random candidates need a space to be drawn from; add space, or random: 0"
