"""Pydantic's errors in the words of the file: what was found, what was expected, the nearest name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from plmray.config.strict_yaml import Place
from plmray.errors import nearest_name

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "int_from_float": "a whole number",
}


def explain(error: ValidationError, tree: Any) -> Iterator[tuple[Place, str]]:
    """One (place, message) per faulty place of the document; alternatives of one place are joined by 'or'."""
    grouped: dict[Place, list[dict[str, Any]]] = {}
    for detail in error.errors(include_url=False):
        grouped.setdefault(_place_in(tree, detail), []).append(dict(detail))
    for place, details in grouped.items():
        yield place, _message(place, details)


def _place_in(tree: Any, detail: Any) -> Place:
    """The part of pydantic's location that exists in the document, without its tags for unions and validators."""
    place: list[Any] = []
    node = tree
    for part in detail["loc"]:
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            place.append(part)
            node = node[part]
    if detail["type"] == "missing":
        place.append(detail["loc"][-1])
    return tuple(place)


def _message(place: Place, details: list[dict[str, Any]]) -> str:
    if len(details) == 1:
        return _single(place, details[0])
    own = [detail for detail in details if detail["type"] in ("value_error", "extra_forbidden")]
    if own:
        return _single(place, own[0])
    expected = sorted({_expected(detail) for detail in details})
    return f"found {_shown(details[0]['input'])}, expected {' or '.join(expected)}"


def _single(place: Place, detail: dict[str, Any]) -> str:
    kind, found = detail["type"], detail["input"]
    if kind == "missing":
        return "is missing; every sweep needs it" if len(place) == 1 else "is missing; add it"
    if kind == "extra_forbidden":
        return f"unknown key; {nearest_name(str(place[-1]), _siblings(detail['loc']))}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "literal_error" and isinstance(found, str):
        names = [name.strip().strip("'") for name in _expected(detail).replace(" or ", ", ").split(",")]
        return f"found {_shown(found)}, expected {_expected(detail)}; {nearest_name(found, names)}"
    return f"found {_shown(found)}, expected {_expected(detail)}"


def _expected(detail: dict[str, Any]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in ("literal_error", "union_tag_invalid"):
        return str(context.get("expected") or context.get("expected_tags"))
    if kind == "union_tag_not_found":
        return "a kind: float, int, choice or ordinal"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    message = str(detail["msg"])
    return message.removeprefix("Input should be ").removeprefix("Value should be ")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}…" if len(text) > 60 else text


def _siblings(location: tuple[Any, ...]) -> list[str]:
    """Field names beside an unknown key, found by walking the spec's types."""
    from plmray.config.fields.sweep import SweepSpec

    model: Any = SweepSpec
    for part in location[:-1]:
        model = field_model(model, str(part)) or model
    return list(model.model_fields)


def field_model(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model behind a field (or behind a tag of a union, or a dictionary's value), if there is one."""
    from plmray.config.fields import space

    tags: dict[str, type[BaseModel]] = {
        "float": space.FloatDomain,
        "int": space.IntDomain,
        "choice": space.ChoiceDomain,
        "ordinal": space.OrdinalDomain,
    }
    if name in tags:
        return tags[name]
    field = model.model_fields.get(name)
    return None if field is None else next(_models_in(field.annotation), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
