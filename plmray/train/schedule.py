"""Learning rate by optimizer step: a function of the settings alone, so no engine can change it."""

from __future__ import annotations

import math

from plmray.spec.sweep import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int, total_steps: int) -> float:
    """Rate of ``step`` (0-based) of ``total_steps``: a linear rise over the warm-up, then the schedule to 0."""
    warmup_steps = round(spec.warmup * total_steps)
    if step < warmup_steps:
        return spec.lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if spec.schedule == "linear":
        return spec.lr * (1.0 - progress)
    if spec.schedule == "cosine":
        return spec.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
    return spec.lr


def evaluation_steps(steps_per_epoch: int, evaluations_per_epoch: int) -> list[int]:
    """Steps of an epoch (1-based, the last one included) after which to evaluate."""
    count = min(evaluations_per_epoch, steps_per_epoch)
    return [round(steps_per_epoch * (k + 1) / count) for k in range(count)]
