"""Packs inside a sweep: the same results as one trial at a time, and what happens when something breaks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from plmray.config.load import LoadedSweep
from plmray.data.datasets import load_data
from plmray.plan.prepare import make_identifier
from plmray.sweep.driver import Outcome, run_sweep
from plmray.sweep.folder.reader import read_results
from plmray.sweep.on_ray import host_actor
from plmray.sweep.on_ray.host_actor import DeathLedger, PackActor
from plmray.sweep.options import RunOptions
from plmray.sweep.workers.context import Bench, make_bench
from plmray.sweep.workers.packed import Host
from plmray.sweep.workers.single_trial import run_trial
from plmray.trials.job import Job, Report
from tests.examples import sweep_tree, tiny_sweep

MIXED = {
    "adapter.kind": {"kind": "choice", "values": ["none", "lora", "full"]},
    "optimizer.lr": {"kind": "float", "low": 0.001, "high": 0.01, "log": True},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(folder: Path, storage: str, **changes: Any) -> Outcome:
    return run_sweep(
        tiny_sweep(folder, **changes), RunOptions(storage_path=folder / storage, local=True), lambda text: None
    )


def bench_of(sweep: LoadedSweep) -> Bench:
    return make_bench(sweep, load_data(sweep.spec.task, sweep.folder), "fp32", None, has_gpu=False)


def job_of(sweep: LoadedSweep, seeds: tuple[int, ...] = (0, 1), **parameters: Any) -> Job:
    data = load_data(sweep.spec.task, sweep.folder)
    candidate = make_identifier(sweep, data.hash, False).candidate(parameters, "given")
    return Job(candidate, seeds, "search", tuple(range(1, sweep.spec.train.epochs + 1)))


def test_a_packed_sweep_gives_the_results_of_one_trial_at_a_time(tmp_path: Path) -> None:
    """Frozen, LoRA and full in one sweep: packs, and what trains alone beside them."""
    changes: dict[str, Any] = {"space": MIXED, "search": {"candidates": 6, "seeds": [0, 1], "sampler": "random"}}
    packed = run(tmp_path, "packed", **changes)
    torch_ = run(tmp_path, "torch", resources={"engine": "torch"}, **changes)
    ours = {r.trial_id: r for r in read_results(packed.folder)}
    theirs = {r.trial_id: r for r in read_results(torch_.folder)}
    assert ours.keys() == theirs.keys()
    assert {r.engine for r in ours.values()} == {"packed", "torch"} and packed.exit_code == 0
    for trial_id, result in ours.items():
        other = theirs[trial_id]
        assert result.state == other.state == "COMPLETE"
        assert result.score == pytest.approx(other.score, abs=1e-6)
        assert result.validation_loss == pytest.approx(other.validation_loss, rel=1e-5)
        assert result.test_score == pytest.approx(other.test_score, abs=1e-6)
        assert result.tokens == other.tokens and result.epochs_run == other.epochs_run
        same = result.provenance["trainable_parameters"] == other.provenance["trainable_parameters"]
        assert same, "an engine may not change what trains"
        kept = [
            {path.name for path in (folder / "trials" / trial_id / "adapter").glob("*")}
            for folder in (packed.folder, torch_.folder)
        ]
        assert kept[0] == kept[1]
    costs = packed.costs
    assert 0 < costs["pack_occupancy"] <= 1 and 0 < costs["mfu"] < 1 and costs["padding_ratio"] >= 1


def test_one_trial_by_itself_equals_the_sweeps(tmp_path: Path) -> None:
    outcome = run(tmp_path, "runs", replicate=None)
    result = read_results(outcome.folder)[0]
    alone = run_trial(tiny_sweep(tmp_path), result.parameters, result.seed, None, echo=lambda text: None)
    assert alone.trial_id == result.trial_id and alone.engine == "packed"
    assert alone.score == pytest.approx(result.score, abs=1e-6)


def test_a_report_speaks_of_its_rung_though_its_trials_are_ahead(tmp_path: Path) -> None:
    """Two seeds of one candidate, one far ahead: its later evaluations may not leak into the earlier rung."""
    sweep = tiny_sweep(tmp_path, train={**tiny_sweep(tmp_path).spec.train.model_dump(), "epochs": 6})
    host, job = Host(bench_of(sweep)), job_of(sweep)
    host.submit("a", job)
    while not any(run.has_come_to(4) for run in host.seats["a"].runs.values()) if host.seats["a"].runs else True:
        list(host._guarded(["a"], lambda: host._seat("a")))
        for pack in host.packs.values():
            pack.advance()
    reports = [news.report for news in host.advance()]
    assert len(reports) >= 4
    for epoch, report in enumerate(reports, start=1):
        assert report is not None and report.epoch == epoch
        assert all(result.epochs_run == epoch for result in report.results)
        assert all(point["epoch"] <= epoch for curve in report.curves.values() for point in curve)


def test_seeds_that_train_alone_come_to_each_rung_together(tmp_path: Path) -> None:
    """Full fine-tuning beside packs: a scheduler hears of both seeds before either has gone further."""
    train = {**tiny_sweep(tmp_path).spec.train.model_dump(), "adapter": {"kind": "full"}, "epochs": 4}
    sweep = tiny_sweep(tmp_path, train=train)
    host = Host(bench_of(sweep))
    host.submit("a", job_of(sweep))
    host.submit("b", job_of(sweep, **{"optimizer.lr": 0.002}))
    heard = []
    while host.seats:
        for news in host.advance():
            assert news.report is not None
            heard.append((news.key, news.report.epoch))
            assert all(len(run.training.curve) <= news.report.epoch for seat in host.seats.values() for run in seat.runs.values())  # fmt: skip # noqa: E501
    assert heard == [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1), ("b", 2), ("b", 3), ("b", 4)]


def test_a_diverging_candidate_is_out_and_its_neighbours_are_not(tmp_path: Path) -> None:
    """Float32 overflows at a rate of 1 without a clip and with a huge epsilon-free step."""
    train = {**tiny_sweep(tmp_path).spec.train.model_dump(), "adapter": {"kind": "none"}, "head": {"kind": "linear"}}
    train["optimizer"] = {"lr": 0.003, "clip": None, "eps": 1e-30}
    space = {"optimizer.weight_decay": {"kind": "choice", "values": [0.0, 1e30]}}
    search = {"sampler": "grid", "seeds": [0, 1]}
    outcome = run(tmp_path, "runs", train=train, space=space, search=search, replicate=None)
    states = {(r.parameters["optimizer.weight_decay"], r.state) for r in read_results(outcome.folder)}
    assert states == {(0.0, "COMPLETE"), (1e30, "PRUNED")}
    assert outcome.exit_code == 0


def test_an_error_in_a_pack_fails_its_jobs_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plmray.packed.adapter_pack import AdapterPack

    def broken(*_: Any) -> Any:
        raise RuntimeError("a broken kernel")

    monkeypatch.setattr(AdapterPack, "run_ticks", broken)
    space = {"adapter.kind": {"kind": "choice", "values": ["none", "lora"]}}
    outcome = run(tmp_path, "runs", space=space, search={"sampler": "grid", "seeds": [0]}, replicate=None)
    results = {r.parameters["adapter.kind"]: r for r in read_results(outcome.folder)}
    assert (results["none"].state, results["lora"].state) == ("COMPLETE", "FAILED")
    assert "a broken kernel" in (results["lora"].error or "") and outcome.exit_code == 1


def test_a_trial_over_its_hours_fails_with_a_reason(tmp_path: Path) -> None:
    outcome = run(tmp_path, "runs", resources={"max_hours_per_trial": 1e-9}, replicate=None)
    results = read_results(outcome.folder)
    assert {r.state for r in results} == {"FAILED"}
    assert all("max_hours_per_trial" in (r.error or "") for r in results)


def test_suspects_train_when_nobody_else_does(tmp_path: Path) -> None:
    sweep = tiny_sweep(tmp_path)
    host = Host(bench_of(sweep), suspects=frozenset({"b"}))
    for key, rate in (("a", 0.001), ("b", 0.002), ("c", 0.003)):
        host.submit(key, job_of(sweep, **{"optimizer.lr": rate}))
    together = set()
    while host.seats:
        list(host.advance())
        together.add(frozenset(key for key, seat in host.seats.items() if seat.runs))
    assert frozenset({"b"}) in together
    assert not any("b" in group and len(group) > 1 for group in together)


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackActor:
    """The actor's own code in this process; only the fetching of its bench from Ray is replaced."""
    bench = bench_of(tiny_sweep(tmp_path))
    monkeypatch.setattr(host_actor.ray, "get", lambda reference: bench)
    monkeypatch.setattr(host_actor, "LONG_POLL_S", 0.2)
    torch.set_num_threads(1)
    return PackActor(str(tmp_path / "ledger.json"), "notes")


