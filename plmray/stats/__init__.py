"""Statistics on arrays of scores: numpy and scipy only.

On tables of runs (pandas, files, sweep folders): ``shares``, ``delta``, ``improvement``, ``rank``, ``seeds_needed`` and
``audit``, the verbs of ``plmray stats``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["audit", "delta", "improvement", "rank", "seeds_needed", "shares"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'plmray.stats' has no attribute '{name}'")
    from plmray.report.tables import verbs

    return getattr(verbs, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
