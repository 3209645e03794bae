"""Lines from Ray's processes to the driver's terminal, through the cluster's own key-value store.

Reports of trials go through Tune; these are for what takes long before a trial can report at all.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable

PREFIX = "plmray-note:"
LOOK_EVERY_S = 2.0


def say_to_driver(channel: str) -> Callable[[str], None]:
    """For a process of Ray; each line takes the place of its last one. ``channel``: of the driver's ``Notes``."""
    key = f"{PREFIX}{uuid.uuid4().hex}"

    def say(text: str) -> None:
        from ray.experimental.internal_kv import _internal_kv_put

        with contextlib.suppress(Exception):  # Ray's errors share no base class; a line that is lost costs nothing
            _internal_kv_put(key, text, overwrite=True, namespace=channel)

    return say


class Notes:
    """The driver's end: ``show`` echoes lines that are new."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self.echo = echo
        self.channel = f"plmray-{uuid.uuid4().hex}"
        self._next_look = 0.0
        self._shown: dict[bytes, bytes] = {}

    def show(self) -> None:
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        with contextlib.suppress(Exception):  # the control store is busy or restarts: the next look tells
            for key in _internal_kv_list(PREFIX, namespace=self.channel):
                text = _internal_kv_get(key, namespace=self.channel)
                if text and self._shown.get(key) != text:
                    self._shown[key] = text
                    self.echo(text.decode("utf-8", "replace"))

    def close(self) -> None:
        from ray.experimental.internal_kv import _internal_kv_del

        with contextlib.suppress(Exception):
            _internal_kv_del(PREFIX, del_by_prefix=True, namespace=self.channel)
