"""Scores of predictions against targets. Each metric knows its direction and the tasks it fits.

Units are proteins, or residues where a task labels these: those of all proteins are pooled.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["regression", "binary", "classification", "multilabel"]
Direction = Literal["maximize", "minimize"]
Array = NDArray[Any]
LABELLED: tuple[Kind, ...] = ("binary", "classification", "multilabel")
UNDEFINED = math.nan  # a score that the targets do not allow: unknown, and neither 0 nor chance


@dataclass(frozen=True)
class Metric:
    """A score. ``compute(targets, predictions, kind)`` takes (units,) targets and values, labels or probabilities.

    Multi-label: (units, labels) of both. ``reads``: which of the three the predictions are. ``low``, ``high``: bounds.
    ``needs``: what of the targets it is undefined without: an area or a correlation wants two different ones.
    """

    name: str
    kinds: tuple[Kind, ...]
    direction: Direction
    reads: Literal["values", "labels", "probabilities"]
    compute: Callable[[Array, Array, Kind], float]
    low: float = 0.0
    high: float = 1.0
    needs: Literal["nothing", "contrast", "positives"] = "nothing"

    def is_defined(self, targets: Array, kind: Kind) -> bool:
        """Whether targets let it be computed at all, whatever is predicted: two values or classes, or a positive."""
        if len(targets) == 0:
            return False
        if self.needs == "contrast":
            return bool((np.ptp(targets, axis=0) > 0).any())
        return self.needs == "nothing" or kind == "classification" or bool(targets.any())

    def error_over(self, score: float, count: int) -> float | None:
        """Standard error of a score over ``count`` proteins drawn alike; None where it has no simple form.

        Correlations by Fisher's z with 1.03 / √(n - 3) (Fieller et al. 1957, for ranks); accuracies binomial.
        """
        if self.name in ("spearman", "pearson") and count > 3:
            return 1.03 * (1 - score**2) / math.sqrt(count - 3)
        return math.sqrt(score * (1 - score) / count) if self.name == "accuracy" else None

    @property
    def sign(self) -> float:
        """+1 where larger is better, -1 where smaller is better."""
        return 1.0 if self.direction == "maximize" else -1.0


def score(metric: str, kind: Kind, targets: Array, outputs: Array) -> float:
    """A metric of a model's (units, outputs) raw outputs; NaN where the targets leave it undefined."""
    chosen = METRICS[metric]
    if not chosen.is_defined(targets, kind):
        return UNDEFINED
    read = {"values": values, "labels": labels, "probabilities": probabilities}[chosen.reads]
    return chosen.compute(targets, read(kind, outputs), kind)


def values(kind: Kind, outputs: Array) -> Array:  # noqa: ARG001
    first: Array = outputs[:, 0]
    return first


def labels(kind: Kind, outputs: Array) -> Array:
    """(units,) class numbers, or (units, labels) of 0 and 1 for multi-label."""
    if kind == "classification":
        chosen: Array = outputs.argmax(axis=1)
        return chosen
    positive: Array = (outputs > 0).astype(np.int64)
    return positive[:, 0] if kind == "binary" else positive


def probabilities(kind: Kind, outputs: Array) -> Array:
    """(units,) of the positive class for binary; (units, classes) else. Rows of classes sum to 1."""
    from scipy.special import expit, softmax

    if kind == "classification":
        return np.asarray(softmax(outputs, axis=1))
    likely = np.asarray(expit(outputs))
    return likely[:, 0] if kind == "binary" else likely


def _spearman(targets: Array, predictions: Array, _: Kind) -> float:
    from scipy import stats

    return _correlation(stats.spearmanr, targets, predictions)


def _pearson(targets: Array, predictions: Array, _: Kind) -> float:
    from scipy import stats

    return _correlation(stats.pearsonr, targets, predictions)


