"""A generated mutational landscape whose truth is known: for trying plmray without any data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from plmray.config.fields.task import LandscapeSpec
from plmray.data.files.formats import Row
from plmray.seeds import derived_rng

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


def generate(spec: LandscapeSpec) -> list[Row]:
    """Variants of one protein at ``spec.positions`` sites.

    target = Σ additive(site, residue) + Σ epistasis(site pair, residue pair) + noise, scaled to unit
    variance before the noise; additive effects ~ N(0, 1), pairwise ~ N(0, spec.epistasis²). All
    variants differ, so no sequence is in two splits.
    """
    rng = derived_rng(spec.seed, "landscape")
    wild_type = rng.integers(20, size=spec.length)
    sites = np.sort(rng.permutation(spec.length)[: spec.positions])
    additive = rng.normal(size=(spec.positions, 20))
    pairwise = rng.normal(scale=spec.epistasis, size=(spec.positions, spec.positions, 20, 20))
    names = ["train"] * spec.train + ["validation"] * spec.validation + ["test"] * spec.test
    variants = _distinct_variants(rng, spec.positions, len(names))
    signal = np.array([_fitness(variant, additive, pairwise) for variant in variants])
    signal = (signal - signal.mean()) / (signal.std() or 1.0)
    measured = signal + rng.normal(scale=spec.noise, size=len(signal))
    return list(_rows(wild_type, sites, variants, measured, names))


def _distinct_variants(rng: np.random.Generator, positions: int, count: int) -> np.ndarray:
    if count > 20**positions // 2:
        raise ValueError(f"{positions} positions have too few variants for {count} proteins; raise positions")
    seen: dict[tuple[int, ...], None] = {}
    while len(seen) < count:
        seen[tuple(rng.integers(20, size=positions).tolist())] = None
    return np.array(list(seen))


def _fitness(variant: np.ndarray, additive: np.ndarray, pairwise: np.ndarray) -> float:
    sites = range(len(variant))
    single = sum(additive[i, variant[i]] for i in sites)
    double = sum(pairwise[i, j, variant[i], variant[j]] for i in sites for j in range(i))
    return float(single + double)


def _rows(
    wild_type: np.ndarray, sites: np.ndarray, variants: np.ndarray, targets: np.ndarray, names: list[str]
) -> Iterator[Row]:
    for number, (variant, target, name) in enumerate(zip(variants, targets, names, strict=True)):
        residues = wild_type.copy()
        residues[sites] = variant
        sequence = "".join(AMINO_ACIDS[residue] for residue in residues)
        yield Row("landscape", number + 1, f"v{number}", sequence, repr(float(target)), name, None)
