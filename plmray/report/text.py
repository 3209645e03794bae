"""Numbers and intervals as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from plmray.stats.intervals import Estimate

PLAIN_NAMES = {
    "optimizer.lr": "learning rate",
    "head.hidden": "head width",
    "optimizer.weight_decay": "weight decay",
    "batch_size": "batch size",
}


def plain_name(parameter: str) -> str:
    """A hyperparameter as people say it: 'optimizer.lr' is the learning rate, 'adapter.rank' the adapter rank."""
    return PLAIN_NAMES.get(parameter, parameter.replace(".", " ").replace("_", " "))


def seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def too_small() -> str:
    return "; differences between candidates are too small to see."


def interval(estimate: Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "-"
    if not math.isfinite(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def share(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} {_percentinterval(estimate)}"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "-"


def _percentinterval(estimate: Estimate) -> str:
    return f"[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]" if math.isfinite(estimate.low) else ""


def number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return value
