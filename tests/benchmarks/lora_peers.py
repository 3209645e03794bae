"""What others do with 16 LoRA trials: the HF Trainer in two shapes, its search, and a Ray process for each trial.

All peers train the very module that plmray's plain engine trains, from the same first weights, on the same batches in
the same order, padded to the longest protein of each batch. Saving, evaluation and reporting are off.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from plmray.config.fields.train import ShapeSpec, TrainSpec
from plmray.data.batches import collate
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.model.assemble import ProteinModel, build_model, trainable_parameters
from plmray.model.backbones import random_esm2
from plmray.model.tokens import esm2_tokenizer
from plmray.seeds import Streams
from tests.benchmarks.common import DATA
from tests.benchmarks.heads_peers import QUIET

SHAPES = {"8M": (6, 320, 20), "35M": (12, 480, 20), "150M": (30, 640, 20), "650M": (33, 1280, 20)}
LOCATIONS = 10
LONGEST = 1022


@dataclass(frozen=True)
class LoraTrial:
    lr: float
    rank: int
    seed: int
    steps: int
    batch_size: int = 8


def settings_of(trial: LoraTrial) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "backbone": "esm2_t6_8M_UR50D",
            "adapter": {"kind": "lora", "rank": trial.rank, "alpha": 8.0},
            "head": {"kind": "dense", "hidden": 32},
            "optimizer": {"lr": trial.lr, "schedule": "constant"},
            "epochs": 1,
            "batch_size": trial.batch_size,
        }
    )


def deeploc() -> EncodedData:
    """Real DeepLoc proteins and their locations, cut at 1,022 residues."""
    sequences, names = [], []
    for file in sorted((DATA / "subcellular_location").glob("deeploc_our_val_set*")):
        for record in file.read_text().split(">")[1:]:
            header, *lines = record.splitlines()
            sequences.append("".join(lines)[:LONGEST])
            names.append(next(word for word in header.split() if word[-2:] in ("-M", "-S", "-U"))[:-2])
    known = sorted(set(names))
    targets = np.array([known.index(name) for name in names]) % LOCATIONS
    rows = esm2_tokenizer().encode(sequences)

    def split(part: slice) -> EncodedSplit:
        own = rows[part]
        return EncodedSplit(np.concatenate(own), np.cumsum([0, *map(len, own)]), targets[part])

    splits = {"train": split(slice(0, 1600)), "validation": split(slice(1600, None))}
    return EncodedData(splits, "classification", tuple("abcdefghij"), LOCATIONS, 1, 1, 1)  # type: ignore[arg-type]


def encoder_of(shape: str) -> nn.Module:
    layers, width, heads = SHAPES[shape]
    size = ShapeSpec(layers=layers, width=width, heads=heads, feed_forward=4 * width).size
    return random_esm2(size, 0).requires_grad_(False).eval()


def start(trial: LoraTrial, encoder: nn.Module) -> ProteinModel:
    return build_model(settings_of(trial), encoder, "esm2", LOCATIONS, Streams(trial.seed))


def batches(trial: LoraTrial, data: EncodedData) -> list[np.ndarray[Any, Any]]:
    """The proteins of every step, as plmray's loop orders them."""
    order = Streams(trial.seed).rng("order", 0).permutation(len(data.splits["train"]))
    return [order[n * trial.batch_size : (n + 1) * trial.batch_size] for n in range(trial.steps)]


