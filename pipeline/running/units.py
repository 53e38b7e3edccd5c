"""One unit, from its planned rows to its record. Safe to run twice, or twice at once.

Order of writing: remove artifact.json, write the shards, then the record with their digests.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ...manifests.artifact import ledger, store, tables
from ...manifests.artifact.artifact import ARTIFACT, Artifact
from ...manifests.artifact.fields import Field
from ...manifests.artifact.fingerprint import ids_digest, unit_fingerprint
from ...manifests.artifact.layout import Unit
from ...manifests.artifact.ledger import Record
from ...manifests.artifact.plan import read_unit_rows
from ...manifests.errors import CorruptArtifact, Reason
from ...manifests.files import atomic
from ...manifests.files.digests import FileDigest, fault
from ...manifests.files.sealed import Json, digest_of
from ...stages.stage import RowResult, UnitResult, Work
from .job import Job, OpenJob, libraries_of, open_job, prepare_stage, software


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What a worker returns: numbers and digests, never an array."""

    unit: int
    rows: int
    failed: int
    skipped: bool
    files: Mapping[str, str]  # what was written → sha256
    size: int
    reading_s: float = 0.0
    computing_s: float = 0.0
    writing_s: float = 0.0
    error: str = ""  # traceback, if the unit was given up


@dataclass(frozen=True, slots=True)
class Computed:
    """A unit that is computed and not yet written; another thread may write it."""

    job: Job
    state: OpenJob
    work: Work
    result: UnitResult
    reading_s: float
    computing_s: float


def compute_unit(job: Job, unit: Unit, careful: bool = False) -> Computed | UnitReport:
    """The unit, not yet written; or its report if it is skipped."""
    began = time.perf_counter()
    state = open_job(job)
    work = _work(job, state, unit, careful)
    record = _record_if_sound(job, state, unit)
    if record is not None and _is_done(job, state, work, record):
        return UnitReport(unit.index, unit.num_rows, record.num_failed, True, {}, 0, time.perf_counter() - began)
    read = time.perf_counter()
    result = job.stage.run_unit(work, job.config, prepare_stage(job))
    return Computed(job, state, work, result, read - began, time.perf_counter() - read)


def write_unit(computed: Computed) -> UnitReport:
    began = time.perf_counter()
    unit = computed.work.unit
    record = _store_unit(computed.job, computed.state, computed.work, computed.result)
    return UnitReport(
        unit.index,
        unit.num_rows,
        record.num_failed,
        False,
        {name: digest.sha256 for name, digest in record.files.items()},
        sum(digest.size for digest in record.files.values()),
        computed.reading_s,
        computed.computing_s,
        time.perf_counter() - began,
    )


def give_up(job: Job, unit: Unit, reason: Reason, error: str = "") -> UnitReport:
    """Records all rows of a unit as failed, so that the other units can finish."""
    state = open_job(job)
    work = _work(job, state, unit, careful=True)
    nothing = RowResult(reason=reason)
    arrays = {
        field.name: np.zeros((unit.num_rows, *field.shape), field.dtype)
        for field in state.plan.fields_of(state.group)
        if field.kind == "array"
    }
    cells = {f.name: [None] * unit.num_rows for f in state.plan.fields_of(state.group) if f.kind == "table"}
    frames = {f.name: _blank(job, work) for f in state.plan.fields_of(state.group) if f.kind == "frame"}
    observed = [""] * unit.num_rows if job.stage.observe else ()
    record = _store_unit(job, state, work, UnitResult([nothing] * unit.num_rows, arrays, cells, frames, observed))
    return UnitReport(unit.index, unit.num_rows, record.num_failed, False, {}, 0, error=error)


def _blank(job: Job, work: Work) -> pa.Table:
    assert job.stage.blank is not None, f"{job.stage.name} has a frame and no blank rows for failures"
    return job.stage.blank(work.ids)


