"""plan.json, written before the first unit runs, and the listing of the planned rows.

The plan holds everything a later process needs: a part on another machine, a retry, `finish`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ..errors import CorruptArtifact, MissingArtifact, StaleArtifact
from ..files import sealed
from ..files.digests import FileDigest
from ..files.place import Place, place
from ..files.sealed import Json
from . import tables
from .fields import Field
from .fingerprint import FORMAT_VERSION
from .layout import Layout, Unit
from .ledger import record_name

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class FieldGroup:
    """Fields that are computed together. Fields added later form another group with its own units."""

    name: str  # "" for the first
    unit_rows: int
    fields: tuple[str, ...]

    @property
    def ledger(self) -> str:
        return f"ledger-{self.name}" if self.name else "ledger"


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows planned by one run, and the Parquet file that lists them."""

    rows: int
    listing: str
    digest: FileDigest


@dataclass(frozen=True, slots=True)
class Input:
    """An artifact that was read: its path, the fields that were read, and its digest."""

    role: str
    uri: str  # relative to the reading artifact if both are local
    digest: str  # sha256 of its artifact.json
    fields: Mapping[str, str]  # name → fingerprint
    content: str = ""  # digest over the rows of those fields, for stages that read the whole input at once

    def place(self, reader: Place) -> Place:
        return place(os.path.normpath(reader.path(self.uri))) if _is_relative(self.uri) else place(self.uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    stage: str
    code_version: int
    kind: str  # images, tokens, maps, …
    config: Mapping[str, Json]
    device: str  # device type: cpu, cuda; "" if it does not matter
    libraries: Mapping[str, str]  # versions that change numbers
    fingerprint: str
    inputs: tuple[Input, ...]
    fields: Mapping[str, Field]
    field_fingerprints: Mapping[str, str]
    columns: Mapping[str, str]  # the stage's scalars in rows.parquet: name → type (tables.TYPES)
    groups: tuple[FieldGroup, ...]
    segments: tuple[Segment, ...]
    revision: int  # grows with every change of the listing: a new listing never overwrites an old one
    facts: Mapping[str, Json]  # what else planning found, such as the class table and the root
    settings: Mapping[str, Json] = field(default_factory=dict)  # change no bytes, but a retry needs them

    @property
    def num_rows(self) -> int:
        return sum(segment.rows for segment in self.segments)

    def layout(self, group: FieldGroup) -> Layout:
        return Layout(group.unit_rows, tuple(segment.rows for segment in self.segments))

    def group_of(self, field: str) -> FieldGroup:
        return next(group for group in self.groups if field in group.fields)

    def fields_of(self, group: FieldGroup) -> list[Field]:
        """The fields of a group that have files."""
        return [self.fields[name] for name in group.fields if self.fields[name].kind != "columns"]

    def fingerprints_of(self, group: FieldGroup) -> dict[str, str]:
        return {name: self.field_fingerprints[name] for name in group.fields}

    def input(self, role: str) -> Input:
        return next(entry for entry in self.inputs if entry.role == role)

    def as_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT_VERSION,
            "stage": self.stage,
            "code_version": self.code_version,
            "kind": self.kind,
            "config": dict(self.config),
            "device": self.device,
            "libraries": dict(self.libraries),
            "fingerprint": self.fingerprint,
            "inputs": [
                {
                    "role": entry.role,
                    "uri": entry.uri,
                    "digest": entry.digest,
                    "fields": dict(entry.fields),
                    **({"content": entry.content} if entry.content else {}),
                }
                for entry in self.inputs
            ],
            "fields": {
                name: {**field.as_json(), "fingerprint": self.field_fingerprints[name]}
                for name, field in self.fields.items()
            },
            "columns": [[name, kind] for name, kind in self.columns.items()],
            "groups": [
                {"name": group.name, "unit_rows": group.unit_rows, "fields": list(group.fields)}
                for group in self.groups
            ],
            "segments": [
                {"rows": entry.rows, "listing": entry.listing, **entry.digest.as_json()} for entry in self.segments
            ],
            "revision": self.revision,
            "facts": dict(self.facts),
            **({"settings": dict(self.settings)} if self.settings else {}),
            "counts": {"rows": self.num_rows, "units": [self.layout(group).num_units for group in self.groups]},
        }