def ask(actor: PackActor, job: Job, token: str, after: int) -> dict[str, Any]:
    """As a trial does: again and again until there is an answer."""
    for _ in range(100):
        answer = actor.next(job.to_dict(), "job", token, after, [None])
        if answer:
            return answer
    raise AssertionError("no answer")


def test_reports_come_in_order_and_a_new_process_of_a_trial_takes_over(actor: PackActor, tmp_path: Path) -> None:
    job = job_of(tiny_sweep(tmp_path))
    first = ask(actor, job, "1-old", 0)
    assert Report.from_dict(first["report"]).epoch == 1
    again = ask(actor, job, "2-new", 0)
    assert again["report"] == first["report"], "what was reported is not computed again"
    assert "another process" in ask(actor, job, "1-old", 1)["error"]
    last = Report.from_dict(ask(actor, job, "2-new", 1)["report"])
    assert last.finished and {r.state for r in last.results} == {"COMPLETE"}


def test_a_trial_that_asks_no_more_loses_its_slots(
    actor: PackActor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tiny_sweep(tmp_path, train={**tiny_sweep(tmp_path).spec.train.model_dump(), "epochs": 2000})
    ask(actor, job_of(sweep), "1", 0)
    assert actor.host is not None and actor.host.seats
    monkeypatch.setattr(host_actor, "LEASE_S", 0.1)
    deadline = time.monotonic() + 20
    while actor.host.seats and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not actor.host.seats and not actor.leases
    time.sleep(0.3)
    assert not actor.host.packs, "its slots are free"


def test_a_host_that_breaks_says_so(actor: PackActor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Host) -> Any:
        raise RuntimeError("the host is broken")

    monkeypatch.setattr(Host, "advance", broken)
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)
    assert "the host is broken" in ask(actor, job_of(tiny_sweep(tmp_path)), "1", 0)["error"]


