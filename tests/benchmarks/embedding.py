"""embedding: the rate of a pass over frozen proteins on one core, as a share of one large matrix product's.

Arms run in turn, so that a busy machine slows all. Shapes of ESM2 with random weights: 8M (heads of width 16) and
three layers of 650M (width 64); 267 tokens a protein, as GB1 has. Gate: at least .7 of a 2,048³ product in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks.common import Answer, interleaved, main, median, pin_threads, spread

SHAPES = {"8M": (6, 320, 20), "650M, 3 layers": (3, 1280, 20)}
LENGTH, WANTED, PRODUCT = 267, 0.7, 2048


def run(quick: bool) -> Answer:
    pin_threads()
    import torch

    torch.set_num_threads(1)
    answer = Answer("embedding")
    for name, shape in SHAPES.items():
        arms, flops = arms_of(shape, 8 if quick else 30)
        seconds = interleaved(arms, 3 if quick else 7)
        rates = {arm: flops[arm] / median(values) for arm, values in seconds.items()}
        shares = {arm: rate / rates["one product"] for arm, rate in rates.items()}
        answer.ratios[f"transformers' padded pass, {name}"] = rates["unpadded"] / rates["padded"]
        answer.gates[f"{name}: at least {WANTED} of one product"] = shares["unpadded"] >= WANTED
        answer.figures[f"{name}: share of one product"] = {arm: round(share, 3) for arm, share in shares.items()}
        answer.figures[f"{name}: seconds"] = {arm: spread(values) for arm, values in seconds.items()}
    return answer


def arms_of(shape: tuple[int, int, int], proteins: int) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """The passes and the product, and the arithmetic of each: linear layers, and attention's two products."""
    import numpy as np
    import torch

    from plmray.config.fields.train import ShapeSpec
    from plmray.data.encoded import EncodedData, EncodedSplit
    from plmray.model.backbones import random_esm2
    from plmray.packed.embedder import Unpadded
    from plmray.train.embeddings import Padded, compute_embeddings

    layers, width, heads = shape
    encoder = random_esm2(ShapeSpec(layers=layers, width=width, heads=heads, feed_forward=4 * width).size, 0).eval()
    tokens = np.random.default_rng(0).integers(4, 24, proteins * LENGTH).astype(np.int16)
    split = EncodedSplit(tokens, np.arange(proteins + 1) * LENGTH, np.zeros(proteins), marks=2)
    data = EncodedData({"train": split}, "regression", (), 1, 1, 1, 1)
    cpu, matrix = torch.device("cpu"), torch.randn(PRODUCT, PRODUCT)
    arms: dict[str, Callable[[], Any]] = {"one product": lambda: matrix @ matrix}
    for name, kind in (("padded", Padded), ("unpadded", Unpadded)):
        embedder = kind(encoder, "fp32", cpu)
        arms[name] = lambda own=embedder: compute_embeddings(data, own, "mean", "fp32")  # type: ignore[misc]
    work = float(layers * proteins * LENGTH * (2 * 12 * width**2 + 4 * width * LENGTH))
    return arms, {"one product": 2.0 * PRODUCT**3, "padded": work, "unpadded": work}


if __name__ == "__main__":
    main("embedding", run, __doc__ or "")
