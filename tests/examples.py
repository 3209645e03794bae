"""Small sweeps, data and models that many tests use. Real parts, small sizes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from plmray.config.fields.train import TrainSpec
from plmray.config.load import LoadedSweep, load_sweep
from plmray.data.datasets import load_data
from plmray.data.encoded import EncodedData
from plmray.model.assemble import ProteinModel, build_model
from plmray.model.backbones import load_encoder
from plmray.seeds import Streams
from plmray.sweep.workers.context import encode

ROOT = Path(__file__).resolve().parents[1]


def sweep_tree(**changes: Any) -> dict[str, Any]:
    """A sweep that trains in a second; ``changes`` replace whole sections."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "task": {"dataset": "landscape", "landscape": {"length": 12, "train": 48, "validation": 24, "test": 24}},
        "train": {
            "backbone": {
                "name": "tiny",
                "init": "random",
                "shape": {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32},
            },
            "pooling": "mean",
            "epochs": 2,
            "optimizer": {"lr": 0.003},
        },
        "space": {"optimizer.lr": {"kind": "float", "low": 0.001, "high": 0.01, "log": True}},
        "search": {"candidates": 3, "seeds": [0, 1], "sampler": "random"},
        "replicate": {"top": 1, "random": 2, "seeds": [101, 102]},
    }
    return {**tree, **changes}


def write_sweep(folder: Path, **changes: Any) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep_tree(**changes)))
    return file


def write_proteins(file: Path, train: int = 40, test: int = 12) -> str:
    """A CSV of random peptides whose target is how many A they hold, without validation proteins; its name."""
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("ACDEFG"), size=10)) for _ in range(train + test)]
    lines = [f"{row},{row.count('A')},{'train' if n < train else 'test'}" for n, row in enumerate(rows)]
    file.write_text("\n".join(["sequence,target,set", *lines]) + "\n")
    return file.name


def write_toy(file: Path, level: str, kind: str) -> None:
    """64 peptides whose labels their composition, or a residue's own letter, tells; some residues are masked."""
    rng = np.random.default_rng(0)
    lines = ["sequence,target,mask,set,validation"]
    for number in range(64):
        sequence = "".join(rng.choice(list("ACDEFG"), size=int(rng.integers(6, 15))))
        split = "test" if number >= 48 else "train"
        mask = "".join(rng.choice(list("110"), size=len(sequence)))
        lines.append(f"{sequence},{label(sequence, level, kind)},{mask},{split},{32 <= number < 48}")
    file.write_text("\n".join(lines) + "\n")


def label(sequence: str, level: str, kind: str) -> str:
    """What ``write_toy`` writes for a peptide."""
    share = sequence.count("A") + sequence.count("C")
    if level == "residue":
        values = {"A": 2.0, "C": 1.0, "D": 0.0, "E": 0.0, "F": -1.0, "G": -2.0}
        if kind == "regression":
            return " ".join(str(values[letter]) for letter in sequence)
        return "".join(
            "HHEECC"["ACDEFG".index(a)] if kind == "classification" else "ba"[values[a] > 0] for a in sequence
        )
    if kind == "regression":
        return str(3.0 * share / len(sequence))
    if kind == "binary":
        return "yes" if share / len(sequence) > 0.34 else "no"
    if kind == "classification":
        return max("ACD", key=sequence.count)
    return ";".join(letter for letter in "AC" if sequence.count(letter) > 1) or "-"


def tiny_sweep(folder: Path, **changes: Any) -> LoadedSweep:
    return load_sweep(write_sweep(folder, **changes))


def tiny_data(sweep: LoadedSweep) -> EncodedData:
    return encode(sweep, load_data(sweep.spec.task, sweep.folder))


def tiny_model(train: TrainSpec, data: EncodedData, seed: int = 1) -> tuple[ProteinModel, Streams]:
    streams = Streams(seed)
    encoder = load_encoder(train.backbone, Path())
    return build_model(train, encoder, "esm2", data.num_outputs, streams, data.level), streams


CPU = torch.device("cpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
