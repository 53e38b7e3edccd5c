"""The planned row list of an artifact: written in segments, compared with today's rows, never reordered."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.artifact import tables
from ...manifests.artifact.plan import Plan, Segment, listing_batches, listing_name
from ...manifests.counts import count_of
from ...manifests.errors import CorruptArtifact, InputError, StaleArtifact
from ...manifests.files import atomic
from ...manifests.files.digests import fault
from ...manifests.files.place import Place
from ...stages.stage import RowList

_SEPARATOR = "\x1f"  # between the parts of a key; only the id, the first part, is free text


def with_rows(at: Place, plan: Plan, rows: RowList, may_shrink: bool, may_change: bool) -> Plan:
    """The plan with today's rows: old rows in their order, new rows in a segment at the end.

    `may_shrink`: a vanished row stays listed and its unit will record it as missing. `may_change`: the user passed
    --update.
    """
    new = _unique_table(rows)
    new_keys = _keys(new, rows.key)
    try:
        old = pa.Table.from_batches(list(listing_batches(at, plan)), tables.schema_of(rows.columns))
    except CorruptArtifact:
        old = None  # a damaged listing is rewritten if today's rows are the planned ones
    old_keys = _keys(old, rows.key) if old is not None else new_keys.slice(0, plan.num_rows)
    at_new = pc.index_in(old_keys, new_keys)
    vanished = at_new.null_count
    added = new.filter(pc.invert(pc.is_in(new_keys, old_keys)))
    if may_shrink and not may_change and (vanished or added.num_rows):
        raise StaleArtifact(
            f"{at} lists {count_of(plan.num_rows, 'row')}; its source adds {added.num_rows} and lacks {vanished}; "
            "pass --update to append new rows and mark missing ones, or choose another --out"
        )
    if vanished and not may_shrink:
        gone = ", ".join(str(old_keys.filter(pc.is_null(at_new))[0].as_py()).split(_SEPARATOR))
        rows_were = count_of(vanished, "row was", "rows were")
        raise StaleArtifact(f"{rows_were} removed from the input of {at} ({gone!r} …); choose another --out")
    revision = plan.revision + 1
    segments: list[Segment] = []
    start = 0
    for number, segment in enumerate(plan.segments):
        before = old.slice(start, segment.rows) if old is not None else None
        today = _today(before, new, at_new.slice(start, segment.rows))
        if before is not None and today.equals(before):
            segments.append(segment)
        elif before is None:
            segments.append(_rewrite_segment(at, segment, rows, today))
        else:
            segments.append(write_segment(at, listing_name(number, revision), _of(rows, today)))
        start += segment.rows
    if added.num_rows:
        name = listing_name(len(segments), revision)
        segments.append(write_segment(at, name, _of(rows, added)))
    if tuple(segments) == plan.segments:
        return replace(plan, facts=rows.facts)
    return replace(plan, segments=tuple(segments), facts=rows.facts, revision=revision)


def is_listed(at: Place, plan: Plan) -> bool:
    return all(fault(at, segment.listing, segment.digest) is None for segment in plan.segments)


def _today(before: pa.Table | None, new: pa.Table, at_new: pa.ChunkedArray) -> pa.Table:
    """A segment's rows as they are now; a vanished row stays, and its unit will record it as missing."""
    if before is None or not at_new.null_count:
        return new.take(at_new).combine_chunks()
    both = pa.concat_tables([new, before])
    own = pa.array(np.arange(before.num_rows) + new.num_rows)
    return both.take(pc.coalesce(pc.cast(at_new, pa.int64()), own)).combine_chunks()


def _rewrite_segment(at: Place, segment: Segment, rows: RowList, today: pa.Table) -> Segment:
    written = write_segment(at, segment.listing, _of(rows, today))
    if written.digest != segment.digest:
        raise CorruptArtifact(
            f"{at.path(segment.listing)} is damaged and the input has changed since; choose another --out"
        )
    return written


def _unique_table(rows: RowList) -> pa.Table:
    table = pa.Table.from_batches(list(rows.batches), tables.schema_of(rows.columns))
    _refuse_duplicates(table, rows.key)
    return table


def write_segment(at: Place, name: str, rows: RowList) -> Segment:
    hashes = array("Q")  # 8 bytes a row; a set of ids would take 100
    schema = tables.schema_of(rows.columns)
    digest, count = tables.write_batches(at, name, schema, _hashing_keys(rows, hashes))
    if len(np.unique(np.frombuffer(hashes, np.uint64))) < count:
        try:
            _refuse_duplicates(tables.open_table(at, name, digest).read(), rows.key)
        except InputError:
            atomic.remove(at, name)
            raise
    return Segment(count, name, digest)


def _of(rows: RowList, table: pa.Table) -> RowList:
    return replace(rows, batches=iter(table.to_batches()))


def _keys(table: pa.Table | pa.RecordBatch, key: Sequence[str]) -> pa.ChunkedArray | pa.Array:
    if tuple(key) == ("id",):
        return table.column("id")
    parts = [pc.fill_null(pc.cast(table.column(name), pa.string()), "") for name in key]
    return pc.binary_join_element_wise(*parts, _SEPARATOR)


def _hashing_keys(rows: RowList, hashes: "array[int]") -> Iterator[pa.RecordBatch]:
    for batch in rows.batches:
        for key in _keys(batch, rows.key).to_pylist():
            hashes.append(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little"))
        yield batch


def _refuse_duplicates(table: pa.Table, key: Sequence[str]) -> None:
    keys = _keys(table, key)
    counts = pc.value_counts(keys)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if not len(twice):
        return
    same = table.filter(pc.equal(keys, twice[0].as_py()["values"]))
    identifier, rows = same.column("id")[0].as_py(), same.to_pylist()
    names = " and ".join(repr(row.get("uri", identifier)) for row in rows[:2])
    raise InputError(
        f"{count_of(len(twice), 'image id is', 'image ids are')} used by more than one row, the first is "
        f"{identifier!r} ({names}); an id is the path without its extension, so rename or leave out one of the two"
    )


def remove_old_listings(at: Place, plan: Plan) -> None:
    current = {segment.listing for segment in plan.segments}
    for name in list(at.names("listing")):
        if name not in current:
            atomic.remove(at, name)
