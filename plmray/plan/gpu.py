"""Which backbone and adapter of a sweep fit a GPU, in rows for ``plmray plan --gpu``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from plmray.config.backbone_names import encoder_size
from plmray.config.catalog.backbones import EncoderSize, known_backbone
from plmray.config.catalog.families import Family
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.train import TrainSpec
from plmray.config.parameters import choices_of, with_parameters
from plmray.errors import SpecError
from plmray.plan.gpu_memory import GIB, Setting, longest, memory

MOST_TOKENS = 4096
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)", re.IGNORECASE)


def device_bytes(text: str) -> float:
    """Bytes of '24GB'. Cards are sold in GB and hold so many GiB. Raises SpecError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise SpecError.of("--gpu", f"'{text}' is no size; expected one such as 24GB")
    return float(found[1]) * GIB


def memory_rows(
    spec: SweepSpec, family: Family, precision: str, tokens: int, size_bytes: float
) -> Iterator[dict[str, Any]]:
    """A row for each backbone and adapter that the sweep can come upon, without and with gradient checkpointing.

    ``tokens``: of the task's longest protein. Estimates; ``published``: the longest protein that trained with LoRA in
    the study on a card of this size, by other software.
    """
    chosen = spec.resources.micro_batch
    rows = spec.train.batch_size if chosen == "auto" else chosen
    for name in choices_of(spec, "backbone.name", spec.train.backbone.name):
        for adapter in choices_of(spec, "adapter.kind", spec.train.adapter.kind):
            train = with_parameters(spec.train, {"backbone.name": name, "adapter.kind": adapter})
            size = encoder_size(train.backbone)
            for checkpointing in (False, True) if adapter != "none" else (False,):
                named = {"backbone": name, "adapter": adapter, "checkpointing": checkpointing}
                if size is None:
                    yield named | {"fits": "unknown: the size of this backbone is in no table"}
                    continue
                options = {"checkpointing": checkpointing, "offload": spec.resources.deepspeed.offload_optimizer}
                setting = Setting(size, family, adapter, precision, trainable(train, size), **options)
                yield named | _fit(setting, rows, tokens, size_bytes) | {"published": _published(train, size_bytes)}


def _fit(setting: Setting, rows: int, tokens: int, size_bytes: float) -> dict[str, Any]:
    """GB of ``rows`` proteins and of one, the longest that fits, and whether the task's longest does."""
    most = longest(setting, size_bytes, MOST_TOKENS)
    whole, one = (memory(replace(setting, micro_batch=n), tokens).total for n in (rows, 1))
    return {
        f"GB, {rows} of {tokens}": round(whole / GIB, 1),
        f"GB, 1 of {tokens}": round(one / GIB, 1),
        "longest": f"{most}+" if most == MOST_TOKENS else str(most),
        "fits": "yes" if one <= size_bytes else "no",
    }


def _published(train: TrainSpec, size_bytes: float) -> str:
    known = known_backbone(train.backbone.name)
    lengths = known.longest if known else None
    place = {8: 0, 16: 1, 24: 2}.get(round(size_bytes / GIB))
    if lengths is None or place is None:
        return "-"
    return "over 2000" if lengths[place] is None else str(lengths[place])


def trainable(train: TrainSpec, size: EncoderSize) -> float:
    """Parameters that train, the head's left out; of other adapters as many as LoRA of their rank."""
    if train.adapter.kind in ("none", "full"):
        return float(size.weights) if train.adapter.kind == "full" else 0.0
    return float((train.adapter.layers or size.layers) * 4 * train.adapter.rank * (size.width + size.inner))
