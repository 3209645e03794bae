"""One sweep from start to end: search, promote, replicate, report. The order of events is this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plmray.config.catalog.engines import ENGINES
from plmray.config.fields.sweep import SweepSpec
from plmray.config.load import LoadedSweep
from plmray.config.model_checks import model_faults
from plmray.config.strict_yaml import dotted
from plmray.data.proteins import ProteinData
from plmray.errors import Fault, SetupError, SpecError
from plmray.interrupt import Interrupted, StopSignals
from plmray.metrics import METRICS
from plmray.model.backbones import fetch_weights
from plmray.plan.packing import search_width
from plmray.plan.plan import Plan, choose_engine, make_plan
from plmray.plan.prepare import data_facts, load_checked, make_identifier
from plmray.redact import redacted
from plmray.report.headline import headline
from plmray.report.judge import candidate_summaries
from plmray.report.write import judge_folder
from plmray.storage import layout
from plmray.storage.home import home_of
from plmray.storage.lock import FolderLock
from plmray.sweep.folder.costs import Costs, costs_summary, read_costs, write_costs
from plmray.sweep.folder.reader import tracking_record
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.machines import Machines, open_machines
from plmray.sweep.on_ray.job_environment import inside_ray_job
from plmray.sweep.options import RunOptions, check_paths, logged, open_folder, require_same
from plmray.sweep.phases.adaptive import AdaptivePhase
from plmray.sweep.phases.base import Events, InTurn, StoppableSource, TimedSource
from plmray.sweep.phases.importance import write_importance
from plmray.sweep.phases.replicate import ReplicatePhase
from plmray.sweep.phases.search import SearchPhase
from plmray.sweep.progress import Progress
from plmray.sweep.tracking.mirror import Mirror, log_outcome, tracking_uri
from plmray.sweep.tracking.sync import sweep_params, write_outcome
from plmray.sweep.tracking.tracker import Tracker
from plmray.sweep.workers.context import facts_of, make_bench
from plmray.trials import provenance
from plmray.trials.job import Job, Place, Report
from plmray.trials.result import TrialResult
from plmray.trials.trial import Candidate, Identifier


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended. ``exit_code``: 0 complete, 1 some trials failed (or none completed), 130 interrupted."""

    folder: Path
    address: str
    headline: str
    num_failed: int
    num_complete: int
    interrupted: bool
    costs: dict[str, float]
    tracking_uri: str
    tracking_complete: bool

    @property
    def exit_code(self) -> int:
        return 130 if self.interrupted else 1 if self.num_failed or not self.num_complete else 0


def run_sweep(
    sweep: LoadedSweep, options: RunOptions, echo: Callable[[str], None], data: ProteinData | None = None
) -> Outcome:
    """Run a sweep to its end or its interruption. Raises PlmrayError before any worker starts.

    ``data``: the sweep's own, where they are read and checked already. A stop before anything has begun to run is a
    KeyboardInterrupt.
    """
    check_paths(sweep, options)
    with StopSignals():
        checked = data if data is not None else load_checked(sweep, options.data_root)
        with home_of(options.storage_path, sweep.spec.name) as home, FolderLock(home.lock_place, echo) as lock:
            if home.store is not None:
                home.store.pull(home.path)
            folder = SweepFolder(home.path, lock, home.store, echo)
            open_folder(folder, sweep, checked, options)
            return Driver(sweep, options, folder, checked, logged(echo, folder)).run()


