"""The `facts` of plan.json, typed, one class per kind of artifact: what planning found out about the whole artifact.

A stage writes `MapsFacts(...).as_json()`, and readers call `MapsFacts.of(maps)`. Unknown keys are ignored, so that
artifacts of other versions stay readable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from ..classes import ClassTable
from ..errors import CorruptArtifact
from ..files.sealed import Json
from .artifact import Artifact

F = TypeVar("F", bound="Facts")


@dataclass(frozen=True, slots=True)
class Facts:
    """A frozen dataclass to JSON and back: nested facts and class tables too, tuples as lists, None left out."""

    def as_json(self) -> dict[str, Json]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _json(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls: type[F], values: Mapping[str, Json]) -> F:
        hints = _hints(cast(Any, cls))
        known = {name: _from_json(hint, values[name]) for name, hint in hints.items() if name in values}
        try:
            return cls(**known)
        except TypeError as error:
            raise CorruptArtifact(f"the artifact's facts are incomplete: {error}; make it again") from error

    @classmethod
    def of(cls: type[F], artifact: Artifact) -> F:
        return cls.from_json(artifact.plan.facts)


@dataclass(frozen=True, slots=True)
class ImagesFacts(Facts):
    root: str = ""  # the base of the pictures' uris
    classes: ClassTable = ClassTable()
    mask_kind: str = ""


@dataclass(frozen=True, slots=True)
class WeightsFacts(Facts):
    source: str
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneFacts(Facts):
    """A backbone at one view size, without its weights."""

    name: str
    patch: tuple[int, int]  # rows and columns, in pixels
    grid: tuple[int, int]  # rows and columns of patches
    rows_px: int = 0
    columns_px: int = 0
    width: int = 0  # of a token
    depth: int = 0  # blocks
    heads: int = 0
    key_width: int = 0  # of a key, all heads together; usually the width
    num_prefix: int = 0  # tokens before the patches: class, distillation, registers
    has_class_token: bool = False  # as the first prefix token
    unreadable: tuple[int, ...] = ()  # blocks whose queries and keys cannot be read
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # per channel; 1 is full
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class TokensFacts(Facts):
    backbone: BackboneFacts
    weights: WeightsFacts
    family: str = ""  # of the backbone; "" if it was stored before families were recorded
    # Of the last block's key projection, heads one after the other; empty if there is none that can be subtracted. None
    # if it was not recorded.
    key_bias: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsFacts(Facts):
    classes: ClassTable
    weights: WeightsFacts
    backbone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsFacts(LabelsFacts):
    grid: tuple[int, int] = (0, 0)  # rows and columns of patches; (0, 0) if unknown
    patch: tuple[int, int]  # rows and columns, in pixels
    score_kind: str = ""  # cosine01, minmax, probability, …
    align_corners: bool  # how maps are upsampled


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts(LabelsFacts):
    provenance: tuple[Mapping[str, Json], ...]  # one step per artifact that it was made from
    title: str
    licence: str


def class_table(artifact: Artifact) -> ClassTable:
    """The class table of an artifact of any kind that has one."""
    return ClassTable.from_json(artifact.plan.facts["classes"])


def provenance_steps(facts: Mapping[str, Json]) -> dict[str, Mapping[str, Json]]:
    """Digest → step, from the facts of a published dataset; empty for other artifacts."""
    return {str(step["digest"]): step for step in facts.get("provenance", ())}


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _json(value: Any) -> Json:
    if isinstance(value, Facts | ClassTable):
        return value.as_json()
    return [_json(item) for item in value] if isinstance(value, tuple) else value


def _from_json(hint: Any, value: Json) -> Any:
    if type(None) in get_args(hint):
        hint = get_args(hint)[0]
    if isinstance(hint, type) and issubclass(hint, Facts | ClassTable):
        return hint.from_json(value)
    return tuple(value) if get_origin(hint) is tuple else value
