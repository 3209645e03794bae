"""The study's recipes by name: ``train: {recipe: paper, …}`` stands for settings; what is written beside it wins.

A recipe leaves no trace of its own: a sweep is what its settings are. Source: Schmirler, Heinzinger & Rost 2024, the
paper and its public notebooks. Trainable parameters are held to the published counts by tests. Unproven here, because
the notebooks are in no test: rates, batch sizes and dropout.
"""

from __future__ import annotations

from typing import Any

from plmray.config.catalog.families import FAMILIES, Family

LORA_RATE, FULL_RATE, FROZEN_RATE = 3e-4, 2e-5, 1e-4
RECIPES = ("paper", "prottrans", "notebook", "frozen")


def settings_of(recipe: str, family: Family, adapter_kind: str | None) -> dict[str, Any]:
    """Train settings of a recipe for a family of encoders, as a sweep file would have them.

    paper: a dense head of 32, LoRA of rank 4 and alpha 1 on the attention. prottrans: low rank and scaling, all layer
    norms. notebook: peft's LoRA on what the notebooks name, all biases, their head. frozen: standardised embeddings.
    ``adapter_kind``: what the file asks for itself; full fine-tuning has a rate of its own.
    """
    rules = FAMILIES[family]
    pooling = "cls" if rules.has_cls else "mean"
    rate = FULL_RATE if adapter_kind == "full" else LORA_RATE
    shared: dict[str, Any] = {"pooling": pooling, "batch_size": 8, "optimizer": {"lr": rate}}
    notebook_head = {"kind": "notebook", "dropout": rules.notebook_dropout}
    if recipe == "paper":
        adapter = {"kind": "lora", "rank": 4, "alpha": 1, "targets": "attention"}
        return shared | {"adapter": adapter, "head": {"kind": "dense", "hidden": 32}}
    if recipe == "prottrans":
        return shared | {"adapter": {"kind": "prottrans", "rank": 4}, "head": notebook_head}
    if recipe == "notebook":
        adapter = {"kind": "lora", "rank": 4, "alpha": 1, "targets": "notebook", "bias": "all"}
        return shared | {"adapter": adapter, "head": notebook_head}
    head = {"kind": "dense", "hidden": 32, "dropout": 0.2, "standardize": True}
    return shared | {"adapter": {"kind": "none"}, "head": head, "optimizer": {"lr": FROZEN_RATE, "eps": 1e-7}}


def merged(recipe: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The recipe under what the file says itself, section by section. An adapter of another kind starts afresh."""
    tree = dict(recipe)
    for key, value in own.items():
        below = tree.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and value.get("kind") in (None, below.get("kind")):
            tree[key] = {**below, **value}
        else:
            tree[key] = value
    return tree
