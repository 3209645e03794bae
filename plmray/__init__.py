"""Hyperparameter and seed sweeps for fine-tuning protein language models.

Does this hyperparameter matter, or was it the seed? Describe a sweep in a YAML file (or a mapping), run it, and read
how much of the spread is the hyperparameters and how much the seed:

    import plmray

    sweep = plmray.load_sweep("sweeps/quickstart.yaml")     # SpecError names every fault of the file
    print(sweep.plan())                                     # candidates, trials, what the seeds can resolve
    found = plmray.run(sweep, local=True)                   # in this process; without local: on Ray
    found.verdict, found.candidates, found.trials           # numbers, and tables of pandas
    bundle = found.export("bundle")                         # the best candidate's seeds as one model
    bundle.predict(["MKTAYIAKQR", "GSHMLEDP"])              # a row a protein, with the spread over seeds

    plmray.open_sweep("plmray_runs/quickstart")             # results of a folder, or of s3://bucket/prefix/name
    plmray.load_bundle("bundle").predict("proteins.fasta")
    plmray.embed("proteins.fasta", "esm2_t6_8M_UR50D")      # what backbone.embeddings reads
    plmray.stats.shares(table, factors=["model", "training"], by="task")   # any table of runs: is it the seed?

The command line has the same verbs (``plmray --help``). Errors are ``plmray.PlmrayError`` and say what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from plmray import stats
    from plmray.api import Sweep, SweepResults, embed, load_bundle, load_sweep, open_sweep, run
    from plmray.bundle.model import Bundle
    from plmray.errors import DataError, FolderError, PlmrayError, SetupError, SpecError

_HOMES = {
    "plmray.api": ("load_sweep", "run", "open_sweep", "load_bundle", "embed", "Sweep", "SweepResults"),
    "plmray.bundle.model": ("Bundle",),
    "plmray.errors": ("PlmrayError", "SpecError", "DataError", "FolderError", "SetupError"),
}
__all__ = [
    "Bundle",
    "DataError",
    "FolderError",
    "PlmrayError",
    "SetupError",
    "SpecError",
    "Sweep",
    "SweepResults",
    "embed",
    "load_bundle",
    "load_sweep",
    "open_sweep",
    "run",
    "stats",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "stats":
        return import_module("plmray.stats")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'plmray' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
