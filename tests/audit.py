"""Known weaknesses of the versions in constraints.txt, by pip-audit: `make audit`.

Exit code 1 where there are some, unless they stand below with a reason. Where no advisory service can be asked, a line
says that nothing was audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
ACCEPTED: dict[str, str] = {}  # advisory id to the reason why it does not concern plmray


def audited() -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "-f", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        sys.stdout.write(f"pip-audit gave no answer: {done.stderr.strip()[-300:]}\n")
        return []
    return found


def main() -> int:
    packages = audited()
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        sys.stdout.write("NOT AUDITED: no advisory service that knows these packages can be asked from here\n")
        return 0
    weak = [
        f"{package['name']} {package['version']}: {advisory['id']}, mended in {advisory['fix_versions']}"
        for package in known
        for advisory in package["vulns"]
        if advisory["id"] not in ACCEPTED
    ]
    sys.stdout.write(
        "\n".join([f"{len(known)} of {len(packages)} packages audited, {len(weak)} weaknesses", *weak]) + "\n"
    )
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main())
