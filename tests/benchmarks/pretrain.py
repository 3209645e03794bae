"""Masked-language modelling of the bundled encoder: one file, one process, the same weights for the same seed.

    python -m tests.benchmarks.pretrain --data-root ../shared/data --out DIR [--steps N] [--threads N]

Writes an ESM2 checkpoint (float16 safetensors, ``EsmForMaskedLM``) and ``figures.json``. README.md says on what.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plmray.config.catalog.tasks import KNOWN_TASKS
from plmray.config.fields.train import OptimizerSpec, ShapeSpec
from plmray.config.vocabulary import ESM_TOKENS
from plmray.data.files.fasta import read_fasta
from plmray.data.splits import drawn_rows
from plmray.model.backbones import esm2_config
from plmray.model.tokens import esm2_tokenizer
from plmray.seeds import derived_rng
from plmray.storage.atomic import write_atomic
from plmray.train.engines import adamw_options
from plmray.train.schedule import learning_rates

SHAPE = ShapeSpec(layers=5, width=160, heads=5, feed_forward=640)
MASKED = 0.15  # of the residues; of these 80 % read <mask>, 10 % another residue, 10 % themselves
LONGEST = 256  # residues of a crop
BATCH_TOKENS = 8192
OPTIMIZER = OptimizerSpec(lr=2e-3, beta2=0.98, weight_decay=0.01, schedule="cosine", warmup=0.05)
SHARED_STRETCH = 20  # residues in common with a held-out protein that take a protein out of the corpus
SPLIT_SEED = 0  # of the data set's own draw of its validation proteins
NUMBER = {token: index for index, token in enumerate(ESM_TOKENS)}
RESIDUES = np.array([NUMBER[letter] for letter in "ACDEFGHIKLMNPQRSTVWY"])


def corpus(root: Path) -> tuple[list[str], list[str]]:
    """Training and held-out sequences.

    Training: secondary structure (its training proteins) and disorder (likewise), but none that shares 20 residues in
    a row with a validation or test protein of any task. Held out: the validation proteins of both. GB1 is in neither.
    """
    structure, disorder, location = root / "secondary_structure", root / "disorder", root / "subcellular_location"
    sequences = {entry.id: entry.sequence for entry in read_fasta(structure / "sequences.fasta")}
    sets = {entry.id: entry.description for entry in read_fasta(structure / "sampled.fasta")}
    train = [s for i, s in sequences.items() if "SET=train" in sets[i] and "VALIDATION=True" not in sets[i]]
    held_out = [s for i, s in sequences.items() if "VALIDATION=True" in sets[i]]
    unseen = [s for i, s in sequences.items() if "SET=test" in sets[i]]
    chezod = [entry.sequence for entry in read_fasta(disorder / "CheZOD1174_training_set_sequences.fasta")]
    fraction = KNOWN_TASKS["disorder"].validation_fraction
    assert fraction is not None
    drawn = drawn_rows(len(chezod), fraction, SPLIT_SEED)
    train += [sequence for sequence, out in zip(chezod, drawn, strict=True) if not out]
    held_out += [sequence for sequence, out in zip(chezod, drawn, strict=True) if out]
    unseen += [entry.sequence for entry in read_fasta(disorder / "CheZOD117_test_set_sequences.fasta")]
    for name in ("deeploc_our_val_set", "deeploc_test_set", "setHARD"):
        unseen += [entry.sequence for entry in read_fasta(location / f"{name}.fasta")]
    known = {stretch for sequence in (*held_out, *unseen) for stretch in stretches(sequence)}
    kept = [s for s in dict.fromkeys(train) if known.isdisjoint(stretches(s))]
    return kept, list(dict.fromkeys(held_out))


def stretches(sequence: str) -> Iterator[str]:
    for first in range(max(1, len(sequence) - SHARED_STRETCH + 1)):
        yield sequence[first : first + SHARED_STRETCH]


def new_model(seed: int) -> Any:
    from transformers import EsmForMaskedLM

    torch.manual_seed(seed)
    return EsmForMaskedLM(esm2_config(SHAPE.size))


def batches(encoded: Sequence[NDArray[np.int16]], seed: int, epoch: int) -> Iterator[list[NDArray[np.int16]]]:
    """Crops of all proteins in a new order, of similar length side by side."""
    rng = derived_rng(seed, "pretrain order", epoch)
    crops = [cropped(row, rng) for row in encoded]
    by_length = sorted(range(len(crops)), key=lambda i: (len(crops[i]), rng.random()))
    groups: list[list[int]] = [[]]
    for i in by_length:
        if groups[-1] and (len(groups[-1]) + 1) * len(crops[i]) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(i)
    for number in rng.permutation(len(groups)):
        yield [crops[i] for i in groups[number]]


def cropped(row: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
    """A random window of at most LONGEST residues, marks included where the window has that end."""
    if len(row) <= LONGEST + 2:
        return row
    first = int(rng.integers(0, len(row) - LONGEST - 1))
    return row[first : first + LONGEST + 2]


def masked(
    rows: Sequence[NDArray[np.int16]], rng: np.random.Generator, *, hidden: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """(n, length) tokens as the model reads them, attention, and targets (-100 where nothing is asked).

    ``hidden``: all that is asked reads <mask>, as it has to where a perplexity is to be compared.
    """
    longest = max(len(row) for row in rows)
    tokens = np.full((len(rows), longest), NUMBER["<pad>"], np.int64)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    asked = np.isin(tokens, RESIDUES) & (rng.random(tokens.shape) < MASKED)
    targets = np.where(asked, tokens, -100)
    how = rng.random(tokens.shape)
    read = np.where(asked & (hidden | (how < 0.8)), NUMBER["<mask>"], tokens)
    if not hidden:
        read = np.where(asked & (how >= 0.9), rng.choice(RESIDUES, tokens.shape), read)
    attention = (tokens != NUMBER["<pad>"]).astype(np.int64)
    return torch.from_numpy(read), torch.from_numpy(attention), torch.from_numpy(targets)


def loss_of(model: Any, rows: Sequence[NDArray[np.int16]], rng: np.random.Generator) -> tuple[Tensor, int]:
    """Mean cross-entropy over the masked residues of a batch, in nats, and their number."""
    tokens, attention, targets = masked(rows, rng, hidden=not model.training)
    asked = targets != -100
    with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
        hidden = model.esm(input_ids=tokens, attention_mask=attention).last_hidden_state
        logits = model.lm_head(hidden[asked])
    return functional.cross_entropy(logits.float(), targets[asked]), int(asked.sum())


@torch.no_grad()
def perplexity(model: Any, encoded: Sequence[NDArray[np.int16]], seed: int = 1) -> float:
    """exp of the mean cross-entropy over 15 % masked residues of held-out proteins, drawn once and for all."""
    model.eval()
    total, count = 0.0, 0
    for number, rows in enumerate(batches(encoded, seed, 0)):
        loss, asked = loss_of(model, rows, derived_rng(seed, "held-out masks", number))
        total, count = total + float(loss) * asked, count + asked
    model.train()
    return math.exp(total / count)


def unigram_perplexity(train: Sequence[str], held_out: Sequence[str]) -> float:
    """That of guessing by the training corpus' residue frequencies alone."""
    counts = Counter("".join(train))
    total = sum(counts[letter] for letter in "ACDEFGHIKLMNPQRSTVWY")
    asked = Counter("".join(held_out))
    letters = [letter for letter in "ACDEFGHIKLMNPQRSTVWY" if asked[letter]]
    nats = -sum(asked[letter] * math.log(counts[letter] / total) for letter in letters)
    return math.exp(nats / sum(asked[letter] for letter in letters))