class Driver:
    """The parts of one run, wired once and used in order by ``run``."""

    def __init__(
        self,
        sweep: LoadedSweep,
        options: RunOptions,
        folder: SweepFolder,
        data: ProteinData,
        echo: Callable[[str], None],
    ) -> None:
        self.sweep, self.spec, self.options, self.folder, self.data = sweep, sweep.spec, options, folder, data
        self.echo = echo
        self.metric = METRICS[self.spec.objective.metric]
        self.family = sweep.family  # of a hub id that is not here yet a guess
        self.engine, _ = choose_engine(self.spec, self.family)
        self.runs = ENGINES[self.engine]
        self.costs = Costs(before=read_costs(folder.path))
        self.signals = StopSignals()

    def run(self) -> Outcome:
        for name in searched_backbones(self.spec):
            fetch_weights(self.spec.train.backbone.model_copy(update={"name": name}), self.sweep.folder)
        if self.sweep.family != self.family:
            raise SetupError(
                f"{self.spec.train.backbone.name} turned out to be of family {self.sweep.family}: now that it is here, "
                "start the sweep again, so that its settings are judged by that"
            )
        require_backbones(self.spec, self.sweep.folder)
        with open_machines(self.sweep, self.engine, self.options, self.costs, self.echo) as machines, self.signals:
            return self._run(machines)

    def _run(self, machines: Machines) -> Outcome:
        identifier = make_identifier(self.sweep, self.data.hash, machines.has_gpu)
        require_same(self.folder, identifier)
        if self.options.replay_from is not None:
            self.folder.keep_records()
        if self.options.resume:
            self.folder.forget_failed()
        plan = make_plan(self.spec, data_facts(self.sweep, self.data), identifier, self.sweep.family)
        bench = make_bench(self.sweep, self.data, plan.precision, self.folder.address, has_gpu=machines.has_gpu)
        self.folder.write_facts(facts_of(self.data, bench))
        place = machines.place(bench)
        tracker = self._start_tracking(plan)
        events = self._events(plan, tracker)
        interrupted = False
        try:
            self._run_phases(place, plan, identifier, events)
        except (Interrupted, KeyboardInterrupt):
            interrupted = True
        return self._conclude(tracker, interrupted)

    def _run_phases(self, place: Place, plan: Plan, identifier: Identifier, events: Events) -> None:
        search = SearchPhase(
            self.spec,
            self.folder,
            identifier,
            events,
            lag=min(place.concurrency, search_width(self.spec)) if self.runs.has_hosts else place.concurrency,
            in_turn=self.runs.has_groups,
        )
        self.costs.slots = place.devices
        both = InTurn(search, lambda: self._replicate(search, plan, identifier, events))
        place.run(TimedSource(StoppableSource(both, self.signals), self.costs))

    def _replicate(
        self, search: SearchPhase, plan: Plan, identifier: Identifier, events: Events
    ) -> ReplicatePhase | None:
        """The second phase, as the first one ended."""
        if len(search.order) < plan.phases[0].candidates:
            self.echo(f"the space holds no more than {len(search.order)} different candidates; the search ends early")
        if self.spec.replicate is None:
            return None
        top = self._promote(search, identifier)
        anchors = [identifier.known[anchor.id] for anchor in plan.anchors]
        chosen = list({candidate.id: candidate for candidate in [*top, *anchors]}.values())
        if not chosen:
            self.echo("nothing to replicate: no candidate completed the search")
            return None
        self._record_replicated(chosen)
        together = self.runs.seeds_together
        if self.spec.replicate.allocation == "adaptive":
            return AdaptivePhase(self.spec, self.folder, events, top, anchors, together=together)
        return ReplicatePhase(self.spec, self.folder, events, chosen, top or anchors, together=together)

    def _promote(self, search: SearchPhase, identifier: Identifier) -> list[Candidate]:
        """The best of the search. The choice is recorded before it acts, and a recorded one stands."""
        assert self.spec.replicate is not None
        complete = search.num_complete()
        promotions = [d for d in self.folder.decisions if d["kind"] == "promotion" and d["complete"] == complete]
        if promotions:
            top = [identifier.known[candidate_id] for candidate_id in promotions[-1]["top"]]
        else:  # none yet, or made while trials were missing that have completed since
            top = search.ranked()[: self.spec.replicate.top]
            record = {"kind": "promotion", "complete": complete, "top": [candidate.id for candidate in top]}
            self.folder.record_decision(record)
        if len(top) < self.spec.replicate.top:
            self.echo(
                f"{len(top)} candidates to replicate, {self.spec.replicate.top} were asked for: the others failed"
            )
        return [identifier.known[candidate.id] for candidate in top]

    def _record_replicated(self, chosen: list[Candidate]) -> None:
        known = {record["id"] for record in self.folder.candidates if record["phase"] == "replicate"}
        for index, candidate in enumerate(chosen):
            if candidate.id not in known:
                self.folder.record_candidate(candidate, "replicate", index)

    def _start_tracking(self, plan: Plan) -> Tracker:
        mirror = open_mirror(self.sweep, self.folder)
        tracker = Tracker(mirror)
        tags = {"plmray.folder": self.folder.address, "plmray.precision": plan.precision}
        tags |= {f"plmray.version.{name}": str(version) for name, version in provenance.software().items()}
        source = self.spec.task.dataset or self.spec.task.files
        data = {"name": self.data.name, "hash": self.data.hash, "source": source, "profile": self.data.counts()}
        self.folder.write(layout.TRACKING, tracking_record(mirror.uri, data))
        tracker.put(lambda: mirror.start_sweep(sweep_params(self.spec), tags, data))
        return tracker

    def _events(self, plan: Plan, tracker: Tracker) -> Events:
        progress = Progress(plan, self.metric, self.echo, len(self.folder.results))
        mirror = tracker.mirror

        def started(candidate: Candidate) -> None:
            tracker.put(lambda: mirror.start_candidate(candidate))

        def reported(_: Job, report: Report) -> None:
            for result in report.results:
                evaluations = report.curves.get(result.trial_id, [])
                tracker.put(lambda r=result, e=evaluations: mirror.log_curve(r, e))  # type: ignore[misc]

        def finished(result: TrialResult) -> None:
            tracker.put(lambda: mirror.finish_trial(result))

        return Events(
            started=[started],
            reported=[reported, progress.reported],
            finished=[finished, progress.finished, self.costs.trial],
        )

    def _conclude(self, tracker: Tracker, interrupted: bool) -> Outcome:
        results = list(self.folder.results.values())
        totals = self.costs.totals()
        costs = costs_summary(totals)
        self.folder.conclude(lambda: write_costs(self.folder.path, totals))
        self.folder.conclude(lambda: write_importance(self.folder.path, self.spec, results))
        verdict = judge_folder(self.folder.path, self.spec, results)
        self.folder.conclude(lambda: write_outcome(self.folder.path, verdict, self.spec.name, results))
        failed = sum(result.state == "FAILED" for result in results)
        status = "interrupted" if interrupted else "failures" if failed else "complete"
        mirror = tracker.mirror
        tracker.put(lambda: mirror.finish_candidates(candidate_summaries(results, self.spec.objective.metric)))
        tracker.put(lambda: log_outcome(mirror, verdict, self.folder.path, costs, status))
        complete = tracker.close(self.echo)
        if not complete:
            self.echo(f"MLflow has not everything yet; once it is reachable run: plmray sync {self.folder.address}")
        return Outcome(
            folder=self.folder.path,
            address=self.folder.address,
            headline=headline(verdict),
            num_failed=failed,
            num_complete=sum(result.state == "COMPLETE" for result in results),
            interrupted=interrupted,
            costs=costs,
            tracking_uri=redacted(tracker.mirror.uri),
            tracking_complete=complete,
        )


def require_backbones(spec: SweepSpec, folder: Path) -> None:
    """Raise SpecError where checkpoints that have just been fetched turn out not to fit the sweep."""
    faults = [Fault(dotted(place), message) for place, message in model_faults(spec, folder)]
    if faults:
        raise SpecError(faults)


def searched_backbones(spec: SweepSpec) -> list[str]:
    domain = spec.space.get("backbone.name")
    return [str(name) for name in domain.grid()] if domain is not None else [spec.train.backbone.name]


def open_mirror(sweep: LoadedSweep, folder: SweepFolder) -> Mirror:
    """The mirror of a sweep folder. Inside a Ray job the default store lies beside the results, which last."""
    default = folder.path.parent if inside_ray_job() and folder.store is None else Path.cwd()
    return Mirror(
        uri=tracking_uri(sweep.spec.tracking.uri, default),
        experiment=sweep.spec.tracking.experiment,
        sweep_id=folder.sweep_id,
        sweep_name=sweep.spec.name,
        metric=sweep.spec.objective.metric,
    )
