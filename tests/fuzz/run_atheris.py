"""Coverage-guided fuzzing of one reader: python -m tests.fuzz.run_atheris READER CORPUS [libFuzzer options].

Ends with code 0, or with the input that broke the reader in a file ``crash-…`` of the current folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["plmray"]):
    from tests.fuzz.readers import READERS, reads


def main() -> None:
    kind, *options = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="plmray-fuzz-"))

    def one(content: bytes) -> None:
        for reader in READERS[kind].values():
            reads(reader, content, folder)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
