"""Which hyperparameter explains how much: anchors as numbers, and their shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import qmc

from plmray.config.fields.space import ChoiceDomain, FloatDomain, IntDomain, OrdinalDomain, Parameters, Space
from plmray.seeds import derived_rng
from plmray.stats.intervals import Array
from plmray.stats.spread import pooled_seed_sd
from plmray.stats.surrogate import ANCHORS_PER_PARAMETER, ParameterShares, parameter_shares
from plmray.trials.result import TrialResult
from plmray.trials.score_grid import ScoreGrid

Domain = FloatDomain | IntDomain | ChoiceDomain | OrdinalDomain
Domains = Mapping[str, Domain]
CURVE_LEVELS = 7
DRAWS = 2048  # points of the space, a power of two
ABSENT = 0.5  # the code of a parameter that does not exist beside the others


def shares_of_parameters(
    anchors: Sequence[TrialResult], space: Domains, confidence: float = 0.95
) -> ParameterShares | None:
    """Shares by parameter, from blindly drawn candidates; None with fewer than ten of them a parameter."""
    grid = ScoreGrid.from_results(anchors)
    scores = grid.by_candidate()
    spread = pooled_seed_sd(scores, confidence)
    if len(space) < 2 or anchors_missing(len(scores), space) or not spread.degrees or spread.sd.value == 0:
        return None
    domains = Space(space)
    settings = {result.candidate_id: result.parameters for result in anchors}
    rng = derived_rng(0, "parameter shares")
    return parameter_shares(
        np.array([coded(domains, settings[candidate]) for candidate in grid.candidates]),
        np.array([own.mean() for own in scores]),
        np.array([len(own) for own in scores]),
        spread.sd.value**2,
        spread.degrees,
        columns_of(domains),
        even_draws(domains),
        rng,
        confidence,
        {key: levels_of(domain)[1] for key, domain in space.items()},
    )


def levels_of(domain: Domain) -> tuple[list[Any], Array]:
    """Values of a parameter at which its curve is shown, over the whole domain, with their codes."""
    if isinstance(domain, ChoiceDomain):
        return list(domain.values), np.eye(len(domain.values))
    shares = (np.arange(CURVE_LEVELS) + 0.5) / CURVE_LEVELS
    values = list(dict.fromkeys(domain.at(float(share)) for share in shares))
    return values, np.array([[position(domain, value)] for value in values])


def even_draws(space: Space) -> tuple[Array, Array]:
    """Two blind samples of a space, (DRAWS, n_columns) each, independent and far more even than random ones.

    Scrambled Sobol points. Source: Owen 1998; for these shares: Saltelli et al. 2010.
    """
    points = qmc.Sobol(2 * len(space), seed=derived_rng(0, "points of the space")).random(DRAWS)
    halves = (points[:, : len(space)], points[:, len(space) :])
    first, second = (np.array([coded(space, space.at(list(point))) for point in half]) for half in halves)
    return first, second


def anchors_missing(found: int, space: Domains) -> int:
    """How many more anchors shares of single parameters need."""
    return max(0, ANCHORS_PER_PARAMETER * len(space) - found)


def coded(space: Space, parameters: Parameters) -> Array:
    """Every parameter on 0 to 1 over its domain, on the scale it is sampled on; choices one-hot."""
    parts = []
    for key, domain in space.domains.items():
        if isinstance(domain, ChoiceDomain):
            parts += [float(key in parameters and parameters[key] == value) for value in domain.values]
        else:
            parts.append(position(domain, parameters[key]) if key in parameters else ABSENT)
    return np.array(parts)


def position(domain: FloatDomain | IntDomain | OrdinalDomain, value: Any) -> float:
    if isinstance(domain, OrdinalDomain):
        return domain.values.index(value) / max(1, len(domain.values) - 1)
    scale = math.log if domain.log else float
    low, high = scale(domain.low), scale(domain.high)
    return (scale(value) - low) / (high - low) if high > low else ABSENT


def columns_of(space: Space) -> dict[str, list[int]]:
    columns: dict[str, list[int]] = {}
    start = 0
    for key, domain in space.domains.items():
        width = len(domain.values) if isinstance(domain, ChoiceDomain) else 1
        columns[key] = list(range(start, start + width))
        start += width
    return columns
