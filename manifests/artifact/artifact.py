"""A finished artifact as its readers see it: rows by id, fields by row, every byte checked before it is believed."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Shaped

from ..errors import ConfigError, CorruptArtifact, MissingArtifact, UnfinishedArtifact
from ..files import sealed
from ..files.digests import FileDigest, check
from ..files.place import Place, place
from ..files.sealed import Json
from . import ledger, shards, store, tables
from .fields import Field
from .plan import PLAN, FieldGroup, Plan, read_plan

ARTIFACT = "artifact.json"
ROWS = "rows.parquet"
BASE_COLUMNS: Mapping[str, str] = {
    "id": "string",
    "unit": "int64",
    "row": "int64",  # the slot in every array of the first group
    "status": "string",  # ok, failed or upstream
    "reason": "string",
    "note": "string",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """artifact.json: written last, it vouches for everything else."""

    plan_sha256: str
    fingerprint: str
    counts: Mapping[str, Json]  # rows, ok, failed, upstream, and failed rows by reason
    warnings: tuple[str, ...]
    files: Mapping[str, FileDigest]  # rows.parquet, the listings, the metadata of every array
    ledgers: Mapping[str, str]  # ledger → digest over its records

    def as_json(self) -> dict[str, Json]:
        return {
            "plan_sha256": self.plan_sha256,
            "fingerprint": self.fingerprint,
            "counts": dict(self.counts),
            "warnings": list(self.warnings),
            "files": {name: digest.as_json() for name, digest in self.files.items()},
            "ledgers": dict(self.ledgers),
        }


@dataclass(frozen=True, slots=True)
class Artifact:
    """Holds no handle and no row: open files are kept per process, so it can be sent to a worker."""

    place: Place
    plan: Plan
    summary: Summary
    digest: str  # sha256 of artifact.json

    @property
    def has_rows(self) -> bool:
        """Not so of one that was made in one go, such as a checkpoint: that is its files."""
        return bool(self.plan.groups)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What can be read of it, and what decides its content: a field's fingerprint; of a file its sha256."""
        if self.has_rows:
            return self.plan.field_fingerprints
        return {name: digest.sha256 for name, digest in self.summary.files.items()}

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The row list. Order is the order of planning; join by `id`."""
        return self._rows_file().read(columns=list(columns) if columns is not None else None)

    def row_batches(self, columns: Sequence[str] | None = None) -> Iterable[pa.RecordBatch]:
        """The row list in bounded memory."""
        return tables.batches_of(self._rows_file(), columns)

    def rows_of(self, ids: Sequence[str], columns: Sequence[str], hint: int = 0) -> pa.Table:
        """Rows by id, in the order asked for; `hint` is where they probably begin. Unknown ids raise KeyError."""
        file = self._rows_file()
        wanted = list(dict.fromkeys(["id", *columns]))
        stop = min(hint + len(ids), self.plan.num_rows)
        near = tables.rows_between(file, hint, stop, wanted) if hint < stop else None
        if near is not None and near.column("id").to_pylist() == list(ids):
            return near
        return tables.take_rows(file, self.positions(ids), wanted)

    def rows_at(self, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Rows by their position in the row list, in the order asked for."""
        return tables.take_rows(self._rows_file(), positions, list(dict.fromkeys(["id", *columns])))

    def positions_by_id(self) -> dict[str, list[int]]:
        """Where the rows of each image stand, images in the order in which they come first."""
        found: dict[str, list[int]] = {}
        start = 0
        for batch in self.row_batches(["id"]):
            for offset, identifier in enumerate(batch.column("id").to_pylist()):
                found.setdefault(identifier, []).append(start + offset)
            start += batch.num_rows
        return found

    def positions(self, ids: Sequence[str]) -> list[int]:
        """Where rows stand in the row list. An id that stands there several times gives its first row."""
        index = _id_index(self.place, self.summary.files[ROWS])
        found = [index.position(identifier) for identifier in ids]
        if None in found:
            raise KeyError(f"{self.place} has no row {ids[found.index(None)]!r}")
        return [position for position in found if position is not None]

    def failures(self) -> Mapping[int, str]:
        """Position → reason of the rows that are not ok."""
        return _failures(self.place, self.summary.files[ROWS])

    def read(self, field: str, positions: Sequence[int]) -> Shaped[np.ndarray, "rows ..."]:
        """An array field at positions of the row list. A row that failed is zeros: look at its status first."""
        group, held = self._group(field, "array"), self.plan.fields[field]
        layout = self.plan.layout(group)
        slots = np.array([layout.slot(position) for position in positions], np.int64)
        values = np.empty((len(slots), *held.shape), held.dtype)
        self._check_metadata(group, held)
        for unit in np.unique(slots // group.unit_rows).tolist():
            digest = self._check_shard(group, unit, field)
            wanted = slots // group.unit_rows == unit
            rows = (slots[wanted] - unit * group.unit_rows).tolist()
            found = shards.read_rows(self.place, held, unit, group.unit_rows, digest, rows)
            if len(rows) == len(slots):
                return found
            values[wanted] = found
        return values

    def cells(self, field: str, positions: Sequence[int]) -> list[bytes | None]:
        """A table field at positions of the row list."""
        group = self._group(field, "table")
        layout = self.plan.layout(group)
        cells: list[bytes | None] = []
        for position in positions:
            unit = layout.unit_of(position)
            digest = self._check_shard(group, unit, field)
            column = _column(self.place, self.plan.fields[field].shard(unit), digest, field)
            cells.append(column[layout.slot(position) - unit * group.unit_rows].as_py())
        return cells

    def frame(self, field: str, unit: int) -> pq.ParquetFile:
        """The Parquet file of a frame field's unit, checked."""
        digest = self._check_shard(self._group(field, "frame"), unit, field)
        return _open_table(self.place, self.plan.fields[field].shard(unit), digest)

    def file(self, name: str) -> bytes:
        """One of the files of an artifact without units."""
        digest = self.summary.files.get(name)
        if digest is None:
            raise ConfigError(f"{self.place} holds no {name}, only {sorted(self.summary.files)}")
        check(self.place, name, digest)
        return self.place.read(name)

    def _rows_file(self) -> pq.ParquetFile:
        return _open_table(self.place, ROWS, self.summary.files[ROWS])

    def _group(self, field: str, kind: str) -> FieldGroup:
        found = self.plan.fields.get(field)
        if found is None or found.kind != kind:
            held = sorted(name for name, each in self.plan.fields.items() if each.kind == kind)
            raise ConfigError(f"{self.place} holds no {kind} {field!r}, only {held}; make it with this field")
        return self.plan.group_of(field)

    def _check_metadata(self, group: FieldGroup, field: Field) -> None:
        digest = self.summary.files[f"{field.name}.zarr/{store.METADATA}"]
        _check_metadata(self.place, field, group.unit_rows, self.plan.layout(group).num_slots, digest)

    def _check_shard(self, group: FieldGroup, unit: int, name: str) -> FileDigest:
        """Checks the one file that holds a field's rows of a unit, and gives its digest."""
        field = self.plan.fields[name]
        digest = _digest(self.place, group.ledger, unit, self.digest, field.shard(unit))
        if digest is None:
            raise CorruptArtifact(
                f"{self.place.path(ledger.record_name(group.ledger, unit))} has no record of {name}; "
                "run its stage again to rebuild it, or restore it from a copy"
            )
        if field.kind == "array" and digest.size > store.max_shard_bytes(field, group.unit_rows):
            raise CorruptArtifact(f"{self.place.path(field.shard(unit))} is larger than a full shard; do not trust it")
        check(self.place, field.shard(unit), digest)
        return digest


def open_artifact(uri: str | Place, kind: str | None = None) -> Artifact:
    """A finished artifact; raises on a missing, unfinished, damaged or other one, with what to do about it.

    `kind` may be several, separated by |.
    """
    at = uri if isinstance(uri, Place) else place(uri)
    plan = read_plan(at)
    if kind is not None and plan.kind not in kind.split("|"):
        wanted = kind.replace("|", " or ")
        raise ConfigError(f"{at} holds {plan.kind} where {wanted} are wanted; give the path of a {wanted} artifact")
    summary = read_summary(at)
    if summary is None:
        raise UnfinishedArtifact(
            f"{at} is unfinished: its {plan.stage} run was stopped or is still running; "
            f"see `maskmill status {at}`, then run the same command again"
        )
    if FileDigest.of(at.read(PLAN)).sha256 != summary.plan_sha256:
        raise CorruptArtifact(f"{at.path(PLAN)} is not the plan that {ARTIFACT} vouches for; restore it from a copy")
    return Artifact(at, plan, summary, FileDigest.of(at.read(ARTIFACT)).sha256)


def source_of(artifact: Artifact, role: str) -> str:
    """Where an artifact's input of a role lies, or that of the artifact that it was made from."""
    by_role = {each.role: each.place(artifact.place) for each in artifact.plan.inputs}
    if role in by_role and by_role[role].exists(PLAN):
        return by_role[role].uri
    for where in by_role.values():
        try:
            return source_of(open_artifact(where), role)
        except (MissingArtifact, ConfigError):
            continue
    raise ConfigError(
        f"{artifact.place} does not lead to the {role} that it was made from; pass their path as --{role}"
    )


def read_summary(at: Place) -> Summary | None:
    """artifact.json, or None where the artifact is unfinished."""
    try:
        value = sealed.read(at, ARTIFACT)
    except FileNotFoundError:
        return None
    try:
        return Summary(
            value["plan_sha256"],
            value["fingerprint"],
            value["counts"],
            tuple(value["warnings"]),
            {name: FileDigest.from_json(each) for name, each in value["files"].items()},
            value["ledgers"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"{at.path(ARTIFACT)} is no summary ({error!r}); run its stage again") from error


def rows_schema(plan: Plan) -> pa.Schema:
    """The columns of rows.parquet: what every artifact has, the digest of each field, the stage's scalars."""
    digests = {field.digest_column: "string" for field in plan.fields.values() if field.kind != "columns"}
    return tables.schema_of({**BASE_COLUMNS, **digests, **plan.columns})


def _open_table(at: Place, name: str, digest: FileDigest) -> pq.ParquetFile:
    """Two threads cannot read through one handle of pyarrow's, nor a process through its parent's."""
    return _handle(at, name, digest, (os.getpid(), threading.get_ident()))


# Handles are bounded, so that a long run holds a constant number of open files.
@lru_cache(maxsize=8)
def _handle(at: Place, name: str, digest: FileDigest, reader: tuple[int, int]) -> pq.ParquetFile:
    return tables.open_table(at, name, digest)


@lru_cache(maxsize=4)
def _column(at: Place, name: str, digest: FileDigest, column: str) -> pa.ChunkedArray:
    """A unit's cells, which are mostly asked for one by one."""
    return tables.open_table(at, name, digest).read(columns=[column]).column(column)


class _IdIndex:
    """Where ids stand: sixteen bytes a row, where a dict would take a hundred."""

    def __init__(self, ids: pa.ChunkedArray) -> None:
        self._ids = ids
        hashes = np.fromiter((hash(each) for chunk in ids.chunks for each in chunk.to_pylist()), np.int64, len(ids))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def position(self, identifier: str) -> int | None:
        """The first row of that id."""
        wanted = hash(identifier)
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            if self._ids[int(self._order[at])].as_py() == identifier:
                return int(self._order[at])
            at += 1
        return None


@lru_cache(maxsize=4)
def _id_index(at: Place, digest: FileDigest) -> _IdIndex:
    return _IdIndex(_open_table(at, ROWS, digest).read(columns=["id"]).column("id"))


@lru_cache(maxsize=4)
def _failures(at: Place, digest: FileDigest) -> Mapping[int, str]:
    failed: dict[int, str] = {}
    start = 0
    for batch in tables.batches_of(_open_table(at, ROWS, digest), ["status", "reason"]):
        for offset in np.flatnonzero(np.asarray(pc.not_equal(batch.column("status"), "ok"))).tolist():
            failed[start + offset] = batch.column("reason")[offset].as_py() or batch.column("status")[offset].as_py()
        start += batch.num_rows
    return failed


@lru_cache(maxsize=16)
def _check_metadata(at: Place, field: Field, unit_rows: int, num_slots: int, digest: FileDigest) -> None:
    """That a field's zarr.json says what this package writes: readers of shards go by the plan alone."""
    name = f"{field.name}.zarr/{store.METADATA}"
    check(at, name, digest)
    wrong = store.metadata_fault(at.read(name), field, unit_rows, num_slots)
    if wrong is not None:
        raise CorruptArtifact(f"{at.path(name)} is not this plan's: {wrong}; do not trust this artifact")


@lru_cache(maxsize=2**16)
def _digest(at: Place, group_ledger: str, unit: int, artifact_digest: str, file: str) -> FileDigest | None:
    """Of many units, because whoever reads at random comes back to each; of a record this is the small part."""
    record = _record(at, group_ledger, unit, artifact_digest)
    return record.files.get(file) if record else None


@lru_cache(maxsize=64)
def _record(at: Place, group_ledger: str, unit: int, artifact_digest: str) -> ledger.Record | None:
    return ledger.read_record(at, group_ledger, unit)