def _work(job: Job, state: OpenJob, unit: Unit, careful: bool) -> Work:
    listing = read_unit_rows(job.at, state.plan, unit)
    ids = listing.column("id").to_pylist()
    if unit.ids_sha256 and ids_digest(ids) != unit.ids_sha256:
        raise CorruptArtifact(
            f"{job.at} lists other rows for unit {unit.index} than were planned; run the command again"
        )
    upstream: dict[str, pa.Table] = {}
    for role, artifact in state.inputs.items():
        if not artifact.has_rows:
            continue
        columns = _columns_read(artifact, state.plan.input(role).fields)
        if role in job.stage.gathers:
            positions = listing.column(job.stage.gathers[role]).combine_chunks().flatten().to_pylist()
            upstream[role] = artifact.rows_at(positions, columns)
        else:
            upstream[role] = _align_rows(artifact.rows_of(list(dict.fromkeys(ids)), columns, unit.start), ids)
    work = Work(
        unit=unit,
        ids=ids,
        listing=listing,
        upstream=upstream,
        inputs=state.inputs,
        facts=state.plan.facts,
        fields=state.group.fields,
        blocked=[],
        careful=careful,
        gathers=job.stage.gathers,
    )
    return replace(work, blocked=_blocking_reasons(work))


def _columns_read(artifact: Artifact, fields: Mapping[str, str]) -> list[str]:
    """Status, reason and note; for each field its columns or its digest column; then every scalar."""
    known = artifact.plan.fields
    digests = [known[name].digest_column for name in fields if known[name].kind != "columns"]
    return ["status", "reason", "note", *digests, *artifact.plan.columns]


