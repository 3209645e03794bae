"""Adapters, one row each: which settings they read, whether peft makes them, what may differ within a pack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AdapterKind = Literal["none", "lora", "dora", "ia3", "adalora", "prefix", "prottrans", "peft", "full"]
PeftMethod = Literal["loha", "lokr", "oft", "boft", "fourierft", "hra", "ln_tuning"]

_LOW_RANK = ("rank", "alpha", "dropout", "targets", "bias", "layers")


@dataclass(frozen=True)
class AdapterRow:
    """``reads``: fields of the adapter that shape its numbers; the others do not take part in an id.

    ``by_peft``: its weights load through that library. ``packs``: many share a frozen encoder; ``free_in_pack``: the
    fields that may then differ from trial to trial, proven by tests/packed/test_pack_law.py.
    """

    reads: tuple[str, ...] = ()
    by_peft: bool = False
    packs: bool = False
    free_in_pack: frozenset[str] = frozenset()


ADAPTERS: dict[AdapterKind, AdapterRow] = {
    "none": AdapterRow(packs=True),
    "full": AdapterRow(),
    # The rank is free within its bucket.
    "lora": AdapterRow(_LOW_RANK, by_peft=True, packs=True, free_in_pack=frozenset({"rank", "alpha", "dropout"})),
    "dora": AdapterRow(_LOW_RANK, by_peft=True, packs=True, free_in_pack=frozenset({"rank", "alpha"})),
    "adalora": AdapterRow(_LOW_RANK, by_peft=True),
    "ia3": AdapterRow(("layers",), by_peft=True, packs=True),
    "prefix": AdapterRow(("tokens", "layers")),
    "prottrans": AdapterRow(("rank", "layers")),
    "peft": AdapterRow(("method", "options", "targets", "layers"), by_peft=True),
}
