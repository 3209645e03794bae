"""The search judges candidates by their mean, is the same in every run, and rebuilds from its records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plmray.config.fields.sweep import SearchSpec
from plmray.plan.prepare import prepare
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.phases.base import Events
from plmray.sweep.phases.replicate import ReplicatePhase
from plmray.sweep.phases.search import SearchPhase
from plmray.sweep.phases.study import report_epochs
from plmray.trials.job import Job, Report
from plmray.trials.result import TrialResult
from tests.examples import tiny_sweep

SPACE = {
    "optimizer.lr": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "adapter.rank": {"kind": "ordinal", "values": [2, 4, 8]},
    "head.kind": {"kind": "choice", "values": ["linear", "dense"]},
    "head.hidden": {"kind": "int", "low": 8, "high": 32, "step": 8, "when": {"head.kind": "dense"}},
}
Curve = Callable[[Job, int, int], float]


def truth(job: Job, seed: int, epoch: int) -> float:
    """A score without any training: better near lr = 1e-3, plus what the seed adds."""
    import math

    parameters = job.candidate.parameters
    return -abs(math.log10(float(parameters["optimizer.lr"])) + 3) + 0.01 * seed - 0.1 / epoch


class Fake:
    """Stands in for training only: runs jobs through real phases, a real study and a real folder."""

    def __init__(self, folder: Path, score: Curve = truth, lag: int = 1, **search: Any) -> None:
        settings = {"candidates": 14, "seeds": [0, 1], "sampler": "tpe", "sampler_seed": 3, **search}
        train = tiny_sweep(folder).spec.train.model_dump() | {"epochs": 8}
        sweep = tiny_sweep(folder, space=SPACE, search=settings, train=train)
        self.spec, self.score = sweep.spec, score
        self.folder = SweepFolder(folder)
        self.phase = SearchPhase(
            sweep.spec, self.folder, prepare(sweep, None).identifier, Events(), lag=lag, in_turn=False
        )

    def report(self, job: Job, epoch: int) -> Report:
        done = epoch == job.report_epochs[-1]
        scores = [self.score(job, seed, epoch) for seed in job.seeds]
        results = [
            TrialResult.complete(t, score=s, epochs_run=epoch) for t, s in zip(job.trials(), scores, strict=True)
        ]
        return Report(epoch, sum(scores) / len(scores), results, finished=done)

    def run(self, jobs: int | None = None) -> list[str]:
        """Run all or some jobs to their end, in order; ids of the candidates so far."""
        while jobs is None or jobs > 0:
            job = self.phase.next_job()
            if not isinstance(job, Job):
                break
            report = None
            for epoch in job.report_epochs:
                report = self.report(job, epoch)
                if self.phase.observe(job, report):
                    break
            self.phase.finish(job, report)
            jobs = None if jobs is None else jobs - 1
        return [candidate.id for candidate in self.phase.order]


def states(fake: Fake) -> dict[str, tuple[str, float | None]]:
    return {i: (r.state, r.score) for i, r in sorted(fake.folder.results.items())}


@pytest.mark.parametrize("sampler", ["tpe", "random", "sobol", "cmaes", "gp"])
def test_resumed_search_equals_uninterrupted_search(sampler: str, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = Fake(tmp_path / "whole", sampler=sampler)
    whole.run()
    Fake(tmp_path / "killed", sampler=sampler).run(jobs=5)
    resumed = Fake(tmp_path / "killed", sampler=sampler)
    assert resumed.run() == [candidate.id for candidate in whole.phase.order]
    assert states(resumed) == states(whole)


def test_order_of_arrival_does_not_change_proposals_without_a_scheduler(tmp_path: Path) -> None:
    """Two jobs at a time, the second one always done first: the same candidates as in order."""
    orders = []
    for name, flip in (("straight", False), ("flipped", True)):
        (tmp_path / name).mkdir()
        fake = Fake(tmp_path / name, lag=2, candidates=16)
        live: list[Job] = []
        while True:
            while len(live) < 2 and isinstance(job := fake.phase.next_job(), Job):
                live.append(job)
            if not live:
                break
            done = live.pop(-1 if flip else 0)
            fake.phase.finish(done, fake.report(done, 8))
        orders.append([candidate.id for candidate in fake.phase.order])
    assert len(orders[0]) == 16
    assert orders[0] == orders[1]


def test_pruning_judges_the_mean_never_one_seed(tmp_path: Path) -> None:
    """Seed 1 alone would put the first four candidates last; their means put them first."""

    def lucky(job: Job, seed: int, epoch: int) -> float:
        good = int(job.candidate.id in first)
        return (10.0 if seed == 0 else -5.0) if good else 0.0

    fake = Fake(tmp_path, lucky, candidates=12, scheduler="asha", min_epochs=2, sampler="random")
    first: set[str] = set()
    original = fake.phase._announce
    fake.phase._announce = lambda job: (first.add(job.candidate.id) if len(first) < 4 else None, original(job))[1]  # type: ignore[method-assign]
    fake.run()
    pruned = {r.candidate_id for r in fake.folder.results.values() if r.state == "PRUNED"}
    assert pruned
    assert not pruned & first
    for candidate in {r.candidate_id for r in fake.folder.results.values()}:
        own = {r.state for r in fake.folder.results.values() if r.candidate_id == candidate}
        assert len(own) == 1, "a candidate's seeds end together"


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_replay_follows_candidates_and_decisions(scheduler: str, tmp_path: Path) -> None:
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
    first = Fake(tmp_path / "first", scheduler=scheduler, min_epochs=2)
    first.run()
    assert any(result.state == "PRUNED" for result in first.folder.results.values())
    for name in ("candidates.jsonl", "decisions.jsonl"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "first" / name).read_bytes())
    again = Fake(tmp_path / "again", scheduler=scheduler, min_epochs=2)
    assert again.run() == [candidate.id for candidate in first.phase.order]
    assert states(again) == states(first)


def test_a_resumed_asha_knows_the_rungs_of_before(tmp_path: Path) -> None:
    """Rebuilt in the middle, the scheduler decides as the uninterrupted one did."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    search: dict[str, Any] = {"scheduler": "asha", "min_epochs": 2, "sampler": "random", "candidates": 14}
    whole = Fake(tmp_path / "whole", **search)
    whole.run()
    Fake(tmp_path / "killed", **search).run(jobs=7)
    resumed = Fake(tmp_path / "killed", **search)
    resumed.run()
    assert states(resumed) == states(whole)
    assert [d["decision"] for d in resumed.folder.decisions] == [d["decision"] for d in whole.folder.decisions]


