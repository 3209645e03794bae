"""What a sweep cost: seconds of the driver, of slots and of training, starts, tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from plmray.errors import FolderError
from plmray.storage import layout
from plmray.storage.atomic import read_json, write_atomic
from plmray.trials.result import TrialResult


@dataclass
class Costs:
    """Seconds of a sweep by what they were spent on. Runs that were resumed add up (``before``)."""

    before: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    driver_s: float = 0.0
    worker_starts_s: list[float] = field(default_factory=list)
    training_s: float = 0.0
    trials: int = 0
    tokens: int = 0
    slots: int = 1
    process_bytes: int = 0  # of the largest process of a packed candidate
    padded_tokens: float = 0.0  # computed for the real ones in ``padding_of``
    padding_of: int = 0
    train_flops: float = 0.0
    validation_flops: float = 0.0
    peak_flops: float = 0.0  # a device
    packs: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def driver(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.driver_s += time.perf_counter() - begun

    def trial(self, result: TrialResult) -> None:
        self.trials += 1
        self.training_s += result.seconds
        self.tokens += result.tokens
        facts = result.provenance
        if "padding_ratio" in facts:
            self.padded_tokens += facts["padding_ratio"] * result.tokens
            self.padding_of += result.tokens
        self.train_flops += facts.get("train_flops", 0.0)
        self.validation_flops += facts.get("validation_flops", 0.0)
        self.peak_flops = max(self.peak_flops, facts.get("peak_flops", 0.0))

    def add_packs(self, hosts: Iterable[Mapping[str, float]]) -> None:
        """What the packs of every host have done."""
        for facts in hosts:
            for name in ("slot_ticks", "room_ticks"):
                self.packs[name] = self.packs.get(name, 0.0) + facts.get(name, 0.0)

    def totals(self) -> dict[str, float]:
        """Sums over all runs of the sweep: what the folder keeps."""
        wall_s = time.monotonic() - self.started
        now = {
            "wall_s": wall_s,
            "slot_s": wall_s * self.slots,
            "trials": float(self.trials),
            "driver_s": self.driver_s,
            "worker_starts": float(len(self.worker_starts_s)),
            "worker_start_s": sum(self.worker_starts_s),
            "training_s": self.training_s,
            "train_tokens": float(self.tokens),
            "padded_tokens": self.padded_tokens,
            "padding_of": float(self.padding_of),
            "train_flops": self.train_flops,
            "validation_flops": self.validation_flops,
            **{name: self.packs.get(name, 0.0) for name in ("slot_ticks", "room_ticks")},
        }
        sums = {name: value + self.before.get(name, 0.0) for name, value in now.items()}
        largest = {"peak_flops": self.peak_flops, "process_bytes": float(self.process_bytes)}
        return sums | {name: max(value, self.before.get(name, 0.0)) for name, value in largest.items()}


_COSTS = {"wall_s", "slot_s", "trials", "driver_s", "worker_starts", "worker_start_s", "training_s", "train_tokens"}


def write_costs(folder: Path, totals: Mapping[str, float]) -> None:
    write_atomic(folder / layout.COSTS, json.dumps(dict(totals)))


def read_costs(folder: Path) -> dict[str, float]:
    """Sums of seconds and tokens over all runs of a sweep; empty before the first has ended."""
    file = folder / layout.COSTS
    costs = read_json(file, "remove it: it says where time went, no more") if file.exists() else {}
    if costs and not (costs.keys() >= _COSTS and all(isinstance(v, int | float) and v >= 0 for v in costs.values())):
        raise FolderError(
            f"{file} lacks numbers, or has some that are none; remove it: it says where time went, no more"
        )
    return costs


def costs_summary(totals: Mapping[str, float]) -> dict[str, float]:
    """Where a sweep's time went, and what it made of its devices.

    Driver seconds are those on the path between two jobs; shares of the wall time are of all devices' together.
    ``mfu`` is the useful arithmetic of training over what the devices could have done in that time (large matrix
    products, measured at the start), validation apart. Ratios without a denominator are left out.
    """
    if not totals:
        return {}
    known = {"padding_of": 0.0, "padded_tokens": 0.0, "peak_flops": 0.0, "room_ticks": 0.0, **totals}
    wall_s = max(totals["wall_s"], 1e-9)
    summary = {
        "wall_s": totals["wall_s"],
        "trials": totals["trials"],
        "trials_per_hour": 3600 * totals["trials"] / wall_s,
        "driver_s_per_trial": totals["driver_s"] / max(1.0, totals["trials"]),
        "worker_starts": totals["worker_starts"],
        "worker_start_s_mean": totals["worker_start_s"] / max(1.0, totals["worker_starts"]),
        "training_share_of_wall": totals["training_s"] / max(totals["slot_s"], 1e-9),
        "train_tokens": totals["train_tokens"],
        "train_tokens_per_s": totals["train_tokens"] / wall_s,
    }
    if known["padding_of"]:
        summary["padding_ratio"] = known["padded_tokens"] / known["padding_of"]
    if known["peak_flops"]:
        possible = known["peak_flops"] * max(totals["slot_s"], 1e-9)
        summary["mfu"] = known["train_flops"] / possible
        summary["mfu_validation"] = known["validation_flops"] / possible
    if known["room_ticks"]:
        summary["pack_occupancy"] = known["slot_ticks"] / known["room_ticks"]
    if known.get("process_bytes"):
        summary["candidate_process_mb"] = known["process_bytes"] / 1e6
    return summary
