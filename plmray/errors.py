"""Errors a person can act on: what was found, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self


@dataclass(frozen=True)
class Fault:
    """One thing wrong in one place. ``line`` is 1-based; 0 means the fault belongs to no line."""

    key: str
    message: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.line, "key": self.key, "message": self.message}


class PlmrayError(Exception):
    """A mistake the user can mend. The command line prints it without a traceback and exits with 2."""


class FaultsError(PlmrayError):
    """Several faults, reported together."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: Sequence[Fault] = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    @classmethod
    def of(cls, key: str, message: str, file: object = "", line: int = 0) -> Self:
        """The error of a single fault."""
        return cls([Fault(key, message, str(file), line)])


class SpecError(FaultsError):
    """A sweep or space file that cannot be run as written."""


class DataError(FaultsError):
    """Data that cannot be trained on as it is."""


class FolderError(PlmrayError):
    """A sweep folder that cannot be used as asked."""


class FolderInUse(FolderError):
    """A folder that somebody else holds for now. ``owner``: who, in words."""

    def __init__(self, message: str, owner: str = "another process") -> None:
        super().__init__(message)
        self.owner = owner


class LockRefused(FolderError):
    """A folder that cannot be locked at all: waiting for it would not end."""


class SetupError(PlmrayError):
    """This machine or cluster lacks something the sweep needs."""


def nearest_name(found: str, known: Iterable[str]) -> str:
    """A hint naming the closest known names, or all of them where none is close."""
    names = sorted(known)
    close = get_close_matches(found, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"


def first_line(error: object) -> str:
    """What an error says, in a line; where it says nothing, its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