def test_a_finite_space_ends_the_search_early_without_repeats(tmp_path: Path) -> None:
    sweep = tiny_sweep(tmp_path, space={"adapter.rank": {"kind": "choice", "values": [2, 4, 8]}})
    fake = Fake(tmp_path, lambda job, seed, epoch: float(job.candidate.parameters["adapter.rank"]))
    fake.phase = SearchPhase(
        sweep.spec.model_copy(update={"search": SearchSpec(candidates=10, sampler="tpe")}),
        fake.folder,
        prepare(sweep, None).identifier,
        Events(),
        lag=1,
        in_turn=False,
    )
    assert len(set(fake.run())) == 3


def test_given_candidates_come_first_and_grid_is_whole(tmp_path: Path) -> None:
    fake = Fake(tmp_path, given=[{"optimizer.lr": 0.001, "adapter.rank": 2, "head.kind": "linear"}])
    fake.run()
    assert fake.phase.order[0].parameters == {"optimizer.lr": 0.001, "adapter.rank": 2, "head.kind": "linear"}
    assert fake.phase.order[0].origin == "given"
    assert fake.phase.order[1].origin == "searched"


def test_tpe_finds_the_good_learning_rate(tmp_path: Path) -> None:
    import math

    fake = Fake(tmp_path, candidates=40)
    fake.run()
    late = [math.log10(float(candidate.parameters["optimizer.lr"])) for candidate in fake.phase.order[20:]]
    assert sum(abs(rate + 3) < 0.25 for rate in late) > 10  # blind draws: 5 of 20
    best = fake.phase.ranked()[0]
    assert abs(math.log10(float(best.parameters["optimizer.lr"])) + 3) < 0.1


def test_pruned_candidates_rank_behind_complete_ones_by_rung_and_mean(tmp_path: Path) -> None:
    fake = Fake(tmp_path, scheduler="asha", min_epochs=2, sampler="random")
    fake.run()
    order = fake.phase.ranked()
    assert len(order) == 14
    last = {d["candidate_id"]: d for d in fake.folder.decisions}
    stops = [last[c.id] for c in order[fake.phase.num_complete() :]]
    assert all(d["decision"] == "stop" for d in stops)
    assert [(d["epoch"], d["mean"]) for d in stops] == sorted(((d["epoch"], d["mean"]) for d in stops), reverse=True)


def test_a_failed_job_is_rows_and_the_search_goes_on(tmp_path: Path) -> None:
    fake = Fake(tmp_path, candidates=4)
    job = fake.phase.next_job()
    assert isinstance(job, Job)
    fake.phase.finish(job, None, error="the worker died")
    fake.run()
    assert [r.state for r in fake.folder.results.values()].count("FAILED") == 2
    assert len(fake.folder.results) == 8
    assert job.candidate not in fake.phase.ranked()
    assert fake.folder.forget_failed() == 2


def test_replicate_runs_what_is_missing_seed_by_seed(tmp_path: Path) -> None:
    fake = Fake(tmp_path, candidates=3)
    fake.run()
    chosen = fake.phase.ranked()[:2]
    phase = ReplicatePhase(fake.spec, fake.folder, Events(), chosen, [], together=False)
    job = phase.next_job()
    assert isinstance(job, Job)
    assert job.take_test
    phase.finish(job, fake.report(job, 8))
    again = ReplicatePhase(fake.spec, fake.folder, Events(), chosen, [], together=False)
    jobs = [(job.candidate.id, job.seeds) for job in again.queue]
    assert jobs == [(chosen[1].id, (101,)), (chosen[0].id, (102,)), (chosen[1].id, (102,))]


def test_rungs() -> None:
    asha = SearchSpec(candidates=1, scheduler="asha", min_epochs=2, reduction_factor=2)
    assert report_epochs(asha, 20) == [2, 4, 8, 16, 20]
    assert report_epochs(SearchSpec(candidates=1), 20) == [5, 10, 15, 20]
    assert report_epochs(SearchSpec(candidates=1), 2) == [1, 2]
    assert report_epochs(SearchSpec(candidates=1, scheduler="median", min_epochs=4), 20) == [4, 8, 12, 16, 20]
    assert report_epochs(SearchSpec(candidates=1, scheduler="asha"), 1) == [1]
