"""A pack: trials that train in lockstep on one device. They come and go; none waits for another.

One tick is one optimizer step of every live slot. What a tick computes is the business of HeadPack and
AdapterPack; who is in, what each one's next step is, and whose turn it is to be evaluated, is here.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.config.fields.train import TrainSpec
from plmray.data.encoded import EncodedData, EncodedSplit
from plmray.packed.slots import SlotStore
from plmray.seeds import Streams
from plmray.train.engines import State, Step, device_name
from plmray.train.loop import Diverged, Stretch, Trained, Training, answered

TICKS_AT_ONCE = 64


@dataclass
class Member:
    """A trial in a slot. ``done`` counts the steps of its present stretch; ``drawn`` keeps its latest random blocks
    by dropout layer."""

    training: Training
    stretches: Generator[Stretch, Trained, None]
    stretch: Stretch | None
    slot: int
    losses: NDArray[np.float64]
    done: int = 0
    seconds: float = 0.0
    error: str | None = None
    drawn: dict[int, tuple[int, Tensor]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.stretch is None

    @property
    def steps_left(self) -> int:
        assert self.stretch is not None
        return len(self.stretch) - self.done


@dataclass(frozen=True)
class Ticks:
    """What to compute next. ``rows``: (ticks, slots, batch) training proteins; ``shares``: 1 / batch of each, 0 for
    the padding of short batches; ``rates``: (ticks, slots); ``first_steps``: (slots,) step of the first tick."""

    rows: NDArray[np.int64]
    shares: NDArray[np.float64]
    rates: NDArray[np.float64]
    first_steps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


class Pack:
    """``advance`` trains all members a little. Subclasses compute ticks and predictions."""

    def __init__(self, data: EncodedData, metric: str, store: SlotStore, device: torch.device) -> None:
        self.data, self.metric, self.store, self.device = data, metric, store, device
        self.members: list[Member] = []  # by slot: live slots are always the first ones
        self.ticks = 0
        self.slot_ticks = 0  # optimizer steps of all trials: ticks × live slots

    @property
    def free(self) -> int:
        return self.store.capacity - len(self.members)

    def join(self, settings: TrainSpec, streams: Streams, state: Mapping[str, Tensor]) -> Member:
        """Give a trial a free slot, with its first weights."""
        slot = len(self.members)
        self.store.take(slot, state, settings.optimizer)
        training = Training(settings, self.data, SlotEngine(self), streams, self.metric)
        stretches = training.stretches()
        member = Member(training, stretches, next(stretches), slot, np.zeros(0))
        member.losses = np.zeros(len(member.stretch or ()))
        assert isinstance(training.engine, SlotEngine)
        training.engine.member = member
        self.members.append(member)
        return member

    def leave(self, member: Member) -> None:
        """Free a slot; the last live one moves into the gap."""
        last = self.members.pop()
        if last is not member:
            self.store.move(last.slot, member.slot)
            self.members[member.slot], last.slot = last, member.slot
        member.slot = -1

    def advance(self) -> list[Member]:
        """Train until a member is due for evaluation, at most 64 ticks; returns those that were evaluated or ended."""
        if not self.members:
            return []
        ticks = min(TICKS_AT_ONCE, *(member.steps_left for member in self.members))
        started = time.perf_counter()
        losses = self.run_ticks(upcoming(self.members, ticks))
        seconds = (time.perf_counter() - started) / len(self.members)
        self.ticks += ticks
        self.slot_ticks += ticks * len(self.members)
        for member in self.members:
            member.losses[member.done : member.done + ticks] = losses[member.slot]
            member.done += ticks
            member.seconds += seconds
        due = [member for member in self.members if member.steps_left == 0]
        for member in due:
            self._answer(member)
        return due

    def _answer(self, member: Member) -> None:
        trained = Trained(member.losses, member.seconds)
        try:
            member.stretch = answered(member.stretches, trained)
        except Diverged as error:
            member.stretch, member.error = None, str(error)
        member.done, member.seconds = 0, 0.0
        member.losses = np.zeros(len(member.stretch or ()))

    def run_ticks(self, ticks: Ticks) -> NDArray[np.float64]:
        """(slots, ticks) losses before each update."""
        raise NotImplementedError

    def predict(self, slot: int, split: EncodedSplit) -> NDArray[np.float64]:
        """(n, outputs) predictions of one slot, in the split's order."""
        raise NotImplementedError

    def start(self, settings: TrainSpec, streams: Streams) -> Member:
        """Let a trial in, as it would start alone. There must be a free slot."""
        raise NotImplementedError

    def trainable_count(self, member: Member) -> int:
        return sum(tensor.numel() for tensor in self.store.state(member.slot).values())

    def provenance(self) -> dict[str, Any]:
        return {"engine_class": type(self).__name__, "world_size": 1, "device": device_name(self.device)}


class SlotEngine:
    """One slot as an Engine. Its steps are computed by the pack, never alone."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.member: Member | None = None

    @property
    def slot(self) -> int:
        assert self.member is not None
        return self.member.slot

    def train_step(self, step: Step) -> float:
        raise NotImplementedError("a packed trial is trained by its pack")

    def predict(self, split: EncodedSplit) -> NDArray[np.float64]:
        return self.pack.predict(self.slot, split)

    def state(self) -> State:
        return self.pack.store.state(self.slot)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.pack.store.load(self.slot, state)

    def provenance(self) -> dict[str, Any]:
        return self.pack.provenance()

    def close(self) -> None:
        if self.member is not None and self.member.slot >= 0:
            self.pack.leave(self.member)


def upcoming(members: list[Member], ticks: int) -> Ticks:
    """The next ``ticks`` steps of every member, side by side."""
    widest = max(member.training.settings.batch_size for member in members)
    rows = np.zeros((ticks, len(members), widest), np.int64)
    shares = np.zeros(rows.shape)
    rates = np.zeros(rows.shape[:2])
    for slot, member in enumerate(members):
        stretch = member.stretch
        assert stretch is not None
        size, span = stretch.batch_size, slice(member.done, member.done + ticks)
        order = stretch.order[span.start * size : span.stop * size]
        padded = np.full(ticks * size, -1)
        padded[: len(order)] = order
        own = padded.reshape(ticks, size)
        rows[:, slot, :size] = own.clip(min=0)
        shares[:, slot, :size] = (own >= 0) / (own >= 0).sum(1, keepdims=True)
        rates[:, slot] = stretch.rates[span]
    firsts = [member.stretch.first + member.done for member in members if member.stretch is not None]
    return Ticks(rows, shares, rates, np.array(firsts))