def _align_rows(rows: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Rows of an input, repeated where several rows of the unit belong to one image."""
    if rows.num_rows == len(ids):
        return rows
    position = {identifier: index for index, identifier in enumerate(rows.column("id").to_pylist())}
    return rows.take([position[identifier] for identifier in ids])


def _rows_read(work: Work, role: str) -> list[list[dict[str, Json]]]:
    """For each row of the unit, the rows that it reads from an input."""
    if role in work.gathers:
        return [rows.to_pylist() for rows in work.gather_rows(role)]
    return [[row] for row in work.upstream[role].to_pylist()]


def _blocking_reasons(work: Work) -> list[str]:
    """For each row the reason why a row that it reads is not ok, or ""."""
    blocked = [""] * len(work.ids)
    for role in work.upstream:
        for index, rows in enumerate(_rows_read(work, role)):
            for row in rows:
                if row["status"] != "ok" and not blocked[index]:
                    blocked[index] = row["reason"] or row["status"]
    return blocked


def _fingerprint(state: OpenJob, work: Work, observed: Sequence[str]) -> str:
    """Covers everything that the unit reads: planned rows, their content upstream, and observed files outside."""
    planned = work.listing.to_pylist()
    read: dict[str, list[Json]] = {}
    for role in sorted(work.upstream):
        fields = state.plan.input(role).fields
        contents = [[_content(state.inputs[role], fields, row) for row in rows] for rows in _rows_read(work, role)]
        read[role] = contents if role in work.gathers else [content for (content,) in contents]
    evidence = (
        [planned[index], *(read[role][index] for role in read), observed[index] if observed else ""]
        for index in range(len(planned))
    )
    return unit_fingerprint({"": state.plan.fingerprint, **state.plan.fingerprints_of(state.group)}, evidence)


def _content(artifact: Artifact, fields: Mapping[str, str], row: Mapping[str, Json]) -> list[Json]:
    known = artifact.plan.fields
    return [row["status"]] + [
        digest_of([row[column] for column in known[name].columns])
        if known[name].kind == "columns"
        else row[known[name].digest_column]
        for name in sorted(fields)
    ]


def _record_if_sound(job: Job, state: OpenJob, unit: Unit) -> Record | None:
    """A unit's record, or None if there is none that parses."""
    try:
        return ledger.read_record(job.at, state.group.ledger, unit.index)
    except CorruptArtifact:
        return None


def _is_done(job: Job, state: OpenJob, work: Work, record: Record) -> bool:
    if record.is_given_up or (job.retry_failed and record.num_failed):
        return False
    if {field.shard(work.unit.index) for field in state.plan.fields_of(state.group)} != set(record.files):
        return False
    written = job.at.stat(ledger.record_name(state.group.ledger, work.unit.index))
    since = written.modified if written else 0.0
    if not all(_is_as_written(job, name, digest, since) for name, digest in record.files.items()):
        return False
    observe = job.stage.observe
    observed = observe(work, job.config, record if job.trust else None, since) if observe else ()
    return record.fingerprint == _fingerprint(state, work, observed)


def _is_as_written(job: Job, name: str, digest: FileDigest, since: float) -> bool:
    if not job.trust:
        return fault(job.at, name, digest) is None
    stat = job.at.stat(name)
    return stat is not None and stat.size == digest.size and stat.modified <= since


def _store_unit(job: Job, state: OpenJob, work: Work, result: UnitResult) -> Record:
    columns, files = _encode_unit(state, work, result)
    if result.observed:
        columns["observed"] = list(result.observed)
    record = Record(
        unit=work.unit.index,
        fingerprint=_fingerprint(state, work, result.observed),
        rows=columns,
        files={name: FileDigest.of(data) for name, data in files.items()},
        software=software(libraries_of(job.stage, job.config)),
        device=ledger.processor_model(),
    )
    if job.at.exists(ARTIFACT):
        atomic.remove(job.at, ARTIFACT)
    for name, data in files.items():
        atomic.write(job.at, name, data)
    ledger.write_record(job.at, state.group.ledger, record)
    return record


def _encode_unit(state: OpenJob, work: Work, result: UnitResult) -> tuple[dict[str, list[Json]], dict[str, bytes]]:
    fields = state.plan.fields_of(state.group)
    rows = _fail_non_finite(work, result, fields)
    columns = _outcomes(work, rows)
    is_ok = [status == "ok" for status in columns["status"]]
    files: dict[str, bytes] = {}
    for field in fields:
        name = field.shard(work.unit.index)
        if field.kind == "array":
            values = _zero_failed(is_ok, result.arrays[field.name])
            columns[field.digest_column] = [hashlib.sha256(row.tobytes()).hexdigest() for row in values]
            files[name] = store.encode_shard(field, state.group.unit_rows, values)
        elif field.kind == "frame":
            columns[field.digest_column] = tables.row_digests(result.frames[field.name])
            files[name] = tables.encode_table(result.frames[field.name], tables.FRAME_ROW_GROUP)
        else:
            cells = [cell if ok else None for cell, ok in zip(result.cells[field.name], is_ok, strict=True)]
            columns[field.digest_column] = ["" if cell is None else hashlib.sha256(cell).hexdigest() for cell in cells]
            table = {"id": pa.array(work.ids, pa.string()), field.name: pa.array(cells, pa.binary())}
            files[name] = tables.encode_table(pa.table(table))
    if not state.group.name:
        columns |= {name: _scalars(work, rows, name) for name in state.plan.columns}
    return columns, files


def _scalars(work: Work, rows: Sequence[RowResult], name: str) -> list[Json]:
    """A column of rows.parquet. A planned value is kept even if the row failed."""
    is_planned = name in work.listing.column_names
    planned = work.listing.column(name).to_pylist() if is_planned else [None] * len(rows)
    return [row.scalars.get(name, known) for row, known in zip(rows, planned, strict=True)]


def _outcomes(work: Work, rows: Sequence[RowResult]) -> dict[str, list[Json]]:
    """Status, reason and note of each row. A failure upstream overrides what the stage returned."""
    pairs = list(zip(rows, work.blocked, strict=True))
    return {
        "id": list(work.ids),
        "status": ["upstream" if why else "failed" if row.reason else "ok" for row, why in pairs],
        "reason": [why or str(row.reason or "") for row, why in pairs],
        "note": [row.note for row in rows],
    }


def _fail_non_finite(work: Work, result: UnitResult, fields: Sequence[Field]) -> list[RowResult]:
    """The stage's row results, with rows that have NaN or infinity marked as failed."""
    if len(result.rows) != len(work.ids):
        raise ValueError(f"the stage returned {len(result.rows)} rows for a unit of {len(work.ids)}")
    rows = list(result.rows)
    for field in fields:
        if field.kind == "array" and field.dtype.startswith("float"):
            values = result.arrays[field.name]
            finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            for index in np.flatnonzero(~finite).tolist():
                if rows[index].reason is None and not work.blocked[index]:
                    rows[index] = replace(rows[index], reason=Reason.NOT_FINITE)
    return rows


def _zero_failed(is_ok: Sequence[bool], values: np.ndarray) -> np.ndarray:
    """Zeros in the slots of failed rows, so that the bytes of their neighbours never move."""
    if all(is_ok):
        return values
    values = values.copy()
    values[~np.asarray(is_ok)] = 0
    return values
