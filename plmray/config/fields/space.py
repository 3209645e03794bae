"""Search spaces: what each hyperparameter may be, and when it exists at all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Value = Union[bool, int, float, str]
Parameters = dict[str, Value]
Drawn = TypeVar("Drawn")

LARGEST = 1e15  # whole numbers are exact up to here


class _Domain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    when: dict[str, Union[Value, list[Value]]] = Field(
        default_factory=dict,
        examples=[{"head.kind": "dense"}],
        description="the parameter exists only where these others have these values",
    )

    def is_active(self, parameters: Mapping[str, Value]) -> bool:
        return all(parameters.get(key) in as_list(wanted) for key, wanted in self.when.items())


class FloatDomain(_Domain):
    """A number between bounds."""

    kind: Literal["float"]
    low: float = Field(examples=[1e-5], description="smallest value, included")
    high: float = Field(examples=[1e-2], description="largest value, included")
    log: bool = Field(default=False, description="whether it is drawn by its logarithm")
    step: float | None = Field(default=None, gt=0, examples=[0.1], description="distance between values, if any")

    @model_validator(mode="after")
    def _ordered(self) -> FloatDomain:
        _check_bounds(self.low, self.high, self.log)
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; drop one")
        return self

    def sample(self, rng: np.random.Generator) -> float:
        if self.log:
            return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        if self.step is not None:
            return self.grid()[int(rng.integers(len(self.grid())))]
        return float(rng.uniform(self.low, self.high))

    def at(self, share: float) -> float:
        """The value that ``share`` (0 to 1) of all draws lie below."""
        if self.log:
            return float(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))
        return _at(self.grid(), share) if self.step is not None else self.low + share * (self.high - self.low)

    def contains(self, value: Value) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def grid(self) -> list[float]:
        if self.step is None:
            raise ValueError("a float without step has no grid; add step or use kind: choice")
        return [round(self.low + i * self.step, 12) for i in range(self.grid_size())]

    def grid_size(self) -> int:
        steps = (self.high - self.low) / self.step if self.step is not None else math.inf
        return math.floor(min(steps, LARGEST) + 1e-9) + 1


class IntDomain(_Domain):
    """A whole number between bounds."""

    kind: Literal["int"]
    low: int = Field(examples=[1], description="smallest value, included")
    high: int = Field(examples=[16], description="largest value, included")
    log: bool = Field(default=False, description="whether it is drawn by its logarithm")
    step: int = Field(default=1, gt=0, description="distance between values")

    @model_validator(mode="after")
    def _ordered(self) -> IntDomain:
        _check_bounds(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError("log and step exclude each other; drop one")
        return self

    def sample(self, rng: np.random.Generator) -> int:
        if self.log:
            exponent = rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5))
            return int(min(self.high, max(self.low, round(math.exp(exponent)))))
        return self.grid()[int(rng.integers(len(self.grid())))]

    def at(self, share: float) -> int:
        """The value that ``share`` (0 to 1) of all draws lie below."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return int(min(self.high, max(self.low, round(math.exp(low + share * (high - low))))))
        return _at(self.grid(), share)

    def contains(self, value: Value) -> bool:
        return type(value) is int and (self.low <= value <= self.high if self.log else value in self.grid())

    def grid(self) -> range:
        return range(self.low, self.high + 1, self.step)

    def grid_size(self) -> int:
        return len(self.grid())


class _Values(_Domain):
    values: list[Value] = Field(min_length=1, examples=[[2, 4, 8]], description="what it may be")

    @model_validator(mode="after")
    def _distinct(self) -> _Values:
        _check_distinct(self.values)
        return self

    def sample(self, rng: np.random.Generator) -> Value:
        return self.values[int(rng.integers(len(self.values)))]

    def at(self, share: float) -> Value:
        """The value that ``share`` (0 to 1) of all draws lie below."""
        return _at(self.values, share)

    def contains(self, value: Value) -> bool:
        return value in self.values

    def grid(self) -> list[Value]:
        return list(self.values)

    def grid_size(self) -> int:
        return len(self.values)


