"""The lines of candidates.jsonl and decisions.jsonl, and whether they are what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plmray.errors import FolderError
from plmray.storage.atomic import read_json_lines

PROPOSALS_A_CANDIDATE = 1000  # a sampler that repeats itself is asked 200 times before the space counts as spent


class _Record(BaseModel):
    """What a line must have; it may have more."""

    model_config = ConfigDict(strict=True, extra="allow")


class CandidateRecord(_Record):
    index: int = Field(ge=0)
    number: int | None = Field(default=None, ge=0)
    id: str
    phase: Literal["search", "replicate"]
    parameters: dict[str, Any]


class SearchedRecord(CandidateRecord):
    number: int = Field(ge=0)


class RungRecord(_Record):
    candidate_id: str
    epoch: int = Field(ge=0)
    mean: float
    decision: Literal["stop", "continue"]


class PromotionRecord(_Record):
    complete: int = Field(ge=0)
    top: list[str]


class DecisionRecord(_Record):
    kind: str


_KINDS: Mapping[str, type[_Record]] = {"rung": RungRecord, "promotion": PromotionRecord}


def read_candidates(path: Path) -> list[dict[str, Any]]:
    """Records of candidates in their order. Raises FolderError where one is no such record."""
    records = list(read_json_lines(path))
    for line, record in enumerate(records, start=1):
        _require(SearchedRecord if record.get("phase") == "search" else CandidateRecord, record, path, line)
        if (record.get("number") or 0) > PROPOSALS_A_CANDIDATE * line:
            raise FolderError(
                f"{path}: record {line} has the study number {record['number']}, which cannot be. {_ADVICE}"
            )
    return records


def read_decisions(path: Path) -> list[dict[str, Any]]:
    """Records of decisions in their order. Raises FolderError where one is no such record."""
    records = list(read_json_lines(path))
    for line, record in enumerate(records, start=1):
        _require(DecisionRecord, record, path, line)
        _require(_KINDS.get(record["kind"], DecisionRecord), record, path, line)
    return records


_ADVICE = "Restore the file, or run the sweep under another name."


def _require(kind: type[_Record], record: Mapping[str, Any], path: Path, line: int) -> None:
    try:
        kind.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FolderError(f"{path}: record {line} is damaged ({place}: {first['msg']}). {_ADVICE}") from error
