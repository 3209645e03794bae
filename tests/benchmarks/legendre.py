"""Shares by hyperparameter of a sweep folder, beside a regression on orthonormal polynomials by other hands (numpy).

    python -m tests.benchmarks.legendre DIR

Numeric parameters: Legendre polynomials up to degree 3, and 4; those of few values: all polynomials that their values
allow; interactions of two parameters up to degree two each. A share is the sum of squared coefficients, less their
sampling variance, over all of them and the seed's variance.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.polynomial import legendre

from plmray.report.parameters import position
from plmray.report.write import judge_folder
from plmray.sweep.folder.reader import load_resolved, read_results
from plmray.trials import selection


def main(folder: Path) -> None:
    spec, results = load_resolved(folder), read_results(folder)
    own = list(selection.by_candidate(selection.scored(selection.anchors(results))).values())
    places = {
        key: np.array([position(domain, runs[0].parameters[key]) for runs in own])  # type: ignore[arg-type]
        for key, domain in spec.space.items()
    }
    scores = [np.array([r.score for r in runs], dtype=float) for runs in own]
    verdict = judge_folder(folder, spec, results)
    for degree in (3, 4):
        click.echo(f"regression, degree {degree}: {shown(regression(places, scores, degree))}")
    found = verdict.parameters
    if found is not None:
        ours = {key: estimate.value for key, estimate in found.parameters.items()}
        ours |= {"interactions": found.interactions.value, "seed": found.seed.value}
        click.echo(f"plmray: {shown(ours)}, sum {100 * sum(ours.values()):.1f}")


def regression(places: dict[str, Any], scores: list[Any], degree: int) -> dict[str, float]:
    columns, owners = [np.ones(len(scores))], [""]
    bases = {key: basis(place, degree) for key, place in places.items()}
    for key, own in bases.items():
        columns += own
        owners += [key] * len(own)
    keys = list(bases)
    for number, one in enumerate(keys):
        for other in keys[number + 1 :]:
            columns += [a * b for a in bases[one][:2] for b in bases[other][:2]]
            owners += ["interactions"] * (len(columns) - len(owners))
    design, counts = np.stack(columns, axis=1), np.array([len(own) for own in scores])
    means, noise = np.array([own.mean() for own in scores]), np.mean([own.var(ddof=1) for own in scores])
    root = np.sqrt(counts)
    coefficients = np.linalg.lstsq(design * root[:, None], means * root, rcond=None)[0]
    left = ((root * (means - design @ coefficients)) ** 2).sum() / (len(means) - design.shape[1])
    sampling = np.diag(np.linalg.inv((design * counts[:, None]).T @ design)) * left
    squares = coefficients**2 - sampling
    parts = {key: float(squares[[o == key for o in owners]].sum()) for key in (*keys, "interactions")}
    parts["seed"] = float(noise)
    return {key: value / sum(parts.values()) for key, value in parts.items()}


def basis(place: Any, degree: int) -> list[Any]:
    levels = np.unique(place)
    if len(levels) > degree:
        return [np.sqrt(2 * d + 1) * legendre.Legendre.basis(d)(2 * place - 1) for d in range(1, degree + 1)]
    orthonormal = np.linalg.qr(np.vander(levels, increasing=True))[0] * np.sqrt(len(levels))
    return [orthonormal[np.searchsorted(levels, place), d] for d in range(1, len(levels))]


def shown(parts: dict[str, float]) -> str:
    return ", ".join(f"{key} {100 * value:.1f}" for key, value in parts.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