def _correlation(function: Callable[..., Any], targets: Array, predictions: Array) -> float:
    """A constant prediction has no correlation; it ranks nothing, so it scores 0 here, not NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(function(targets, predictions).statistic)
    return 0.0 if np.isnan(value) else value


def _from_sklearn(name: str, **options: Any) -> Callable[[Array, Array, Kind], float]:
    def compute(targets: Array, predictions: Array, _: Kind) -> float:
        from sklearn import metrics

        return float(getattr(metrics, name)(targets, predictions, **options))

    return compute


def _f1(targets: Array, predictions: Array, kind: Kind) -> float:
    """Of the positive class (binary), else the mean over classes or labels."""
    from sklearn import metrics

    average = "binary" if kind == "binary" else "macro"
    return float(metrics.f1_score(targets, predictions, average=average, zero_division=0))


def _area(name: str) -> Callable[[Array, Array, Kind], float]:
    """Of one class against the rest, the mean over the classes of which there are some and which are not all."""

    def compute(targets: Array, predictions: Array, _: Kind) -> float:
        from sklearn import metrics

        columns = predictions if predictions.ndim == 2 else predictions[:, None]
        wanted = targets if targets.ndim == 2 else _one_hot(targets, columns.shape[1])
        known = [c for c in range(columns.shape[1]) if 0 < wanted[:, c].sum() < len(wanted)]
        areas = [getattr(metrics, name)(wanted[:, c], columns[:, c]) for c in known]
        return float(np.mean(areas))

    return compute


def _one_hot(targets: Array, classes: int) -> Array:
    return targets[:, None] if classes == 1 else np.eye(classes, dtype=np.int64)[targets]


_ONE_LABEL: tuple[Kind, ...] = ("binary", "classification")
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("spearman", ("regression",), "maximize", "values", _spearman, -1.0, needs="contrast"),
        Metric("pearson", ("regression",), "maximize", "values", _pearson, -1.0, needs="contrast"),
        Metric("mse", ("regression",), "minimize", "values", _from_sklearn("mean_squared_error"), high=math.inf),
        Metric("mae", ("regression",), "minimize", "values", _from_sklearn("mean_absolute_error"), high=math.inf),
        Metric("r2", ("regression",), "maximize", "values", _from_sklearn("r2_score"), -math.inf, needs="contrast"),
        # Multi-label: all labels of a protein right.
        Metric("accuracy", LABELLED, "maximize", "labels", _from_sklearn("accuracy_score")),
        Metric("balanced_accuracy", _ONE_LABEL, "maximize", "labels", _from_sklearn("balanced_accuracy_score")),
        Metric("f1", LABELLED, "maximize", "labels", _f1, needs="positives"),
        Metric("mcc", _ONE_LABEL, "maximize", "labels", _from_sklearn("matthews_corrcoef"), -1.0, needs="contrast"),
        Metric("auroc", LABELLED, "maximize", "probabilities", _area("roc_auc_score"), needs="contrast"),
        Metric("auprc", LABELLED, "maximize", "probabilities", _area("average_precision_score"), needs="contrast"),
    )
}
DEFAULT_METRIC: dict[Kind, str] = {
    "regression": "spearman",
    "binary": "auroc",
    "classification": "accuracy",
    "multilabel": "f1",
}


def all_scores(kind: Kind, targets: Array, outputs: Array) -> dict[str, float]:
    """Every metric that fits the task."""
    return {name: score(name, kind, targets, outputs) for name, metric in METRICS.items() if kind in metric.kinds}


def per_class(kind: Kind, targets: Array, outputs: Array, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row a class or label: units that have it, precision, recall, F1, areas, as far as they are defined. Empty for
    regression."""
    if kind == "regression":
        return []
    from sklearn import metrics

    predicted, likely = labels(kind, outputs), probabilities(kind, outputs)
    rows = []
    for number, name in enumerate(classes):
        has = targets[:, number] == 1 if kind == "multilabel" else targets == number
        said = predicted[:, number] == 1 if kind == "multilabel" else predicted == number
        chance = likely if kind == "binary" and number else 1 - likely if kind == "binary" else likely[:, number]
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            has, said, average="binary", zero_division=np.nan
        )
        row = {"class": name, "units": int(has.sum())}
        row |= {k: v for k, v in (("precision", precision), ("recall", recall), ("f1", f1)) if not math.isnan(v)}
        if 0 < has.sum() < len(has):
            row["auroc"] = metrics.roc_auc_score(has, chance)
            row["auprc"] = metrics.average_precision_score(has, chance)
        rows.append({key: float(v) if isinstance(v, float) else v for key, v in row.items()})
    return rows
