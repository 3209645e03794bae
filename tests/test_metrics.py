"""Metrics of every kind of task against scikit-learn, straight; and of residues against an independent computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from plmray.metrics import METRICS, all_scores, per_class, score

RNG = np.random.default_rng(3)


def test_binary() -> None:
    targets, outputs = RNG.integers(0, 2, 60), RNG.normal(size=(60, 1))
    said, likely = (outputs[:, 0] > 0).astype(int), expit(outputs[:, 0])
    found = all_scores("binary", targets, outputs)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(targets, likely))
    assert found["auprc"] == pytest.approx(sk.average_precision_score(targets, likely))
    assert found["f1"] == pytest.approx(sk.f1_score(targets, said))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(targets, said))
    assert found["accuracy"] == pytest.approx((targets == said).mean())
    rows = per_class("binary", targets, outputs, ["no", "yes"])
    assert rows[1]["f1"] == pytest.approx(found["f1"]) and rows[0]["auroc"] == pytest.approx(found["auroc"])
    assert rows[0]["units"] + rows[1]["units"] == 60


def test_classes() -> None:
    targets, outputs = RNG.integers(0, 3, 90), RNG.normal(size=(90, 3))
    found = all_scores("classification", targets, outputs)
    likely = softmax(outputs, axis=1)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(targets, likely, multi_class="ovr"))
    assert found["f1"] == pytest.approx(sk.f1_score(targets, outputs.argmax(1), average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(targets, outputs.argmax(1)))
    rows = per_class("classification", targets, outputs, ["H", "E", "C"])
    report = sk.classification_report(targets, outputs.argmax(1), output_dict=True, zero_division=0)
    for number, row in enumerate(rows):
        assert row["precision"] == pytest.approx(report[str(number)]["precision"])
        assert row["recall"] == pytest.approx(report[str(number)]["recall"])


def test_label_sets() -> None:
    targets, outputs = RNG.integers(0, 2, (50, 4)), RNG.normal(size=(50, 4))
    found = all_scores("multilabel", targets, outputs)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(targets, outputs, average="macro"))
    assert found["accuracy"] == pytest.approx((targets == (outputs > 0)).all(1).mean())
    assert [row["units"] for row in per_class("multilabel", targets, outputs, "abcd")] == targets.sum(0).tolist()


def test_a_class_that_is_absent_or_everywhere_says_nothing() -> None:
    outputs = RNG.normal(size=(20, 3))
    targets = np.array([0, 1] * 10)  # class 2 is absent
    likely = softmax(outputs, axis=1)
    expected = np.mean([sk.roc_auc_score(targets == c, likely[:, c]) for c in (0, 1)])
    assert score("auroc", "classification", targets, outputs) == pytest.approx(expected)
    assert math.isnan(score("auroc", "binary", np.ones(5, int), outputs[:5, :1]))  # unknown, not chance
    assert "auroc" not in per_class("classification", targets, outputs, "abc")[2]


def test_regression_has_no_classes_and_its_five_scores() -> None:
    targets = RNG.normal(size=30)
    assert set(all_scores("regression", targets, targets[:, None])) == {"spearman", "pearson", "mse", "mae", "r2"}
    assert per_class("regression", targets, targets[:, None], ()) == []


@pytest.mark.parametrize(
    ("metric", "kind", "targets"),
    [
        ("auroc", "binary", np.zeros(4, int)),
        ("auprc", "binary", np.ones(4, int)),
        ("auroc", "classification", np.full(4, 2)),
        ("auroc", "multilabel", np.array([[1, 0]] * 4)),
        ("mcc", "binary", np.ones(4, int)),
        ("f1", "binary", np.zeros(4, int)),
        ("f1", "multilabel", np.zeros((4, 2), int)),
        ("spearman", "regression", np.ones(4)),
        ("pearson", "regression", np.ones(4)),
        ("r2", "regression", np.ones(4)),
    ],
)
def test_what_the_targets_leave_undefined_is_no_number(metric: str, kind: str, targets: np.ndarray) -> None:
    """Unknown is not zero, and not chance."""
    width = {"classification": 3, "multilabel": 2}.get(kind, 1)
    outputs = RNG.normal(size=(len(targets), width))
    assert math.isnan(score(metric, kind, targets, outputs))  # type: ignore[arg-type]
    assert not METRICS[metric].is_defined(targets, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["regression", "binary", "classification", "multilabel"])
def test_every_metric_is_defined_and_within_its_bounds_on_mixed_targets(kind: str) -> None:
    width = {"classification": 3, "multilabel": 2}.get(kind, 1)
    targets = {"regression": RNG.normal(size=30), "multilabel": RNG.integers(0, 2, (30, 2))}.get(kind)
    targets = RNG.integers(0, max(2, width), 30) if targets is None else targets
    for name, value in all_scores(kind, targets, RNG.normal(size=(30, width))).items():  # type: ignore[arg-type]
        assert METRICS[name].is_defined(targets, kind)  # type: ignore[arg-type]
        assert METRICS[name].low <= value <= METRICS[name].high
