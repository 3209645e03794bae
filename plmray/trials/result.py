"""Results: one JSON a trial, one table a sweep, and the grid of scores that statistics read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Union

from pydantic import ConfigDict

from plmray.trials.trial import Trial

State = Literal["COMPLETE", "PRUNED", "FAILED"]


@dataclass(frozen=True)
class TrialResult:
    """The end of one trial. Made by ``complete``, ``pruned`` or ``failed``: only a complete one has a score.

    ``score`` is the objective on validation at the selected checkpoint, ``test_score`` the same
    metric on test there. ``selected_epoch`` and ``epochs_run`` are in epochs, ``seconds`` of training and
    evaluation, ``tokens`` real ones seen in training; the train losses are those before the first and
    the last evaluation. ``reason``: why the trial ran; ``varied``: the stream that its seed moved alone, else ''.
    ``test_scores``: every metric that fits the task, on test; ``test_classes``: the same class by class.
    """

    trial_id: str
    candidate_id: str
    origin: str
    phase: Literal["search", "replicate"]
    seed: int
    state: State
    score: float | None = None
    test_score: float | None = None
    selected_epoch: float | None = None
    validation_loss: float | None = None
    first_train_loss: float | None = None
    last_train_loss: float | None = None
    epochs_run: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    engine: str = ""
    error: str | None = None
    probe: bool = False
    reason: str = ""
    varied: str = ""
    test_scores: dict[str, float] = field(default_factory=dict)
    test_classes: list[dict[str, Union[str, float, None]]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")  # of files that are read

    @classmethod
    def complete(cls, trial: Trial, *, score: float, **facts: Any) -> TrialResult:
        return cls(**_identity(trial), state="COMPLETE", score=score, **facts)

    @classmethod
    def pruned(cls, trial: Trial, error: str | None, **facts: Any) -> TrialResult:
        """Stopped early for its candidate's sake, or diverged (``error`` says so)."""
        return cls(**_identity(trial), state="PRUNED", error=error, **facts)

    @classmethod
    def failed(cls, trial: Trial, error: str, **facts: Any) -> TrialResult:
        return cls(**_identity(trial), state="FAILED", error=error, **facts)

    @property
    def has_diverged(self) -> bool:
        return self.state == "PRUNED" and "diverged" in (self.error or "")

    @property
    def was_stopped(self) -> bool:
        """By a scheduler, for its candidate's sake."""
        return self.state == "PRUNED" and not self.has_diverged

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TrialResult:
        return cls(**record)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _identity(trial: Trial) -> dict[str, Any]:
    return {
        "trial_id": trial.id,
        "candidate_id": trial.candidate.id,
        "origin": trial.candidate.origin,
        "phase": trial.phase,
        "seed": trial.seed,
        "reason": trial.reason,
        "varied": trial.varied or "",
        "parameters": dict(trial.candidate.parameters),
    }


def in_order(results: Iterable[TrialResult]) -> list[TrialResult]:
    """By phase, candidate and seed. What judges results sorts them first: the order of arrival is the machine's."""
    order = {"search": 0, "replicate": 1}
    return sorted(results, key=lambda r: (order.get(r.phase, 2), r.candidate_id, r.seed, r.trial_id))
