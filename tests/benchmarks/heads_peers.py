"""What others do with 64 heads and five seeds on cached embeddings: a loop, a process a trial, scikit-learn.

Every peer trains the same head on the same standardised embeddings for as many epochs, takes the validation loss
after each, and keeps its best weights in memory.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


@dataclass(frozen=True)
class HeadTrial:
    lr: float
    weight_decay: float
    dropout: float
    seed: int
    epochs: int
    batch_size: int = 8


def torch_trial(trial: HeadTrial, arrays: Arrays) -> float:
    """The plain loop a competent person writes; returns the lowest validation loss."""
    import torch
    from torch import nn

    torch.manual_seed(trial.seed)
    train_x, train_y, valid_x, valid_y = (
        torch.from_numpy(arrays[name]) for name in ("train_x", "train_y", "valid_x", "valid_y")
    )
    model = nn.Sequential(nn.Linear(train_x.shape[1], 32), nn.ReLU(), nn.Dropout(trial.dropout), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.lr, weight_decay=trial.weight_decay, eps=1e-7)
    best, best_weights = float("inf"), model.state_dict()
    for _ in range(trial.epochs):
        model.train()
        for rows in torch.randperm(len(train_x)).split(trial.batch_size):
            loss = nn.functional.mse_loss(model(train_x[rows])[:, 0], train_y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            validation = float(nn.functional.mse_loss(model(valid_x)[:, 0], valid_y))
        if validation < best:
            best, best_weights = validation, copy.deepcopy(model.state_dict())
    assert best_weights
    return best


def sklearn_trial(trial: HeadTrial, arrays: Arrays) -> float:
    """scikit-learn's MLPRegressor, an epoch a call; it has no dropout."""
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(
        hidden_layer_sizes=(32,),
        learning_rate_init=trial.lr,
        alpha=trial.weight_decay,
        batch_size=trial.batch_size,
        random_state=trial.seed,
    )
    best = float("inf")
    for _ in range(trial.epochs):
        model.partial_fit(arrays["train_x"], arrays["train_y"])
        best = min(best, float(np.mean((model.predict(arrays["valid_x"]) - arrays["valid_y"]) ** 2)))
    return best


def ray_tune(trials: list[HeadTrial], arrays: Arrays, cores: int) -> tuple[float, float]:
    """Ray Tune with a fresh process for each trial: (seconds in all, seconds of training summed over trials)."""
    os.environ.update(QUIET)
    import ray
    from ray import tune

    folder = tempfile.mkdtemp(prefix="h1", dir="/tmp")
    ray.init(
        address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        _temp_dir=folder, object_store_memory=256 * 2**20,
    )  # fmt: skip
    try:
        held = ray.put(arrays)

        def train(config: dict[str, Any]) -> None:
            import torch

            torch.set_num_threads(1)
            started = time.perf_counter()
            best = torch_trial(HeadTrial(**config["trial"]), {k: v.copy() for k, v in ray.get(config["data"]).items()})
            tune.report({"loss": best, "training_s": time.perf_counter() - started})

        configs = [{"trial": asdict(trial), "data": [held]} for trial in trials]
        started = time.perf_counter()
        results = tune.Tuner(
            tune.with_resources(lambda c: train({**c["job"], "data": c["job"]["data"][0]}), {"CPU": 1}),
            param_space={"job": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(reuse_actors=False),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        return time.perf_counter() - started, sum(result.metrics["training_s"] for result in results)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
