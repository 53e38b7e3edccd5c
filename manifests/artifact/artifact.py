"""Readers of finished artifacts: rows by id, fields by row. Every byte is checked before it is used."""

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
    """artifact.json. It is written last and holds the digests of everything else."""

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
    """Holds no open file, so it can be sent to a worker: open files are cached per process."""

    place: Place
    plan: Plan
    summary: Summary
    digest: str  # sha256 of artifact.json

    @property
    def has_rows(self) -> bool:
        """False for an artifact without units, such as a checkpoint, which consists of files only."""
        return bool(self.plan.groups)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Name → fingerprint of every field; for an artifact without rows, name → sha256 of every file."""
        if self.has_rows:
            return self.plan.field_fingerprints
        return {name: digest.sha256 for name, digest in self.summary.files.items()}

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The row list in planning order; join by `id`."""
        return self._rows_file().read(columns=list(columns) if columns is not None else None)

    def row_batches(self, columns: Sequence[str] | None = None) -> Iterable[pa.RecordBatch]:
        """The row list in bounded memory."""
        return tables.batches_of(self._rows_file(), columns)

    def rows_of(self, ids: Sequence[str], columns: Sequence[str], hint: int = 0) -> pa.Table:
        """Rows by id, in the order of `ids`; `hint` is their likely first position. Unknown ids raise KeyError."""
        file = self._rows_file()
        names = list(dict.fromkeys(["id", *columns]))
        stop = min(hint + len(ids), self.plan.num_rows)
        near = tables.rows_between(file, hint, stop, names) if hint < stop else None
        if near is not None and near.column("id").to_pylist() == list(ids):
            return near
        return tables.take_rows(file, self.positions(ids), names)

    def rows_at(self, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Rows by position in the row list, in the order of `positions`."""
        return tables.take_rows(self._rows_file(), positions, list(dict.fromkeys(["id", *columns])))

    def positions_by_id(self) -> dict[str, list[int]]:
        """Id → positions of its rows; ids in order of first appearance."""
        positions: dict[str, list[int]] = {}
        start = 0
        for batch in self.row_batches(["id"]):
            for offset, identifier in enumerate(batch.column("id").to_pylist()):
                positions.setdefault(identifier, []).append(start + offset)
            start += batch.num_rows
        return positions

    def positions(self, ids: Sequence[str]) -> list[int]:
        """Id → position in the row list, that of the first row for a repeated id. Unknown ids raise KeyError."""
        index = _id_index(self.place, self.summary.files[ROWS])
        positions = []
        for identifier in ids:
            position = index.position(identifier)
            if position is None:
                raise KeyError(f"{self.place} has no row {identifier!r}")
            positions.append(position)
        return positions

    def failures(self) -> Mapping[int, str]:
        """Position → reason of every row that is not ok."""
        return _failures(self.place, self.summary.files[ROWS])

    def read(
        self, field: str, positions: Sequence[int], places: Sequence[int] | None = None
    ) -> Shaped[np.ndarray, "rows ..."]:
        """An array field at positions of the row list. Failed rows are zeros: check their status first. `places` are
        those to read of a first axis that is stored one by one; all by default."""
        group, spec = self._group(field, "array"), self.plan.fields[field]
        layout = self.plan.layout(group)
        slots = np.array([layout.slot(position) for position in positions], np.int64)
        shape = spec.shape if places is None else (len(places), *spec.shape[1:])
        values = np.empty((len(slots), *shape), spec.dtype)
        self._check_metadata(group, spec)
        for unit in np.unique(slots // group.unit_rows).tolist():
            digest = self._check_shard(group, unit, field)
            in_unit = slots // group.unit_rows == unit
            rows = (slots[in_unit] - unit * group.unit_rows).tolist()
            unit_values = shards.read_rows(self.place, spec, unit, group.unit_rows, digest, rows, places)
            if len(rows) == len(slots):
                return unit_values
            values[in_unit] = unit_values
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
        """The checked Parquet file of one unit of a frame field."""
        digest = self._check_shard(self._group(field, "frame"), unit, field)
        return _open_table(self.place, self.plan.fields[field].shard(unit), digest)

    def file(self, name: str) -> bytes:
        """One file of an artifact without units."""
        digest = self.summary.files.get(name)
        if digest is None:
            raise ConfigError(f"{self.place} holds no {name}, only {sorted(self.summary.files)}; choose one of these")
        check(self.place, name, digest)
        return self.place.read(name)

    def _rows_file(self) -> pq.ParquetFile:
        return _open_table(self.place, ROWS, self.summary.files[ROWS])

    def _group(self, field: str, kind: str) -> FieldGroup:
        available = sorted(name for name, spec in self.plan.fields.items() if spec.kind == kind)
        if field not in available:
            raise ConfigError(f"{self.place} holds no {kind} {field!r}, only {available}; make it with this field")
        return self.plan.group_of(field)

    def _check_metadata(self, group: FieldGroup, field: Field) -> None:
        digest = self.summary.files[f"{field.name}.zarr/{store.METADATA}"]
        _check_metadata(self.place, field, group.unit_rows, self.plan.layout(group).num_slots, digest)

    def _check_shard(self, group: FieldGroup, unit: int, name: str) -> FileDigest:
        """Checks the file of one field and unit, and returns its digest."""
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


def open_artifact(uri: str | os.PathLike[str] | Place, kind: str | None = None) -> Artifact:
    """Opens a finished artifact; raises if it is missing, unfinished, damaged or of another kind.

    `kind` may name several kinds, separated by |.
    """
    at = uri if isinstance(uri, Place) else place(uri)
    plan = read_plan(at)
    if kind is not None and plan.kind not in kind.split("|"):
        expected = kind.replace("|", " or ")
        raise ConfigError(f"{at} holds {plan.kind}, expected {expected}; give the path of a {expected} artifact")
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
    """The path of the input with this role, searched in the artifact and then in all it was made from."""
    by_role = {entry.role: entry.place(artifact.place) for entry in artifact.plan.inputs}
    if role in by_role and by_role[role].exists(PLAN):
        return by_role[role].uri
    for path in by_role.values():
        try:
            return source_of(open_artifact(path), role)
        except (MissingArtifact, ConfigError):
            continue
    raise ConfigError(
        f"{artifact.place} does not lead to the {role} that it was made from; pass their path as --{role}"
    )


def read_summary(at: Place) -> Summary | None:
    """artifact.json, or None if the artifact is unfinished."""
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
            {name: FileDigest.from_json(digest) for name, digest in value["files"].items()},
            value["ledgers"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(
            f"{at.path(ARTIFACT)} is not an artifact summary ({error!r}); run its stage again"
        ) from error


def rows_schema(plan: Plan) -> pa.Schema:
    """The columns of rows.parquet: the base columns, one digest per field, the stage's scalars."""
    digests = {field.digest_column: "string" for field in plan.fields.values() if field.kind != "columns"}
    return tables.schema_of({**BASE_COLUMNS, **digests, **plan.columns})


def _open_table(at: Place, name: str, digest: FileDigest) -> pq.ParquetFile:
    """Each thread of each process gets its own handle: pyarrow's handles cannot be shared."""
    return _handle(at, name, digest, (os.getpid(), threading.get_ident()))


@lru_cache(maxsize=8)  # bounds the number of open files
def _handle(at: Place, name: str, digest: FileDigest, reader: tuple[int, int]) -> pq.ParquetFile:
    return tables.open_table(at, name, digest)


@lru_cache(maxsize=4)
def _column(at: Place, name: str, digest: FileDigest, column: str) -> pa.ChunkedArray:
    """All cells of a unit, cached because callers mostly read them one by one."""
    return tables.open_table(at, name, digest).read(columns=[column]).column(column)


class _IdIndex:
    """Id → position in 16 bytes per row; a dict would take about 100."""

    def __init__(self, ids: pa.ChunkedArray) -> None:
        self._ids = ids
        hashes = np.fromiter(
            (hash(identifier) for chunk in ids.chunks for identifier in chunk.to_pylist()), np.int64, len(ids)
        )
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def position(self, identifier: str) -> int | None:
        """The first row of an id."""
        digest = hash(identifier)
        at = int(np.searchsorted(self._hashes, digest))
        while at < len(self._hashes) and self._hashes[at] == digest:
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
    """Refuses a zarr.json that disagrees with the plan: shards are read by the plan alone."""
    name = f"{field.name}.zarr/{store.METADATA}"
    check(at, name, digest)
    wrong = store.metadata_fault(at.read(name), field, unit_rows, num_slots)
    if wrong is not None:
        raise CorruptArtifact(f"{at.path(name)} does not match the plan: {wrong}; do not trust this artifact")


@lru_cache(maxsize=2**16)
def _digest(at: Place, group_ledger: str, unit: int, artifact_digest: str, file: str) -> FileDigest | None:
    """The digest of one file. Cached for many units, since random reads return to each; a digest is small."""
    record = _record(at, group_ledger, unit, artifact_digest)
    return record.files.get(file) if record else None


@lru_cache(maxsize=64)
def _record(at: Place, group_ledger: str, unit: int, artifact_digest: str) -> ledger.Record | None:
    return ledger.read_record(at, group_ledger, unit)
