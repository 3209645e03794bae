"""H2: 16 LoRA trials (rate × rank × seed) on real DeepLoc proteins, packed, against what others do.

Core-seconds a trial at the ESM2 8M shape (random weights: the arithmetic is the same), batch 8, fixed steps, one
thread. Peers run their trials one by one, so two of the 16 stand for all. ``--quick``: 4 trials of batch 2. The
environment variable PLMRAY_H2_PRECISION=bf16 measures that precision, on all sides.
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace
from typing import Any

from tests.benchmarks.common import Answer, interleaved, main, median, pin_threads, spread

pin_threads(1)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from plmray.data.encoded import EncodedData  # noqa: E402
from plmray.packed.adapter_pack import AdapterPack  # noqa: E402
from plmray.packed.pack import upcoming  # noqa: E402
from plmray.seeds import Streams  # noqa: E402
from tests.benchmarks.lora_peers import (  # noqa: E402
    LoraTrial,
    deeploc,
    encoder_of,
    hf_search,
    hf_trainer,
    lean_loop,
    ray_tune,
    settings_of,
)

CORES = 2
STEPS = 1  # a step takes seconds here; its length does not depend on its number
TARGETS = ("hf_trainer_8x1", "hf_trainer_1x8", "hf_search", "ray_tune_process")


def grid(steps: int) -> list[LoraTrial]:
    combinations = itertools.product((1e-4, 3e-4, 1e-3, 3e-3), (4, 8), (99, 98))
    return [LoraTrial(lr, rank, seed, steps) for lr, rank, seed in combinations]


def packed(
    trials: list[LoraTrial], data: EncodedData, encoder: Any, precision: str
) -> tuple[float, np.ndarray[Any, Any]]:
    """Core-seconds a trial, the start of its slots included, and the losses (trials, steps)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    widest = settings_of(max(trials, key=lambda trial: trial.rank))
    pack = AdapterPack(
        data, widest, encoder, "esm2", "accuracy", capacity=len(trials), precision=precision, device=device
    )
    for trial in trials:
        pack.start(settings_of(trial), Streams(trial.seed))
    losses = pack.run_ticks(upcoming(pack.members, trials[0].steps))
    return (time.perf_counter() - started) / len(trials), losses


def measure(trials: list[LoraTrial], peers: int, repeats: int, precision: str, answer: Answer) -> None:
    data, encoder = deeploc(), encoder_of("8M")
    some, suffix = trials[:: len(trials) // peers], "" if precision == "fp32" else f"_{precision}"
    inner: list[float] = []

    def ray_process() -> float:
        whole, training = ray_tune(some, data, "8M", CORES, precision)
        inner.append(training)
        return whole

    arms = {
        "packed": lambda: packed(trials, data, encoder, precision)[0],
        "hf_trainer_8x1": lambda: hf_trainer(some, data, encoder, 8, precision),
        "hf_trainer_1x8": lambda: hf_trainer(some, data, encoder, 1, precision),
        "hf_search": lambda: hf_search(some, data, encoder, precision),
        "ray_tune_process": ray_process,
    }
    seconds = interleaved(arms, repeats)
    ours = median(seconds["packed"])
    for name in TARGETS:
        answer.ratios[name + suffix] = median(seconds[name]) / ours
    answer.ratios[f"ray_tune_process_no_start{suffix}"] = median(inner) / ours
    best = min(answer.ratios[name + suffix] for name in TARGETS)
    answer.figures[f"against the best peer{suffix}"] = round(best, 2)
    answer.figures[f"core_seconds_a_trial{suffix}"] = {name: spread(values, 3) for name, values in seconds.items()}
    alone = lean_loop(trials[0], data, encoder, precision)
    _, losses = packed(trials[:3], data, encoder, precision)
    close = bool(np.allclose(losses[0], alone, rtol=1e-4 if precision == "fp32" else 2e-2))
    answer.gates[f"losses of peft one by one{suffix}"] = close


def run(quick: bool) -> Answer:
    answer = Answer("h2")
    trials = grid(STEPS)
    answer.figures["steps"] = STEPS
    if quick:
        trials = [replace(trial, batch_size=2) for trial in trials[::4]]
    measure(trials, 2, 3, os.environ.get("PLMRAY_H2_PRECISION", "fp32"), answer)
    return answer


if __name__ == "__main__":
    main("h2", run, __doc__ or "")
