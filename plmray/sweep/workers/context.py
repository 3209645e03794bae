"""What every job of a sweep needs, made once by the driver and sent to all workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plmray.config.catalog.engines import EngineName
from plmray.config.fields.sweep import SweepSpec
from plmray.config.load import LoadedSweep
from plmray.data.embeddings import read_precomputed
from plmray.data.encoded import EncodedData, encode_data, with_embeddings
from plmray.data.proteins import ProteinData
from plmray.hashing import content_hash
from plmray.model.backbones import load_tokenizer
from plmray.plan.plan import choose_engine
from plmray.plan.prepare import wants_gpu
from plmray.trials import provenance


@dataclass(frozen=True)
class Bench:
    """Settings, encoded data, and where things are. ``facts`` go into the provenance of every trial.

    ``data_key``: hash of all that ``data`` holds, for what a process keeps of them.
    """

    spec: SweepSpec
    data: EncodedData
    data_key: str
    precision: str
    engine: EngineName
    base: Path  # relative backbone folders start here
    home: str | None  # address of the sweep folder; None keeps nothing
    use_gpu: bool
    facts: dict[str, Any] = field(default_factory=dict)


def make_bench(sweep: LoadedSweep, data: ProteinData, precision: str, home: str | None, *, has_gpu: bool) -> Bench:
    encoded = encode(sweep, data)
    return Bench(
        spec=sweep.spec,
        data=encoded,
        data_key=content_hash([data.hash, *(split.content_key for split in encoded.splits.values())]),
        precision=precision,
        engine=choose_engine(sweep.spec, sweep.family)[0],
        base=sweep.folder,
        home=home,
        use_gpu=wants_gpu(sweep, has_gpu),
        facts={**provenance.software(), "commit": provenance.commit(sweep.folder)},
    )


def facts_of(data: ProteinData, bench: Bench) -> dict[str, Any]:
    """What ``data.json`` keeps of a sweep's data and of how they are read."""
    backbone = bench.spec.train.backbone
    tokenizer = None if backbone.embeddings else load_tokenizer(backbone, bench.base).to_dict()
    return {
        "hash": data.hash,
        "counts": data.counts(),
        "level": data.level,
        "classes": list(data.classes),
        "window": list(data.window),
        "notes": list(data.notes),
        **({"families": dict(data.families)} if data.families else {}),
        "precision": bench.precision,
        "tokenizer": tokenizer or {},
    }


def encode(sweep: LoadedSweep, data: ProteinData) -> EncodedData:
    """Token ids of all splits, by the backbone's own vocabulary; with the embeddings that a user gives for them."""
    backbone = sweep.spec.train.backbone
    tokenizer = load_tokenizer(backbone, sweep.folder)
    front, back = len(tokenizer.front), len(tokenizer.back)
    encoded = encode_data(data, tokenizer.encode, pad_id=tokenizer.pad_id, front=front, back=back)
    if backbone.embeddings is None:
        return encoded
    return with_embeddings(encoded, read_precomputed([sweep.folder / file for file in backbone.embeddings], data))
