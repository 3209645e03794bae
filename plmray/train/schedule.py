"""Learning rate by optimizer step: a function of the settings alone, so no engine can change it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plmray.config.fields.train import OptimizerSpec


def learning_rates(spec: OptimizerSpec, steps: NDArray[np.int64], total_steps: int) -> NDArray[np.float64]:
    """Rates of ``steps`` (0-based) of ``total_steps``: a linear rise over the warm-up, then the schedule to 0."""
    warmup_steps = round(spec.warmup * total_steps)
    progress = (steps - warmup_steps) / max(1, total_steps - warmup_steps)
    falling = {
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + np.cos(np.pi * progress)),
        "constant": np.ones_like(progress),
    }
    rising = (steps + 1) / max(1, warmup_steps)
    rates: NDArray[np.float64] = spec.lr * np.where(steps < warmup_steps, rising, falling[spec.schedule])
    return rates


def evaluation_steps(steps_per_epoch: int, evaluations_per_epoch: int) -> list[int]:
    """Steps of an epoch (1-based, the last one included) after which to evaluate."""
    count = min(evaluations_per_epoch, steps_per_epoch)
    return [round(steps_per_epoch * (k + 1) / count) for k in range(count)]
