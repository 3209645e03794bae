"""Where sweep folders last: a folder, or an object store that a local copy is written through to.

In a store a sweep has the same files under the same names. The driver works on a local copy and uploads each file
before it goes on, so that the store is never behind what was decided. Credentials come from the environment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from plmray.errors import PlmrayError, SetupError, first_line
from plmray.storage import layout
from plmray.storage.atomic import write_atomic

SCHEMES = ("s3://", "gs://", "az://")
DOWNLOADS_AT_ONCE = 32
WRITE_TEST = ".plmray-write-test"
RETRIES: dict[str, Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
TIMEOUT_S = 60

Location = str | Path
T = TypeVar("T")


def is_store(location: Location) -> bool:
    return "://" in str(location)


def child(location: Location, name: str) -> Location:
    return (
        f"{location.rstrip('/')}/{name}" if isinstance(location, str) and is_store(location) else Path(location) / name
    )


class StoreError(PlmrayError, OSError):
    """An object store that did not answer, or said no; its first line is the message."""


class ObjectStore:
    """One prefix of a bucket, ``s3://bucket/prefix``. Every method raises StoreError where the store fails."""

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEMES):
            raise SetupError(
                f"{url}: expected a folder, or an address such as s3://bucket/prefix ({', '.join(SCHEMES)})"
            )
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.url = url.rstrip("/")
        try:
            options: Any = {"retry_config": RETRIES, "client_options": _client_options()}
            self.client: Any = from_url(self.url, **options)
        except (BaseError, ValueError) as error:
            raise SetupError(f"{url} cannot be used: {first_line(error)}") from error

    def put(self, name: str, content: bytes | Path) -> None:
        import obstore

        try:
            self.asked(lambda: obstore.put(self.client, name, content))
        except FileNotFoundError as error:
            raise StoreError(f"{self.url}: there is no such bucket") from error

    def get(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is none."""
        import obstore

        return self.asked(lambda: bytes(obstore.get(self.client, name).bytes()))

    def names(self) -> list[str]:
        """Everything under the prefix, relative to it."""
        import obstore

        return self.asked(lambda: [entry["path"] for page in obstore.list(self.client) for entry in page])

    def delete(self, names: Collection[str]) -> None:
        import obstore

        if names:
            self.asked(lambda: obstore.delete(self.client, list(names)))

    def pull(self, folder: Path, *, weights: bool = False) -> None:
        """Bring everything here but the lock; a trial's weights only if asked. obstore refuses names with '..'."""
        passing = (layout.LOCK, WRITE_TEST)
        wanted = [name for name in self.names() if name not in passing and (weights or not layout.is_weight(name))]

        def fetch(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):  # a driver removed it since
                write_atomic(folder / name, self.get(name), durable=False)

        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(fetch, wanted))

    def push(self, folder: Path, name: str) -> None:
        self.put(name, folder / name)

    def push_tree(self, folder: Path, prefix: str) -> None:
        """All files under a folder, with ``prefix`` before their names."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder)}", file)

    def asked(self, question: Callable[[], T]) -> T:
        from obstore.exceptions import BaseError

        try:
            return question()
        except BaseError as error:
            raise StoreError(f"{self.url}: {first_line(error)}") from error


def _client_options() -> dict[str, Any]:
    """A store of one's own may be spoken to without TLS; the environment says so by its address."""
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"timeout": f"{TIMEOUT_S}s", "allow_http": plain}


def marks_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, time and size of the files beside the trials."""
    states = {file.name: file.stat() for file in folder.glob("*") if file.is_file()}
    return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}