def read_plan(at: Place) -> Plan:
    """Reads the plan of an artifact; raises if there is none, it is damaged, or a newer maskmill wrote it."""
    try:
        value = sealed.read(at, PLAN)
    except FileNotFoundError:
        raise MissingArtifact(f"no artifact at {at}: it has no {PLAN}; check the path") from None
    except CorruptArtifact as error:
        raise CorruptArtifact(
            f"{at.path(PLAN)} does not hold the bytes that were written; restore it from a copy, "
            "or run its stage again in a new directory"
        ) from error
    if "format" not in value:
        raise CorruptArtifact(
            f"{at.path(PLAN)} is not a plan: it has no format; restore it, or run its stage again in a new directory"
        )
    if value["format"] != FORMAT_VERSION:
        raise StaleArtifact(
            f"{at} has artifact format {value['format']} and this maskmill reads format {FORMAT_VERSION}; "
            "use the version of maskmill that wrote it, or make it again"
        )
    try:
        return _from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(
            f"{at.path(PLAN)} is not a plan ({error!r}); run its stage again in a new directory"
        ) from error


def write_plan(at: Place, plan: Plan) -> None:
    sealed.write(at, PLAN, plan.as_json())


def listing_name(segment: int, revision: int) -> str:
    return f"listing/{segment:03d}-{revision:03d}.parquet"


def read_unit_rows(at: Place, plan: Plan, unit: Unit) -> pa.Table:
    """The planned rows of one unit."""
    start = 0
    for segment in plan.segments:
        if unit.start < start + segment.rows:
            file = tables.open_table(at, segment.listing, segment.digest)
            return tables.rows_between(file, unit.start - start, unit.stop - start)
        start += segment.rows
    raise IndexError(unit.index)


def listing_batches(at: Place, plan: Plan) -> Iterator[pa.RecordBatch]:
    for segment in plan.segments:
        yield from tables.batches_of(tables.open_table(at, segment.listing, segment.digest))


def missing_units(at: Place, plan: Plan, group: FieldGroup) -> list[int]:
    """Units without a record; looks at file names only."""
    recorded = set(at.names(group.ledger))
    return [unit for unit in range(plan.layout(group).num_units) if record_name(group.ledger, unit) not in recorded]


def relative_uri(reader: Place, read: Place) -> str:
    """How an artifact refers to one that it reads; relative on one disk, so both can be moved together."""
    return os.path.relpath(read.uri, reader.uri) if reader.is_local and read.is_local else read.uri


def _is_relative(uri: str) -> bool:
    return "://" not in uri and not uri.startswith("/")


def _from_json(value: dict[str, Json]) -> Plan:
    return Plan(
        stage=value["stage"],
        code_version=int(value["code_version"]),
        kind=value["kind"],
        config=value["config"],
        device=value["device"],
        libraries=value["libraries"],
        fingerprint=value["fingerprint"],
        inputs=tuple(
            Input(entry["role"], entry["uri"], entry["digest"], entry["fields"], entry.get("content", ""))
            for entry in value["inputs"]
        ),
        fields={name: Field.from_json(name, entry) for name, entry in value["fields"].items()},
        field_fingerprints={name: entry["fingerprint"] for name, entry in value["fields"].items()},
        columns=dict(value["columns"]),
        groups=tuple(
            FieldGroup(entry["name"], int(entry["unit_rows"]), tuple(entry["fields"])) for entry in value["groups"]
        ),
        segments=tuple(
            Segment(int(entry["rows"]), entry["listing"], FileDigest.from_json(entry)) for entry in value["segments"]
        ),
        revision=int(value["revision"]),
        facts=value["facts"],
        settings=value.get("settings", {}),
    )
