"""A first sweep file for data that somebody brings: commented, and ready to run as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plmray.config.backbone_names import encoder_size, family
from plmray.config.fields.train import AdapterSpec, BackboneSpec, TrainSpec
from plmray.plan.gpu import trainable
from plmray.plan.gpu_memory import GIB, Setting, memory
from plmray.plan.look import Look

BUNDLED = "esm2_plmray_1.6M"
LARGEST_FIRST = ("esm2_t33_650M_UR50D", "esm2_t30_150M_UR50D", "esm2_t12_35M_UR50D", "esm2_t6_8M_UR50D")
SAFE = 0.85  # of a card's memory, for estimates are estimates
HEAD_STEPS, LORA_STEPS = 1500, 6000  # about
TRAINS = 0.65  # of the proteins
MICRO_BATCHES = (8, 4, 2, 1)


@dataclass(frozen=True)
class Choice:
    """``reasons``: why, one line each."""

    backbone: str
    adapter: str
    micro_batch: int
    reasons: tuple[str, ...]


def choose(look: Look, card_bytes: float | None) -> Choice:
    """The largest ESM2 that LoRA trains on a card of this size; without one the small encoder that comes along."""
    if card_bytes is None:
        reasons = (
            "no --gpu: the small encoder that comes along, frozen, runs on any CPU; for results give --gpu 24GB",
        )
        return Choice(BUNDLED, "none", 8, reasons)
    tokens = min(look.longest, 1022) + 2
    for name in LARGEST_FIRST:
        needed = {n: _bytes(name, n, tokens) for n in MICRO_BATCHES}
        fitting = next((n for n in MICRO_BATCHES if needed[n] <= SAFE * card_bytes), None)
        if fitting is not None:
            used = f"{fitting} proteins of {tokens} tokens in about {needed[fitting] / GIB:.0f} GB (estimated)"
            return Choice(name, "lora", fitting, (f"{name} with LoRA: the largest ESM2 that fits, {used}",))
    return Choice(LARGEST_FIRST[-1], "none", 1, ("LoRA of no ESM2 fits this card: the smallest, frozen",))


def _bytes(name: str, micro_batch: int, tokens: int) -> float:
    train = TrainSpec(backbone=BackboneSpec(name=name), adapter=AdapterSpec(kind="lora", rank=8))
    size = encoder_size(train.backbone)
    assert size is not None
    setting = Setting(size, family(train.backbone, Path()), "lora", "bf16", trainable(train, size))
    return memory(replace(setting, micro_batch=micro_batch), tokens).total


def sweep_text(look: Look, choice: Choice, data: str, name: str, labels: str | None = None, seeds: int = 3) -> str:
    return "\n".join(_lines(look, choice, data, name, labels, seeds)) + "\n"


def _lines(look: Look, choice: Choice, data: str, name: str, labels: str | None, seeds: int) -> Iterator[str]:
    yield "# Written by plmray init. What it decided, and why:"
    yield from (f"#   {reason}" for reason in (*look.reasons, *choice.reasons))
    yield from (f"#   note: {note}" for note in look.notes)
    yield "# plmray explain FIELD says what a field is; plmray plan says what the sweep will cost."
    yield f"name: {name}"
    yield "task:"
    yield f"  files: {_quoted(data)}"
    if labels is not None:
        yield f"  labels: {_quoted(labels)}"
    yield f"  kind: {look.kind}"
    yield f"  level: {look.level}"
    if look.columns:
        yield f"  columns: {_flow(look.columns)}"
    if look.split == {}:
        yield "  validation_fraction: 0.15               # of the training proteins; the file marks none"
    elif look.split is not None:
        yield f"  split: {_flow({'test': 0.2, 'validation': 0.15, **look.split, 'seed': 0})}"
    if look.over_length:
        yield "  over_length: cut"
    yield "train:"
    yield f"  backbone: {choice.backbone}"
    adapter = {"kind": "none"} if choice.adapter == "none" else {"kind": "lora", "rank": 8, "alpha": 16}
    yield f"  adapter: {_flow(adapter)}"
    yield f"  head: {_flow(_head(look))}"
    if look.balanced:
        yield "  class_weights: balanced"
    yield f"  optimizer: {_flow({'lr': 1e-3 if choice.adapter == 'none' else 3e-4})}"
    yield f"  epochs: {_epochs(look, choice)}"
    yield "  batch_size: 8"
    if choice.adapter != "none":
        yield "resources:"
        yield f"  micro_batch: {choice.micro_batch}"
    yield "space:                                    # few: each needs ten random candidates to have a share of its own"
    yield from _space(choice)
    yield "objective: " + _flow({"metric": look.metric})
    yield "search: {candidates: 8, seeds: [0, 1], sampler: tpe, scheduler: asha}"
    listed = ", ".join(str(101 + n) for n in range(seeds))
    yield "replicate:                                # on fresh seeds, with test scores: this decides"
    yield "  top: 2"
    yield f"  random: {20 if choice.adapter == 'none' else 6}"
    yield f"  seeds: [{listed}]"


def _head(look: Look) -> dict[str, Any]:
    return {"kind": "linear"} if look.level == "residue" else {"kind": "dense", "hidden": 32, "dropout": 0.2}


def _space(choice: Choice) -> Iterator[str]:
    low, high = (3e-4, 1e-2) if choice.adapter == "none" else (5e-5, 1e-3)
    yield f"  optimizer.lr: {{kind: float, low: {_rate(low)}, high: {_rate(high)}, log: true}}"
    if choice.adapter != "none":
        yield "  adapter.rank: {kind: ordinal, values: [4, 8, 16]}"
    else:
        yield "  batch_size: {kind: ordinal, values: [8, 16, 32]}"


def _epochs(look: Look, choice: Choice) -> int:
    """So many that training takes about as many steps whatever the number of proteins."""
    steps = max(1, round(TRAINS * len(look.rows)) // 8)
    if choice.adapter == "none":
        return max(5, min(60, round(HEAD_STEPS / steps)))
    return max(3, min(20, round(LORA_STEPS / steps)))


def _flow(values: dict[str, Any]) -> str:
    shown = (f"{key}: {_quoted(v) if isinstance(v, str) else _number(v)}" for key, v in values.items())
    return f"{{{', '.join(shown)}}}"


def _number(value: Any) -> str:
    return _rate(value) if isinstance(value, float) and value < 0.01 else json.dumps(value)


def _rate(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-")


def _quoted(text: str) -> str:
    plain = text.replace("_", "").replace("-", "").replace(".", "").replace("/", "")
    return text if plain.isalnum() and not plain.isdigit() else json.dumps(text, ensure_ascii=False)
