"""The host actors of a cluster: which job goes to which, and what happens to those whose node is lost."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from plmray.sweep.on_ray.host_actor import PackActor
from plmray.trials.job import Job, job_key

THREADS_A_HOST = 256  # calls that wait on a host at a time
FACTS_TIMEOUT_S = 5.0
MEND_EVERY_S = 2.0
SILENT_S = 20.0  # a host that is started again answers sooner


class PackHosts:
    """One host actor for each device of the cluster, or each share of its CPUs. Jobs go where the fewest are.

    A host that dies is started again by Ray. Where its node is lost and no other has room, it would wait for ever: it
    is given up, and its jobs go to the next one.
    """

    def __init__(
        self, count: int, need: dict[str, float], scratch: Path, echo: Callable[[str], None], notes: str
    ) -> None:
        actor = ray.remote(PackActor).options(
            num_cpus=need["CPU"],
            num_gpus=need.get("GPU", 0),
            max_concurrency=THREADS_A_HOST,
            max_restarts=-1,  # a dead host comes back, and
            max_task_retries=-1,  # the calls that waited for it are asked again
        )
        ledgers = scratch / f"hosts-{uuid.uuid4().hex[:8]}"
        self.actors = [actor.remote(str(ledgers / f"{number}.json"), notes) for number in range(count)]
        self.echo = echo
        self.given_up: set[int] = set()
        self._at: dict[str, int] = {}
        self._asked: dict[int, Any] = {}  # questions that wait for an answer
        self._silent_since: dict[int, float] = {}
        self._next_look = 0.0
        self._told = False

    @property
    def living(self) -> list[int]:
        return [number for number in range(len(self.actors)) if number not in self.given_up]

    def place(self, job: Job) -> list[Any]:
        """All hosts in the order in which the job's process tries them: its own first, or the one with the fewest."""
        busy = {number: sum(at == number for at in self._at.values()) for number in self.living}
        first = self._at.setdefault(job_key(job), min(busy, key=lambda number: busy[number]))
        return self.actors[first:] + self.actors[:first]

    def free(self, job: Job) -> None:
        """Told by the driver, not by the trial: a stopped trial's process is only put aside."""
        number = self._at.pop(job_key(job), None)
        if number is not None:
            self.actors[number].free.remote(job_key(job))

    def facts(self) -> list[dict[str, float]]:
        """What the packs of every host have done."""
        asked = [self.actors[number].facts.remote() for number in self.living]
        done, _ = ray.wait(asked, num_returns=len(asked), timeout=FACTS_TIMEOUT_S)
        found = []
        for answer in done:
            with contextlib.suppress(ray.exceptions.RayError):  # a host that died has taken its counts along
                found.append(ray.get(answer))
        return found

    def mend(self, room: Callable[[], int]) -> None:
        """Give up hosts that have no place any more. ``room``: how many hosts the living nodes can have."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + MEND_EVERY_S
        fitting = room()
        if fitting < 1 and not self._told:
            self.echo("no node has room for a trial any more; waiting for one to come back")
        self._told = fitting < 1
        excess = len(self.living) - max(1, fitting)
        if excess <= 0:
            self._asked.clear()
            self._silent_since.clear()
            return
        silent = [number for number in self._silent(now) if now - self._silent_since[number] > SILENT_S]
        for number in silent[:excess]:
            self._give_up(number)

    def _silent(self, now: float) -> Sequence[int]:
        """Hosts that owe an answer."""
        for number in self.living:
            if number not in self._asked:
                self._asked[number] = self.actors[number].facts.remote()
                self._silent_since.setdefault(number, now)
        answered, _ = ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=0)
        for number in [number for number, question in self._asked.items() if question in answered]:
            del self._asked[number], self._silent_since[number]
        return list(self._asked)

    def _give_up(self, number: int) -> None:
        self.given_up.add(number)
        self._asked.pop(number, None)
        ray.kill(self.actors[number], no_restart=True)
        moved = [key for key, at in self._at.items() if at == number]
        following = [(number + step) % len(self.actors) for step in range(1, len(self.actors))]
        successor = next(other for other in following if other not in self.given_up)
        self._at.update(dict.fromkeys(moved, successor))
        self.echo(f"a node is lost and no other has room for its host: {len(moved)} jobs go to another one")
