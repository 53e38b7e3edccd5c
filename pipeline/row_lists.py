"""The row list of an artifact as planned: written in segments, compared with today's rows, and never reordered."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..manifests import atomic, tables
from ..manifests.digests import fault
from ..manifests.errors import CorruptArtifact, InputError, StaleArtifact
from ..manifests.place import Place
from ..manifests.plan import Plan, Segment, listing_batches, listing_name
from ..stages.stage import RowList


def with_rows(at: Place, plan: Plan, rows: RowList, may_shrink: bool, may_change: bool) -> Plan:
    """The plan with today's rows: the old ones in their old order, new ones in a segment at the end.

    `may_shrink`: a row that has gone stays listed, for its unit to find it missing. `may_change`: the user said so.
    """
    new = _checked_table(rows)
    try:
        old = pa.Table.from_batches(list(listing_batches(at, plan)), tables.schema_of(rows.columns))
    except CorruptArtifact:
        old = None  # a damaged listing is written again if today's rows are those that were planned
    old_ids = old.column("id") if old is not None else new.column("id").slice(0, plan.num_rows)
    at_new = pc.index_in(old_ids, new.column("id"))
    vanished = at_new.null_count
    added = new.filter(pc.invert(pc.is_in(new.column("id"), old_ids)))
    if may_shrink and not may_change and (vanished or added.num_rows):
        raise StaleArtifact(
            f"{at} lists {plan.num_rows} rows; today there are {added.num_rows} new ones and {vanished} have gone; "
            "pass --update to append and mark them, or choose another --out"
        )
    if vanished and not may_shrink:
        gone = old_ids.filter(pc.is_null(at_new))[0].as_py()
        raise StaleArtifact(
            f"{at} holds {vanished} rows that its input no longer has ({gone!r} …); choose another --out"
        )
    revision = plan.revision + 1
    segments: list[Segment] = []
    start = 0
    for number, segment in enumerate(plan.segments):
        before = old.slice(start, segment.rows) if old is not None else None
        today = _today(before, new, at_new.slice(start, segment.rows))
        if before is not None and today.equals(before):
            segments.append(segment)
        elif before is None:
            segments.append(_rewritten(at, segment, rows, today))
        else:
            segments.append(write_segment(at, listing_name(number, revision), rows.columns, today.to_batches()))
        start += segment.rows
    if added.num_rows:
        name = listing_name(len(segments), revision)
        segments.append(write_segment(at, name, rows.columns, added.to_batches()))
    if tuple(segments) == plan.segments and dict(rows.facts) == dict(plan.facts):
        return plan
    return replace(plan, segments=tuple(segments), facts=rows.facts, revision=revision)


def is_listed(at: Place, plan: Plan) -> bool:
    return all(fault(at, segment.listing, segment.digest) is None for segment in plan.segments)


def _today(before: pa.Table | None, new: pa.Table, at_new: pa.ChunkedArray) -> pa.Table:
    """A segment's rows as they are now; one that has gone stays as it was, and its unit finds it missing."""
    if before is None or not at_new.null_count:
        return new.take(at_new).combine_chunks()
    both = pa.concat_tables([new, before])
    own = pa.array(np.arange(before.num_rows) + new.num_rows)
    return both.take(pc.coalesce(pc.cast(at_new, pa.int64()), own)).combine_chunks()


def _rewritten(at: Place, segment: Segment, rows: RowList, today: pa.Table) -> Segment:
    made = write_segment(at, segment.listing, rows.columns, today.to_batches())
    if made.digest != segment.digest:
        raise CorruptArtifact(
            f"{at.path(segment.listing)} was damaged and today's rows differ from it; choose another --out"
        )
    return made


def _checked_table(rows: RowList) -> pa.Table:
    table = pa.Table.from_batches(list(rows.batches), tables.schema_of(rows.columns))
    _refuse_duplicates(table, table.column("id"))
    return table


def write_segment(at: Place, name: str, columns: Mapping[str, str], batches: Iterable[pa.RecordBatch]) -> Segment:
    hashes = array("Q")  # eight bytes a row, where a set of ids would take a hundred
    digest, rows = tables.write_batches(at, name, tables.schema_of(columns), _hashing_ids(batches, hashes))
    if len(np.unique(np.frombuffer(hashes, np.uint64))) < rows:
        table = tables.opened(at, name, digest).read()
        try:
            _refuse_duplicates(table, table.column("id"))
        except InputError:
            atomic.remove(at, name)
            raise
    return Segment(rows, name, digest)


def _hashing_ids(batches: Iterable[pa.RecordBatch], hashes: "array[int]") -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for identifier in batch.column("id").to_pylist():
            hashes.append(int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little"))
        yield batch


def _refuse_duplicates(table: pa.Table, ids: pa.ChunkedArray) -> None:
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if not len(twice):
        return
    identifier = twice[0].as_py()["values"]
    rows = table.filter(pc.equal(ids, identifier)).to_pylist()
    names = " and ".join(repr(row.get("uri", identifier)) for row in rows[:2])
    raise InputError(
        f"{len(twice)} image ids stand for more than one row, the first is {identifier!r} ({names}); "
        "an id is the path without its extension, so rename or leave out one of the two"
    )


def remove_old_listings(at: Place, plan: Plan) -> None:
    current = {segment.listing for segment in plan.segments}
    for name in list(at.names("listing")):
        if name not in current:
            atomic.remove(at, name)
