"""The reference of a sweep file, read off its types: every field with type, default, meaning and example."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from plmray.config.fields import space
from plmray.config.fields.sweep import SweepSpec
from plmray.config.strict_yaml import as_text
from plmray.config.wording import field_model
from plmray.errors import SpecError, nearest_name
from plmray.text import table

DOMAINS: dict[str, type[BaseModel]] = {
    "float": space.FloatDomain,
    "int": space.IntDomain,
    "choice": space.ChoiceDomain,
    "ordinal": space.OrdinalDomain,
}
_TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


@dataclass(frozen=True)
class FieldReference:
    """``default``: as it stands in YAML, 'required', or 'none' for a section that may be left out."""

    name: str
    type: str
    default: str
    meaning: str
    example: str
    is_section: bool = False

    def lines(self) -> Iterator[str]:
        """As ``plmray explain`` prints it."""
        yield f"{self.name}: {self.type}"
        yield f"  {self.meaning}"
        yield f"  default: {self.default}"
        if self.example:
            yield f"  example: {self.example}"


def references() -> Iterator[FieldReference]:
    """Every field of a sweep file, sections before their fields, in the order of the types."""
    yield from _of_model(SweepSpec, "")
    for kind, model in DOMAINS.items():
        yield from _of_model(model, f"space.PARAMETER({kind}).", leave_out=("kind", "when"))
    when = space.FloatDomain.model_fields["when"]
    yield FieldReference("space.PARAMETER.when", _type(when), "{}", str(when.description), _example("when", when))


def explained(name: str) -> list[FieldReference]:
    """A field, with its own fields where it is a section; of '' the top level. Raises SpecError naming the nearest."""
    known = {reference.name: reference for reference in references()}
    if not name:
        return [reference for own, reference in known.items() if "." not in own]
    shown = name if name in known or f"train.{name}" not in known else f"train.{name}"  # as a space spells it
    below = [reference for own, reference in known.items() if own.startswith((f"{shown}.", f"{shown}("))]
    if shown not in known and not below:
        raise SpecError.of(name, f"is no field of a sweep file; {nearest_name(name, known)}")
    return [*([known[shown]] if shown in known else []), *below]


def markdown() -> str:
    """The reference as tables, one a section."""
    parts: list[str] = []
    rows = list(references())
    sections = dict.fromkeys(_section(row.name) for row in rows)
    by_name = {row.name: row for row in rows}
    for section in sections:
        own = [row for row in rows if _section(row.name) == section and not row.is_section]
        title = f"### {section}" if section else "### top level"
        meaning = [f"{by_name[section].meaning}", ""] if section in by_name and by_name[section].meaning else []
        cells = [(f"`{_leaf(row.name)}`", row.type, f"`{row.default}`", row.meaning) for row in own]
        if cells:
            parts += [title, "", *meaning, *table(("field", "type", "default", "meaning"), cells), ""]
    return "\n".join(parts).rstrip() + "\n"


def json_schema() -> dict[str, Any]:
    """For editors: completion and checks of sweep files while they are written.

    Looser than ``plmray validate`` where a file may hold shorter forms: a backbone's name, a recipe, paths of spaces.
    """
    schema = SweepSpec.model_json_schema()
    definitions = schema["$defs"]
    train = definitions["TrainSpec"]["properties"]
    train["backbone"] = {"anyOf": [{"type": "string"}, train["backbone"]]}
    train["recipe"] = {
        "type": "string",
        "description": "the study's settings by name: paper, prottrans, notebook, frozen",
    }
    domains = schema["properties"]["space"]
    part = {"anyOf": [{"type": "string"}, domains]}
    schema["properties"]["space"] = {"anyOf": [*part["anyOf"], {"type": "array", "items": part}]}
    task = definitions["TaskSpec"]["properties"]
    for name in ("files", "labels", "masks"):
        task[name]["anyOf"].append({"type": "string"})
    backbone = definitions["BackboneSpec"]["properties"]["embeddings"]
    backbone["anyOf"].append({"type": "string"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "plmray sweep", **schema}


def _of_model(model: type[BaseModel], prefix: str, leave_out: tuple[str, ...] = ()) -> Iterator[FieldReference]:
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        inner = field_model(model, name) if name != "space" else None
        if inner is None:
            yield FieldReference(
                prefix + name,
                _type(field),
                _default(field),
                str(field.description or ""),
                _example(prefix + name, field),
            )
            continue
        needed = "required" if field.is_required() else "none" if field.default is None else "its defaults"
        meaning = field.description or _first_line(inner)
        yield FieldReference(prefix + name, "section", needed, meaning, _example(prefix + name, field), is_section=True)
        yield from _of_model(inner, f"{prefix}{name}.")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return as_text(field.get_default(call_default_factory=True))


def _example(name: str, field: FieldInfo) -> str:
    """A line of YAML: what the field names as an example, else its default."""
    if field.examples:
        value = field.examples[0]
    elif field.is_required() or isinstance(field.default, BaseModel):
        return ""
    else:
        value = field.get_default(call_default_factory=True)
    return f"{name}={as_text(value)}" if value is not None else ""


def _type(field: FieldInfo) -> str:
    bounds = [limit for limit in map(_bound, field.metadata) if limit]
    return ", ".join([_named(field.annotation), *bounds])


def _bound(limit: Any) -> str:
    return " ".join(text.format(_number(getattr(limit, key))) for key, text in _BOUNDS.items() if hasattr(limit, key))


def _number(value: float) -> str:
    return "2^32" if value == 2**32 else str(value) if isinstance(value, int) else f"{value:g}"


def _named(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [bound for part in arguments[1:] for bound in map(_bound, _metadata(part)) if bound]
        return " ".join([_named(arguments[0]), *bounds])
    if origin is Literal:
        return ", ".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(part) for part in arguments if part is not type(None))
    if origin is list:
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return "mapping"
    name = getattr(annotation, "__name__", str(annotation))
    return _TYPES.get(name, name)


def _metadata(part: Any) -> list[Any]:
    return list(part.metadata) if isinstance(part, FieldInfo) else [part]


def _first_line(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " ")


def _section(name: str) -> str:
    return name.rpartition(".")[0]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
