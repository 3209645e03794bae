"""Which process computes which job when processes are lost: the bridge between Tune and a source, without Tune."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytest.importorskip("ray")

from plmray.sweep.folder.costs import Costs
from plmray.sweep.on_ray import tune_adapters
from plmray.sweep.on_ray.tune_adapters import Bridge
from plmray.trials.job import Job, Report, Wait
from plmray.trials.trial import Candidate


class TwoJobs:
    """A source of two jobs that notes how they ended."""

    def __init__(self) -> None:
        self.left = [Job(Candidate(name, {}, ("random",)), (0,), "search", (1,)) for name in ("a", "b")]
        self.ends: list[tuple[str, str | None]] = []

    def next_job(self) -> Job | Wait | None:
        return self.left.pop(0) if self.left else None

    def observe(self, job: Job, report: Report) -> bool:
        return False

    def finish(self, job: Job, report: Report | None, error: str | None = None) -> None:
        self.ends.append((job.candidate.id, error))


@pytest.fixture
def source() -> TwoJobs:
    return TwoJobs()


def bridge_to(source: TwoJobs, concurrency: int, freed: list[str]) -> Bridge:
    def config(job: Job) -> dict[str, Any]:
        return {"id": job.candidate.id}

    return Bridge(source, config, Costs(), concurrency, 2, lambda job: freed.append(job.candidate.id), lambda: None)


def test_a_lost_process_is_replaced_after_a_wait_and_nothing_overtakes_it(
    source: TwoJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one job at a time, proposals come in the order of an undisturbed run."""
    monkeypatch.setattr(tune_adapters, "RETRY_WAITS_S", (0.3,))
    monkeypatch.setattr(tune_adapters, "IDLE_WAIT_S", 0.01)
    freed: list[str] = []
    bridge = bridge_to(source, 1, freed)
    assert bridge.suggest("1") == {"id": "a"}
    bridge.fail("1", "its node is lost", lost=True)
    started = time.monotonic()
    assert bridge.suggest("2") is None
    while (again := bridge.suggest("2")) is None:
        time.sleep(0.01)
    assert again == {"id": "a"}
    assert time.monotonic() - started > 0.25
    bridge.complete("2")
    assert bridge.suggest("3") == {"id": "b"}
    assert source.ends == [("a", None)]
    assert freed == ["a"], "its slots are given back once, at its end"


def test_a_job_that_fails_again_and_again_fails_with_its_error(source: TwoJobs) -> None:
    """Twice retried, at once: an error is no lost node. The sweep ends when nothing is left, and not before."""
    bridge = bridge_to(source, 2, [])
    bridge.suggest("1")
    bridge.suggest("2")
    assert bridge.suggest("3") is None, "two are under way"
    for trial in ("1", "4", "5"):
        bridge.fail(trial, f"error of {trial}", lost=False)
        if trial != "5":
            assert bridge.suggest({"1": "4", "4": "5"}[trial]) == {"id": "a"}
    assert source.ends == [("a", "error of 5")]
    assert bridge.suggest("6") is None, "b may fail yet, and would need another process"
    bridge.complete("2")
    assert bridge.suggest("7") == "FINISHED"
    assert bridge.exhausted
