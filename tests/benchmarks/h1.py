"""H1: 320 head trials (64 settings × 5 seeds) on the real GB1 embeddings, packed, against a process a trial.

Seconds are core-seconds a trial. A ratio with ``_no_start`` leaves out the start of processes on both sides.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from dataclasses import replace
from typing import Any

from tests.benchmarks.common import DATA, Answer, interleaved, main, median, pin_threads, python_start_s, spread

pin_threads(1)

import numpy as np  # noqa: E402

from tests.benchmarks.heads_peers import Arrays, HeadTrial, ray_tune, sklearn_trial, torch_trial  # noqa: E402

SEEDS = (99, 98, 97, 96, 95)  # the study's
RATES = (3e-5, 5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3)
PUBLISHED = {"lr": 1e-4, "weight_decay": 0.0, "dropout": 0.2}  # the study's frozen recipe
CORES = 2
PACK = 32


def settings_grid(epochs: int) -> list[HeadTrial]:
    """64 settings × 5 seeds; the study's recipe is one of the 64."""
    grid = itertools.product(RATES, (0.0, 0.01), (0.0, 0.1, 0.2, 0.4), SEEDS)
    return [HeadTrial(lr, decay, dropout, seed, epochs) for lr, decay, dropout, seed in grid]


def gb1_arrays() -> Arrays:
    """The study's ESM2 8M mean embeddings, standardised by the training proteins."""
    from pyarrow import parquet

    arrays: Arrays = {}
    for name in ("train", "valid"):
        table = parquet.read_table(DATA / "gb1" / f"esm2_8m_mean_embeddings_{name}.parquet")
        arrays[f"{name}_x"] = np.stack([np.asarray(row, np.float64) for row in table["embedding"].to_pylist()])
        arrays[f"{name}_y"] = table["label"].to_numpy().astype(np.float32)
    mean, sd = arrays["train_x"].mean(0), arrays["train_x"].std(0)
    for name in ("train_x", "valid_x"):
        arrays[name] = ((arrays[name] - mean) / np.where(sd == 0, 1, sd)).astype(np.float32)
    return arrays


def encoded(arrays: Arrays) -> Any:
    """The same as plmray's data."""
    from plmray.data.encoded import EncodedData, EncodedSplit

    def split(name: str) -> EncodedSplit:
        values, targets = arrays[f"{name}_x"], arrays[f"{name}_y"]
        return EncodedSplit(np.zeros(len(values), np.int16), np.arange(len(values) + 1), targets.astype(float), values)

    return EncodedData({"train": split("train"), "validation": split("valid")}, "regression", (), 1, 1, 0, 0)


def settings_of(trial: HeadTrial) -> Any:
    from plmray.config.fields.train import TrainSpec

    optimizer = {"lr": trial.lr, "weight_decay": trial.weight_decay, "eps": 1e-7, "schedule": "constant", "clip": None}
    return TrainSpec.model_validate(
        {
            "backbone": "esm2_t6_8M_UR50D",
            "adapter": {"kind": "none"},
            "head": {"dropout": trial.dropout},
            "optimizer": optimizer,
            "epochs": trial.epochs,
            "batch_size": trial.batch_size,
        }
    )


def packed_trials(trials: list[HeadTrial], arrays: Arrays) -> tuple[list[float], float]:
    """Lowest validation losses, and seconds without the start of the process."""
    import torch

    from plmray.packed.head_pack import HeadPack
    from plmray.seeds import Streams

    torch.set_num_threads(1)
    started = time.perf_counter()
    data, waiting, best = encoded(arrays), list(enumerate(trials)), [0.0] * len(trials)
    pack = HeadPack(
        data, settings_of(trials[0]), "spearman", capacity=PACK, precision="fp32", device=torch.device("cpu")
    )
    numbers: dict[int, int] = {}
    while waiting or pack.members:
        while waiting and pack.free:
            number, trial = waiting.pop(0)
            numbers[id(pack.start(settings_of(trial), Streams(trial.seed)).training)] = number
        for member in pack.advance():
            if member.ended:
                assert member.training.best is not None
                best[numbers[id(member.training)]] = member.training.best.validation_loss
                member.training.engine.close()
    return best, time.perf_counter() - started


def packed_on_two_cores(trials: list[HeadTrial], arrays: Arrays) -> tuple[list[float], float, float]:
    """Two processes of one thread: losses, wall seconds with their start, and the slower one's without."""
    started = time.perf_counter()
    halves = [trials[0::2], trials[1::2]]
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        answers = pool.starmap(packed_trials, [(half, arrays) for half in halves])
    losses = [0.0] * len(trials)
    losses[0::2], losses[1::2] = answers[0][0], answers[1][0]
    return losses, time.perf_counter() - started, max(answer[1] for answer in answers)


