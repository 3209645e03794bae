"""Scores of predictions against targets. Each metric knows its direction and the task it fits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["regression", "classification"]
Direction = Literal["maximize", "minimize"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A score. ``compute(targets, predictions)`` takes (n,) targets and (n,) values or class labels."""

    name: str
    kind: Kind
    direction: Direction
    compute: Callable[[Array, Array], float]

    @property
    def sign(self) -> float:
        """+1 where larger is better, -1 where smaller is better."""
        return 1.0 if self.direction == "maximize" else -1.0


def _spearman(targets: Array, predictions: Array) -> float:
    from scipy import stats

    return _correlation(stats.spearmanr, targets, predictions)


def _pearson(targets: Array, predictions: Array) -> float:
    from scipy import stats

    return _correlation(stats.pearsonr, targets, predictions)


def _correlation(function: Callable[..., Any], targets: Array, predictions: Array) -> float:
    """A constant prediction has no correlation; it ranks nothing, so it scores 0 here, not NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(function(targets, predictions).statistic)
    return 0.0 if np.isnan(value) else value


def _from_sklearn(name: str, **options: Any) -> Callable[[Array, Array], float]:
    def compute(targets: Array, predictions: Array) -> float:
        from sklearn import metrics

        return float(getattr(metrics, name)(targets, predictions, **options))

    return compute


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("spearman", "regression", "maximize", _spearman),
        Metric("pearson", "regression", "maximize", _pearson),
        Metric("mse", "regression", "minimize", _from_sklearn("mean_squared_error")),
        Metric("mae", "regression", "minimize", _from_sklearn("mean_absolute_error")),
        Metric("r2", "regression", "maximize", _from_sklearn("r2_score")),
        Metric("accuracy", "classification", "maximize", _from_sklearn("accuracy_score")),
        Metric("balanced_accuracy", "classification", "maximize", _from_sklearn("balanced_accuracy_score")),
        Metric("f1", "classification", "maximize", _from_sklearn("f1_score", average="macro")),
        Metric("mcc", "classification", "maximize", _from_sklearn("matthews_corrcoef")),
    )
}
