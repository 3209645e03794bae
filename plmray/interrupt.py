"""Being stopped: Ctrl-C, or the SIGTERM that ray job stop, Slurm and Kubernetes send."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """The user stopped the sweep; what was finished is safe."""


class StopSignals:
    """While it lasts, SIGTERM is SIGINT, and either is remembered.

    Python raises KeyboardInterrupt wherever it happens to be. In a callback of the garbage collector it is printed and
    forgotten; ``asked`` is not. Ray Tune puts a handler of its own in the place of this one while it runs.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ((signal.SIGTERM, self._on_term), (signal.SIGINT, self._on_int)):
                before = signal.getsignal(number)
                if number == signal.SIGTERM or before is not signal.SIG_IGN:  # ignored in the background of a script
                    self._before[number] = before
                    signal.signal(number, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            self._on_int(number, frame)
        signal.raise_signal(signal.SIGINT)

    def _on_int(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.asked = True
        raise KeyboardInterrupt
