"""The task of a sweep: what is predicted from what, and where it is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from plmray.config.catalog.tasks import KNOWN_TASKS, Level
from plmray.metrics import Kind

Seed = Annotated[int, Field(ge=0, lt=2**32)]
SplitName = Literal["train", "validation", "test"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ColumnsSpec(Strict):
    """Names of the columns of a table. ``split`` and ``validation`` follow FLIP's ``set`` and ``validation``.

    Only ``sequence`` and ``target`` must be there; one that is named in the sweep file must be there too.
    """

    id: str | None = Field(default="id", description="names of proteins")
    sequence: str = Field(default="sequence", description="residues in one-letter code")
    target: str = Field(default="target", description="what is predicted")
    mask: str | None = Field(default="mask", description="level residue: a 1 for every residue that counts, else 0")
    split: str | None = Field(default="set", description="train, validation or test")
    validation: str | None = Field(default="validation", description="true for training proteins that validate")
    group: str | None = Field(
        default=None,
        examples=["family"],
        description="what split: {by: group} keeps together: family, plate, date",
    )


class SplitSpec(Strict):
    """Which proteins test and validate, drawn here: of a table that marks none. The same for the same seed, whatever
    the order of its rows. Proteins of one sequence, of one group or of one cluster stay together."""

    test: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.2, description="part of the proteins that test")
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.15, description="part of the proteins that validate"
    )
    by: Literal["random", "stratified", "group", "identity", "mutations"] = Field(
        default="random",
        description="random; stratified by class or target; columns.group; sequence identity (MMseqs2); number of "
        "mutations (few train, more test)",
    )
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.3, description="by identity: the least that makes two proteins kin"
    )
    coverage: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="by identity: the part of both proteins that an alignment has to cover"
    )
    max_mutations: int | None = Field(
        default=None, ge=1, examples=[2], description="by mutations: of training and validation proteins, at most"
    )
    seed: Seed = Field(default=0, description="of what is drawn")

    @model_validator(mode="after")
    def _fits(self) -> SplitSpec:
        if (self.max_mutations is not None) != (self.by == "mutations"):
            raise ValueError("max_mutations belongs to by: mutations; give both or neither")
        if self.test + self.validation >= 1:
            raise ValueError(
                f"test and validation take {self.test + self.validation:g} of the proteins; none would train"
            )
        return self


class LandscapeSpec(Strict):
    """A generated mutational landscape with known truth: additive and pairwise effects plus noise."""

    length: int = Field(default=28, ge=4, le=2000, description="residues")
    positions: int = Field(default=4, ge=1, le=20, description="mutated positions")
    train: int = Field(default=192, ge=8, le=1_000_000, description="training proteins")
    validation: int = Field(default=64, ge=4, le=1_000_000, description="validation proteins")
    test: int = Field(default=64, ge=4, le=1_000_000, description="test proteins")
    epistasis: float = Field(default=0.3, ge=0, description="SD of pairwise effects; additive effects have SD 1")
    noise: float = Field(default=0.2, ge=0, description="SD of the measurement")
    seed: Seed = Field(default=0, description="of the landscape itself")


def as_files(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Files = Annotated[Union[list[str], dict[SplitName, str], None], BeforeValidator(as_files)]


class TaskSpec(Strict):
    """What is predicted from what. A known data set brings its own kind, level and validation proteins."""

    dataset: str | None = Field(default=None, examples=["gb1"], description="a known data set, or 'landscape'")
    files: Files = Field(
        default=None, examples=["proteins.csv"], description="CSV, TSV, Parquet or FASTA; one, several, or one a split"
    )
    labels: Files = Field(
        default=None,
        examples=["labels.fasta"],
        description="level residue: files of labels beside FASTA files of sequences",
    )
    masks: Files = Field(
        default=None,
        examples=["masks.fasta"],
        description="level residue: FASTA files of 0 and 1 beside those of sequences",
    )
    columns: ColumnsSpec = ColumnsSpec()
    landscape: LandscapeSpec = LandscapeSpec()
    kind: Kind = Field(default="regression", description="values, two classes, several classes, or sets of labels")
    level: Level = Field(default="protein", description="whether a protein or each of its residues has a target")
    positive: str | None = Field(
        default=None, examples=["soluble"], description="kind binary: the class that counts as 1; default the later"
    )
    window: Union[Literal["auto"], list[int], None] = Field(
        default=None,
        examples=[[1, 56]],
        description="residues kept: around the mutated positions, or [first, last], 1-based",
    )
    max_length: int = Field(default=1022, ge=1, description="residues; the limit of ESM2 without its two marks")
    over_length: Literal["refuse", "cut", "drop"] = Field(
        default="refuse", description="what becomes of longer proteins: an error, their first residues, nothing"
    )
    shared_sequences: Literal["refuse", "allow"] = Field(
        default="refuse", description="a sequence in two splits: an error, or let it be"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, examples=[0.1], description="of the training proteins, to validate, where no file says which"
    )
    split: SplitSpec | None = Field(
        default=None,
        examples=[{"test": 0.2, "validation": 0.15, "by": "identity", "threshold": 0.3}],
        description="how test and validation proteins are drawn, of data that mark none",
    )
    train_fraction: float = Field(default=1.0, gt=0, le=1, description="of the training proteins, drawn by split_seed")
    split_seed: Seed = Field(default=0, description="of what is drawn: validation proteins, train_fraction")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, tree: Any) -> Any:
        """What a known data set says of itself, where the sweep file does not."""
        known = KNOWN_TASKS.get(tree["dataset"]) if isinstance(tree, dict) and _is_name(tree.get("dataset")) else None
        if known is None:
            return tree
        own: dict[str, Any] = {"kind": known.kind, "level": known.level}
        if known.validation_fraction is not None:
            own["validation_fraction"] = known.validation_fraction
        return own | tree

    @model_validator(mode="after")
    def _one_source(self) -> TaskSpec:
        if (self.dataset is None) == (self.files is None):
            raise ValueError("give either dataset: NAME or files: …, one of the two")
        if self.split is not None and (self.dataset is not None or isinstance(self.files, dict)):
            raise ValueError("split belongs to one table of all proteins; these data say themselves which ones test")
        if self.split is not None and self.validation_fraction is not None:
            raise ValueError("split draws the validation proteins, too; drop validation_fraction")
        if self.split is not None and self.split.by == "group" and self.columns.group is None:
            raise ValueError("split by group needs columns: {group: NAME}, the column of groups")
        if self.files is not None and not self.files:
            raise ValueError("files is empty; expected at least one file")
        if isinstance(self.window, list) and (len(self.window) != 2 or not 1 <= self.window[0] <= self.window[1]):
            raise ValueError(f"window: {self.window} is not [first, last] with 1 <= first <= last")
        return self

    @model_validator(mode="after")
    def _level_fits(self) -> TaskSpec:
        given = [name for name in ("labels", "masks") if getattr(self, name) is not None]
        if given and self.level != "residue":
            raise ValueError(f"{given[0]} belongs to level: residue; add that, or drop {given[0]}")
        if given and self.files is None:
            raise ValueError(f"{given[0]} belongs to files: …; a known data set has its own")
        if self.level == "residue" and self.kind == "multilabel":
            raise ValueError("kind: multilabel labels whole proteins; use level: protein, or kind: classification")
        if self.positive is not None and self.kind != "binary":
            raise ValueError(f"positive belongs to kind: binary, found kind: {self.kind}")
        for name in given:
            if _shape(getattr(self, name)) != _shape(self.files):
                raise ValueError(
                    f"{name} needs the shape of files: {_shape(self.files)}, found {_shape(getattr(self, name))}"
                )
        return self


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _shape(files: list[str] | dict[SplitName, str] | None) -> str:
    if isinstance(files, dict):
        return f"a file for each of {', '.join(sorted(files))}"
    return f"{len(files or [])} file(s)"
