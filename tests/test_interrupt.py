from __future__ import annotations

import os
import signal
import weakref
from typing import Any

import pytest

from plmray.interrupt import Interrupted, StopSignals
from plmray.sweep.phases.base import StoppableSource


class Thing:
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_python_forgets_is_remembered(number: signal.Signals) -> None:
    """KeyboardInterrupt in the callback of a weak reference is printed and dropped; the sweep ends all the same."""
    source: Any = None
    before = signal.getsignal(number)
    with StopSignals() as signals:
        thing = Thing()
        watcher = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
        del thing
        assert watcher() is None
        with pytest.raises(Interrupted):
            StoppableSource(source, signals).next_job()
    assert signal.getsignal(number) == before


def test_a_process_that_ignores_ctrl_c_can_still_be_asked_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that a script started in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals, pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked
    finally:
        signal.signal(signal.SIGINT, before)