class ChoiceDomain(_Values):
    """Values without an order (``choice``)."""

    kind: Literal["choice"]


class OrdinalDomain(_Values):
    """Values in their order, smallest first (``ordinal``): a sampler may use that neighbours are alike."""

    kind: Literal["ordinal"]


Domain = Annotated[
    Union[FloatDomain, IntDomain, ChoiceDomain, OrdinalDomain],
    Field(discriminator="kind"),
]


class Space:
    """Domains by dotted key, in an order where every condition precedes what depends on it."""

    def __init__(self, domains: Mapping[str, FloatDomain | IntDomain | ChoiceDomain | OrdinalDomain]) -> None:
        self.domains = dict(_in_condition_order(domains))

    def __len__(self) -> int:
        return len(self.domains)

    def sample(self, rng: np.random.Generator) -> Parameters:
        """One blind draw: independent over parameters, inactive ones left out."""
        parameters: Parameters = {}
        for key, domain in self.domains.items():
            if domain.is_active(parameters):
                parameters[key] = domain.sample(rng)
        return parameters

    def at(self, shares: Sequence[float]) -> Parameters:
        """The draw at a point of the unit cube, a coordinate a parameter: even points give an even sample."""
        parameters: Parameters = {}
        for (key, domain), share in zip(self.domains.items(), shares, strict=True):
            if domain.is_active(parameters):
                parameters[key] = domain.at(share)
        return parameters

    def grid(self) -> Iterator[Parameters]:
        """Every combination, in file order, last key fastest. Raises ValueError on a float without step."""
        seen: set[tuple[Any, ...]] = set()
        axes = [domain.grid() for domain in self.domains.values()]
        for point in itertools.product(*axes):
            parameters: Parameters = {}
            for (key, domain), value in zip(self.domains.items(), point, strict=True):
                if domain.is_active(parameters):
                    parameters[key] = value
            mark = tuple((key, type(value), _hashable(value)) for key, value in parameters.items())
            if mark not in seen:
                seen.add(mark)
                yield parameters

    def grid_points_at_most(self) -> int:
        """Points of the grid, those counted again that differ in inactive parameters alone."""
        return math.prod(domain.grid_size() for domain in self.domains.values())


def _at(values: Sequence[Drawn], share: float) -> Drawn:
    return values[min(int(share * len(values)), len(values) - 1)]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def condition_cycle(domains: Mapping[str, _Domain]) -> str | None:
    """A key whose conditions lead back to itself, or None."""
    placed: set[str] = set()
    waiting = dict(domains)
    while waiting:
        ready = [key for key, domain in waiting.items() if all(k in placed or k not in domains for k in domain.when)]
        if not ready:
            return next(iter(waiting))
        for key in ready:
            placed.add(key)
            del waiting[key]
    return None


def _in_condition_order(domains: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    placed: set[str] = set()
    waiting = dict(domains)
    while waiting:
        key = next(k for k, d in waiting.items() if all(other in placed or other not in domains for other in d.when))
        placed.add(key)
        yield key, waiting.pop(key)


def _check_bounds(low: float, high: float, log: bool) -> None:
    if low > high:
        raise ValueError(f"low={low} exceeds high={high}. Swap them")
    if not (abs(low) <= LARGEST and abs(high) <= LARGEST):
        raise ValueError(f"low={low} and high={high} must be numbers up to {LARGEST:g}")
    if log and low <= 0:
        raise ValueError(f"log: true needs low above 0, found low={low}")


def _check_distinct(values: list[Value]) -> None:
    for position, value in enumerate(values):
        if any(type(value) is type(other) and value == other for other in values[:position]):
            raise ValueError(f"value {value!r} is listed twice; list each value once")
