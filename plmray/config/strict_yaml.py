"""YAML without surprises: duplicate keys, `1e-4` as text and `no` as false are faults, with their line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from plmray.errors import Fault

Place = tuple[Any, ...]

MOST_VALUES = 100_000
MOST_DIGITS = 300

_BOOLEANS = {"true": True, "false": False}
_NULLS = {"null", "~", ""}
_YAML_1_1_BOOLEANS = {"yes", "no", "on", "off", "y", "n"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?")
_ALMOST_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|0[xXoObB][0-9a-fA-F]+")


@dataclass
class Document:
    """A file's value, the line of every key and item, and what is wrong with it."""

    file: str
    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    size: int = 0  # values built so far, those of aliases each time they are used
    faults: list[Fault] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """Line of the deepest part of ``place`` that the file holds (1-based; 0 for an empty file)."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return 0

    def fault(self, place: Place, message: str, line: int | None = None) -> None:
        where = self.line(place) if line is None else line
        self.faults.append(Fault(dotted(place), message, self.file, where))


def dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)


def read_file(path: Path) -> Document:
    document = Document(str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        document.fault((), "no such file; check the path")
        return document
    except IsADirectoryError:
        document.fault((), "is a folder; expected a YAML file")
        return document
    except (OSError, ValueError) as error:
        document.fault((), f"cannot be read as UTF-8 text ({error}); save it as UTF-8")
        return document
    return read_text(text, str(path))


def from_tree(tree: Mapping[str, Any], file: str) -> Document:
    """The same of settings that Python holds, judged as if they stood in a file; without lines."""
    try:
        document = read_text(as_text(dict(tree)), file)
    except yaml.representer.RepresenterError as error:
        document = Document(file)
        document.fault((), f"holds what no sweep file can: {error.args[-1]!r}; expected text, numbers, lists, mappings")
    document.lines.clear()
    document.faults = [replace(fault, line=0) for fault in document.faults]
    return document


def as_text(value: Any) -> str:
    """A value as ``read_text`` reads it back, keys in their order: that of a space decides what is drawn."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def read_text(text: str, file: str) -> Document:
    document = Document(file)
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        document.fault((), f"is not YAML: {problem}", (mark.line + 1) if mark else 0)
        return document
    except (RecursionError, ValueError, OverflowError) as error:
        document.fault((), f"is not YAML that can be read: {type(error).__name__}")
        return document
    if len(nodes) > 1:
        document.fault((), f"holds {len(nodes)} documents (---); expected one", nodes[1].start_mark.line + 1)
    if nodes and nodes[0] is not None:
        document.value = _construct(nodes[0], (), document, frozenset())
    return document


def _construct(node: yaml.Node, place: Place, document: Document, above: frozenset[int]) -> Any:
    document.lines.setdefault(place, node.start_mark.line + 1)
    line = node.start_mark.line + 1
    document.size += 1
    if document.size > MOST_VALUES:
        if document.size == MOST_VALUES + 1:
            document.fault(place, f"holds more than {MOST_VALUES} values, aliases counted; write it shorter", line)
        return None
    if id(node) in above:
        document.fault(place, "an alias holds itself; write the value out", line)
        return None
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        document.fault(place, f"tag '{node.tag}' is refused; YAML here names no types and runs no code", line)
        return None
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, document, above)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*place, i), document, above) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)  # YAML has no fourth kind
    return _scalar(node, place, document)


def _mapping(node: yaml.MappingNode, place: Place, document: Document, above: frozenset[int]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
            document.fault(place, "a key must be text", line)
        elif key == "<<" and key_node.style is None:
            document.fault((*place, key), "merge keys (<<) are refused; write the values out", line)
        elif key in mapping:
            first = document.lines[(*place, key)]
            document.fault((*place, key), f"is given twice, first in line {first}; keep one", line)
        else:
            document.lines[(*place, key)] = line
            mapping[key] = _construct(value_node, (*place, key), document, above)
    return mapping


def _scalar(node: yaml.ScalarNode, place: Place, document: Document) -> Any:
    text: str = node.value
    if _SURROGATE.search(text):
        document.fault(place, "holds half a character (a lone surrogate); write the character itself")
        return None
    if node.style is not None or (node.tag == "tag:yaml.org,2002:str" and _is_plain_text(text)):
        return text
    if text.lower() in _NULLS:
        return None
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _INT.fullmatch(text) and len(text) <= MOST_DIGITS:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _ambiguous(text, place, document, node.start_mark.line + 1)


def _is_plain_text(text: str) -> bool:
    return text.lower() not in _YAML_1_1_BOOLEANS and not _ALMOST_NUMBER.fullmatch(text)


def _ambiguous(text: str, place: Place, document: Document, line: int) -> Any:
    if _INT.fullmatch(text):
        document.fault(place, f"is a number of {len(text)} digits; expected at most {MOST_DIGITS}")
    elif text.lower() in _YAML_1_1_BOOLEANS:
        document.fault(place, f"'{text}' reads as a truth value; write true or false, or quote it", line)
    elif _ALMOST_NUMBER.fullmatch(text):
        document.fault(place, f"'{text}' {_number_advice(text)}", line)
    else:
        document.fault(place, f"'{text}' is no plain number or text; quote it if it is text", line)
    return None


def _number_advice(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return "is no plain decimal number; write it in decimal, or quote it if it is text"
    mantissa, _, exponent = text.lower().partition("e")
    better = f"{mantissa if '.' in mantissa else mantissa + '.0'}{'e' + exponent if exponent else ''}"
    better = better if _FLOAT.fullmatch(better) else repr(value)
    return f"is text or a number depending on the YAML reader; write {better}"