def train(encoded: Sequence[NDArray[np.int16]], held_out: Sequence[NDArray[np.int16]], steps: int, seed: int) -> Any:
    """The one loop: AdamW, a warm-up, a cosine to zero."""
    model = new_model(seed)
    optimizer = torch.optim.AdamW(model.parameters(), **adamw_options(OPTIMIZER))
    rates = learning_rates(OPTIMIZER, np.arange(steps), steps)
    step, epoch, started = 0, 0, time.perf_counter()
    while step < steps:
        for rows in batches(encoded, seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = float(rates[step])
            loss, _ = loss_of(model, rows, derived_rng(seed, "masks", step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step % 200 == 0 or step == steps:
                seconds = time.perf_counter() - started
                print(  # noqa: T201
                    f"step {step} epoch {epoch} loss {float(loss.detach()):.4f} "
                    f"held-out perplexity {perplexity(model, held_out):.3f} {seconds:.0f} s",
                    flush=True,
                )
            if step == steps:
                break
        epoch += 1
    return model


def read(folder: Path) -> Any:
    from transformers import EsmForMaskedLM

    return EsmForMaskedLM.from_pretrained(folder, dtype=torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4500, help="0 measures what lies in --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sequences, held_out = corpus(given.data_root)
    encode = esm2_tokenizer().encode
    encoded, judged = encode(sequences), encode(held_out)
    started = time.perf_counter()
    model = train(encoded, judged, given.steps, given.seed) if given.steps else read(given.out)
    if given.steps:
        model.half().save_pretrained(given.out)
    figures: dict[str, Any] = {
        "proteins": len(sequences),
        "residues": sum(map(len, sequences)),
        "held_out_proteins": len(held_out),
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_perplexity": round(perplexity(model.float(), judged), 3),
        "unigram_perplexity": round(unigram_perplexity(sequences, held_out), 3),
    }
    if given.steps:
        figures |= {"steps": given.steps, "minutes": round((time.perf_counter() - started) / 60, 1)}
    write_atomic(given.out / "figures.json", json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