def test_who_was_there_at_every_death_is_known(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    DeathLedger(path).note(["a", "b"])
    after_one = DeathLedger(path)
    after_one.note(["a", "c"])
    after_two = DeathLedger(path)
    assert after_one.suspects() == frozenset()
    assert after_two.suspects() == {"a"}
    assert after_two.deaths == {"a": 2, "b": 1, "c": 1}


def test_trials_that_train_alone_beside_packs_are_concluded_too(tmp_path: Path) -> None:
    """Their test score is taken and their weights are kept, as those of their packed neighbours."""
    train = {**sweep_tree()["train"], "adapter": {"kind": "none"}}
    space = {"adapter.kind": {"kind": "choice", "values": ["none", "full"]}}
    search = {"candidates": 2, "seeds": [0], "sampler": "grid"}
    replicate = {"top": 2, "seeds": [101, 102]}
    sweep = tiny_sweep(tmp_path, train=train, space=space, search=search, replicate=replicate)
    outcome = run_sweep(sweep, RunOptions(storage_path=tmp_path / "runs", local=True), lambda text: None)
    results = [r for r in read_results(outcome.folder) if r.phase == "replicate"]
    assert {(r.engine, r.parameters["adapter.kind"]) for r in results} == {("packed", "none"), ("torch", "full")}
    assert all(r.test_score is not None and r.test_scores for r in results)
    assert all((outcome.folder / "trials" / r.trial_id / "adapter").is_dir() for r in results)
