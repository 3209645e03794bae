"""Parameters of a space laid over train settings, and what a parameter can become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from plmray.config.fields.space import ChoiceDomain, FloatDomain, IntDomain, OrdinalDomain
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.train import TrainSpec
from plmray.config.strict_yaml import Place
from plmray.config.wording import explain, field_model


def train_fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all leaves of the train settings."""
    names: list[str] = []
    for name in model.model_fields:
        inner = field_model(model, name)
        names += train_fields(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def with_parameters(train: TrainSpec, parameters: Mapping[str, Any]) -> TrainSpec:
    """Train settings with dotted parameters put in. Raises pydantic's ValidationError where one does not fit."""
    return TrainSpec.model_validate(_merged(train, parameters))


def parameter_faults(train: TrainSpec, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with single parameter values, one message a key."""
    for key, value in parameters.items():
        tree = _merged(train, {key: value})
        try:
            TrainSpec.model_validate(tree)
        except ValidationError as error:
            yield key, next(message for _, message in explain(error, tree))


def flat(model: BaseModel) -> dict[str, Any]:
    """Leaves of settings by dotted key."""
    leaves: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            leaves.update({f"{name}.{key}": leaf for key, leaf in flat(value).items()})
        else:
            leaves[name] = value
    return leaves


def _merged(train: TrainSpec, parameters: Mapping[str, Any]) -> dict[str, Any]:
    tree = train.model_dump()
    for key, value in parameters.items():
        branch = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            branch[parent] = branch[parent] if isinstance(branch.get(parent), dict) else {}
            branch = branch[parent]
        branch[leaf] = value
    return tree


AnyDomain = FloatDomain | IntDomain | ChoiceDomain | OrdinalDomain
Found = Iterator[tuple[Place, str]]


def most_of(domain: AnyDomain) -> int | None:
    """The largest whole number of a domain; what is none is told elsewhere."""
    values = [domain.high] if isinstance(domain, (FloatDomain, IntDomain)) else domain.values
    return max((value for value in values if type(value) is int), default=None)


def choices_of(spec: SweepSpec, key: str, fixed: Any) -> list[Any]:
    """What a setting can be in this sweep: the values of its choice, or ``fixed``."""
    domain = spec.space.get(key)
    return list(domain.values) if isinstance(domain, (ChoiceDomain, OrdinalDomain)) else [fixed]


def _bounds(spec: SweepSpec, key: str, fixed: int) -> tuple[int, int]:
    """The least and the most that a number can be in this sweep."""
    domain = spec.space.get(key)
    if domain is None:
        return fixed, fixed
    values = [domain.low, domain.high] if isinstance(domain, (FloatDomain, IntDomain)) else domain.values
    return int(min(values)), int(max(values))