def lean_loop(trial: LoraTrial, data: EncodedData, encoder: nn.Module, precision: str) -> list[float]:
    """peft and a plain loop: losses of every step."""
    model = start(trial, encoder)
    model.autocast_dtype = torch.bfloat16 if precision == "bf16" else None
    optimizer = torch.optim.AdamW(trainable_parameters(model).values(), lr=trial.lr, weight_decay=0.0)
    losses = []
    for rows in batches(trial, data):
        batch = collate(data, data.splits["train"], rows)
        loss = functional.cross_entropy(model(batch.tokens, batch.attention, batch.residues), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trainable_parameters(model).values(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class ForTrainer(nn.Module):
    """The same module as the HF Trainer wants it."""

    def __init__(self, model: ProteinModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(input_ids, attention_mask, attention_mask.bool())
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def examples(trial: LoraTrial, data: EncodedData) -> list[dict[str, Any]]:
    split = data.splits["train"]
    return [
        {"ids": split.tokens[split.offsets[row] : split.offsets[row + 1]], "label": int(split.targets[row])}
        for rows in batches(trial, data)
        for row in rows
    ]


def padded(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A collator: to the longest of the batch."""
    longest = max(len(item["ids"]) for item in items)
    ids = torch.full((len(items), longest), 1)
    for row, item in enumerate(items):
        ids[row, : len(item["ids"])] = torch.from_numpy(item["ids"].astype(np.int64))
    labels = torch.tensor([item["label"] for item in items])
    return {"input_ids": ids, "attention_mask": (ids != 1).long(), "labels": labels}


def trainer(trial: LoraTrial, data: EncodedData, encoder: nn.Module, per_step: int, precision: str, **more: Any) -> Any:
    """An HF Trainer of ``batch_size // per_step`` accumulation steps."""
    per_step = min(per_step, trial.batch_size)
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="h2", dir="/tmp"),
        per_device_train_batch_size=per_step,
        gradient_accumulation_steps=trial.batch_size // per_step,
        max_steps=trial.steps,
        learning_rate=trial.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        save_strategy="no",
        report_to=[],
        logging_strategy="no",
        disable_tqdm=True,
        bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
    )
    rows = examples(trial, data)
    return InOrder(
        model=None if "model_init" in more else ForTrainer(start(trial, encoder)),
        args=arguments, train_dataset=rows, eval_dataset=rows[:1], data_collator=padded, **more,
    )  # fmt: skip


def hf_trainer(trials: list[LoraTrial], data: EncodedData, encoder: nn.Module, per_step: int, precision: str) -> float:
    """Core-seconds a trial."""
    started = time.perf_counter()
    for trial in trials:
        trainer(trial, data, encoder, per_step, precision).train()
    return (time.perf_counter() - started) / len(trials)


def hf_search(trials: list[LoraTrial], data: EncodedData, encoder: nn.Module, precision: str) -> float:
    """``Trainer.hyperparameter_search`` with Optuna over the same rates and ranks; core-seconds a trial."""
    rates, ranks = sorted({trial.lr for trial in trials}), sorted({trial.rank for trial in trials})
    first = trials[0]

    def model_init(hp: Any) -> nn.Module:
        rank = hp.suggest_categorical("rank", ranks) if hp is not None else first.rank
        return ForTrainer(start(LoraTrial(first.lr, rank, first.seed, first.steps), encoder))

    search = trainer(first, data, encoder, first.batch_size, precision, model_init=model_init)
    started = time.perf_counter()
    search.hyperparameter_search(
        hp_space=lambda hp: {"learning_rate": hp.suggest_categorical("learning_rate", rates)},
        n_trials=len(trials),
        backend="optuna",
        direction="minimize",
        compute_objective=lambda metrics: float(metrics["eval_loss"]),
    )
    return (time.perf_counter() - started) / len(trials)


def ray_tune(trials: list[LoraTrial], data: EncodedData, shape: str, cores: int, precision: str) -> tuple[float, float]:
    """A fresh process for each trial, the lean loop inside: core-seconds a trial with and without its start."""
    os.environ.update(QUIET)
    import ray
    from ray import tune

    folder = tempfile.mkdtemp(prefix="h2", dir="/tmp")
    ray.init(
        address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        _temp_dir=folder, object_store_memory=256 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}},
    )  # fmt: skip
    try:
        held = ray.put(data)

        def train(config: dict[str, Any]) -> None:
            torch.set_num_threads(1)
            job = config["job"]
            encoder = encoder_of(shape)
            started = time.perf_counter()
            losses = lean_loop(LoraTrial(**job["trial"]), ray.get(job["data"][0]), encoder, precision)
            tune.report({"loss": losses[-1], "training_s": time.perf_counter() - started})

        jobs = [{"trial": asdict(trial), "data": [held]} for trial in trials]
        started = time.perf_counter()
        results = tune.Tuner(
            tune.with_resources(train, {"CPU": 1}),
            param_space={"job": tune.grid_search(jobs)},
            tune_config=tune.TuneConfig(reuse_actors=False),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        wall_s = time.perf_counter() - started
        inner = [result.metrics["training_s"] for result in results]
        return wall_s * cores / len(trials), sum(inner) / len(trials)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
