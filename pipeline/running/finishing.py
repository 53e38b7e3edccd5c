"""From a full ledger to a finished artifact: the row list, the counts of failures, and artifact.json last."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from ...manifests.artifact import ledger, store, tables
from ...manifests.artifact.artifact import ARTIFACT, ROWS, Artifact, Summary, read_summary, rows_schema
from ...manifests.artifact.layout import Layout
from ...manifests.artifact.plan import PLAN, FieldGroup, Plan
from ...manifests.counts import count_of
from ...manifests.errors import CorruptArtifact, TooManyFailed, UnfinishedArtifact
from ...manifests.files import atomic, sealed
from ...manifests.files.digests import FileDigest, fault
from ...manifests.files.place import Place
from ...manifests.files.sealed import Json

Warn = Callable[[Artifact], Sequence[str]]
Describe = Callable[[Plan, Mapping[str, Json], Mapping[str, FileDigest]], Mapping[str, bytes]]


def finish(
    at: Place, plan: Plan, max_bad: float, warn: Warn = lambda artifact: (), describe: Describe | None = None
) -> Summary:
    """Gathers the rows and writes artifact.json; changes nothing if the artifact is finished and valid."""
    finished = valid_summary(at)
    if finished is not None:
        return finished
    counts: Counter[str] = Counter()
    digest, _ = tables.write_batches(at, ROWS, rows_schema(plan), _count_rows(gather_rows(at, plan), counts))
    summary = Summary(
        plan_sha256=FileDigest.of(at.read(PLAN)).sha256,
        fingerprint=plan.fingerprint,
        counts=_counts(counts),
        warnings=(),
        files={
            ROWS: digest,
            **_files_of_planning(at, plan),
            **_write_descriptions(at, plan, _counts(counts), describe),
        },
        ledgers={g.ledger: ledger.ledger_digest(at, g.ledger, plan.layout(g).num_units) for g in plan.groups},
    )
    _refuse_too_many_failed(at, plan, summary, max_bad)
    unwarned = Artifact(at, plan, summary, FileDigest.of(sealed.seal(summary.as_json())).sha256)
    summary = replace(summary, warnings=tuple(warn(unwarned)))
    sealed.write(at, ARTIFACT, summary.as_json())
    return summary


def gather_rows(at: Place, plan: Plan) -> Iterator[pa.RecordBatch]:
    """The rows of the ledger, unit by unit, in bounded memory."""
    schema = rows_schema(plan)
    first, *others = [_GroupRows(at, plan, group) for group in plan.groups]
    layout = plan.layout(first.group)
    for unit in layout.units():
        columns = first.take(unit.num_rows)
        columns["unit"] = [unit.index] * unit.num_rows
        columns["row"] = list(range(unit.index * layout.unit_rows, unit.index * layout.unit_rows + unit.num_rows))
        for other in others:
            _merge(columns, other.take(unit.num_rows))
        yield pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema)


class _GroupRows:
    """The rows of one group in order, in portions of any size; one record is in memory at a time."""

    def __init__(self, at: Place, plan: Plan, group: FieldGroup) -> None:
        self.group = group
        self._records = self._all(at, plan.layout(group), group)
        self._waiting: dict[str, list[object]] = {}

    def take(self, rows: int) -> dict[str, list[object]]:
        while len(self._waiting.get("id", ())) < rows:
            for name, values in next(self._records).items():
                self._waiting.setdefault(name, []).extend(values)
        taken = {name: values[:rows] for name, values in self._waiting.items()}
        self._waiting = {name: values[rows:] for name, values in self._waiting.items()}
        return taken

    @staticmethod
    def _all(at: Place, layout: Layout, group: FieldGroup) -> Iterator[dict[str, list[object]]]:
        for unit, record in enumerate(ledger.records(at, group.ledger, layout.num_units)):
            if record is None:
                raise UnfinishedArtifact(f"{at} has no record of unit {unit}; run the same command again")
            yield dict(record.rows)


def _merge(columns: dict[str, list[object]], more: dict[str, list[object]]) -> None:
    """Adds a later group's digests. A row that failed in any group has failed, for its first reason."""
    if columns["id"] != more["id"]:
        raise CorruptArtifact("the groups of fields list different rows; delete the artifact and make it again")
    for index, status in enumerate(more["status"]):
        if columns["status"][index] == "ok" and status != "ok":
            columns["status"][index], columns["reason"][index] = status, more["reason"][index]
    columns.update({name: values for name, values in more.items() if name not in columns})


def _count_rows(batches: Iterator[pa.RecordBatch], counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for status, reason in zip(batch.column("status").to_pylist(), batch.column("reason").to_pylist(), strict=True):
            counts["rows"] += 1
            counts[status] += 1
            if status == "failed":
                counts[f"failed: {reason}"] += 1
        yield batch


def _counts(counts: Counter[str]) -> dict[str, object]:
    reasons = {name.removeprefix("failed: "): n for name, n in sorted(counts.items()) if name.startswith("failed: ")}
    return {**{name: counts[name] for name in ("rows", "ok", "failed", "upstream")}, "reasons": reasons}


def _refuse_too_many_failed(at: Place, plan: Plan, summary: Summary, max_bad: float) -> None:
    failed = int(summary.counts["failed"])
    tried = int(summary.counts["rows"]) - int(summary.counts["upstream"])
    if failed > max_bad * tried:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.counts["reasons"].items())
        raise TooManyFailed(
            f"{failed} of {count_of(tried, 'row')} failed in {at} ({reasons}), more than --max-bad {max_bad:g} allows; "
            f"list them with `maskmill status {at} --failed`, repair them and run `maskmill retry {at}`, "
            "or raise --max-bad"
        )


def _files_of_planning(at: Place, plan: Plan) -> dict[str, FileDigest]:
    """The files that planning wrote besides plan.json: listings and the arrays' metadata."""
    files = {segment.listing: segment.digest for segment in plan.segments}
    for group in plan.groups:
        for field in plan.fields_of(group):
            if field.kind == "array":
                name = f"{field.name}.zarr/{store.METADATA}"
                files[name] = FileDigest.of(at.read(name))
    return files


def _write_descriptions(
    at: Place, plan: Plan, counts: Mapping[str, Json], describe: Describe | None
) -> dict[str, FileDigest]:
    """Writes the files that describe the artifact, which may list the digests of all files of its units."""
    if describe is None:
        return {}
    written: dict[str, FileDigest] = {}
    for group in plan.groups:
        for record in ledger.records(at, group.ledger, plan.layout(group).num_units):
            written |= record.files if record else {}
    files = describe(plan, counts, written)
    for name, data in files.items():
        atomic.write(at, name, data)
    return {name: FileDigest.of(data) for name, data in files.items()}


def valid_summary(at: Place) -> Summary | None:
    """The summary of a finished artifact if its own files have their digests, else None."""
    try:
        summary = read_summary(at)
    except CorruptArtifact:
        return None
    if summary is None or summary.plan_sha256 != FileDigest.of(at.read(PLAN)).sha256:
        return None
    return summary if all(fault(at, name, digest) is None for name, digest in summary.files.items()) else None
