"""Which candidate next, and which stops early: Optuna behind ask, observe and tell.

Nothing outside this file knows Optuna. Its study lives in memory: the sweep folder is the truth, and a
resumed sweep rebuilds the study by asking for the recorded candidates again.
"""

from __future__ import annotations

import warnings
from typing import Any

import optuna

from plmray.config.fields.space import FloatDomain, IntDomain, OrdinalDomain, Parameters, Space
from plmray.config.fields.sweep import SearchSpec
from plmray.metrics import Direction
from plmray.seeds import derived_rng, derived_seed

TPE_STARTUP_CANDIDATES = 10

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def report_epochs(search: SearchSpec, epochs: int) -> list[int]:
    """Epochs at which a candidate reports its seed mean: the rungs of the scheduler, and the end."""
    if search.scheduler == "none":
        return quarters(epochs)
    first = search.min_epochs or max(1, epochs // 4)
    rungs = [first]
    while search.scheduler == "asha" and rungs[-1] * search.reduction_factor < epochs:
        rungs.append(rungs[-1] * search.reduction_factor)
    if search.scheduler == "median":
        rungs = list(range(first, epochs, max(1, (epochs - first) // 4)))
    return [*[rung for rung in rungs if rung < epochs], epochs]


def quarters(epochs: int) -> list[int]:
    """Where no scheduler asks, four reports show that a job lives."""
    return sorted({max(1, round(epochs * part / 4)) for part in range(1, 5)})


class CandidateSearch:
    """Proposes parameters and judges means at rungs. One number per candidate: the mean over its seeds."""

    def __init__(self, space: Space, search: SearchSpec, direction: Direction, epochs: int) -> None:
        self.space, self.search = space, search
        self.asked = 0  # numbers given out so far, repeats included
        self._grid = list(space.grid()) if search.sampler == "grid" else []
        self._pruner_resource = report_epochs(search, epochs)[0]
        self._trials: dict[int, optuna.Trial] = {}
        self._study = optuna.create_study(direction=direction, sampler=self._sampler(0), pruner=self._pruner())

    def ask(self, recorded: Parameters | None = None) -> tuple[int, Parameters]:
        """A number and its parameters; ``recorded`` ones are taken as they are, missing ones are proposed."""
        number, self.asked = self.asked, self.asked + 1
        self._study.sampler = self._sampler(number)
        if self.search.sampler == "grid" and recorded is None:
            recorded = self._grid[number] if number < len(self._grid) else None
        if recorded is not None:
            self._study.enqueue_trial(
                {k: as_internal(self.space.domains[k], v) for k, v in recorded.items() if k in self.space.domains}
            )
        trial = self._study.ask()
        self._trials[number] = trial
        return number, self._suggested(trial)

    def observe(self, number: int, epoch: int, mean: float) -> bool:
        """Take a seed mean at a rung; True where the candidate should stop there."""
        trial = self._trials[number]
        trial.report(mean, epoch)
        return bool(self.search.scheduler != "none" and trial.should_prune())

    def tell(self, number: int, mean: float | None, *, failed: bool = False) -> None:
        """The end of a candidate: its mean, None where it was pruned or diverged, or failed."""
        state = optuna.trial.TrialState.COMPLETE if mean is not None else optuna.trial.TrialState.PRUNED
        if failed:
            state = optuna.trial.TrialState.FAIL
        self._study.tell(self._trials[number], mean if mean is not None and not failed else None, state=state)

    def draw_blindly(self) -> Parameters:
        """For when the sampler repeats itself: one random point of the space."""
        return self.space.sample(derived_rng(self.search.sampler_seed, "blind", self.asked))

    def learns_after(self) -> int | None:
        """From which candidate on proposals depend on results; None where they never do."""
        starts = {"tpe": TPE_STARTUP_CANDIDATES, "cmaes": 1, "gp": 1, "sobol": 1}  # sobol learns the space itself
        return starts.get(self.search.sampler)

    def _suggested(self, trial: optuna.Trial) -> Parameters:
        parameters: Parameters = {}
        for key, domain in self.space.domains.items():
            if domain.is_active(parameters):
                parameters[key] = _suggest(trial, key, domain)
        return parameters

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler whose proposal depends on the study and ``number`` alone, not on its own past."""
        seed = derived_seed(self.search.sampler_seed, "sampler", number) % 2**32
        alone = optuna.samplers.RandomSampler(seed=seed)  # for parameters it cannot relate to others
        makers = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=TPE_STARTUP_CANDIDATES),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
            "grid": lambda: optuna.samplers.RandomSampler(seed=seed),  # every point is given
            "sobol": lambda: optuna.samplers.QMCSampler(
                qmc_type="sobol",
                scramble=True,
                seed=self.search.sampler_seed,  # names the sequence; the study remembers the place in it
                independent_sampler=alone,
                warn_independent_sampling=False,
            ),
            "cmaes": lambda: optuna.samplers.CmaEsSampler(
                seed=seed, independent_sampler=alone, warn_independent_sampling=False
            ),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed, deterministic_objective=False),
        }
        return makers[self.search.sampler]()

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.search.scheduler == "asha":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=self._pruner_resource, reduction_factor=self.search.reduction_factor
            )
        if self.search.scheduler == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=self._pruner_resource)
        return optuna.pruners.NopPruner()


def as_internal(domain: Any, value: Any) -> Any:
    """A value as Optuna holds it: ordinal ones by their place."""
    return domain.values.index(value) if isinstance(domain, OrdinalDomain) else value


def as_distribution(domain: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(domain, FloatDomain):
        return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, IntDomain):
        return optuna.distributions.IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, OrdinalDomain):
        return optuna.distributions.IntDistribution(0, len(domain.values) - 1)
    return optuna.distributions.CategoricalDistribution(domain.values)


def _suggest(trial: optuna.Trial, key: str, domain: Any) -> Any:
    if isinstance(domain, FloatDomain):
        return trial.suggest_float(key, domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, IntDomain):
        return trial.suggest_int(key, domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, OrdinalDomain):
        return domain.values[trial.suggest_int(key, 0, len(domain.values) - 1)]
    return trial.suggest_categorical(key, domain.values)
