"""A Host as a Ray actor: trials ask it for their next report, a thread trains.

One idempotent call submits a job and waits for a report, so that a restarted host is invisible to trials.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from plmray.storage.atomic import PATIENCE_S, write_atomic
from plmray.sweep.on_ray.notes import say_to_driver
from plmray.trials.job import Job, Report, short_trace

if TYPE_CHECKING:
    from plmray.sweep.workers.context import Bench
    from plmray.sweep.workers.packed import Host


LONG_POLL_S = 5.0
LEASE_S = 2 * PATIENCE_S  # a driver that waits for its storage asks nothing meanwhile
DEATHS_BEFORE_ALONE = 2
DEATHS_BEFORE_FAILED = 3


@dataclass
class Lease:
    """A trial's claim on its slots. ``token`` names the process that holds it; ``seen``: when it last asked.

    ``past``: processes that held it before. No clock orders them: who is new to the lease takes it over.
    """

    token: str
    seen: float
    past: set[str] = field(default_factory=set)
    reports: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None


class DeathLedger:
    """Which jobs were training whenever a host's process died, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.deaths: dict[str, int] = record.get("deaths", {})
        for key in record.get("live", []):
            self.deaths[key] = self.deaths.get(key, 0) + 1

    def note(self, live: list[str]) -> None:
        write_atomic(self.path, json.dumps({"deaths": self.deaths, "live": live}))

    def suspects(self) -> frozenset[str]:
        return frozenset(key for key, count in self.deaths.items() if count >= DEATHS_BEFORE_ALONE)


class PackActor:
    """Threads of Ray wait in ``next``; one thread of ours owns the Host and is the only one to touch it."""

    def __init__(self, ledger: str, notes: str) -> None:
        """``ledger``: a file of this node; ``notes``: the channel to the driver's terminal."""
        self.ledger, self.notes = DeathLedger(Path(ledger)), notes
        self.host: Host | None = None
        self.leases: dict[str, Lease] = {}
        self.orders: list[Callable[[Host], None]] = []
        self.changed = threading.Condition()
        self.start_s: float | None = None
        self.broken: str | None = None

    def next(
        self, job_record: dict[str, Any], key: str, token: str, after: int, bench_ref: list[Any]
    ) -> dict[str, Any]:
        """Report number ``after`` of a job, submitted if it is not here; ``{}`` after 5 s without one."""
        with self.changed:
            if self.host is None:
                self._open(ray.get(bench_ref[0]))
            lease = self._lease(job_record, key, token)
            if lease.token != token:
                return {"error": "another process of the same trial has taken over"}
            deadline = time.monotonic() + LONG_POLL_S
            while len(lease.reports) <= after and not self._ended(lease) and time.monotonic() < deadline:
                self.changed.wait(deadline - time.monotonic())
            lease.seen = time.monotonic()
            if len(lease.reports) > after:
                start_s, self.start_s = self.start_s, None
                return {"report": lease.reports[after], "start_s": start_s}
            return {"error": self._ended(lease)} if self._ended(lease) else {}

    def _ended(self, lease: Lease) -> str | None:
        return lease.error or self.broken

    def _open(self, bench: Bench) -> None:
        """Load what trains; the thread that owns it runs from now on."""
        started = time.perf_counter()
        from plmray.sweep.workers.packed import Host

        self.host = Host(bench, self.ledger.suspects(), self.ledger.note, say_to_driver(self.notes))
        self.start_s = time.perf_counter() - started
        threading.Thread(target=self._train, args=(self.host,), name="plmray-host", daemon=True).start()

    def free(self, key: str) -> None:
        """A trial is over or was stopped: its slots are free."""
        with self.changed:
            if self.leases.pop(key, None) is not None:
                self._order(lambda host: host.drop(key))

    def facts(self) -> dict[str, float]:
        """What its packs have done so far."""
        return self.host.facts() if self.host is not None else {}

    def _lease(self, job_record: dict[str, Any], key: str, token: str) -> Lease:
        """The lease of a job. A new process of the same trial takes it over, with what was reported so far."""
        lease = self.leases.get(key)
        if lease is None:
            lease = self.leases[key] = Lease(token, time.monotonic())
            if self.ledger.deaths.get(key, 0) >= DEATHS_BEFORE_FAILED:
                lease.error = f"its process died {self.ledger.deaths[key]} times, the last time with this trial alone"
            else:
                job = Job.from_dict(job_record)
                self._order(lambda host: host.submit(key, job))
        elif lease.token != token and token not in lease.past:
            lease.past.add(lease.token)
            lease.token = token
        lease.seen = time.monotonic()
        return lease

    def _order(self, action: Callable[[Host], None]) -> None:
        self.orders.append(action)
        self.changed.notify_all()

    def _train(self, host: Host) -> None:
        """Until the process ends. What breaks the host itself is told to every trial that asks."""
        try:
            self._train_until_the_end(host)
        except BaseException as error:
            with self.changed:
                self.broken = short_trace(error)
                self.changed.notify_all()
            raise

    def _train_until_the_end(self, host: Host) -> None:
        while True:
            self._take_orders(host)
            for news in host.advance():
                with self.changed:
                    lease = self.leases.get(news.key)
                    if lease is not None:
                        self._post(lease, news.report, news.error)

    def _post(self, lease: Lease, report: Report | None, error: str | None) -> None:
        if report is not None:
            lease.reports.append(report.to_dict())
        lease.error = error
        self.changed.notify_all()

    def _take_orders(self, host: Host) -> None:
        """Do what was asked meanwhile; wait while there is nothing to train."""
        with self.changed:
            self._end_lapsed()
            while not self.orders and not host.seats:
                self.changed.wait(LONG_POLL_S)
                self._end_lapsed()
            orders, self.orders = self.orders, []
        for order in orders:
            order(host)

    def _end_lapsed(self) -> None:
        """Free the slots of trials whose processes have not asked for that long: their driver is gone."""
        now = time.monotonic()
        for key in [key for key, lease in self.leases.items() if now - lease.seen > LEASE_S]:
            del self.leases[key]
            self.orders.append(lambda host, key=key: host.drop(key))  # type: ignore[misc]
