"""Inside a Ray job the working folder is a throw-away upload: what must last needs an absolute path."""

from __future__ import annotations

import os
from pathlib import Path

from plmray.errors import SetupError
from plmray.storage.object_store import is_store


def inside_ray_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def require_lasting(what: str, path: str | Path, remedy: str) -> None:
    """Raise SetupError for a relative path inside a Ray job."""
    if inside_ray_job() and not is_store(path) and not Path(path).expanduser().is_absolute():
        raise SetupError(
            f"{what} '{path}' is relative, and inside a Ray job the working folder is deleted at the end. {remedy}"
        )


def require_lasting_store(uri: str | None) -> None:
    """Raise SetupError for an MLflow store with a relative file path inside a Ray job."""
    for scheme in ("sqlite:///", "file:"):
        if uri is not None and uri.startswith(scheme):
            place = uri.removeprefix(scheme)
            require_lasting(
                "the MLflow store", place, "Write sqlite:////absolute/path/mlflow.db, or a server's http://…"
            )
