"""From files and --set to a SweepSpec, or every fault at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plmray.config import checks, parameters
from plmray.config.backbone_names import family
from plmray.config.catalog.families import Family
from plmray.config.catalog.recipes import RECIPES, merged, settings_of
from plmray.config.fields.sweep import SweepSpec
from plmray.config.fields.train import BackboneSpec, TrainSpec
from plmray.config.strict_yaml import Document, Place, as_text, dotted, from_tree, read_file, read_text
from plmray.config.wording import explain
from plmray.errors import Fault, SpecError, nearest_name

IN_PYTHON = "sweep"  # in the place of a file's name where settings come as a mapping


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep that can be run. Relative paths in it start at ``folder``."""

    spec: SweepSpec
    file: Path

    @property
    def folder(self) -> Path:
        return self.file.resolve().parent

    @property
    def family(self) -> Family:
        """The architecture of its backbones."""
        return family(self.spec.train.backbone, self.folder)


def load_sweep(source: Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> LoadedSweep:
    """Read a sweep file, or its content as a mapping, with its spaces and ``--set KEY=VALUE`` overrides.

    Relative paths start at the file's folder; of a mapping, at the working folder. Raises SpecError with all faults.
    """
    path = source if isinstance(source, Path) else Path(IN_PYTHON)
    document = read_file(source) if isinstance(source, Path) else from_tree(source, IN_PYTHON)
    loader = _Loader(path, document)
    spec = loader.load(list(overrides))
    if loader.faults or spec is None:
        raise SpecError(loader.faults)
    return LoadedSweep(spec, path)


def as_override(key: str, value: Any) -> str:
    """KEY=VALUE of a value that Python holds."""
    return f"{key}={as_text(value)}"


class _Loader:
    """Collects faults with the file and line each part came from."""

    def __init__(self, path: Path, document: Document) -> None:
        self.path, self.document = path, document
        self.faults: list[Fault] = list(self.document.faults)
        self.origins: dict[Place, tuple[str, int]] = {}

    def load(self, overrides: Sequence[str]) -> SweepSpec | None:
        tree = self.document.value
        if not isinstance(tree, dict):
            if not self.faults:
                self.fault((), "is no sweep; expected keys such as name, task, train, space, search")
            return None
        self._override(tree, overrides)
        tree["space"] = self._compose_space(tree.get("space", {}))
        self._apply_recipe(tree)
        try:
            spec = SweepSpec.model_validate(tree)
        except ValidationError as error:
            told = {fault.key for fault in self.faults}
            for place, message in explain(error, tree):
                if dotted(place) not in told:  # what the YAML reader refused reads as null here
                    self.fault(place, message)
            return None
        for place, message in checks.faults(spec, self.path.resolve().parent):
            self.fault(place, message)
        return checks.without_settled_conditions(spec)

    def fault(self, place: Place, message: str) -> None:
        file, line = self.locate(place)
        self.faults.append(Fault(dotted(place), message, file, line))

    def locate(self, place: Place) -> tuple[str, int]:
        for length in range(len(place), 0, -1):
            if place[:length] in self.origins:
                return self.origins[place[:length]]
        return self.document.file, self.document.line(place)

    def _compose_space(self, source: Any) -> Any:
        """Inline domains, one file, or a list of either, as one mapping. A key may come from one of them only."""
        if isinstance(source, dict):
            return source
        composed: dict[str, Any] = {}
        for index, part in enumerate(source if isinstance(source, list) else [source]):
            place: Place = ("space", index) if isinstance(source, list) else ("space",)
            for key, domain in self._space_part(part, place).items():
                if key in composed:
                    first = self.origins[("space", key)]
                    self.fault(place, f"'{key}' is already a parameter from {first[0]}:{first[1]}; keep one")
                    continue
                composed[key] = domain
        return composed

    def _space_part(self, part: Any, place: Place) -> Mapping[str, Any]:
        if isinstance(part, dict):
            for key in part:
                self.origins[("space", key)] = (self.document.file, self.document.line((*place, key)))
            return part
        if not isinstance(part, str):
            self.fault(place, f"found {part!r}, expected the path of a space file or domains by dotted key")
            return {}
        document = read_file(self.path.resolve().parent / part)
        self.faults += document.faults
        if not isinstance(document.value, dict):
            if not document.faults:
                self.fault(place, f"{part} holds no domains; expected lines like 'optimizer.lr: {{kind: float, …}}'")
            return {}
        self._remember_lines(document)
        return document.value

    def _remember_lines(self, document: Document) -> None:
        for place, line in document.lines.items():
            if place:
                self.origins[("space", *place)] = (document.file, line)

    def _apply_recipe(self, tree: dict[str, Any]) -> None:
        """Put the settings of ``train.recipe`` where the file has none of its own."""
        train = tree.get("train")
        if not isinstance(train, dict) or (name := train.pop("recipe", None)) is None:
            return
        if name not in RECIPES:
            self.fault(("train", "recipe"), f"unknown recipe {name!r}; {nearest_name(str(name), RECIPES)}")
            return
        given = train.get("backbone")
        try:
            backbone = BackboneSpec.model_validate({"name": given} if isinstance(given, str) else given)
        except ValidationError:
            return  # told where the whole file is judged
        adapter = train.get("adapter")
        kind = adapter.get("kind") if isinstance(adapter, dict) else None
        own = family(backbone, self.path.resolve().parent)
        tree["train"] = merged(settings_of(name, own, kind), train)

    def _override(self, tree: dict[str, Any], overrides: Sequence[str]) -> None:
        for text in overrides:
            key, equals, value_text = text.partition("=")
            if not equals or not key:
                self.faults.append(Fault(key, f"--set {text}: expected KEY=VALUE, as in train.epochs=3", "--set"))
                continue
            document = read_text(value_text, "--set")
            self.faults += [Fault(key, fault.message, "--set") for fault in document.faults]
            if not document.faults:
                self._set(tree, _override_place(key), document.value)

    def _set(self, tree: dict[str, Any], place: Place, value: Any) -> None:
        branch = tree
        if place[:2] == ("train", "backbone") and len(place) > 2 and isinstance(tree.get("train"), dict):
            backbone = tree["train"].get("backbone")
            if isinstance(backbone, str):
                tree["train"]["backbone"] = {"name": backbone}
        if place[0] == "space" and len(place) == 2 and not isinstance(tree.get("space"), dict):
            tree["space"] = self._compose_space(tree.get("space", {}))
        for part in place[:-1]:
            if branch.get(part) is None:
                branch[part] = {}
            branch = branch[part]
            if not isinstance(branch, dict):
                self.faults.append(Fault(dotted(place), f"--set: '{part}' has no fields below it", "--set"))
                return
        for known in [known for known in self.origins if known[: len(place)] == place]:
            del self.origins[known]
        self.origins[place] = ("--set", 0)
        branch[place[-1]] = value


def _override_place(key: str) -> Place:
    """A space key is dotted itself: ``space.optimizer.lr`` is the entry ``optimizer.lr`` of ``space``."""
    parts = key.split(".")
    return ("space", ".".join(parts[1:])) if parts[0] == "space" and len(parts) > 1 else tuple(parts)


def parse_parameters(text: Mapping[str, Any], spec: SweepSpec) -> dict[str, Any]:
    """Check hand-given parameters (``plmray trial --params``). Raises SpecError naming the nearest key."""
    known = [key for key in parameters.train_fields(TrainSpec) if key != "precision"]  # one a sweep: --set it
    faults = [
        Fault(key, f"is no field of the train settings; {nearest_name(key, known)}", "--params")
        for key in text
        if key not in known
    ]
    if not faults:
        faults = [Fault(key, message, "--params") for key, message in parameters.parameter_faults(spec.train, text)]
    if faults:
        raise SpecError(faults)
    return dict(text)
