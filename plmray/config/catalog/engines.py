"""Engines, one row each: how a trial computes, and what that asks of the processes that run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EngineName = Literal["torch", "packed", "deepspeed"]


@dataclass(frozen=True)
class EngineRow:
    """``has_hosts``: many trials of many candidates share a process with a device. ``has_groups``: a trial is a group
    of workers in processes of its own, so that seeds run in turn and no process is used twice.
    ``seeds_together``: a job of the replicate phase holds all seeds of a candidate.
    """

    has_hosts: bool = False
    has_groups: bool = False

    @property
    def seeds_together(self) -> bool:
        return self.has_hosts or self.has_groups


ENGINES: dict[EngineName, EngineRow] = {
    "torch": EngineRow(),
    "packed": EngineRow(has_hosts=True),
    "deepspeed": EngineRow(has_groups=True),
}
