"""Logs with a known rule behind the reported score."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plmray.stats.run_audit import Curve, audit_group, audit_run, swapped_with

VALID = np.array([0.9, 0.4, 0.5, math.nan])
TEST = np.array([0.511111, 0.622222, 0.733333, 0.700001])
LOG = Curve("own", VALID, TEST)


@pytest.mark.parametrize(
    ("reported", "finding", "note"),
    [
        (0.622222, "validation-selected", ""),
        (0.733333, "test-selected", ""),
        (0.511111, "unexplained", ""),
        (0.62, "unexplained", ""),  # one short number does not make a rounded column
    ],
)
def test_finds_the_rule(reported: float, finding: str, note: str) -> None:
    found = audit_run(reported, [LOG])
    assert (found.finding, found.note) == (finding, note)
    assert (found.at_lowest_valid, found.best_test, found.both) == (0.622222, 0.733333, False)


def test_a_rounded_column_is_compared_as_rounded() -> None:
    found = audit_run(0.62, [LOG], decimals=2)
    assert (found.finding, found.note) == ("validation-selected", "rounded to 2 decimals")
    assert audit_run(0.733, [LOG], decimals=3).finding == "test-selected"
    assert audit_run(1.0, [LOG], decimals=8).finding == "unexplained"


def test_validation_takes_precedence_and_says_when_both_fit() -> None:
    found = audit_run(0.8, [Curve("own", np.array([0.9, 0.1]), np.array([0.7, 0.8]))])
    assert (found.finding, found.both) == ("validation-selected", True)


def test_the_log_that_explains_is_chosen_among_several() -> None:
    other = Curve("other", VALID, TEST - 0.3)
    assert audit_run(0.733333, [other, LOG]).curve == "own"
    assert audit_run(0.1, []).finding == "no-curve"


def test_a_log_without_validation_loss_can_only_speak_for_test() -> None:
    blind = Curve("blind", np.full(4, math.nan), TEST)
    found = audit_run(0.733333, [blind])
    assert (found.finding, found.note) == ("test-selected", "its log has no validation loss")


def test_a_swapped_score_is_named() -> None:
    found = audit_run(0.911119, [LOG])
    assert swapped_with(found, [("x", 0.5), ("y", 0.911119)]) == "y"
    assert swapped_with(audit_run(0.622222, [LOG]), [("y", 0.622222)]) == ""


def test_a_group_is_judged_by_the_runs_that_tell_the_rules_apart() -> None:
    both = Curve("c", np.array([0.9, 0.1]), np.array([0.7123456, 0.8123456]))
    audits = [("1", audit_run(0.8123456, [both])), ("2", audit_run(0.733333, [LOG]))]
    found = audit_group(audits, {"full": ["1", "2", "3"], "lora": ["9"]}, {"own": "full", "c": "full"})
    assert found.verdict == "test-selected"
    assert found.unreported_seeds == ("3",)
    mixed = [("1", audit_run(0.622222, [LOG])), ("1", audit_run(0.733333, [LOG]))]
    found = audit_group(mixed, {"full": []}, {"own": "full"})
    assert (found.verdict, found.runs) == ("mixed", 2)
