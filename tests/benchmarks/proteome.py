"""Prediction of a proteome: does memory stay flat while 100,000 proteins stream through a bundle?

The golden bundle (the small encoder) predicts proteins of 30 to 300 residues from one FASTA file; the resident memory
of the process is read at every line of progress. Names are held, so that one that stands twice is found: some 100
bytes a protein.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from plmray.bundle.predict import predict_file
from tests.benchmarks.common import Answer, main
from tests.golden.make import HERE

LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
FLAT = 1.1  # memory at the end over that after a tenth


def run(quick: bool) -> Answer:
    answer, count = Answer("proteome"), 5_000 if quick else 100_000
    seen: list[int] = []
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "proteome.fasta"
        write(file, count)
        start = time.perf_counter()
        predict_file(
            HERE / "bundle", file, Path(place) / "out.csv", echo=lambda text: seen.append(process.memory_info().rss)
        )
        seconds = time.perf_counter() - start
    tenth = seen[len(seen) // 10]
    answer.ratios = {"memory at the end over that after a tenth": round(seen[-1] / tenth, 3)}
    answer.gates["memory is flat"] = seen[-1] <= FLAT * tenth
    answer.figures = {
        "proteins": count,
        "memory_mb": {
            "after a tenth": round(tenth / 1e6),
            "at the end": round(seen[-1] / 1e6),
            "highest": round(max(seen) / 1e6),
        },
        "proteins_per_second": round(count / seconds),
    }
    return answer


def write(file: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    with file.open("w") as stream:
        for number in range(count):
            sequence = "".join(rng.choice(LETTERS, size=int(rng.integers(30, 300))))
            stream.write(f">protein{number}\n{sequence}\n")


if __name__ == "__main__":
    main("proteome", run, __doc__ or "")
