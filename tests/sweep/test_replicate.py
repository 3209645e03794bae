"""The replicate phase: choices on validation scores alone, recorded before they act, confirmed on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plmray.plan.prepare import prepare
from plmray.seeds import derived_rng
from plmray.sweep.driver import run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.folder.writer import SweepFolder
from plmray.sweep.options import RunOptions
from plmray.sweep.phases.adaptive import AdaptivePhase
from plmray.sweep.phases.base import Events
from plmray.sweep.phases.replicate import ReplicatePhase
from plmray.trials.job import Job, Report
from plmray.trials.result import TrialResult
from plmray.trials.trial import CONFIRMATION, Trial
from tests.examples import sweep_tree, tiny_sweep, write_proteins

RANKS = [1, 2, 3, 4, 6]  # of the top candidates; a higher one is better by half a seed SD
ADAPTIVE = {"top": 5, "random": 2, "seeds": [101, 102, 103], "allocation": "adaptive", "budget": {"trials": 30}}
Score = Callable[[Trial], float | None]


def noisy(trial: Trial) -> float:
    rank = float(trial.candidate.parameters["adapter.rank"])
    rank = rank if rank <= 6 else 0.0  # the anchors
    return 0.5 * rank + float(derived_rng(trial.seed, f"noise {trial.candidate.id} {trial.varied}").normal())


class Fake:
    """Training is a formula; the phase, its records and the folder are real."""

    def __init__(self, folder: Path, score: Score = noisy, test: Score = noisy, **replicate: Any) -> None:
        space = {"adapter.rank": {"kind": "choice", "values": [*RANKS, 8, 12, 16]}}
        search = {"candidates": 5, "seeds": [0, 1], "sampler": "random"}
        sweep = tiny_sweep(folder, space=space, search=search, replicate={**ADAPTIVE, **replicate})
        self.spec, self.score, self.test, self.folder = sweep.spec, score, test, SweepFolder(folder)
        identifier = prepare(sweep, None).identifier
        self.top = [identifier.candidate({"adapter.rank": rank}, "searched") for rank in RANKS]
        anchors = [identifier.candidate({"adapter.rank": rank}, "random") for rank in (8, 12)]
        adaptive = self.spec.replicate is not None and self.spec.replicate.allocation == "adaptive"
        self.phase = (
            AdaptivePhase(self.spec, self.folder, Events(), self.top, anchors, together=False)
            if adaptive
            else ReplicatePhase(self.spec, self.folder, Events(), [*self.top, *anchors], self.top, together=False)
        )

    def result(self, trial: Trial) -> TrialResult:
        score = self.score(trial)
        if score is None:
            return TrialResult.pruned(trial, "diverged")
        return TrialResult.complete(trial, score=score, test_score=self.test(trial), seconds=1.0)

    def run(self, jobs: int = 10_000, at_a_time: int = 1) -> Fake:
        live: list[Job] = []
        while jobs > 0:
            while len(live) < at_a_time and isinstance(job := self.phase.next_job(), Job):
                live.append(job)
            if not live:
                break
            done = live.pop(0)
            self.phase.finish(done, Report(1, None, [self.result(trial) for trial in done.trials()], finished=True))
            jobs -= 1
        return self

    def decisions(self, kind: str) -> list[dict[str, Any]]:
        return [d for d in self.folder.decisions if d["kind"] == kind]

    def states(self) -> dict[str, tuple[str, float | None, str]]:
        return {i: (r.state, r.score, r.reason) for i, r in sorted(self.folder.results.items())}


def test_adaptive_spends_its_budget_where_it_matters_and_confirms(tmp_path: Path) -> None:
    fake = Fake(tmp_path).run()
    made, stop = fake.decisions("allocation"), fake.decisions("allocation-stop")[0]
    assert len(made) == stop["trials"] <= 30
    assert stop["reason"] in ("budget", "sure")
    counts = {c.id: sum(d["candidate_id"] == c.id for d in made) for c in fake.top}
    assert min(counts.values()) >= 2
    assert counts[fake.top[-1].id] > counts[fake.top[0].id]
    confirmed = [r for r in fake.folder.results.values() if r.reason == CONFIRMATION]
    assert len(confirmed) == 2 * 5
    assert fake.top[-1].id in {r.candidate_id for r in confirmed}
    seen = {d["seed"] for d in made} | set(ADAPTIVE["seeds"])
    assert not seen & {r.seed for r in confirmed}
    anchors = [r for r in fake.folder.results.values() if r.origin == "random"]
    assert {r.seed for r in anchors} == {101, 102, 103} and {r.reason for r in anchors} == {"fixed grid"}


def test_an_anchor_that_leads_is_confirmed_too(tmp_path: Path) -> None:
    def score(trial: Trial) -> float:
        return noisy(trial) + 10.0 * (trial.candidate.parameters["adapter.rank"] == 12)

    fake = Fake(tmp_path, score).run()
    best = next(r.candidate_id for r in fake.folder.results.values() if r.parameters["adapter.rank"] == 12)
    assert fake.decisions("confirmation")[0]["candidates"][0] == best


def test_every_trial_says_why_it_ran(tmp_path: Path) -> None:
    fake = Fake(tmp_path, budget={"trials": 16}).run()
    reasons = {d["reason"].split()[0] for d in fake.decisions("allocation")}
    assert reasons >= {"first", "leads"}
    by_trial = {(r.candidate_id, r.seed): r.reason for r in fake.folder.results.values()}
    assert all(by_trial[d["candidate_id"], d["seed"]] == d["reason"] for d in fake.decisions("allocation"))


def test_test_scores_change_no_decision(tmp_path: Path) -> None:
    """The same validation scores with any other test scores: the same choices, to the last one."""
    decisions = []
    for name, test in (("same", noisy), ("turned", lambda trial: -noisy(trial)), ("none", lambda trial: None)):
        (tmp_path / name).mkdir()
        decisions.append(Fake(tmp_path / name, test=test).run().folder.decisions)
    assert decisions[0] == decisions[1] == decisions[2]


@pytest.mark.parametrize("killed_after", [1, 9, 20, 38])
def test_resumed_equals_uninterrupted(tmp_path: Path, killed_after: int) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = Fake(tmp_path / "whole").run()
    Fake(tmp_path / "killed").run(jobs=killed_after)
    resumed = Fake(tmp_path / "killed").run()
    assert resumed.states() == whole.states()


def test_a_choice_that_was_recorded_and_never_ran_runs(tmp_path: Path) -> None:
    fake = Fake(tmp_path).run(jobs=12)
    job = fake.phase.next_job()  # the driver dies now
    assert isinstance(job, Job)
    again = Fake(tmp_path).phase.next_job()
    assert isinstance(again, Job)
    assert (again.candidate.id, again.seeds, again.reason) == (job.candidate.id, job.seeds, job.reason)


def test_replay_follows_the_records_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
    first = Fake(tmp_path / "first").run(at_a_time=4)
    (tmp_path / "again" / "decisions.jsonl").write_bytes((tmp_path / "first" / "decisions.jsonl").read_bytes())
    again = Fake(tmp_path / "again").run(at_a_time=3)
    assert again.states() == first.states()


def test_many_at_a_time_do_not_all_choose_the_same(tmp_path: Path) -> None:
    fake = Fake(tmp_path, random=0).run(at_a_time=8)
    made = fake.decisions("allocation")
    assert len({d["candidate_id"] for d in made[:10]}) == 5  # two seeds each before anything is known
    assert len(fake.folder.results) == len(made) + 10 + 2 * 3  # and the confirmation, and two anchors


def test_a_candidate_that_never_scores_is_left_alone_and_a_lost_seed_is_replaced(tmp_path: Path) -> None:
    def score(trial: Trial) -> float | None:
        rank = trial.candidate.parameters["adapter.rank"]
        if rank == 6 or (rank == 4 and trial.seed == 101):
            return None
        return noisy(trial)

    fake = Fake(tmp_path, score).run()
    made = fake.decisions("allocation")
    assert sum(d["candidate_id"] == fake.top[-1].id for d in made) == 2
    replaced = [d for d in made if d["candidate_id"] == fake.top[3].id and "replaces seed 101" in d["reason"]]
    assert replaced
    assert fake.top[-1].id not in fake.decisions("confirmation")[0]["candidates"]


def test_a_seed_that_runs_is_not_chosen_again(tmp_path: Path) -> None:
    """A top candidate that is an anchor too: its grid is still running when the first choice is made."""
    fake = Fake(tmp_path, random=0)
    phase = AdaptivePhase(fake.spec, fake.folder, Events(), fake.top[:2], fake.top[:1], together=True)
    jobs = []
    while isinstance(job := phase.next_job(), Job):
        jobs += [(job.candidate.id, seed) for seed in job.seeds]
    assert len(jobs) == len(set(jobs)) == 3 + 2  # the anchor's grid, and two seeds of the other


def test_a_phase_in_which_everything_fails_ends(tmp_path: Path) -> None:
    fake = Fake(tmp_path, lambda trial: None).run()
    assert fake.decisions("confirmation")[0]["candidates"] == []
    assert all(r.score is None for r in fake.folder.results.values())


def test_indifference_stops_early(tmp_path: Path) -> None:
    fake = Fake(tmp_path, indifference=10.0).run()
    assert fake.decisions("allocation-stop")[0]["reason"] == "indifferent"
    assert len(fake.decisions("allocation")) == 10


def test_varied_and_adaptive_trials_are_the_same_in_packs(tmp_path: Path) -> None:
    """A whole sweep, adaptive and with every stream moved, on both engines: equal ids, and equal scores to 1e-6."""
    changes = {
        "task": {"files": write_proteins(tmp_path / "proteins.csv"), "validation_fraction": 0.25},
        "space": {"optimizer.lr": {"kind": "choice", "values": [0.001, 0.003, 0.01]}},
        "replicate": {
            "top": 2,
            "random": 1,
            "seeds": [101, 102],
            "vary": ["init", "order", "dropout", "split"],
            "allocation": "adaptive",
            "budget": {"trials": 6},
            "confirm": 2,
        },
    }
    train = sweep_tree()["train"] | {"adapter": {"kind": "none"}, "head": {"hidden": 8, "dropout": 0.2}}
    found = {}
    for engine in ("torch", "packed"):
        sweep = tiny_sweep(tmp_path, train=train, resources={"engine": engine}, **changes)
        options = RunOptions(storage_path=tmp_path / engine, local=True)
        assert run_sweep(sweep, options, lambda text: None).exit_code == 0
        found[engine] = {r.trial_id: r for r in read_results(tmp_path / engine / "tiny")}
    shared = set(found["torch"]) & set(found["packed"])
    assert {r.varied for i, r in found["torch"].items() if i in shared} == {"", "init", "order", "dropout", "split"}
    assert any(r.reason == CONFIRMATION for r in found["packed"].values())
    for trial_id in shared:
        one, other = found["torch"][trial_id], found["packed"][trial_id]
        assert one.score == pytest.approx(other.score, abs=1e-6), trial_id
        assert one.test_score == pytest.approx(other.test_score, abs=1e-6), trial_id


def test_one_stream_moves_and_the_others_are_held(tmp_path: Path) -> None:
    fixed = {"allocation": "fixed", "budget": None, "top": 2, "random": 2, "vary": ["init", "order"]}
    fake = Fake(tmp_path, **fixed).run()
    varied = [r for r in fake.folder.results.values() if r.varied]
    assert {r.candidate_id for r in varied} == {candidate.id for candidate in fake.top}
    assert len(varied) == 2 * 2 * len(fake.top)
    assert {(r.varied, r.seed) for r in varied} == {(s, n) for s in ("init", "order") for n in (102, 103)}
    trial = Trial(fake.top[0], 102, "replicate", "", "init", 101)
    assert trial.id == f"{fake.top[0].id}-s101-init102"
    drawn = {name: trial.streams.rng(name).random() for name in ("init", "order", "dropout")}
    base, moved = (Trial(fake.top[0], seed, "replicate").streams for seed in (101, 102))
    assert drawn["init"] == moved.rng("init").random()
    assert drawn["order"] == base.rng("order").random() and drawn["dropout"] == base.rng("dropout").random()
    assert np.isfinite(list(drawn.values())).all()