def published_losses() -> np.ndarray[Any, Any]:
    """Lowest validation loss of each of the study's five frozen ESM2 8M trainings on GB1."""
    import pandas

    curves = pandas.read_parquet(DATA / "published_runs" / "learning_curves.parquet")
    own = curves[(curves["task"] == "GB1") & (curves["model"] == "ESM2 8M") & (curves["mode"] == "frozen")]
    return own.groupby("seed")["valid_loss"].min().to_numpy()


def lone_engine_agrees(arrays: Arrays) -> bool:
    """One trial of the pack against plmray's plain engine: autograd and torch.optim.AdamW, to 1e-5."""
    import torch

    from plmray.model.assemble import build_head_model
    from plmray.seeds import Streams
    from plmray.train.engines import TorchEngine
    from plmray.train.loop import Training

    trials = [HeadTrial(**PUBLISHED, seed=seed, epochs=2) for seed in SEEDS]
    settings, data = settings_of(trials[0]), encoded(arrays)
    model = build_head_model(settings, data.width, 1, Streams(SEEDS[0]))
    engine = TorchEngine(model, settings, data, precision="fp32", device=torch.device("cpu"))
    training = Training(settings, data, engine, Streams(SEEDS[0]), "spearman")
    alone = min(evaluation.validation_loss for evaluation in training.evaluations())
    return abs(packed_trials(trials, arrays)[0][0] - alone) < 1e-5


def run(quick: bool) -> Answer:
    epochs, repeats, peers = (10, 3, 4) if quick else (240, 3, 4)
    arrays, grid = gb1_arrays(), settings_grid(epochs)
    some = grid[:16] if quick else grid[::5]  # a repeat of the packed arm: 64 of the 320
    inner: dict[str, list[float]] = {"packed": [], "ray_tune_process": []}

    def packed() -> float:
        _, wall_s, inner_s = packed_on_two_cores(some, arrays)
        inner["packed"].append(inner_s * CORES / len(some))
        return wall_s * CORES / len(some)

    def ray_process() -> float:
        wall_s, training_s = ray_tune(grid[:peers], arrays, CORES)
        inner["ray_tune_process"].append(training_s / peers)
        return wall_s * CORES / peers

    def alone(trial: Any) -> float:
        started = time.perf_counter()
        trial(grid[0], arrays)
        return time.perf_counter() - started

    arms = {
        "packed": packed,
        "torch_loop": lambda: alone(torch_trial),
        "ray_tune_process": ray_process,
        "sklearn": lambda: alone(sklearn_trial),
    }
    seconds = interleaved(arms, repeats)
    start_s = median([python_start_s() for _ in range(3)])
    ours, ours_inner = median(seconds["packed"]), median(inner["packed"])
    answer = Answer("h1")
    answer.ratios = {
        "ray_tune_process": median(seconds["ray_tune_process"]) / ours,
        "ray_tune_process_no_start": median(inner["ray_tune_process"]) / ours_inner,
        "torch_loop": (median(seconds["torch_loop"]) + start_s) / ours,
        "torch_loop_no_start": median(seconds["torch_loop"]) / ours_inner,
        "sklearn_no_start": median(seconds["sklearn"]) / ours_inner,
    }
    answer.figures = {
        "epochs": epochs,
        "core_seconds_a_trial": {name: spread(values) for name, values in seconds.items()},
        "core_seconds_a_trial_no_start": {name: spread(values) for name, values in inner.items()},
        "microseconds_a_trial_step": round(1e6 * ours_inner / (epochs * 337), 2),
    }
    answer.gates["packed equals the plain engine to 1e-5"] = lone_engine_agrees(arrays)
    if not quick:
        _all_trials(grid, arrays, answer)
    return answer


def _all_trials(grid: list[HeadTrial], arrays: Arrays, answer: Answer) -> None:
    """All 320, timed once, and the study's recipe among them against the study's own logs."""
    losses, wall_s, _ = packed_on_two_cores(grid, arrays)
    recipe = [replace(grid[0], **PUBLISHED, seed=seed) for seed in SEEDS]
    ours, theirs = np.array([losses[grid.index(trial)] for trial in recipe]), published_losses()
    answer.figures["all_320_minutes"] = round(wall_s / 60, 2)
    answer.figures["best_validation_loss"] = {
        "packed": [round(float(ours.mean()), 4), round(float(ours.std(ddof=1)), 4)],
        "published": [round(float(theirs.mean()), 4), round(float(theirs.std(ddof=1)), 4)],
    }
    within = abs(ours.mean() - theirs.mean()) <= theirs.std(ddof=1)
    answer.gates["best validation loss within the published spread"] = bool(within)
    answer.gates["all 320 within 15 minutes on two cores"] = wall_s <= 900


if __name__ == "__main__":
    main("h1", run, __doc__ or "")
