"""One device and everything that trains on it: packs, trials that train alone, and the jobs they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from plmray.config.backbone_names import family
from plmray.config.fields.train import TrainSpec
from plmray.config.parameters import with_parameters
from plmray.errors import PlmrayError
from plmray.packed.adapter_pack import AdapterPack
from plmray.packed.head_pack import HeadPack
from plmray.packed.pack import Pack
from plmray.plan.packing import HEAD_SLOTS, adapter_slots, pack_key
from plmray.sweep.workers.context import Bench
from plmray.sweep.workers.device import Device, device_of
from plmray.sweep.workers.live_trial import OverTime, Run, limit_s, start_alone
from plmray.sweep.workers.process import prepare_process, release_memory
from plmray.sweep.workers.reporter import JobBook
from plmray.trials.job import Job, Report, short_trace
from plmray.trials.result import TrialResult
from plmray.trials.trial import Trial


@dataclass
class Seat:
    """A job on this host. ``waiting``: trials without a slot yet; ``rung``: the report it works towards."""

    job: Job
    book: JobBook
    waiting: list[Trial]
    runs: dict[str, Run] = field(default_factory=dict)
    rung: int = 0

    @property
    def epoch(self) -> int:
        return self.job.report_epochs[self.rung]

    def is_ready(self) -> bool:
        """Whether every trial has come to the next report; to the last one, to its own end, where it is concluded."""
        is_last = self.rung == len(self.job.report_epochs) - 1
        there = (run.ended or (not is_last and run.has_come_to(self.epoch)) for run in self.runs.values())
        return not self.waiting and all(there)

    def next_report(self) -> Report:
        runs = [self.runs[trial.id] for trial in self.job.trials() if trial.id in self.runs]
        finished = self.rung == len(self.job.report_epochs) - 1 or self.book.is_lost(runs)
        report = self.book.report(runs, self.job.report_epochs[-1] if finished else self.epoch, finished)
        self.rung += 1
        return report

    def failed(self, error: PlmrayError | OverTime) -> Report:
        """The end of a job that another attempt would end the same way; what is complete stays."""
        done = {trial_id: run.final for trial_id, run in self.runs.items() if run.final is not None}
        engine = self.book.bench.engine
        ended = [done.get(t.id) or TrialResult.failed(t, str(error), engine=engine) for t in self.job.trials()]
        return Report(self.job.report_epochs[-1], None, ended, finished=True)


@dataclass(frozen=True)
class News:
    """A report of a job, or why it failed."""

    key: str
    report: Report | None
    error: str | None = None


class Host:
    """Takes jobs, and trains all of them a little with every ``advance``. A device has one host.

    ``suspects``: jobs that trained here whenever the process died; they train when nobody else does.
    ``note`` is told which jobs train, before they do; ``say`` what takes long.
    """

    def __init__(
        self,
        bench: Bench,
        suspects: frozenset[str] = frozenset(),
        note: Callable[[list[str]], None] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.bench, self.suspects, self.note = bench, suspects, note
        self._noted: list[str] = []
        self.seats: dict[str, Seat] = {}
        self.packs: dict[str, Pack] = {}
        self.device = Device(say)
        self._done = {"slot_ticks": 0.0, "room_ticks": 0.0, "most_live": 0.0}
        prepare_process(bench.spec)

    def submit(self, key: str, job: Job) -> None:
        self.seats[key] = Seat(job, JobBook(self.device, self.bench, job), waiting=job.trials())

    def drop(self, key: str) -> None:
        """Forget a job and free its slots."""
        seat = self.seats.pop(key, None)
        for run in seat.runs.values() if seat else ():
            run.close()

    def reports(self, job: Job) -> Iterator[Report]:
        """One job by itself."""
        self.submit("", job)
        while self.seats:
            for news in self.advance():
                if news.report is None:
                    raise RuntimeError(news.error)
                yield news.report

    def advance(self) -> Iterator[News]:
        """Train everything a little; news of the jobs that have some."""
        for key in list(self.seats):
            yield from self._guarded([key], lambda key=key: self._seat(key))  # type: ignore[misc]
        self._tell()
        for name, pack in list(self.packs.items()):
            users = [key for key, seat in self.seats.items() if any(run.pack == name for run in seat.runs.values())]
            before = pack.ticks, pack.slot_ticks
            yield from self._guarded(users, pack.advance)
            self._count(pack, *before)
            if not pack.members:
                del self.packs[name]
        for key, seat in list(self.seats.items()):
            for run in [run for run in seat.runs.values() if run.pack is None and not run.ended]:
                if key in self.seats:  # a sibling may just have failed the job
                    yield from self._guarded([key], run.step)
        for key in list(self.seats):
            yield from self._guarded([key], lambda key=key: self._settle(key))  # type: ignore[misc]
            yield from self._news(key)

    def _tell(self) -> None:
        training = sorted(key for key, seat in self.seats.items() if seat.runs)
        if self.note is not None and training != self._noted:
            self.note(training)
            self._noted = training

    def facts(self) -> dict[str, float]:
        """Work done so far: optimizer steps of all slots, what full packs would have done, and the most slots live."""
        return dict(self._done)

    def _count(self, pack: Pack, ticks: int, slot_ticks: int) -> None:
        self._done["slot_ticks"] += pack.slot_ticks - slot_ticks
        self._done["room_ticks"] += (pack.ticks - ticks) * pack.store.capacity
        self._done["most_live"] = max(self._done["most_live"], len(pack.members))

    def _guarded(self, keys: list[str], action: Callable[[], object]) -> Iterator[News]:
        """Do something for some jobs; where it breaks, these jobs have failed, and the others go on."""
        try:
            action()
        except (PlmrayError, OverTime) as error:
            for key in keys:
                yield News(key, self.seats[key].failed(error))
                self.drop(key)
        except Exception as error:
            text = short_trace(error)
            for key in keys:
                yield News(key, None, text)
                self.drop(key)

    def _seat(self, key: str) -> None:
        """Give a job's waiting trials their slots, as far as there are any."""
        seat = self.seats[key]
        if self._must_wait_alone(key):
            return
        while seat.waiting and (run := self._start(key, seat.waiting[0])) is not None:
            seat.runs[seat.waiting.pop(0).id] = run

    def _must_wait_alone(self, key: str) -> bool:
        live = [other for other, seat in self.seats.items() if seat.runs and other != key]
        return bool(live) if key in self.suspects else any(other in self.suspects for other in live)

    def _start(self, key: str, trial: Trial) -> Run | None:
        """A trial in a slot, or alone; None where it has to wait."""
        settings = with_parameters(self.bench.spec.train, trial.candidate.parameters)
        own = family(settings.backbone, self.bench.base)
        name = pack_key(settings, self.bench.data.level, own)
        if name is not None and trial.split_seed is not None:
            name += f", split {trial.split_seed}"
        if name is None:
            # One such job at a time, its seeds side by side, so that a scheduler hears of all of them at each rung.
            others = [run for other, seat in self.seats.items() if other != key for run in seat.runs.values()]
            if any(run.pack is None and not run.ended for run in others):
                return None
            release_memory()
            return start_alone(self.device, self.bench, trial)
        if name not in self.packs:
            self.packs[name] = self._new_pack(settings, trial.split_seed)
        pack = self.packs[name]
        return self._start_packed(name, pack, trial, settings) if pack.free else None

    def _start_packed(self, name: str, pack: Pack, trial: Trial, settings: TrainSpec) -> Run:
        member = pack.start(settings, trial.streams)
        return Run(
            trial,
            settings,
            member.training,
            iter(()),
            pack.trainable_count(member),
            limit_s(self.bench),
            engine="packed",
            pack=name,
            member=member,
        )

    def _new_pack(self, settings: TrainSpec, split_seed: int | None) -> Pack:
        bench, device = self.bench, device_of(self.bench)
        metric, precision = bench.spec.objective.metric, bench.precision
        if settings.adapter.kind == "none":
            data = self.device.embedded(bench, settings, split_seed)
            capacity = HEAD_SLOTS[device.type]
            return HeadPack(data, settings, metric, capacity=capacity, precision=precision, device=device)
        encoder = self.device.encoder(bench, settings.backbone)
        own = family(settings.backbone, bench.base)
        capacity = adapter_slots(settings.batch_size, bench.data.mean_length, device.type)
        options: dict[str, Any] = {"capacity": capacity, "precision": precision, "device": device}
        data = self.device.data(bench, split_seed)
        pack = AdapterPack(data, settings, encoder, own, metric, **options)
        pack.prefix = self.device.prefix(bench, settings, pack.new_prefix)
        return pack

    def _settle(self, key: str) -> None:
        """Conclude the runs of a job that have ended: their slots are free at once."""
        seat = self.seats[key]
        for run in seat.runs.values():
            run.check_time()
            if run.ended and run.final is None:
                seat.book.conclude(run)
                run.close()

    def _news(self, key: str) -> Iterator[News]:
        seat = self.seats.get(key)
        while seat is not None and (seat.is_ready() or seat.book.is_lost(list(seat.runs.values()))):
            report = seat.next_report()
            if report.finished:
                self.drop(key)
                seat = None
            yield News(key, report)
