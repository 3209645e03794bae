"""What a process keeps between candidates: never another task's, and no more than it uses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plmray.config.fields.train import TrainSpec
from plmray.data.datasets import load_data
from plmray.plan.prepare import make_identifier
from plmray.sweep.on_ray.trainables import resident_bytes
from plmray.sweep.workers.context import Bench, make_bench
from plmray.sweep.workers.device import Device
from plmray.sweep.workers.serial import Worker
from plmray.trials.job import Job
from tests.examples import sweep_tree, tiny_sweep, write_proteins

FROZEN = {**sweep_tree()["train"], "adapter": {"kind": "none"}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def bench_of(folder: Path, seed: int = 0, size: int = 48, **changes: Any) -> Bench:
    landscape = {"length": 12, "train": size, "validation": 24, "test": 24, "seed": seed}
    task = {"dataset": "landscape", "landscape": landscape}
    sweep = tiny_sweep(folder, **{"task": task, "train": FROZEN, "resources": {"engine": "torch"}, **changes})
    return make_bench(sweep, load_data(sweep.spec.task, sweep.folder), "fp32", None, has_gpu=False)


def copied(bench: Bench) -> Bench:
    """As it arrives in a reused process: a new object for every candidate, at the address of an old one or not."""
    return pickle.loads(pickle.dumps(bench))  # type: ignore[no-any-return]


def test_no_bench_gets_the_embeddings_of_another(tmp_path: Path) -> None:
    """Sixty arrivals of mixed tasks in one process: 4 of 60 got another task's in version 0.1.0."""
    kinds = [bench_of(tmp_path, seed) for seed in range(4)]
    kinds.append(bench_of(tmp_path, 0, train={**FROZEN, "backbone": {**FROZEN["backbone"], "init_seed": 5}}))
    expected = [Device().embedded(bench, bench.spec.train) for bench in kinds]
    device, rng = Device(), np.random.default_rng(0)
    for number in rng.integers(0, len(kinds), 60):
        bench = copied(kinds[number])
        found = device.embedded(bench, bench.spec.train)
        for name, split in expected[number].splits.items():
            np.testing.assert_array_equal(found.splits[name].embeddings, split.embeddings)
            np.testing.assert_array_equal(found.splits[name].targets, split.targets)


def test_a_split_is_kept_by_its_task_and_seed(tmp_path: Path) -> None:
    task = {"validation_fraction": 0.25, "shared_sequences": "allow"}
    one = bench_of(tmp_path, task={**task, "files": write_proteins(tmp_path / "one.csv")})
    other = bench_of(tmp_path, task={**task, "files": write_proteins(tmp_path / "other.csv", train=44)})
    device = Device()
    for bench, seed in ((one, 1), (other, 1), (one, 2), (one, 1)):
        found, alone = device.data(copied(bench), seed), Device().data(bench, seed)
        np.testing.assert_array_equal(found.splits["validation"].tokens, alone.splits["validation"].tokens)
        np.testing.assert_array_equal(found.splits["train"].targets, alone.splits["train"].targets)


def test_settings_that_change_embeddings_have_their_own(tmp_path: Path) -> None:
    bench, device = bench_of(tmp_path), Device()
    plain = bench.spec.train
    others = [
        TrainSpec.model_validate({**plain.model_dump(), "pooling": "cls"}),
        TrainSpec.model_validate({**plain.model_dump(), "head": {"standardize": True}}),
        TrainSpec.model_validate({**plain.model_dump(), "backbone": {**FROZEN["backbone"], "init_seed": 1}}),
    ]
    first = device.embedded(bench, plain).splits["train"].embeddings
    for settings in others:
        found = device.embedded(bench, settings).splits["train"].embeddings
        assert first is not None and found is not None and not np.allclose(first, found)
        np.testing.assert_array_equal(found, Device().embedded(bench, settings).splits["train"].embeddings)


def test_memory_is_flat_over_fifty_candidates(tmp_path: Path) -> None:
    """A frozen sweep of engine torch in one reused process: 5.4 MB a candidate grew in version 0.1.0.

    Embeddings of 4,000 proteins of width 256 are 4 MB: kept once a candidate they would add 160 MB in 40.
    """
    shape = {"layers": 1, "width": 256, "heads": 2, "feed_forward": 32}
    train = {**FROZEN, "backbone": {"name": "wide", "init": "random", "shape": shape}, "epochs": 1, "batch_size": 512}
    bench = bench_of(tmp_path, size=4000, train=train)
    sweep = tiny_sweep(tmp_path, train=train)
    identifier, device, seen = make_identifier(sweep, "", False), Device(), list[int]()
    for number in range(50):
        candidate = identifier.candidate({"optimizer.lr": 0.001 + number * 1e-5}, "given")
        worker = Worker(copied(bench), device=device)
        (*_, last) = worker.reports(Job(candidate, (0,), "search", (1,)))
        assert last.finished and last.results[0].state == "COMPLETE"
        seen.append(resident_bytes())
    assert max(seen[40:]) - max(seen[5:10]) < 20e6, [n // 10**6 for n in seen]
